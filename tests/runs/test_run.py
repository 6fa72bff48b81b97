"""A job from end to end, over real sockets, real files and real signals: nothing lost, nothing asked twice."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from chat_server import Canned, ChatProcess, ChatServer, Seen, answer_to, chat_process, completion, problem
from polars.testing import assert_frame_equal

from pipeline import BadJob, Job, Stopped, Summary, ThisRun, arun, run
from pipeline.records import Exit
from pipeline.results import show as review
from pipeline.runs.run import unbalanced
from pipeline.runs.texts import summary_text
from pipeline.text import money

PIPELINE = (sys.executable, "-m", "pipeline")
TEMPLATE = "Answer {{ q }}"
VOLATILE = ("latency_seconds", "asked_at", "attempts", "cost")


def job(url: str, source: Path, output: Path, this_run: ThisRun | None = None, **flags: Any) -> Job:
    dotted = {name.replace("__", "."): value for name, value in flags.items()}
    settings = {"endpoint.base_url": url, "endpoint.model": "m", "prompt.template": TEMPLATE, **dotted}
    return Job.load([source], output, settings=settings, this_run=this_run or ThisRun(verbosity=-1))


def questions(path: Path, numbers: Any) -> Path:
    pl.DataFrame({"id": [f"{n:05d}" for n in numbers], "q": [f"question {n}" for n in numbers]}).write_csv(path)
    return path


def asked(server: ChatServer) -> Counter[str]:
    return Counter(seen.prompt for seen in server.log)


def command_line(url: str, source: Path, output: Path, *more: str) -> list[str]:
    return [*PIPELINE, "run", str(source), "-o", str(output), "--base-url", url, "-m", "m", "-p", TEMPLATE, *more]


def counts(summary: Summary) -> dict[str, int]:
    return {
        name: n for name in ("ok", "failed", "invalid", "truncated", "pending") if (n := getattr(summary.rows, name))
    }


# ---- every row has its own answer, whatever happens


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
    assert "learnt: 114 requests/min" in (tmp_path / "out.csv.job" / "log.txt").read_text("utf-8")


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


# ---- the endpoint that this was asked for, by its own bytes

AMETHYST_GOOD = (
    '{"id":"chatcmpl-2492f079-1c51-4475-82f0-4a5f236e6178","object":"chat.completion","created":1753979785,'
    '"model":"gemini-2.5-pro","choices":[{"index":0,"message":{"role":"assistant","content":"你好！很高兴与你交谈。",'
    '"reasoning_content":"","tool_calls":[]},"finish_reason":"stop"}],'
    '"usage":{"prompt_tokens":5,"completion_tokens":36,"total_tokens":1007}}'
).encode()
AMETHYST_401 = b'{\n    {"error":{"code":"http_error","message":"Missing Authorization header"}}\n}'


def amethyst(url: str, tmp_path: Path) -> Job:
    (tmp_path / "in.csv").write_text("prompt\n你好，世界！\nSecond\n", "utf-8")
    config = Path(__file__).parent.parent.parent / "configs" / "amethyst.toml"
    prices = {"prices.input": 1.0, "prices.output": 10.0}
    flags = {"endpoint.base_url": url, "limits.requests_per_minute": 6000.0, **prices}
    return Job.load(
        [tmp_path / "in.csv"], tmp_path / "out.parquet", config=config, settings=flags, this_run=ThisRun(verbosity=-1)
    )


def test_amethysts_answer_keeps_its_usage_and_bills_the_hidden_reasoning_as_output(tmp_path: Path) -> None:
    with ChatServer(lambda _seen, _attempt: Canned(body=AMETHYST_GOOD)) as server:
        summary = run(amethyst(server.url, tmp_path))
        assert server.log[0].body == {
            "model": "gemini-2.5-pro",
            "messages": [{"role": "user", "content": "你好，世界！"}],
        }
        assert server.log[0].headers["authorization"] == "Bearer sk-AmethystFree"
        assert server.log[0].headers["content-type"] == "application/json"
    assert summary.exit_code is Exit.DONE
    row = pl.read_parquet(tmp_path / "out.parquet").row(0, named=True)
    assert row["answer"] == "你好！很高兴与你交谈。"
    assert (row["prompt_tokens"], row["completion_tokens"], row["total_tokens"]) == (5, 36, 1007)
    assert row["reasoning_tokens"] is None
    assert row["cost"] == pytest.approx((5 * 1.0 + 1002 * 10.0) / 1e6)


def test_amethysts_401_stops_the_job_after_one_request_and_its_words_are_shown(tmp_path: Path) -> None:
    with ChatServer(lambda _seen, _attempt: Canned(status=401, body=AMETHYST_401)) as server:
        summary = run(amethyst(server.url, tmp_path))
        assert server.arrived == 1
    assert summary.exit_code is Exit.NEEDS_PERSON
    assert "Missing Authorization header" in summary.message
    assert counts(summary) == {"pending": 2}
    assert not (tmp_path / "out.parquet").exists()


# ---- rows that fail, and jobs that stop


def test_a_bad_row_never_stops_the_job_and_is_asked_again_only_with_retry(tmp_path: Path) -> None:
    repair_kind = False

    def reply(seen: Seen, _attempt: int) -> Canned | None:
        if seen.prompt.endswith(("7", "3")) and not repair_kind:
            return Canned(status=400, body=problem("prompt is too long", code="context_length_exceeded"))
        return None

    source, out = questions(tmp_path / "in.csv", range(40)), tmp_path / "out.parquet"
    with ChatServer(reply) as server:
        summary = run(job(server.url, source, out))
        assert summary.exit_code is Exit.INCOMPLETE
        assert counts(summary) == {"ok": 32, "failed": 8}
        assert pl.read_parquet(out).filter(status="failed")["error"].unique().to_list() == [
            "too_long: prompt is too long"
        ]
        sent = server.arrived
        run(job(server.url, source, out))
        assert server.arrived == sent
        repair_kind = True
        retried = run(job(server.url, source, out, ThisRun(retry=("failed",), verbosity=-1)))
        assert server.arrived == sent + 8
    assert counts(retried) == {"ok": 40}


def test_an_unaskable_row_is_failed_unsent_and_the_rest_is_asked(tmp_path: Path, server: ChatServer) -> None:
    (tmp_path / "in.csv").write_text("id,q\n1,a\n2,\n3,c\n")
    summary = run(job(server.url, tmp_path / "in.csv", tmp_path / "out.parquet"))
    assert counts(summary) == {"ok": 2, "failed": 1}
    assert server.arrived == 2
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out["error"][1].startswith("prompt: the template prints a null")
    assert out["attempts"].to_list() == [1, 0, 1]


def test_an_endpoint_that_is_not_there_stops_the_job_to_be_tried_later(tmp_path: Path) -> None:
    with ChatServer() as server:
        url = server.url
    summary = run(job(url, questions(tmp_path / "in.csv", range(9)), tmp_path / "out.csv"))
    assert summary.exit_code is Exit.TRY_LATER
    assert counts(summary) == {"pending": 9}
    assert not (tmp_path / "out.csv").exists()


def test_the_budget_is_never_passed_and_what_was_answered_is_written(tmp_path: Path, server: ChatServer) -> None:
    flags = {"prices__input": 10.0, "prices__output": 10.0, "parameters": {"max_tokens": 10}, "limits__max_cost": 0.02}
    source, out = questions(tmp_path / "in.csv", range(200)), tmp_path / "out.parquet"
    summary = run(job(server.url, source, out, **flags))
    assert summary.exit_code is Exit.AT_LIMIT
    assert 0.01 < summary.spent <= 0.02
    assert summary.rows.pending == 200 - summary.rows.ok > 0
    assert pl.read_parquet(out)["status"].value_counts(name="n").filter(status="ok")["n"].item() == summary.rows.ok
    sent = server.arrived
    again = run(job(server.url, source, out, **flags))
    assert again.exit_code is Exit.AT_LIMIT
    assert again.spent <= 0.02
    assert server.arrived - sent <= 1
    more = run(job(server.url, source, out, **{**flags, "limits__max_cost": 10.0}))
    assert counts(more) == {"ok": 200}
    assert max(asked(server).values()) == 1


def test_a_cap_without_max_tokens_is_held_by_the_tokens_that_the_user_sets_aside(
    tmp_path: Path, server: ChatServer
) -> None:
    source, out = questions(tmp_path / "in.csv", range(200)), tmp_path / "out.parquet"
    flags = {"prices__input": 10.0, "prices__output": 10.0, "limits__max_cost": 0.02, "limits__reserve_tokens": 10}
    summary = run(job(server.url, source, out, **flags))
    assert summary.exit_code is Exit.AT_LIMIT
    assert 0.01 < summary.spent <= 0.02


@pytest.mark.parametrize(("limit", "failed"), [(3, 4), (0.1, 11), (0, 1)])
def test_more_failures_than_allowed_stop_the_job_and_the_table_is_written(
    tmp_path: Path, limit: float, failed: int
) -> None:
    """A share is of the rows so far, and of a hundred at least."""
    source, out = questions(tmp_path / "in.csv", range(40)), tmp_path / "out.csv"

    def reply(seen: Seen, _attempt: int) -> Canned | None:
        return None if seen.prompt == "Answer question 0" else Canned(status=413, body=b"{}")

    with ChatServer(reply) as server:
        line = job(server.url, source, out, limits__max_failures=limit, limits__concurrency=1)
        summary = run(line)
        assert summary.exit_code is Exit.AT_LIMIT
        assert "limits.max_failures" in summary.message
        assert failed <= summary.rows.failed <= failed + 1  # one more may have left while the last was stored
        assert summary.rows.pending == 39 - summary.rows.failed
        assert pl.read_csv(out)["status"].to_list().count("failed") == summary.rows.failed
        assert run(line).rows.failed > summary.rows.failed  # each run is allowed as many


def test_an_endpoint_that_is_waited_for_may_come_up_late(tmp_path: Path) -> None:
    source, out = questions(tmp_path / "in.csv", range(5)), tmp_path / "out.csv"
    with ChatServer(delay_seconds=0.1) as first:
        port = int(first.url.split(":")[2].split("/")[0])
    line = command_line(first.url, source, out, "--wait-for-endpoint", "-v")
    child = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    for _ in range(2):
        while "connect:" not in child.stderr.readline():
            assert child.poll() is None
    with ChatServer(port=port):
        _, told = child.communicate(timeout=60)
    assert child.returncode == 0, told


def test_an_endpoint_that_answers_nobody_is_given_up_to_be_tried_later(tmp_path: Path) -> None:
    source, out = questions(tmp_path / "in.csv", range(5)), tmp_path / "out.csv"
    with ChatServer(lambda _seen, _attempt: Canned(status=503, body=b"{}", headers={"retry-after": "0.2"})) as server:
        summary = run(job(server.url, source, out, limits__give_up_after="1s"))
    assert summary.exit_code is Exit.TRY_LATER
    assert "limits.give_up_after" in summary.message
    assert counts(summary) == {"pending": 5}
    assert not out.exists()


def test_what_was_spent_on_rows_that_are_gone_is_named_apart(tmp_path: Path, server: ChatServer) -> None:
    out, priced = tmp_path / "out.csv", {"prices__input": 1.0, "prices__output": 1.0}
    everything = run(job(server.url, questions(tmp_path / "in.csv", range(20)), out, **priced))
    assert everything.elsewhere == pytest.approx(0.0)
    fewer = run(job(server.url, questions(tmp_path / "in.csv", range(5)), out, **priced))
    assert fewer.rows.cost + fewer.elsewhere == pytest.approx(fewer.spent) == pytest.approx(everything.spent)
    assert fewer.elsewhere == pytest.approx(everything.spent * 15 / 20)
    assert f"{money(fewer.elsewhere)} of it for what is not in this table" in summary_text(
        job(server.url, tmp_path / "in.csv", out), fewer
    )


def test_books_that_do_not_balance_are_a_stop_that_says_what_is_amiss() -> None:
    assert unbalanced(("rows were written", 5, 5), ("US dollars", 0.1 + 0.2, 0.3)) is None
    stop = unbalanced(("rows were written", 5, 5), ("requests were recorded", 4, 5))
    assert stop is not None
    assert stop.exit_code is Exit.NEEDS_PERSON
    assert "4 requests were recorded, 5 should" in str(stop)


def test_max_runtime_stops_and_what_was_answered_is_written(tmp_path: Path) -> None:
    with ChatServer(delay_seconds=0.2) as server:
        source = questions(tmp_path / "in.csv", range(400))
        summary = run(job(server.url, source, tmp_path / "out.parquet", limits__max_runtime="1s"))
    assert summary.exit_code is Exit.AT_LIMIT
    assert summary.rows.ok == server.arrived < 400
    assert pl.read_parquet(tmp_path / "out.parquet").height == 400


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_drains_and_the_same_line_goes_on(tmp_path: Path, number: signal.Signals, code: int) -> None:
    source = questions(tmp_path / "in.csv", range(60))
    with ChatServer(delay_seconds=0.1) as server:
        line = command_line(server.url, source, tmp_path / "out.csv", "--concurrency", "4")
        child = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
        server.wait_for(8)
        child.send_signal(number)
        _, told = child.communicate(timeout=30)
        assert child.returncode == code, told
        assert f"Stopped by {number.name}" in told
        assert "pipeline resume" in told
        assert not (tmp_path / "out.csv").exists()
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert asked(server) == Counter({f"Answer question {n}": 1 for n in range(60)})


def test_a_second_ctrl_c_waits_for_nothing(tmp_path: Path) -> None:
    source = questions(tmp_path / "in.csv", range(10))

    def reply(seen: Seen, _attempt: int) -> Canned | None:
        return Canned(hang=True) if seen.prompt.endswith("question 2") else None

    with ChatServer(reply) as server:
        line = command_line(server.url, source, tmp_path / "out.csv")
        child = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
        server.wait_for(10)
        child.send_signal(signal.SIGINT)
        assert child.stderr is not None
        while "nothing more is sent" not in child.stderr.readline():
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        _, told = child.communicate(timeout=10)
    assert child.returncode == 130
    assert "9 ok, 1 pending" in told
    assert "may be billed" in told


def test_a_second_run_of_the_same_job_is_turned_away_and_told_by_whom(tmp_path: Path) -> None:
    source = questions(tmp_path / "in.csv", range(50))
    with ChatServer(delay_seconds=0.2) as server:
        line = command_line(server.url, source, tmp_path / "out.csv", "--concurrency", "2")
        child = subprocess.Popen(line, stderr=subprocess.DEVNULL)
        server.wait_for(3)
        with pytest.raises(Stopped, match=f"process {child.pid}") as caught:
            run(job(server.url, source, tmp_path / "out.csv"))
        child.kill()
        child.wait()
    assert caught.value.exit_code is Exit.LOCKED


# ---- the guard, the pilot, the first request


def test_a_changed_prompt_is_told_with_its_price_before_everything_is_bought_again(tmp_path: Path) -> None:
    source, out = questions(tmp_path / "in.csv", range(50)), tmp_path / "out.csv"
    priced: dict[str, Any] = {"prices__input": 1.0, "prices__output": 1.0}
    with ChatServer() as server:
        run(job(server.url, source, out, **priced))
        changed = {**priced, "prompt__template": "Now answer {{ q }}"}
        with pytest.raises(
            BadJob, match=r"prompt\.template changed since .*0 of 50 stored answers can be used[\s\S]*about \$.*--yes"
        ):
            run(job(server.url, source, out, **changed))
        told: list[str] = []
        with pytest.raises(BadJob, match="answers are kept"):
            run(job(server.url, source, out, **changed), confirm=lambda question: bool(told.append(question)))
        assert "Ask 50 rows again, about $" in told[0]
        run(job(server.url, source, out, ThisRun(sample=4, verbosity=-1), **changed))
        assert server.arrived == 54
        with pytest.raises(
            BadJob, match="4 of 54 stored answers can be used"
        ):  # the pilot did not make the new prompt the old one
            run(job(server.url, source, out, **changed))
        assert counts(run(job(server.url, source, out, ThisRun(assume_yes=True, verbosity=-1), **changed))) == {
            "ok": 50
        }
        assert server.arrived == 100
        run(job(server.url, source, out, ThisRun(assume_yes=True, verbosity=-1), **priced))
        assert server.arrived == 100


def test_a_refused_run_leaves_what_is_known_of_the_last_one(tmp_path: Path, server: ChatServer) -> None:
    source, out = questions(tmp_path / "in.csv", range(30)), tmp_path / "out.csv"
    run(job(server.url, source, out))
    questions(source, range(40))
    with pytest.raises(BadJob, match="--yes"):
        run(job(server.url, source, out, prompt__template="Now answer {{ q }}"))
    path, tally = review.export_table(out, tmp_path / "known.parquet")
    assert tally.ok == 30
    assert pl.read_parquet(path)["answer"].to_list() == [answer_to(f"Answer question {n}") for n in range(30)]


def test_what_a_failure_cost_stays_with_its_row_when_it_is_retried(tmp_path: Path) -> None:
    empty = completion("", usage={"prompt_tokens": 100, "completion_tokens": 0, "total_tokens": 100})
    replies, priced = iter([empty] * 3), {"prices__input": 1e6, "prices__output": 0.0}

    def reply(_seen: Seen, _attempt: int) -> Canned | None:
        body = next(replies, None)
        return Canned(body=body) if body is not None else None

    source, out = questions(tmp_path / "in.csv", [1]), tmp_path / "out.parquet"
    with ChatServer(reply) as server:
        failed = run(job(server.url, source, out, **priced))
        assert counts(failed) == {"failed": 1}
        assert failed.spent == pytest.approx(300.0)
        retried = run(
            job(
                server.url, source, out, ThisRun(retry=("failed",), verbosity=-1), prices__input=1e6, prices__output=0.0
            )
        )
    assert counts(retried) == {"ok": 1}
    assert retried.spent == pytest.approx(retried.rows.cost) == pytest.approx(pl.read_parquet(out)["cost"].sum())
    assert retried.spent > 300


def test_a_retry_that_fails_does_not_take_the_place_of_the_answer(tmp_path: Path) -> None:
    cut = completion("Half of", finish_reason="length")
    source, out = questions(tmp_path / "in.csv", [1]), tmp_path / "out.parquet"
    with ChatServer(lambda _seen, n: Canned(body=cut) if n == 1 else Canned(status=413, body=b"{}")) as server:
        assert counts(run(job(server.url, source, out))) == {"truncated": 1}
        again = run(job(server.url, source, out, ThisRun(retry=("truncated",), verbosity=-1)))
        assert server.arrived == 2
    assert counts(again) == {"truncated": 1}
    assert pl.read_parquet(out)["answer"].to_list() == ["Half of"]


def test_a_retry_that_was_stopped_midway_does_not_pay_again_for_what_came_out_the_same(tmp_path: Path) -> None:
    cut = Canned(body=completion("Half of", finish_reason="length"))
    source, out = questions(tmp_path / "in.csv", range(20)), tmp_path / "out.csv"
    replies = iter([*[cut] * 20, *[cut] * 8, Canned(status=402, body=problem("You have no credit left."))])
    with ChatServer(lambda _seen, _attempt: next(replies, None)) as server:
        assert counts(run(job(server.url, source, out))) == {"truncated": 20}
        retry = job(server.url, source, out, ThisRun(retry=("truncated",), verbosity=-1), limits__concurrency=1)
        assert run(retry).exit_code is Exit.NEEDS_PERSON
        assert server.arrived == 29
        assert counts(run(retry)) == {"ok": 12, "truncated": 8}
        assert server.arrived == 29 + 12
        assert counts(run(retry)) == {"ok": 20}  # the last one had come to its end: this is a retry of its own


def test_a_template_that_prints_something_else_each_time_is_stopped_before_it_is_paid_for(
    tmp_path: Path, server: ChatServer
) -> None:
    source = questions(tmp_path / "in.csv", range(3))
    for template in ("{{ q.upper }}", "{{ q.split() | map('upper') }}"):
        with pytest.raises(BadJob, match="prints code instead of a value"):
            run(job(server.url, source, tmp_path / "out.csv", prompt__template=template))
    assert server.arrived == 0


def test_a_run_killed_while_it_plans_is_no_hindrance(tmp_path: Path, server: ChatServer) -> None:
    source, out = questions(tmp_path / "in.csv", range(3)), tmp_path / "out.csv"
    left = tmp_path / "out.csv.job" / "plan.new"
    left.mkdir(parents=True)
    (left.parent / "lock").touch()
    (left / ".keys.parquet.0123.tmp").write_bytes(b"half")
    assert counts(run(job(server.url, source, out))) == {"ok": 3}
    assert not left.exists()


def test_keys_that_are_not_those_of_the_last_run_are_never_exported(tmp_path: Path, server: ChatServer) -> None:
    source, out = questions(tmp_path / "in.csv", range(3)), tmp_path / "out.csv"
    run(job(server.url, source, out))
    keys = tmp_path / "out.csv.job" / "keys.parquet"
    pl.read_parquet(keys).reverse().write_parquet(keys)
    with pytest.raises(BadJob, match="cut short as it began"):
        review.export_table(out, tmp_path / "wrong.csv")
    assert not (tmp_path / "wrong.csv").exists()


def test_a_cap_is_remembered_over_resumes_where_no_usage_is_told(tmp_path: Path) -> None:
    priced = {"prices__input": 1000.0, "prices__output": 1000.0, "parameters": {"max_tokens": 1}}
    source, out = questions(tmp_path / "in.csv", range(100)), tmp_path / "out.csv"
    with ChatServer(lambda _seen, _n: Canned(body=completion("yes", usage=None))) as server:
        first = run(job(server.url, source, out, **priced, limits__max_cost=1.0))
        assert first.exit_code is Exit.AT_LIMIT
        sent = server.arrived
        assert 0 < sent < 100
        assert run(job(server.url, source, out, **priced, limits__max_cost=1.0)).exit_code is Exit.AT_LIMIT
        assert server.arrived == sent


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


# ---- input that changes or cannot be used


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
    assert "has changed" in summary.message
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("ragged.csv", b"id,q\n1,a\n2,b,c\n", "ragged.csv:3"),
        ("latin.csv", "id,q\n1,caf\xe9\n".encode("latin-1"), "latin.csv:2"),
        ("twice.csv", b"q,q\n1,a\n", "same name"),
        ("clash.csv", b"q,answer\n1,a\n", r"\[output\]\nprefix"),
        ("empty.csv", b"", "empty"),
        ("strange.doc", b"q\n1\n", "ending"),
        ("other.csv", b"id,text\n1,a\n", "no column 'q'"),
    ],
)
def test_an_input_that_cannot_be_used_is_refused_before_anything_is_sent(
    tmp_path: Path, server: ChatServer, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadJob, match=words):
        run(job(server.url, tmp_path / name, tmp_path / "out.csv"))
    assert server.arrived == 0
    assert not (tmp_path / "out.csv").exists()
    assert not (tmp_path / "out.csv.job").exists()


def test_an_output_that_could_not_be_written_is_refused_before_anything_is_sent(
    tmp_path: Path, server: ChatServer
) -> None:
    source = questions(tmp_path / "in.csv", range(3))
    for output, words in (
        (source, "also an input"),
        (tmp_path / "no" / "out.csv", "no folder"),
        (tmp_path, "is a folder"),
        (tmp_path / "out.doc", "ending"),
        (Path("/proc/out.csv"), "cannot be written"),
    ):
        with pytest.raises(BadJob, match=words):
            run(job(server.url, source, output))
    assert server.arrived == 0


def test_a_cap_without_a_price_or_a_bound_is_refused_before_anything_is_sent(
    tmp_path: Path, server: ChatServer
) -> None:
    source = questions(tmp_path / "in.csv", range(3))
    with pytest.raises(BadJob, match="no price is known"):
        run(job(server.url, source, tmp_path / "out.csv", limits__max_cost=1.0))
    with pytest.raises(BadJob, match="nothing bounds the length"):
        run(job(server.url, source, tmp_path / "out.csv", limits__max_cost=1.0, prices__input=1.0, prices__output=1.0))
    assert server.arrived == 0


# ---- from Python


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


def test_what_a_killed_run_left_half_written_is_swept_away(tmp_path: Path, server: ChatServer) -> None:
    source, out = questions(tmp_path / "in.csv", range(3)), tmp_path / "out.csv"
    run(job(server.url, source, out))
    left = [tmp_path / ".out.csv.0123abcd.tmp", tmp_path / "out.csv.job" / ".input-1.parquet.0123abcd.tmp"]
    mine = tmp_path / ".other.csv.0123abcd.tmp"
    for path in (*left, mine):
        path.write_bytes(b"half")
    run(job(server.url, source, out))
    assert mine.exists()
    assert not any(path.exists() for path in left)


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
