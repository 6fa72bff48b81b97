"""Answering later, over a real server with files and batches."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from batch_server import Answered, Provider, serving, usual
from chat_server import ChatServer, answer_to, problem
from crashing_batch import STEPS

from pipeline import BadJob, Job, Summary, ThisRun, run
from pipeline.desk import read_ledger
from pipeline.records import Exit
from pipeline.store import Reader

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
    program = str(Path(__file__).with_name("crashing_batch.py"))
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


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_what_a_batch_answered_before_it_was_over_is_kept_and_the_rest_is_asked_again(tmp_path: Path, end: str) -> None:
    write(tmp_path, 40)
    provider = Provider(ends=lambda number: end if number <= 2 else "completed", share=0.3)
    with serving(provider) as url:
        assert run(job(tmp_path, url)).exit_code is Exit.DONE
    table = check(tmp_path, provider, 40)
    assert sorted(table["attempts"].to_list()) == [1] * 12 + [2] * 28


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
        summaries = [run(job(tmp_path, url, this_run=polled)) for _ in range(4)]
    assert [summary.exit_code for summary in summaries] == [Exit.TRY_LATER, Exit.TRY_LATER, Exit.DONE, Exit.DONE]
    assert "3 batches with the provider, 0 of 50 requests done" in summaries[0].message
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
    program = str(Path(__file__).with_name("crashing_batch.py"))
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


def test_a_listed_price_is_that_of_batches(tmp_path: Path) -> None:
    write(tmp_path, 1)
    openai = {"endpoint.base_url": "https://api.openai.com/v1", "endpoint.model": "gpt-4o-mini", "prompt.column": "q"}
    from pipeline.prices import Tariff  # noqa: PLC0415
    from pipeline.records import Usage  # noqa: PLC0415

    costs = [
        Tariff(Job.load([tmp_path / "in.csv"], settings={**openai, "run.how": how})).cost(Usage(1000, 1000))
        for how in ("live", "batch")
    ]
    assert costs[0] is not None
    assert costs[1] == pytest.approx(costs[0] / 2)


def test_a_model_on_this_machine_has_no_batches(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with pytest.raises(BadJob, match="no Batch API"):
        job(tmp_path, "local:smollm2-135m")
