"""The actor's side, without Ray: what an actor is handed it answers, and everything it does it reports."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest
from chat_server import Canned, ChatServer, answer_to, problem
from expiring_keys import ExpiringKeys
from live_run import make_job, request

from pipeline.execution.ray.actor import (
    ActorContext,
    ActorEnded,
    AttemptCounted,
    Event,
    LimitsLearned,
    Recorded,
    Rejected,
    ScreenLine,
    Worker,
    events_decoder,
)
from pipeline.execution.ray.share import job_for_actor
from pipeline.job.job import Job
from pipeline.records import Answer, Exit, Rejection, Tally

ANSWER = Answer(text="yes")


def encoded(value: object) -> bytes:
    return msgspec.json.encode(value)


async def events_until_end(worker: Worker) -> list[Event]:
    """Act as the run does: acknowledge every outcome, until the worker has ended."""
    seen: list[Event] = []
    while not any(isinstance(event, ActorEnded) for event in seen):
        events = events_decoder.decode(await worker.events())
        seen += events
        await worker.acknowledge(encoded([event.request.key for event in events if isinstance(event, Recorded)]))
    return seen


def run_worker(job: Job, hand_out: Callable[[Worker], Coroutine[Any, Any, None]]) -> list[Event]:
    """All that a worker reports, while `hand_out` calls its other methods."""

    async def both() -> list[Event]:
        worker = Worker()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(worker.run(job_for_actor(job, 1.0), encoded(Tally()), encoded([])))
            tasks.create_task(hand_out(worker))
            return await events_until_end(worker)

    return asyncio.run(both())


async def three_and_no_more(worker: Worker) -> None:
    await worker.take(encoded([request(f"row {number}") for number in range(3)]))
    await worker.finish()


def test_a_worker_answers_what_it_is_handed_and_reports_each_attempt(server: ChatServer) -> None:
    events = run_worker(make_job(server.url), three_and_no_more)
    outcomes = {event.request.key: event.outcome for event in events if isinstance(event, Recorded)}
    prompts = [f"row {number}" for number in range(3)]
    texts = [outcome.text for prompt in prompts if isinstance(outcome := outcomes[request(prompt).key], Answer)]
    assert texts == [answer_to(prompt) for prompt in prompts]
    assert sum(isinstance(event, AttemptCounted) for event in events) == 3
    assert [event.model for event in events if isinstance(event, LimitsLearned)][-1] == "m"
    assert events[-1] == ActorEnded()


def test_a_rejection_and_a_line_for_the_screen_are_reported(server: ChatServer) -> None:
    async def speak() -> list[Event]:
        context = ActorContext(make_job(server.url), Tally(), [])
        context.log_rejection(Rejection("retry", "rate", "busy"))
        context.say("hello")
        return events_decoder.decode(await context.take_events())

    assert asyncio.run(speak()) == [Rejected(Rejection("retry", "rate", "busy")), ScreenLine("hello")]


def test_an_outcome_counts_as_recorded_only_once_the_run_acknowledges_it(server: ChatServer) -> None:
    async def record() -> None:
        context = ActorContext(make_job(server.url), Tally(), [])
        recording = asyncio.create_task(context.record(request("row 0"), ANSWER))
        assert events_decoder.decode(await context.take_events()) == [Recorded(request("row 0"), ANSWER)]
        context.acknowledge(encoded([request("row 1").key]))
        await asyncio.sleep(0)
        assert not recording.done()
        context.acknowledge(encoded([request("row 0").key]))
        assert await recording is None

    asyncio.run(record())


def test_a_stop_ends_a_worker_that_waits_for_requests(server: ChatServer) -> None:
    events = run_worker(make_job(server.url), Worker.stop)
    assert events == [ActorEnded("stopped", int(Exit.NEEDS_PERSON))]
    assert not server.arrived


def test_a_job_that_cannot_go_on_is_reported_with_its_exit_code() -> None:
    with ChatServer(lambda _seen, _attempt: Canned(401, problem("revoked"))) as server:
        ended = run_worker(make_job(server.url), three_and_no_more)[-1]
    assert isinstance(ended, ActorEnded)
    assert "revoked" in ended.message
    assert ended.exit_code == Exit.NEEDS_PERSON


def test_a_key_that_is_not_set_is_reported_as_a_bad_job(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    events = run_worker(make_job(server.url, endpoint__api_key_env="NO_SUCH_KEY"), three_and_no_more)
    assert [event.exit_code for event in events if isinstance(event, ActorEnded)] == [Exit.USAGE]


def test_an_actor_runs_the_command_of_the_key_itself_and_renews_its_key(tmp_path: Path) -> None:
    keys = ExpiringKeys(tmp_path, uses=2)
    with ChatServer(keys.reply) as server:
        job = make_job(server.url, endpoint__api_key_command=keys.command)
        events = run_worker(job, three_and_no_more)
    assert events[-1] == ActorEnded()
    assert keys.runs == 2
    assert not job.endpoint.keys_of_command
    assert b"sk-Zq8WvX3kT9bL4mR1" not in encoded(events)


def test_limits_that_are_changed_during_the_run_reach_the_lanes(server: ChatServer) -> None:
    job = make_job(server.url, limits__requests_per_minute=1, limits__concurrency=1)
    faster = make_job(server.url, limits__requests_per_minute=60_000, limits__concurrency=1)

    async def tune(worker: Worker) -> None:
        await worker.take(encoded([request(f"row {number}") for number in range(3)]))
        await asyncio.to_thread(server.wait_for, 1)
        await worker.tune(encoded(faster.limits.model_dump(by_alias=True)))
        await worker.finish()

    assert run_worker(job, tune)[-1] == ActorEnded()
    assert server.arrived == 3


def test_rows_that_are_rejected_at_first_are_reported_though_the_run_has_no_more_to_hand_out() -> None:
    async def three(worker: Worker) -> None:
        await worker.take(encoded([request(f"row {number}") for number in range(3)]))

    async def until_all_are_recorded() -> list[Event]:
        worker, seen = Worker(), list[Event]()
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(worker.run(job_for_actor(make_job(server.url), 1.0), encoded(Tally()), encoded([])))
            tasks.create_task(three(worker))
            while sum(isinstance(event, Recorded) for event in seen) < 3:
                seen += events_decoder.decode(await worker.events())
                keys = [event.request.key for event in seen if isinstance(event, Recorded)]
                await worker.acknowledge(encoded(keys))
            await worker.finish()
        return seen

    with ChatServer(lambda _seen, _attempt: Canned(400, problem("a bad prompt"))) as server:
        assert not any(isinstance(event, ActorEnded) for event in asyncio.run(until_all_are_recorded()))
