"""The contract of the three executors: live, batch and Ray bring a job to the same end."""

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import builders
import polars as pl
import pytest
from batch_server import Provider, serving
from chat_server import USAGE, Canned, ChatServer, answer_to, completion, problem

from pipeline import Job, Summary, ThisRun, run
from pipeline.records import Exit

Answered = tuple[int, bytes]
ROWS = 60
BAD = "question 7"
HOW = ("live", "batch", "ray")


@pytest.fixture(params=HOW)
def how(request: pytest.FixtureRequest) -> str:
    if request.param == "ray":
        request.getfixturevalue("ray_here")
    return str(request.param)


def usual(prompt: str) -> Answered:
    return 200, completion(answer_to(prompt), usage=USAGE)


class Endpoint:
    """The URL of a server, and how often it answered each prompt."""

    def __init__(self, url: str, billed: Callable[[], Counter[str]]) -> None:
        self.url, self.billed = url, billed


@contextmanager
def endpoint(how: str, answer: Callable[[str], Answered] = usual, key: str = "") -> Iterator[Endpoint]:
    billed: Counter[str] = Counter()

    def said(prompt: str) -> Answered:
        status, body = answer(prompt)
        billed[prompt] += status == 200
        return status, body

    if how == "batch":
        provider = Provider(answer=lambda body: said(body["messages"][-1]["content"]), key=key)
        with serving(provider) as url:
            yield Endpoint(url, lambda: billed)
    else:
        with ChatServer(lambda seen, _: None if key else Canned(*said(seen.prompt)), key=key or None) as server:
            yield Endpoint(server.url, lambda: billed)


def settings(how: str, url: str) -> dict[str, Any]:
    return {
        "endpoint.base_url": url,
        "endpoint.name": "here",
        "endpoint.model": "m",
        "prices.input": 1.0,
        "prices.output": 3.0,
        "run.how": how,
        "run.batch_requests": 20,
        "run.poll_seconds": 0.02,
    }


def job(folder: Path, how: str, url: str, this_run: ThisRun | None = None, **more: Any) -> Job:
    pl.DataFrame({"q": [f"question {number}" for number in range(ROWS)]}).write_csv(folder / "in.csv")
    given = {**settings(how, url), "prompt.template": "{{ q }}", **more}
    return builders.job(url, folder / "in.csv", folder / "out.parquet", this_run, **given)


def table(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "out.parquet")


def test_every_row_has_its_own_answer_and_the_sums_agree(tmp_path: Path, how: str) -> None:
    with endpoint(how) as there:
        summary: Summary = run(job(tmp_path, how, there.url))
        again = run(job(tmp_path, how, there.url))
    made = table(tmp_path)
    assert made["answer"].to_list() == [answer_to(prompt) for prompt in made["q"]]
    assert (summary.exit_code, summary.rows.ok, summary.run.attempts) == (Exit.DONE, ROWS, ROWS)
    assert summary.spent == pytest.approx(ROWS * (12e-6 + 6 * 3e-6)) == made["cost"].sum()
    assert set(there.billed().values()) == {1}
    assert (again.exit_code, again.run.attempts, again.spent) == (Exit.DONE, 0, summary.spent)


def test_a_bad_row_fails_alone_and_is_asked_again_only_with_retry(tmp_path: Path, how: str) -> None:
    def answer(prompt: str) -> Answered:
        return (400, problem("a bad prompt")) if prompt == BAD and fails else usual(prompt)

    fails = True
    with endpoint(how, answer) as there:
        assert run(job(tmp_path, how, there.url)).exit_code is Exit.INCOMPLETE
        failed = table(tmp_path).filter(pl.col("status") != "ok")
        assert failed.select("q", "status", "error").rows() == [(BAD, "failed", "bad_request: a bad prompt")]
        fails = False
        assert run(job(tmp_path, how, there.url)).run.attempts == 0
        retried = run(job(tmp_path, how, there.url, ThisRun(retry=("failed",))))
    assert (retried.exit_code, retried.run.attempts) == (Exit.DONE, 1)


def test_a_last_row_that_is_refused_once_is_answered_and_the_run_ends(tmp_path: Path, how: str) -> None:
    def answer(prompt: str) -> Answered:
        asked[prompt] += 1
        return (503, problem("busy")) if (prompt, asked[prompt]) == (f"question {ROWS - 1}", 1) else usual(prompt)

    asked: Counter[str] = Counter()
    with endpoint(how, answer) as there:
        # where the run hangs, its time ends
        summary = run(job(tmp_path, how, there.url, **{"limits.max_runtime": "60s"}))
    assert (summary.exit_code, summary.rows.ok, summary.run.attempts) == (Exit.DONE, ROWS, ROWS + 1), summary


def test_a_short_table_whose_every_row_is_rejected_is_failed_to_its_end(tmp_path: Path, how: str) -> None:
    with endpoint(how, lambda _prompt: (400, problem("a bad prompt"))) as there:
        summary = run(job(tmp_path, how, there.url, ThisRun(limit=3), **{"limits.max_runtime": "60s"}))
    assert (summary.exit_code, summary.rows.failed, summary.run.attempts) == (Exit.INCOMPLETE, 3, 3), summary


def test_a_wrong_key_stops_the_job_and_every_row_is_pending(tmp_path: Path, how: str) -> None:
    with endpoint(how, key="sk-right") as there:
        summary = run(job(tmp_path, how, there.url))
    assert (summary.exit_code, summary.rows.pending) == (Exit.NEEDS_PERSON, ROWS)
    assert "Incorrect API key" in summary.message


def test_an_answer_that_does_not_fit_is_asked_for_again(tmp_path: Path, how: str) -> None:
    def answer(prompt: str) -> Answered:
        asked[prompt] += 1
        return 200, completion("positive" if asked[prompt] > 1 or prompt != "question 3" else "Hm.", usage=USAGE)

    asked: Counter[str] = Counter()
    given = {"answer.labels": ["positive", "negative"], "answer.repairs": 1}
    with endpoint(how, answer) as there:
        summary = run(job(tmp_path, how, there.url, **given))
    assert (summary.exit_code, summary.rows.ok, summary.run.attempts) == (Exit.DONE, ROWS, ROWS + 1), summary
    row = table(tmp_path).row(3, named=True)
    assert (row["label"], row["repaired"], row["attempts"]) == ("positive", "asked again", 2)


def test_an_endpoint_that_accepts_no_schema_gets_it_in_the_prompt(tmp_path: Path, how: str) -> None:
    def answer(prompt: str) -> Answered:
        if "JSON Schema" not in prompt:
            return 400, problem("response_format is not supported.")
        return 200, completion('{"label": "positive"}', usage=USAGE)

    with endpoint(how, answer) as there:
        summary = run(job(tmp_path, how, there.url, **{"answer.labels": ["positive", "negative"]}))
    assert (summary.exit_code, summary.rows.ok) == (Exit.DONE, ROWS), summary
    assert (sum(there.billed().values()), max(there.billed().values())) == (ROWS, 1)


def test_a_kill_loses_no_row_and_the_same_command_resumes(
    tmp_path: Path, how: str, request: pytest.FixtureRequest
) -> None:
    width = 4

    def answer(prompt: str) -> Answered:
        time.sleep(0.005)
        return usual(prompt)

    with endpoint(how, answer) as there:
        job(tmp_path, how, there.url)  # writes the input
        words = ["run", str(tmp_path / "in.csv"), "-o", str(tmp_path / "out.parquet"), "-p", "{{ q }}"]
        given = settings(how, there.url)
        if how == "ray":
            given["run.address"] = request.getfixturevalue("ray_here").address
        words += ["--concurrency", str(width)]
        words += [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
        with subprocess.Popen([sys.executable, "-m", "pipeline", *words], stderr=subprocess.DEVNULL) as process:
            while sum(there.billed().values()) < ROWS // 3:
                assert process.poll() is None
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        assert run(job(tmp_path, how, there.url)).exit_code is Exit.DONE
    made = table(tmp_path)
    assert made["answer"].to_list() == [answer_to(prompt) for prompt in made["q"]]
    assert sum(there.billed().values()) <= ROWS + (2 * width if how != "batch" else 0)
