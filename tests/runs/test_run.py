"""A job from end to end, over real sockets, real files and real signals: nothing lost, nothing asked twice."""

import asyncio
import json
import os
import random
import signal
import subprocess
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from builders import TEMPLATE, asked, command_line, counts, job, questions
from chat_server import Canned, ChatProcess, ChatServer, Seen, answer_to, chat_process, completion
from polars.testing import assert_frame_equal

from pipeline import BadJob, Summary, ThisRun, arun, run
from pipeline.records import Exit
from pipeline.runs.run import unbalanced

VOLATILE = ("latency_seconds", "asked_at", "attempts", "cost")


def test_two_thousand_rows_killed_three_times_end_as_an_unkilled_run_does(tmp_path: Path) -> None:
    source = questions(tmp_path / "in.csv", range(2000))
    concurrency = 32
    with chat_process(tmp_path / "log", delay_seconds=0.02) as server:
        line = command_line(server.url, source, tmp_path / "out.parquet", "--concurrency", str(concurrency))
        for kill in range(1, 4):
            child = subprocess.Popen(line, stderr=subprocess.DEVNULL)
            wait_for_lines(server, 500 * kill, child)
            child.kill()
            assert child.wait() == -signal.SIGKILL
            assert not (tmp_path / "out.parquet").exists()
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "2,000 ok = 2,000" in done.stderr
        sent = Counter(entry["prompt"] for entry in server.log_lines())
        unkilled = run(job(server.url, source, tmp_path / "unkilled.parquet", limits__concurrency=concurrency))
    assert unkilled.exit_code is Exit.DONE
    out, other = pl.read_parquet(tmp_path / "out.parquet"), pl.read_parquet(tmp_path / "unkilled.parquet")
    assert out["id"].to_list() == [f"{n:05d}" for n in range(2000)]
    assert out["answer"].to_list() == [answer_to(f"Answer question {n}") for n in range(2000)]
    assert_frame_equal(out.drop(VOLATILE), other.drop(VOLATILE))
    # a kill costs what was in flight and one small uncommitted group, which is no larger than the width either
    assert sum(sent.values()) - 2000 <= 3 * 2 * concurrency
    assert set(sent) == {f"Answer question {n}" for n in range(2000)}


def wait_for_lines(server: ChatProcess, lines: int, child: subprocess.Popen[bytes]) -> None:
    while len(server.log_lines()) < lines:
        assert child.poll() is None, "the run ended before it was to be killed"
        os.sched_yield()


def test_only_what_changed_is_asked_and_a_second_table_shares_its_rows(tmp_path: Path, server: ChatServer) -> None:
    rows = list(range(300))
    out = tmp_path / "out.csv"
    assert counts(run(job(server.url, questions(tmp_path / "in.csv", rows), out))) == {"ok": 300}
    assert server.arrived == 300

    edited = [n + 10_000 if n < 7 else n for n in rows] + [501, 502, 503]
    random.Random(7).shuffle(edited)
    run(job(server.url, questions(tmp_path / "in.csv", edited), out))
    assert server.arrived == 300 + 10
    answers = pl.read_csv(out, infer_schema=False)
    assert answers["answer"].to_list() == [answer_to(f"Answer question {n}") for n in edited]

    half = [*range(150, 300), *range(2000, 2150)]
    this_run = ThisRun(job_dir=tmp_path / "out.csv.job", verbosity=-1)
    run(job(server.url, questions(tmp_path / "half.csv", half), tmp_path / "half.csv.gz", this_run))
    assert server.arrived == 310 + 150
    assert max(asked(server).values()) == 1


def test_a_run_goes_on_at_the_pace_that_the_one_before_found_out(tmp_path: Path) -> None:
    told = {"x-ratelimit-limit-req-minute": "120"}
    source, out = questions(tmp_path / "in.csv", range(12)), tmp_path / "out.csv"
    with ChatServer(lambda seen, _attempt: Canned(body=completion(answer_to(seen.prompt)), headers=told)) as server:
        run(job(server.url, source, out, ThisRun(limit=2, verbosity=-1)))
        server.reply, first = None, server.arrived
        assert first == 2
        run(job(server.url, source, out))
        went = server.log[first:]
    assert len(went) == 10
    assert went[-1].at - went[0].at > 60 / 120 * 6  # nothing told this run; it knows
    assert "learned: 114 requests/min" in (tmp_path / "out.csv.job" / "log.txt").read_text("utf-8")


def test_equal_rows_are_asked_once_and_repeat_the_answer_at_no_cost(tmp_path: Path, server: ChatServer) -> None:
    source = questions(tmp_path / "in.csv", [1, 2, 1, 1])
    summary = run(job(server.url, source, tmp_path / "out.parquet", prices__input=1.0, prices__output=1.0))
    assert server.arrived == 2
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out["answer"].to_list() == [answer_to(f"Answer question {n}") for n in (1, 2, 1, 1)]
    assert out["attempts"].to_list() == [1, 1, 0, 0]
    assert out["cost"].to_list()[2:] == [0.0, 0.0]
    assert out["cost"].sum() == pytest.approx(summary.spent) == pytest.approx(summary.rows.cost)
    assert summary.spent > 0


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "ndjson", "arrow"])
def test_every_format_comes_out_in_order_with_all_its_columns(tmp_path: Path, server: ChatServer, suffix: str) -> None:
    run(job(server.url, questions(tmp_path / "in.csv", range(40)), tmp_path / f"out.{suffix}"))
    readers = {
        "csv": lambda path: pl.read_csv(path, infer_schema=False),
        "tsv": lambda path: pl.read_csv(path, separator="\t", infer_schema=False),
        "parquet": pl.read_parquet,
        "ndjson": pl.read_ndjson,
        "arrow": pl.read_ipc,
    }
    out = readers[suffix](tmp_path / f"out.{suffix}")
    assert out.columns[:4] == ["id", "q", "answer", "status"]
    assert out["id"].to_list() == [f"{n:05d}" for n in range(40)]
    assert out["answer"].to_list() == [answer_to(f"Answer question {n}") for n in range(40)]


def test_zero_rows_give_an_output_with_the_header(tmp_path: Path, server: ChatServer) -> None:
    (tmp_path / "in.csv").write_text("id,q\n")
    assert run(job(server.url, tmp_path / "in.csv", tmp_path / "out.csv")).exit_code is Exit.DONE
    assert (tmp_path / "out.csv").read_text().startswith("id,q,answer,status,")
    assert server.arrived == 0


def test_parquet_carries_the_settings(tmp_path: Path, server: ChatServer) -> None:
    run(job(server.url, questions(tmp_path / "in.csv", range(3)), tmp_path / "out.parquet"))
    metadata = pl.read_parquet_metadata(tmp_path / "out.parquet")
    assert json.loads(metadata["pipeline.settings"])["prompt"]["template"] == TEMPLATE


def test_an_unaskable_row_is_failed_unsent_and_the_rest_is_asked(tmp_path: Path, server: ChatServer) -> None:
    (tmp_path / "in.csv").write_text("id,q\n1,a\n2,\n3,c\n")
    summary = run(job(server.url, tmp_path / "in.csv", tmp_path / "out.parquet"))
    assert counts(summary) == {"ok": 2, "failed": 1}
    assert server.arrived == 2
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out["error"][1].startswith("prompt: the template prints a null")
    assert out["attempts"].to_list() == [1, 0, 1]


def test_books_that_do_not_balance_are_a_stop_that_says_what_is_amiss() -> None:
    assert unbalanced(("rows were written", 5, 5), ("US dollars", 0.1 + 0.2, 0.3)) is None
    stop = unbalanced(("rows were written", 5, 5), ("requests were recorded", 4, 5))
    assert stop is not None
    assert stop.exit_code is Exit.NEEDS_PERSON
    assert "4 requests were recorded, 5 should" in str(stop)


def test_a_pilot_is_a_table_of_its_rows_and_its_answers_count_in_the_full_run(
    tmp_path: Path, server: ChatServer
) -> None:
    source, out = questions(tmp_path / "in.csv", range(100)), tmp_path / "out.parquet"
    run(job(server.url, source, out, ThisRun(limit=5, verbosity=-1)))
    assert pl.read_parquet(out)["id"].to_list() == [f"{n:05d}" for n in range(5)]
    run(job(server.url, source, out, ThisRun(sample=20, verbosity=-1)))
    sample = pl.read_parquet(out)
    assert sample.height == 20
    assert sample["id"].is_sorted()
    assert sample["answer"].to_list() == [answer_to(f"Answer {q}") for q in sample["q"]]
    assert counts(run(job(server.url, source, out))) == {"ok": 100}
    assert server.arrived == 100


def test_one_request_goes_first(tmp_path: Path) -> None:
    with ChatServer(delay_seconds=0.3) as server:
        source = questions(tmp_path / "in.csv", range(9))
        run(job(server.url, source, tmp_path / "out.csv"))
        first, second = server.log[0].at, server.log[1].at
    assert second - first >= 0.3


def test_labels_become_a_typed_column(tmp_path: Path, server: ChatServer) -> None:
    source = questions(tmp_path / "in.csv", range(20))
    summary = run(
        job(server.url, source, tmp_path / "out.parquet", answer__labels=["yes", "no"], answer__name="verdict")
    )
    assert counts(summary) == {"ok": 20}
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out.schema["verdict"] == pl.Enum(["yes", "no"])
    assert out["verdict"].to_list() == [json.loads(text)["label"] for text in out["answer"]]


def test_an_answer_that_is_none_of_the_labels_is_invalid_and_kept(tmp_path: Path) -> None:
    with ChatServer(lambda _seen, _attempt: Canned(body=completion("Maybe."))) as server:
        source = questions(tmp_path / "in.csv", range(3))
        summary = run(job(server.url, source, tmp_path / "out.parquet", answer__labels=["yes", "no"]))
    assert summary.exit_code is Exit.INCOMPLETE
    assert counts(summary) == {"invalid": 3}
    assert pl.read_parquet(tmp_path / "out.parquet")["answer"].to_list() == ["Maybe."] * 3


def test_a_parquet_that_changes_during_the_run_stops_it(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    equal = [
        f"question {n if n < 20 or n > 5_000 else 0}" for n in range(5_200)
    ]  # so few are asked before the rest is read
    pl.DataFrame({"q": equal}).write_parquet(source)

    def reply(seen: Seen, _attempt: int) -> None:
        if seen.prompt.endswith("question 10"):
            pl.DataFrame({"q": ["other"] * 5_200}).write_parquet(source)

    with ChatServer(reply) as server:
        summary = run(job(server.url, source, tmp_path / "out.parquet", limits__concurrency=64))
    assert summary.exit_code is Exit.NEEDS_PERSON
    assert "was changed while the job was reading it" in summary.message
    assert not (tmp_path / "out.parquet").exists()


def test_a_notebook_awaits_the_same_run(tmp_path: Path, server: ChatServer) -> None:
    source = questions(tmp_path / "in.csv", range(5))

    async def cell() -> Summary:
        return await arun(job(server.url, source, tmp_path / "out.csv"))

    assert counts(asyncio.run(cell())) == {"ok": 5}


def test_run_inside_an_event_loop_names_arun_before_anything_is_done(tmp_path: Path, server: ChatServer) -> None:
    source = questions(tmp_path / "in.csv", range(5))

    async def cell() -> None:
        run(job(server.url, source, tmp_path / "out.csv"))

    with pytest.raises(BadJob, match="await arun"):
        asyncio.run(cell())
    assert not (tmp_path / "out.csv.job").exists()


def test_the_key_reaches_no_file_that_is_produced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "sk-canary-4711-0815")
    source = questions(tmp_path / "in.csv", range(5))
    with ChatServer(key="another") as server:
        line = command_line(server.url, source, tmp_path / "out.csv", "-v", "--set", "endpoint.api_key_env=CANARY")
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert server.log[0].headers["authorization"] == "Bearer sk-canary-4711-0815"
    assert done.returncode == 1
    assert "the key was not accepted" in done.stderr
    produced = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"canary-4711" in content for content in [*produced, done.stdout.encode(), done.stderr.encode()])
