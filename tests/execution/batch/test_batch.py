"""Answering later, over a real server with files and batches."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import crashing_batch
import polars as pl
import pytest
from batch_server import Answered, Provider, serving, usual
from chat_server import USAGE, ChatServer, answer_to, completion, problem
from children import small_disk
from crashing_batch import STEPS

from pipeline import BadJob, Job, Summary, ThisRun, run
from pipeline.records import Exit
from pipeline.results.status import job_status, status_text
from pipeline.store.notes import read_ledger
from pipeline.store.reader import Reader

PRICES = {"prices.input": 1.0, "prices.output": 3.0}
ONE = 12e-6 + 6 * 3e-6  # US dollars, of an answer


def write(folder: Path, rows: int) -> None:
    pl.DataFrame({"q": [f"question {number}" for number in range(rows)]}).write_csv(folder / "in.csv")


def job(folder: Path, url: str, *, this_run: ThisRun | None = None, **settings: Any) -> Job:
    """Settings with `__` for the dot."""
    given = {
        "endpoint.base_url": url,
        "endpoint.name": "here",
        "endpoint.model": "m",
        "prompt.template": "{{ q }}",
        "run.how": "batch",
        "run.batch_requests": 20,
        "run.poll_seconds": 0.01,
        **PRICES,
        **{name.replace("__", "."): value for name, value in settings.items()},
    }
    return Job.load([folder / "in.csv"], folder / "out.parquet", settings=given, this_run=this_run)


def check(folder: Path, provider: Provider, rows: int, ok: int | None = None) -> pl.DataFrame:
    """Every row has its own answer, every answer was billed once, and the provider keeps nothing."""
    table = pl.read_parquet(folder / "out.parquet")
    assert table["q"].to_list() == [f"question {number}" for number in range(rows)]
    answered = table.filter(pl.col("status") == "ok")
    assert answered.height == (rows if ok is None else ok)
    assert answered["answer"].to_list() == [answer_to(prompt) for prompt in answered["q"]]
    assert max(provider.billed.values()) == 1
    assert not list((folder / "out.parquet.job" / "batches").iterdir())
    return table


def spent(folder: Path) -> float:
    reader = Reader(folder / "out.parquet.job" / "store")
    cost = read_ledger(reader).cost
    reader.close()
    return cost


def line(folder: Path, url: str, *more: str) -> list[str]:
    """The words of the same job for a process of its own."""
    sets = ("endpoint.name=here", "run.how=batch", "run.batch_requests=20", "run.poll_seconds=0.01")
    words = [
        "run",
        str(folder / "in.csv"),
        "-o",
        str(folder / "out.parquet"),
        "--base-url",
        url,
        "-m",
        "m",
        "-p",
        "{{ q }}",
    ]
    prices = [f"{name}={value}" for name, value in PRICES.items()]
    return [*words, *(word for text in (*sets, *prices) for word in ("--set", text)), *more]


def start(*words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True)


def test_every_request_has_its_own_answer_in_whatever_order_they_come(tmp_path: Path) -> None:
    write(tmp_path, 130)
    provider = Provider()
    with serving(provider) as url:
        summary = run(job(tmp_path, url))
    assert summary.exit_code is Exit.DONE
    table = check(tmp_path, provider, 130)
    assert [batch["request_counts"]["total"] for batch in provider.batches.values()] == [20] * 6 + [10]
    assert provider.calls.index("GET /batches/batch_1") > provider.calls.index("POST /batches")
    assert provider.calls[:14].count("POST /batches") == 7, "all are in flight at once"
    assert table["cost"].sum() == pytest.approx(130 * ONE) == summary.spent == spent(tmp_path)
    assert table["attempts"].unique().to_list() == [1]
    assert table["asked_at"].null_count() == 0 == len(provider.files)


@pytest.mark.parametrize(("step", "times"), [(step, 1 + 2 * (number % 2)) for number, step in enumerate(STEPS)])
def test_a_kill_at_any_step_loses_no_batch_and_pays_none_twice(tmp_path: Path, step: str, times: int) -> None:
    write(tmp_path, 50)
    provider = Provider()
    program = str(Path(crashing_batch.__file__))
    with serving(provider) as url:
        with start(program, step, str(times), *line(tmp_path, url)) as killed:
            assert killed.wait(timeout=60) == -signal.SIGKILL, killed.stderr.read() if killed.stderr else ""
        assert run(job(tmp_path, url)).exit_code is Exit.DONE
    table = check(tmp_path, provider, 50)
    assert table["cost"].sum() == pytest.approx(50 * ONE)
    assert 50 * ONE <= spent(tmp_path) * 1.0000001 <= 51 * ONE  # the ledger may be ahead by one that was not stored


def test_a_batch_whose_making_was_not_heard_of_is_not_made_twice(tmp_path: Path) -> None:
    write(tmp_path, 50)
    lost = iter(["lose", "500", "close"])
    provider = Provider(interfere=lambda method, path: next(lost, "") if (method, path) == ("POST", "/batches") else "")
    with serving(provider) as url:
        assert run(job(tmp_path, url)).exit_code is Exit.DONE
    check(tmp_path, provider, 50)
    assert len(provider.batches) == 3


def test_calls_that_fail_in_passing_are_made_again(tmp_path: Path) -> None:
    write(tmp_path, 50)
    seen: set[str] = set()

    def once(method: str, path: str) -> str:
        known = f"{method} {path.split('/')[1]}" in seen
        seen.add(f"{method} {path.split('/')[1]}")
        return "" if known or path == "/batches" else "503"

    provider = Provider(interfere=once)
    with serving(provider) as url:
        assert run(job(tmp_path, url)).exit_code is Exit.DONE
    check(tmp_path, provider, 50)


def test_what_a_batch_answered_before_it_expired_is_kept_and_the_rest_is_asked_again(tmp_path: Path) -> None:
    write(tmp_path, 40)
    provider = Provider(ends=lambda number: "expired" if number <= 2 else "completed", share=0.3)
    with serving(provider) as url:
        assert run(job(tmp_path, url)).exit_code is Exit.DONE
    table = check(tmp_path, provider, 40)
    assert sorted(table["attempts"].to_list()) == [1] * 12 + [2] * 28


def test_a_batch_that_was_cancelled_at_the_provider_is_not_sent_again_unasked(tmp_path: Path) -> None:
    write(tmp_path, 40)
    provider = Provider(ends=lambda _number: "cancelled", share=0.3)
    with serving(provider) as url:
        stopped = run(job(tmp_path, url))
    assert (stopped.exit_code, stopped.rows.ok, stopped.rows.pending) == (Exit.NEEDS_PERSON, 12, 28)
    assert "Cancelled at the provider: batch_1, batch_2." in stopped.message
    assert len(provider.batches) == 2
    with ChatServer() as server:
        live = run(job(tmp_path, server.url, run__how="live"))
        assert (live.exit_code, server.arrived) == (Exit.DONE, 28)
    check(tmp_path, provider, 40)


def test_a_provider_that_takes_no_schema_is_asked_in_the_next_form_by_all_batches(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> Answered:
        form = (body.get("response_format") or {}).get("type", "words")
        if form != "words":
            return 400, problem(f"response_format {form} is not supported.")
        return 200, completion('{"label": "a"}', usage=USAGE)

    write(tmp_path, 60)
    provider = Provider(answer=answer)
    with serving(provider) as url:
        summary = run(job(tmp_path, url, answer__labels=["a", "b"]))
    assert (summary.exit_code, summary.rows.ok) == (Exit.DONE, 60), summary
    assert len(provider.batches) == 9, "three in each of three forms"
    assert max(provider.billed.values()) == 1


def test_a_few_bad_lines_do_not_make_a_bad_job(tmp_path: Path) -> None:
    write(tmp_path, 20)
    bad = dict.fromkeys(range(1, 9), "Odd.")
    provider = Provider(bad_lines=lambda number, _lines: bad if number == 1 else {})
    with serving(provider) as url:
        assert run(job(tmp_path, url)).exit_code is Exit.INCOMPLETE
    assert check(tmp_path, provider, 20, ok=12)["status"].to_list()[:8] == ["failed"] * 8


def page(_content: bytes) -> bytes:
    return b"<html><body>Please log in.</body></html>"


@pytest.mark.parametrize("spoil", [page, lambda content: content[: len(content) * 2 // 3]])
def test_results_that_cannot_be_read_are_fetched_again_and_never_asked_again(tmp_path: Path, spoil: Any) -> None:
    write(tmp_path, 20)
    provider = Provider(results=spoil)
    with serving(provider) as url:
        summary = run(job(tmp_path, url))
        assert (summary.exit_code, summary.rows.pending) == (Exit.TRY_LATER, 20)
        assert "Nothing is lost or asked again" in summary.message
        provider.results = lambda content: content
        assert run(job(tmp_path, url)).exit_code is Exit.DONE
    check(tmp_path, provider, 20)


def test_results_told_twice_or_of_nobody_change_nothing(tmp_path: Path) -> None:
    stranger = b'{"custom_id":"who","response":{"status_code":200,"body":{}},"error":null}\n\n'
    write(tmp_path, 20)
    provider = Provider(results=lambda content: content + stranger + content)
    with serving(provider) as url:
        summary = run(job(tmp_path, url))
    assert (summary.exit_code, summary.run.attempts) == (Exit.DONE, 20)
    check(tmp_path, provider, 20)


def test_a_batch_that_is_done_before_it_names_its_results_is_looked_at_again(tmp_path: Path) -> None:
    write(tmp_path, 20)
    provider = Provider(names_results=lambda looks: looks > 4)
    with serving(provider) as url:
        assert run(job(tmp_path, url)).exit_code is Exit.DONE
    check(tmp_path, provider, 20)


@pytest.mark.parametrize("at", [("POST", "/files"), ("POST", "/batches"), ("GET", "/batches/batch_1")])
def test_a_page_in_the_place_of_an_answer_is_none(tmp_path: Path, at: tuple[str, str]) -> None:
    write(tmp_path, 20)
    pages = iter(["page"])
    provider = Provider(interfere=lambda *call: next(pages, "") if call == at else "")
    with serving(provider) as url:
        for _ in range(2):  # a page may stop a run, but not the next
            summary = run(job(tmp_path, url))
    assert summary.exit_code is Exit.DONE, summary
    check(tmp_path, provider, 20)


def test_a_provider_that_says_too_many_without_a_time_is_not_hammered(tmp_path: Path) -> None:
    write(tmp_path, 20)
    busy = iter(["429", "429"])
    provider = Provider(interfere=lambda method, _path: next(busy, "") if method == "POST" else "")
    with serving(provider) as url:
        summary = run(job(tmp_path, url))
    assert summary.exit_code is Exit.DONE
    assert summary.seconds > 2 + 4


def test_a_provider_that_lists_no_batches_is_never_sent_one_that_it_may_have(tmp_path: Path) -> None:
    write(tmp_path, 20)
    provider = Provider(lists=False)
    program = str(Path(crashing_batch.__file__))
    with serving(provider) as url:
        with start(program, "after create", "1", *line(tmp_path, url)) as killed:
            assert killed.wait(timeout=60) == -signal.SIGKILL
        stopped = run(job(tmp_path, url))
        assert stopped.exit_code is Exit.NEEDS_PERSON
        assert "nothing is paid for twice" in stopped.message
        batch_file = next((tmp_path / "out.parquet.job" / "batches").glob("*.jsonl"))
        assert f"remove\n{batch_file}\n" in stopped.message
        assert run(job(tmp_path, url)).message == stopped.message
        assert len(provider.batches) == 1
        provider.batches["batch_1"]["status"] = "cancelled"
        batch_file.unlink()
        assert run(job(tmp_path, url)).exit_code is Exit.DONE
    assert len(provider.batches) == 2
    check(tmp_path, provider, 20)


def test_a_batch_that_the_provider_does_not_know_can_be_given_up(tmp_path: Path) -> None:
    write(tmp_path, 20)
    with serving(Provider()) as url:
        run(job(tmp_path, url, this_run=ThisRun(no_wait=True)))
    provider = Provider()
    with serving(provider) as url:
        stopped = run(job(tmp_path, url))
        assert stopped.exit_code is Exit.NEEDS_PERSON
        assert "The provider knows no batch batch_1" in stopped.message
        next((tmp_path / "out.parquet.job" / "batches").glob("*.jsonl")).unlink()
        assert run(job(tmp_path, url)).exit_code is Exit.DONE
    check(tmp_path, provider, 20)


@pytest.mark.parametrize("at", ["POST /files", "POST /batches", "GET /batches/batch_1"])
def test_ctrl_c_ends_a_call_that_hangs(tmp_path: Path, at: str) -> None:
    write(tmp_path, 20)
    provider = Provider(interfere=lambda method, path: "hang" if f"{method} {path}" == at else "")
    with serving(provider) as url, start("-m", "pipeline", *line(tmp_path, url)) as process:
        while at not in provider.calls:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == Exit.SIGINT
    provider.interfere = lambda _method, _path: ""
    provider.over.clear()
    with serving(provider) as url:
        assert run(job(tmp_path, url)).exit_code is Exit.DONE
    check(tmp_path, provider, 20)


def test_a_pilot_while_batches_are_open_pays_for_none_of_the_other_rows(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> Answered:
        return 200, completion("neither", usage=USAGE)

    labels = {"answer__labels": ["a", "b"], "answer__repairs": 1}
    write(tmp_path, 20)
    provider = Provider(answer=answer)
    with serving(provider) as url:
        run(job(tmp_path, url, this_run=ThisRun(no_wait=True), **labels))
        pilot = run(job(tmp_path, url, this_run=ThisRun(limit=5), **labels))
        assert (pilot.exit_code, pilot.rows.rows, pilot.rows.invalid) == (Exit.INCOMPLETE, 5, 5)
        assert sum(provider.billed.values()) == 20 + 5, "all first answers, and the repairs of the pilot"
        whole = run(job(tmp_path, url, **labels))
    assert (whole.rows.invalid, sum(provider.billed.values())) == (20, 40)
    assert max(provider.billed.values()) == 1


def test_a_cap_that_comes_later_counts_what_open_batches_may_cost(tmp_path: Path) -> None:
    write(tmp_path, 40)
    provider = Provider()
    with serving(provider) as url:
        settings = {"parameters__max_tokens": 10}
        run(job(tmp_path, url, this_run=ThisRun(no_wait=True, limit=20), **settings))
        capped = run(job(tmp_path, url, limits__max_cost=0.0009, **settings))
    assert capped.exit_code is Exit.AT_LIMIT
    assert sum(provider.billed.values()) * ONE <= 0.0009


def test_several_opinions_of_several_models_travel_in_batches_of_one_model_each(tmp_path: Path) -> None:
    write(tmp_path, 30)
    provider = Provider()
    opinions = {"answer__samples": 2, "answer__models": ["m", "n"], "answer__labels": ["positive", "negative"]}
    with serving(provider) as url:
        summary = run(job(tmp_path, url, **opinions))
        made = [
            (len(lines := provider.lines(batch)), {each["body"]["model"] for each in lines})
            for batch in provider.batches.values()
            if batch["input_file_id"] in provider.files
        ]
        assert summary.rows.ok == 30, (summary, made)
    assert sum(provider.billed.values()) == 120
    assert max(provider.billed.values()) == 1


def test_a_job_with_open_batches_is_shown_and_exported(tmp_path: Path) -> None:
    write(tmp_path, 20)
    with serving(Provider()) as url:
        run(job(tmp_path, url, this_run=ThisRun(no_wait=True)))
    program = [sys.executable, "-m", "pipeline"]
    subprocess.run([*program, "show", tmp_path / "out.parquet", "--status", "pending"], check=True, capture_output=True)
    subprocess.run([*program, "export", tmp_path / "out.parquet", "-o", tmp_path / "so-far.csv"], check=True)
    assert pl.read_csv(tmp_path / "so-far.csv")["status"].to_list() == ["pending"] * 20


def test_a_full_disk_stops_the_job_and_loses_no_batch(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "3m") as folder:
        write(folder, 20)
        provider = Provider(results=lambda content: content + b" " * 4_000_000)
        with serving(provider) as url:
            stopped = run(job(folder, url))
            assert stopped.exit_code is Exit.NEEDS_PERSON
            assert "Check the disk" in stopped.message
            provider.results = lambda content: content
            assert run(job(folder, url)).exit_code is Exit.DONE
        check(folder, provider, 20)


def test_requests_of_a_batch_fail_each_for_itself(tmp_path: Path) -> None:
    write(tmp_path, 20)
    met: dict[str, int] = {}

    def answer(body: dict[str, Any]) -> Answered | None:
        prompt = body["messages"][-1]["content"]
        met[prompt] = met.get(prompt, 0) + 1
        if prompt == "question 3":
            return 400, problem("This prompt is bad.")
        if prompt == "question 4" and met[prompt] < 3:
            return 500, problem("It broke.")
        if prompt == "question 5" and met[prompt] < 2:
            return None
        return (503, problem("Never.")) if prompt == "question 6" else usual(body)

    provider = Provider(answer=answer)
    with serving(provider) as url:
        assert run(job(tmp_path, url)).exit_code is Exit.INCOMPLETE
    table = check(tmp_path, provider, 20, ok=18)
    assert table["error"][3] == "bad_request: This prompt is bad."
    assert table["error"][6] == "overload: Never."
    assert table["attempts"].to_list()[3:7] == [1, 3, 2, 6]


@pytest.mark.parametrize("tells", [True, False])
def test_a_provider_whose_queue_is_full_is_sent_less_at_a_time(tmp_path: Path, tells: bool) -> None:
    write(tmp_path, 100)
    provider = Provider(queue_tokens=1500, tells_queue=tells)  # about 30 requests
    with serving(provider) as url:
        assert run(job(tmp_path, url)).exit_code is Exit.DONE
    check(tmp_path, provider, 100)
    failed = sum(batch["status"] == "failed" for batch in provider.batches.values())
    assert 1 <= failed <= 6


def test_lines_that_the_provider_cannot_read_fail_and_the_others_are_answered(tmp_path: Path) -> None:
    write(tmp_path, 20)
    provider = Provider(bad_lines=lambda number, _lines: {2: "Too long.", 7: "Odd."} if number == 1 else {})
    with serving(provider) as url:
        assert run(job(tmp_path, url)).exit_code is Exit.INCOMPLETE
    table = check(tmp_path, provider, 20, ok=18)
    assert table.filter(pl.col("status") == "failed")["error"].to_list() == [
        "bad_request: Too long.",
        "bad_request: Odd.",
    ]


def test_a_run_that_does_not_wait_sends_and_fetches_what_it_can_and_says_when_to_come_again(tmp_path: Path) -> None:
    write(tmp_path, 50)
    provider = Provider(looks=3)
    polled = ThisRun(no_wait=True)
    with serving(provider) as url:
        summaries, seen, told = [], [], ""
        for _ in range(4):
            summaries.append(run(job(tmp_path, url, this_run=polled)))
            standing = job_status(tmp_path / "out.parquet")
            seen.append([batch.id for batch in standing.batches])
            told += status_text(standing)
    assert [summary.exit_code for summary in summaries] == [Exit.TRY_LATER, Exit.TRY_LATER, Exit.DONE, Exit.DONE]
    assert "3 batches with the provider, 0 of 50 requests done" in summaries[0].message
    assert seen == [["batch_1", "batch_2", "batch_3"], ["batch_1", "batch_2", "batch_3"], [], []]
    assert "batch  3 with the provider, 0 of 50 requests done" in told
    assert len(provider.batches) == 3
    check(tmp_path, provider, 50)


def test_a_run_that_was_stopped_is_taken_up_days_later_and_over_a_restart_of_the_provider(tmp_path: Path) -> None:
    write(tmp_path, 50)
    provider = Provider(looks=4)
    with serving(provider) as url:
        stopped = run(job(tmp_path, url, limits__max_runtime="1s", run__poll_seconds=30))
    assert stopped.exit_code is Exit.AT_LIMIT
    assert stopped.rows.pending == 50
    assert stopped.seconds < 20
    with serving(provider) as url:
        assert run(job(tmp_path, url)).exit_code is Exit.DONE
    assert len(provider.batches) == 3
    check(tmp_path, provider, 50)


def test_ctrl_c_waits_for_nothing_and_the_batches_go_on(tmp_path: Path) -> None:
    write(tmp_path, 50)
    provider = Provider(looks=2)
    with serving(provider) as url:
        with start("-m", "pipeline", *line(tmp_path, url, "--set", "run.poll_seconds=60")) as process:
            assert process.stderr is not None
            while not any(call == "GET /batches/batch_3" for call in provider.calls):
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            began = time.monotonic()
            assert process.wait(timeout=60) == Exit.SIGINT
            assert time.monotonic() - began < 15
            assert "pipeline resume" in process.stderr.read()
        assert run(job(tmp_path, url)).exit_code is Exit.DONE
    check(tmp_path, provider, 50)


def test_a_job_begun_live_is_finished_in_batches_and_the_reverse(tmp_path: Path) -> None:
    write(tmp_path, 50)
    provider = Provider(looks=2)
    with ChatServer() as server:
        first = run(job(tmp_path, server.url, run__how="live", this_run=ThisRun(limit=30)))
        assert first.rows.ok == server.arrived == 30
        with serving(provider) as url:
            waiting = run(job(tmp_path, url, this_run=ThisRun(no_wait=True)))
            assert waiting.rows.pending == 20
            with pytest.raises(BadJob, match="20 requests of this job are with the provider"):
                run(job(tmp_path, server.url, run__how="live"))
            run(job(tmp_path, url))
        check(tmp_path, provider, 50)
        assert sum(provider.billed.values()) == 20
        write(tmp_path, 60)
        assert run(job(tmp_path, server.url, run__how="live")).rows.ok == 60
        assert server.arrived == 40


def test_an_answer_to_a_row_that_is_gone_is_kept_and_named_apart(tmp_path: Path) -> None:
    write(tmp_path, 40)
    provider = Provider(looks=2)
    with serving(provider) as url:
        run(job(tmp_path, url, this_run=ThisRun(no_wait=True)))
        write(tmp_path, 30)
        summary = run(job(tmp_path, url))
        assert summary.exit_code is Exit.DONE
        assert summary.rows.ok == 30 == summary.run.ok
        assert summary.spent == pytest.approx(40 * ONE)
        assert summary.elsewhere == pytest.approx(10 * ONE)
        write(tmp_path, 40)
        again = run(job(tmp_path, url))
    assert again.run.attempts == 0
    check(tmp_path, provider, 40)


def test_the_cap_is_held_over_batches_and_kills(tmp_path: Path) -> None:
    write(tmp_path, 60)
    provider = Provider()
    cap = {"limits__max_cost": 0.0015, "parameters__max_tokens": 10}
    program = str(Path(crashing_batch.__file__))
    flags = ("--max-cost", "0.0015", "--set", "parameters.max_tokens=10")
    with serving(provider) as url:
        with start(program, "after create", "1", *line(tmp_path, url, *flags)) as killed:
            assert killed.wait(timeout=60) == -signal.SIGKILL
        capped = run(job(tmp_path, url, **cap))
        assert capped.exit_code is Exit.AT_LIMIT, capped
        assert 0 < sum(provider.billed.values()) < 60
        assert sum(provider.billed.values()) * ONE <= 0.0015
        assert capped.rows.ok == sum(provider.billed.values())
        assert run(job(tmp_path, url, **{**cap, "limits__max_cost": 1.0})).exit_code is Exit.DONE
    check(tmp_path, provider, 60)


def test_a_wrong_key_costs_one_call_and_an_endpoint_without_batches_is_told_of(tmp_path: Path) -> None:
    write(tmp_path, 30)
    provider = Provider(key="sk-right")
    with serving(provider) as url:
        summary = run(job(tmp_path, url))
    assert summary.exit_code is Exit.NEEDS_PERSON
    assert "Incorrect API key" in summary.message
    assert len(provider.calls) == 1
    with ChatServer() as server:
        summary = run(job(tmp_path, server.url))
    assert summary.exit_code is Exit.NEEDS_PERSON
    assert "no Batch API" in summary.message
    assert "run.how=live" in summary.message


def test_rows_that_all_fail_alike_stop_the_job_and_are_pending(tmp_path: Path) -> None:
    write(tmp_path, 30)
    provider = Provider(answer=lambda _body: (400, problem("temperature is too hot")))
    with serving(provider) as url:
        summary = run(job(tmp_path, url))
        assert summary.exit_code is Exit.NEEDS_PERSON
        assert "temperature is too hot" in summary.message
        assert summary.rows.pending == 30
        provider.answer = usual
        assert run(job(tmp_path, url)).exit_code is Exit.DONE
    check(tmp_path, provider, 30)


def test_a_batch_that_is_not_taken_stops_the_job_with_the_providers_words(tmp_path: Path) -> None:
    write(tmp_path, 5)
    provider = Provider(bad_lines=lambda _number, lines: dict.fromkeys(range(1, len(lines) + 1), "No such model."))
    with serving(provider) as url:
        summary: Summary = run(job(tmp_path, url))
    assert summary.exit_code is Exit.NEEDS_PERSON
    assert "No such model." in summary.message
    assert summary.rows.pending == 5


def test_a_model_on_this_machine_has_no_batches(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with pytest.raises(BadJob, match="no Batch API"):
        job(tmp_path, "local:smollm2-135m")
