"""The run's side of Ray, with a Ray on this machine: what the contract of `test_execution.py` does not show."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import live_run
import polars as pl
import pytest
from chat_server import USAGE, Canned, ChatServer, Seen, answer_to, completion, problem
from live_run import make_job, numbered, request
from ray_session import ROWS, RayHere, job, words

from pipeline import BadJob, run
from pipeline.execution.local_context import LocalContext
from pipeline.records import Exit, Request

ANSWER_COST = 12e-6 + 6 * 3e-6  # US dollars


def check(folder: Path) -> None:
    made = pl.read_parquet(folder / "out.parquet")
    assert made["answer"].to_list() == [answer_to(f"question {number}") for number in range(ROWS)]


def processes() -> Iterator[tuple[int, bytes]]:
    """The process ids and command lines of all processes."""
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                yield int(path.name), (path / "cmdline").read_bytes()
            except OSError:
                continue


def actors(of: RayHere) -> list[int]:
    """The process ids of the actors of this Ray alone."""
    ours = [pid for pid, line in processes() if b"raylet" in line and of.logs.encode() in line]
    named = [pid for pid, line in processes() if line.startswith(b"ray::Worker")]
    return [pid for pid in named if int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) in ours]


class Counting:
    """Replies as usual; counts how often each prompt was answered, and when."""

    def __init__(self, seconds: float = 0.0, at: int = 0, then: Any = None) -> None:
        self.billed: Counter[str] = Counter()
        self.times: list[float] = []
        self._seconds, self._at, self._then = seconds, at, then

    def __call__(self, seen: Seen, _number: int) -> Canned:
        time.sleep(self._seconds)
        self.billed[seen.prompt] += 1
        self.times.append(time.monotonic())
        if len(self.times) == self._at:
            self._then()
        return Canned(200, completion(answer_to(seen.prompt), usage=USAGE))


def test_an_actor_that_is_killed_costs_at_most_what_it_had_in_flight_and_unstored(
    tmp_path: Path, ray_here: RayHere
) -> None:
    width = 4  # of each of the two
    counting = Counting(0.01, at=20, then=lambda: os.kill(actors(ray_here)[0], signal.SIGKILL))
    with ChatServer(counting) as server:
        summary = run(job(tmp_path, server.url, limits__concurrency=2 * width))
    assert (summary.exit_code, summary.rows.ok) == (Exit.DONE, ROWS), summary
    check(tmp_path)
    assert ROWS <= sum(counting.billed.values()) <= ROWS + 2 * width
    assert summary.run.maybe_paid, "nobody reports whether they were billed"


def test_the_last_row_is_answered_though_its_actor_dies_and_the_end_of_the_requests_comes_late(
    tmp_path: Path, ray_here: RayHere
) -> None:
    contexts: list[LocalContext] = []
    faults = [lambda: [os.kill(pid, signal.SIGKILL) for pid in actors(ray_here)], list]

    async def coming() -> AsyncIterator[Request]:
        for prompt in numbered(ROWS):
            yield request(prompt)
        while contexts[0].asked.ok < ROWS:  # noqa: ASYNC110 - other processes answer them
            await asyncio.sleep(0.01)

    def reply(seen: Seen, _attempt: int) -> Canned | None:
        if seen.prompt != "row 59" or not faults:
            return None
        faults.pop(0)()
        return Canned(503, problem("busy"))

    def give_up_when_it_hangs(context: LocalContext, task: "asyncio.Task[None]") -> None:
        contexts.append(context)
        asyncio.get_running_loop().call_later(60, task.cancel)

    with ChatServer(reply) as server:
        made = make_job(server.url, run__how="ray")
        done = live_run.run(tmp_path, made, numbered(ROWS), coming=coming(), on_start=give_up_when_it_hangs)
    assert done.answers == {prompt: answer_to(prompt) for prompt in numbered(ROWS)}


def test_the_key_is_in_no_log_of_ray_in_no_process_list_and_not_in_the_job_folder(
    tmp_path: Path, ray_here: RayHere
) -> None:
    key = os.environ[ray_here.key_variable]
    seen: list[bytes] = []
    with ChatServer(Counting(at=5, then=lambda: seen.extend(line for _, line in processes())), key=key) as server:
        summary = run(job(tmp_path, server.url, endpoint__api_key_env=ray_here.key_variable))
    assert summary.exit_code is Exit.DONE, summary
    assert seen
    assert not [line for line in seen if key.encode() in line]
    files = [path for folder in (ray_here.logs, tmp_path) for path in Path(folder).rglob("*") if path.is_file()]
    assert any("raylet" in path.name for path in files)
    assert not [path for path in files if key.encode() in path.read_bytes()]


def test_a_key_that_an_actor_does_not_have_is_reported_before_anything_is_sent(
    tmp_path: Path, ray_here: RayHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_OF_THIS_PROCESS_ALONE", "sk-123456789")
    with ChatServer() as server:
        with pytest.raises(BadJob, match=r"In a Ray actor.*(?s:.*)export KEY_OF_THIS_PROCESS_ALONE"):
            run(job(tmp_path, server.url, endpoint__api_key_env="KEY_OF_THIS_PROCESS_ALONE"))
        with pytest.raises(BadJob, match="not sent through a cluster"):
            run(job(tmp_path, server.url, endpoint__headers={"x-api-key": "sk-123456789"}))
        assert not server.arrived


def test_limits_hold_for_all_actors_together(tmp_path: Path, ray_here: RayHere) -> None:
    counting = Counting()
    with ChatServer(counting) as server:
        summary = run(job(tmp_path, server.url, limits__requests_per_minute=900))
    assert summary.exit_code is Exit.DONE
    assert counting.times[-1] - counting.times[0] >= 0.8 * ROWS / (900 / 60)


def test_a_cap_holds_for_all_actors_together(tmp_path: Path, ray_here: RayHere) -> None:
    counting = Counting()
    with ChatServer(counting) as server:
        summary = run(job(tmp_path, server.url, limits__max_cost=30 * ANSWER_COST, parameters__max_tokens=10))
    assert summary.exit_code is Exit.AT_LIMIT, summary
    assert 0 < sum(counting.billed.values()) <= 30
    assert summary.rows.ok == sum(counting.billed.values())


def test_ctrl_c_lets_what_is_in_flight_land(tmp_path: Path, ray_here: RayHere) -> None:
    counting = Counting(0.2)
    with ChatServer(counting) as server:
        job(tmp_path, server.url)
        line = words(tmp_path, server.url, f"run.address={ray_here.address}")
        with subprocess.Popen([sys.executable, "-m", "pipeline", *line], stderr=subprocess.PIPE, text=True) as process:
            while len(counting.times) < 8:
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            began = time.monotonic()
            assert process.wait(timeout=60) == Exit.SIGINT
            assert time.monotonic() - began < 20
        assert run(job(tmp_path, server.url)).exit_code is Exit.DONE
    check(tmp_path)
    assert set(counting.billed.values()) == {1}


def test_a_run_whose_time_is_over_stops(tmp_path: Path, ray_here: RayHere) -> None:
    with ChatServer(Counting(1.0)) as server:
        summary = run(job(tmp_path, server.url, limits__max_runtime="20s", limits__concurrency=2))
    assert summary.exit_code is Exit.AT_LIMIT
    assert 0 < summary.rows.ok < ROWS
    assert summary.seconds < 20 + 20


def test_an_endpoint_that_nobody_answers_at_stops_the_job(tmp_path: Path, ray_here: RayHere) -> None:
    summary = run(job(tmp_path, "http://127.0.0.1:9/v1"))
    assert summary.exit_code is Exit.TRY_LATER
    assert "Cannot reach the endpoint" in summary.message
