"""All lanes of a run together: every request is answered once, or pending after a stop."""

import asyncio
import gc
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from chat_server import Canned, ChatServer, Seen, answer_to, completion, problem
from live_run import (
    ASKED_TO_STOP,
    BAD_REQUEST,
    HANG,
    SERVER_ERROR,
    Bell,
    ask,
    asks_to_stop,
    asks_to_stop_at_once,
    make_job,
    numbered,
    request,
    requests,
    run,
)

from pipeline.execution.context import DRAIN_SECONDS
from pipeline.execution.live.live import answer_all
from pipeline.execution.local_context import LocalContext
from pipeline.records import Answer, BadJob, Request, Stopped, Tally
from pipeline.store.writer import Store


def test_every_request_gets_its_own_answer_once(server: ChatServer, tmp_path: Path) -> None:
    prompts = numbered(200)
    done = run(tmp_path, make_job(server.url, limits__concurrency=16), prompts)
    assert done.answers == {prompt: answer_to(prompt) for prompt in prompts}
    assert set(done.marks.values()) == {"ok"}
    assert (done.tally.ok, done.tally.attempts, server.arrived) == (200, 200, 200)


def test_an_outcome_holds_its_attempts_usage_cost_and_time(server: ChatServer, tmp_path: Path) -> None:
    job = make_job(server.url, prices__input=1e6, prices__output=1e6)
    answer = run(tmp_path, job, ["hello"]).outcomes["hello"]
    assert isinstance(answer, Answer)
    assert (answer.attempts, answer.model, answer.finish_reason) == (1, "m", "stop")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 6)
    assert answer.cost == pytest.approx(8)
    assert answer.asked_at is not None
    assert answer.latency_seconds is not None


@pytest.mark.parametrize("count", [0, 1, 3])
def test_fewer_requests_than_slots_are_answered_all_the_same(server: ChatServer, tmp_path: Path, count: int) -> None:
    done = run(tmp_path, make_job(server.url, limits__concurrency=64), numbered(count))
    assert (len(done.answers), server.arrived) == (count, count)


def test_after_a_sleep_of_the_machine_what_was_in_flight_is_asked_again(tmp_path: Path) -> None:
    asleep = [0.0]

    def falls_asleep(_context: LocalContext, _task: asyncio.Task[None]) -> None:
        asleep[0] = 6 * 3600.0

    bell = Bell(falls_asleep)

    def reply(seen: Seen, attempt: int) -> Canned | None:
        if seen.prompt != "row 1" or attempt > 1:
            return None
        bell.hear()
        return Canned(hang=True)

    with ChatServer(reply) as server:
        done = run(
            tmp_path,
            make_job(server.url),
            numbered(3),
            on_start=bell.on_start,
            uptime=lambda: time.monotonic() + asleep[0],
        )
    assert len(done.answers) == 3
    assert Counter(seen.prompt for seen in server.log) == {"row 0": 1, "row 1": 2, "row 2": 1}
    assert (done.tally.attempts, done.tally.maybe_paid) == (4, 1)
    assert "woke after 6 h" in done.said


def test_a_store_that_cannot_be_written_stops_the_job(server: ChatServer, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    job = make_job(server.url)
    context = LocalContext(job, store, Tally())
    store.close()
    error = asyncio.run(ask(job, requests(numbered(20)), context, None))
    assert isinstance(error, Stopped)
    assert "closed" in str(error)
    assert server.arrived == 1


def test_a_stop_sends_nothing_more_and_records_what_is_in_flight(tmp_path: Path) -> None:
    bell = Bell(asks_to_stop)

    def reply(_seen: Seen, _attempt: int) -> Canned:
        if server.arrived == 5:
            bell.hear()
        return Canned(body=completion("landed"), delay_seconds=0.2)

    with ChatServer(reply) as server:
        done = run(tmp_path, make_job(server.url), numbered(40), on_start=bell.on_start, raises=True)
    assert done.error is ASKED_TO_STOP
    assert set(done.answers) == {seen.prompt for seen in server.log}
    assert server.arrived == done.tally.attempts == 5


def test_a_stop_leaves_rows_that_wait_for_a_retry_pending_and_counts_their_attempts(tmp_path: Path) -> None:
    bell = Bell(asks_to_stop)

    def reply(seen: Seen, _attempt: int) -> Canned | None:
        if seen.prompt == "row 3":
            bell.hear()
        return SERVER_ERROR if seen.prompt == "row 1" else None

    with ChatServer(reply) as server:
        job = make_job(server.url, limits__concurrency=1)
        done = run(tmp_path, job, numbered(9), on_start=bell.on_start, raises=True, rng=1.0)
    assert done.error is ASKED_TO_STOP
    assert set(done.answers) == {"row 0", "row 2", "row 3"}
    assert done.tally.attempts == server.arrived == 4


def test_rows_rejected_before_the_first_answer_are_recorded_as_soon_as_it_comes(tmp_path: Path) -> None:
    bell = Bell(asks_to_stop)

    def reply(seen: Seen, _attempt: int) -> Canned | None:
        if seen.prompt == "row 3":
            bell.hear()
        return BAD_REQUEST if seen.prompt in ("row 0", "row 1") else None

    with ChatServer(reply) as server:
        job = make_job(server.url, limits__concurrency=1)
        done = run(tmp_path, job, numbered(9), on_start=bell.on_start, raises=True)
    assert done.error is ASKED_TO_STOP
    assert [done.failure(f"row {number}").kind for number in (0, 1)] == ["bad_request"] * 2
    assert set(done.answers) == {"row 2", "row 3"}


def test_a_stop_ends_a_pause_at_once(tmp_path: Path) -> None:
    bell = Bell(asks_to_stop)

    def reply(_seen: Seen, _attempt: int) -> Canned:
        bell.hear()
        return Canned(429, problem("slow down"), {"retry-after": "200"})

    began = time.monotonic()
    with ChatServer(reply) as server:
        done = run(tmp_path, make_job(server.url), numbered(9), on_start=bell.on_start, raises=True)
    assert done.error is ASKED_TO_STOP
    assert time.monotonic() - began < DRAIN_SECONDS / 2


def test_a_job_that_was_stopped_before_it_began_sends_nothing(server: ChatServer, tmp_path: Path) -> None:
    done = run(tmp_path, make_job(server.url), numbered(9), on_start=asks_to_stop, raises=True)
    assert done.error is ASKED_TO_STOP
    assert server.arrived == 0


def test_a_request_that_is_made_during_a_stop_is_not_sent(server: ChatServer, tmp_path: Path) -> None:
    contexts: list[LocalContext] = []

    async def coming() -> AsyncIterator[Request]:
        yield request("row 0")
        while not server.arrived:  # noqa: ASYNC110 - it arrives in the server's thread
            await asyncio.sleep(0.01)
        contexts[0].stop(ASKED_TO_STOP)
        yield request("row 1")

    def keep(context: LocalContext, _task: asyncio.Task[None]) -> None:
        contexts.append(context)

    job = make_job(server.url, limits__concurrency=1)
    done = run(tmp_path, job, numbered(2), coming=coming(), on_start=keep, raises=True)
    assert done.error is ASKED_TO_STOP
    assert [seen.prompt for seen in server.log] == ["row 0"]


def test_a_stop_at_once_waits_for_nothing_and_counts_what_may_be_billed(tmp_path: Path) -> None:
    bell = Bell(asks_to_stop_at_once)

    def reply(seen: Seen, _attempt: int) -> Canned | None:
        if server.arrived == 5:
            bell.hear()
        return None if seen.prompt == "row 0" else HANG

    began = time.monotonic()
    with ChatServer(reply) as server:
        done = run(tmp_path, make_job(server.url), numbered(40), on_start=bell.on_start, raises=True)
    assert time.monotonic() - began < DRAIN_SECONDS / 2
    assert done.error is ASKED_TO_STOP
    assert set(done.answers) == {"row 0"}
    assert (done.tally.attempts, done.tally.maybe_paid) == (5, 4)


@pytest.mark.parametrize("stopped_before", [False, True], ids=["running", "draining"])
def test_a_cancelled_job_leaves_nothing_running_and_its_ledger_is_kept(stopped_before: bool, tmp_path: Path) -> None:
    def ring(context: LocalContext, task: asyncio.Task[None]) -> None:
        if stopped_before:
            context.stop(ASKED_TO_STOP)
            asyncio.get_running_loop().call_later(0.1, task.cancel)
        else:
            task.cancel()

    bell = Bell(ring)

    def reply(seen: Seen, _attempt: int) -> Canned | None:
        if server.arrived == 5:
            bell.hear()
        return None if seen.prompt == "row 0" else HANG

    with ChatServer(reply) as server:
        done = run(tmp_path, make_job(server.url), numbered(40), on_start=bell.on_start, raises=True)
    assert isinstance(done.error, asyncio.CancelledError)
    assert set(done.answers) == {"row 0"}
    assert (done.tally.attempts, done.tally.maybe_paid) == (5, 4)


# anyio forgets a connection that is cancelled in the very moment in which it is made; nothing was sent on it
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_job_may_be_cancelled_at_any_moment(server: ChatServer, tmp_path: Path) -> None:
    job = make_job(server.url)
    store = Store(tmp_path / "store")

    async def cancel_after(turns: int) -> bool:
        context = LocalContext(job, store, Tally())
        task = asyncio.create_task(answer_all(job, requests(numbered(6)), context))
        for _ in range(turns):
            await asyncio.sleep(0)  # one turn of the loop
        task.cancel()
        await asyncio.wait({task})
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return task.cancelled()

    cancelled = [asyncio.run(cancel_after(turns)) for turns in range(0, 120, 4)]
    store.close()
    gc.collect()
    assert all(cancelled[:10])


@pytest.mark.parametrize("error", [ValueError("no such column"), BadJob("no such column")])
def test_an_error_among_the_requests_ends_the_job_and_leaves_nothing_running(error: Exception, tmp_path: Path) -> None:
    async def coming() -> AsyncIterator[Request]:
        for prompt in numbered(3):
            yield request(prompt)
        raise error

    with ChatServer(lambda seen, _attempt: None if seen.prompt == "row 0" else HANG) as server:
        done = run(tmp_path, make_job(server.url), numbered(3), coming=coming(), raises=True)
    assert done.error is error
    assert set(done.answers) == {"row 0"}
    assert done.tally.attempts == 3


def test_a_stop_among_the_requests_lets_what_is_in_flight_land(tmp_path: Path) -> None:
    async def coming() -> AsyncIterator[Request]:
        for prompt in numbered(3):
            yield request(prompt)
        raise ASKED_TO_STOP

    with ChatServer(delay_seconds=0.2) as server:
        done = run(tmp_path, make_job(server.url), numbered(3), coming=coming(), raises=True)
    assert done.error is ASKED_TO_STOP
    assert len(done.answers) == server.arrived == 3
