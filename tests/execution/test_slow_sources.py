"""Requests that come late, or whose end is known late: what is due meanwhile is sent, and a stop is obeyed."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from batch_runs import batch_job
from batch_server import Provider, serving
from chat_server import Canned, ChatServer, Reply, Seen, completion, problem
from live_run import ASKED_TO_STOP, BAD_REQUEST, HANG, SERVER_ERROR, make_job, numbered, request, run
from msgspec.structs import replace

from pipeline.execution.context import DRAIN_SECONDS
from pipeline.execution.local_context import LocalContext
from pipeline.records import Exit, Request

HUNG_SECONDS = 15.0
ROWS = numbered(3)
GOOD = Canned(body=completion("positive"))
FAULTS = {
    "overload": (Canned(503, problem("busy")),),
    "rate": (Canned(429, problem("slow down"), {"retry-after": "0.1"}),),
    "cut": (Canned(body=completion("positive"), cut_after=20),),
    "timeout": (HANG,),
    "invalid": (Canned(body=completion("Hm.")),),
    "truncated": (Canned(body=completion("po", finish_reason="length")),),
    "empty": (Canned(body=completion("")),),
    "two_in_turn": (SERVER_ERROR, Canned(body=completion("Hm."))),
}
SETTINGS: dict[str, Any] = {
    "answer__labels": ["positive", "negative"],
    "answer__repairs": 1,
    "answer__grow_on_truncation": 64,
    "parameters__max_tokens": 16,
    "endpoint__timeout_seconds": 0.3,
}
Started = Callable[[LocalContext, "asyncio.Task[None]"], None]


def give_up_when_it_hangs(_context: LocalContext, task: "asyncio.Task[None]") -> None:
    asyncio.get_running_loop().call_later(HUNG_SECONDS, task.cancel)


def keeping(contexts: list[LocalContext]) -> Started:
    def keep(context: LocalContext, task: "asyncio.Task[None]") -> None:
        contexts.append(context)
        give_up_when_it_hangs(context, task)

    return keep


async def until(is_true: Callable[[], bool]) -> None:
    while not is_true():  # noqa: ASYNC110 - what is waited for happens in the server's thread
        await asyncio.sleep(0.01)


def first_met_with(*faults: Canned) -> Reply:
    """These replies to each row in turn, whatever is added to its prompt; then good ones."""
    left = {prompt: list(faults) for prompt in ROWS}

    def reply(seen: Seen, _attempt: int) -> Canned:
        prompt = seen.body["messages"][0]["content"][: len(ROWS[0])]
        return left[prompt].pop(0) if left[prompt] else GOOD

    return reply


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_to_be_tried_again_waits_neither_for_the_next_request_nor_for_the_end(
    tmp_path: Path, fault: str
) -> None:
    async def coming() -> AsyncIterator[Request]:
        for number, prompt in enumerate(ROWS, 1):
            yield request(prompt)
            await until(lambda number=number: server.arrived == number * attempts)  # type: ignore[misc]

    attempts = 1 + len(FAULTS[fault])
    with ChatServer(first_met_with(*FAULTS[fault])) as server:
        done = run(tmp_path, make_job(server.url, **SETTINGS), ROWS, coming=coming(), on_start=give_up_when_it_hangs)
    assert (done.tally.ok, done.tally.attempts) == (len(ROWS), len(ROWS) * attempts)


def test_a_late_request_is_not_lost_to_the_retries_that_are_sent_while_it_is_made(tmp_path: Path) -> None:
    async def coming() -> AsyncIterator[Request]:
        for prompt in numbered(40):
            await asyncio.sleep(0.01)
            yield request(prompt)

    with ChatServer(lambda _seen, attempt: SERVER_ERROR if attempt == 1 else None) as server:
        job = make_job(server.url, limits__concurrency=8)
        done = run(tmp_path, job, numbered(40), coming=coming(), on_start=give_up_when_it_hangs)
    assert (len(done.answers), done.tally.attempts, server.arrived) == (40, 80, 80)


def test_the_lane_of_one_model_goes_on_while_that_of_another_waits_for_a_request(tmp_path: Path) -> None:
    async def coming() -> AsyncIterator[Request]:
        for prompt in numbered(4):
            yield replace(request(prompt), model="n" if prompt in ("row 1", "row 3") else "m")
            await until(lambda: server.arrived >= 1)
        await until(lambda: server.arrived == 5)
        yield replace(request("row 4"), model="m")

    with ChatServer(lambda seen, attempt: SERVER_ERROR if attempt == 1 and "row 3" in seen.prompt else None) as server:
        job = make_job(server.url, answer__models=["m", "n"])
        done = run(tmp_path, job, numbered(5), coming=coming(), on_start=give_up_when_it_hangs)
    assert (len(done.outcomes), server.arrived) == (5, 6)


@pytest.mark.parametrize("how", ["asked", "max_cost"])
def test_a_stop_is_obeyed_while_a_request_is_waited_for(tmp_path: Path, how: str) -> None:
    contexts: list[LocalContext] = []

    async def coming() -> AsyncIterator[Request]:
        yield request("row 0")
        await until(lambda: bool(contexts[0].asked.ok))
        if how == "asked":
            asyncio.get_running_loop().call_later(0.1, contexts[0].stop, ASKED_TO_STOP)
        else:
            yield request("row 1")
        await asyncio.Event().wait()

    began = time.monotonic()
    cap = {"limits__max_cost": 9, "parameters__max_tokens": 6, "prices__input": 0, "prices__output": 1e6}
    with ChatServer() as server:
        job = make_job(server.url, **(cap if how == "max_cost" else {}))
        done = run(tmp_path, job, ["row 0"], coming=coming(), on_start=keeping(contexts), raises=True)
    assert time.monotonic() - began < DRAIN_SECONDS / 2
    assert done.stop.exit_code is (Exit.SIGINT if how == "asked" else Exit.AT_LIMIT)
    assert (set(done.answers), server.arrived) == ({"row 0"}, 1)


def test_a_stop_is_obeyed_while_a_request_of_a_batch_is_waited_for(tmp_path: Path) -> None:
    contexts: list[LocalContext] = []

    async def coming() -> AsyncIterator[Request]:
        yield request("row 0")
        asyncio.get_running_loop().call_later(0.1, contexts[0].stop, ASKED_TO_STOP)
        await asyncio.Event().wait()

    began = time.monotonic()
    with serving(Provider()) as url:
        job = batch_job(tmp_path, url)
        job.folder.mkdir()
        done = run(tmp_path, job, ["row 0"], coming=coming(), on_start=keeping(contexts), raises=True)
    assert done.error is ASKED_TO_STOP
    assert time.monotonic() - began < DRAIN_SECONDS / 2


def test_rows_that_are_rejected_at_first_are_failed_without_the_end_of_the_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts: list[LocalContext] = []

    async def coming() -> AsyncIterator[Request]:
        for prompt in ROWS:
            yield request(prompt)
        await until(lambda: contexts[0].asked.failed == len(ROWS))

    monkeypatch.setattr("pipeline.execution.live.lane.IDLE_SECONDS", 0.1)
    with ChatServer(lambda _seen, _attempt: BAD_REQUEST) as server:
        done = run(tmp_path, make_job(server.url), ROWS, coming=coming(), on_start=keeping(contexts))
    assert (done.tally.failed, server.arrived) == (len(ROWS), len(ROWS))
