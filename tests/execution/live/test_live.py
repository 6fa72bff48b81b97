"""Many requests in flight against a real endpoint and a real store: each is settled once, or told to be pending."""

import asyncio
import gc
import hashlib
import io
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from chat_server import Canned, ChatServer, Reply, Seen, answer_to, completion, problem

from pipeline.endpoint.client import BODY_BYTES_MAX
from pipeline.execution.context import DRAIN_SECONDS, LocalContext
from pipeline.execution.live.live import FIRST_ROWS, answer_all
from pipeline.job.job import Job
from pipeline.pacing.retry import ALIKE, ATTEMPTS
from pipeline.progress import NO_PAUSE, Pause, Progress
from pipeline.records import TEMPORARY, Answer, BadJob, Exit, Failure, LearnedLimits, Outcome, Request, Stopped, Tally
from pipeline.store.notes import read_ledger, read_outcome
from pipeline.store.reader import Reader
from pipeline.store.writer import Store

ASKED_TO_STOP = Stopped("Stopped by a test.", Exit.SIGINT)
SERVER_ERROR = Canned(500, problem("it broke", kind="server_error"))
BAD_REQUEST = Canned(400, problem("temperature is too high"))
HANG = Canned(hang=True)


def request(prompt: str) -> Request:
    body = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": prompt}]})
    return Request(hashlib.sha256(prompt.encode()).hexdigest(), body)


async def requests(prompts: Iterable[str]) -> AsyncIterator[Request]:
    for prompt in prompts:
        yield request(prompt)


def numbered(count: int) -> list[str]:
    return [f"row {number}" for number in range(count)]


def make_job(url: str, **settings: Any) -> Job:
    """A job for an endpoint; settings are named with a double underscore: `limits__max_cost=5`."""
    named = {"endpoint.base_url": url, "endpoint.model": "m", "limits.concurrency": 4}
    return Job.load(["rows.csv"], settings=named | {name.replace("__", "."): value for name, value in settings.items()})


class Run(NamedTuple):
    """What one `answer_all` left behind."""

    outcomes: dict[str, Outcome]  # by prompt
    marks: dict[str, str]  # by prompt
    tally: Tally
    spent: float  # of the budget
    error: BaseException | None  # what it raised
    said: str  # on the screen

    @property
    def answers(self) -> dict[str, str]:
        return {prompt: outcome.text for prompt, outcome in self.outcomes.items() if isinstance(outcome, Answer)}

    @property
    def stop(self) -> Stopped:
        assert isinstance(self.error, Stopped), repr(self.error)
        return self.error

    def failure(self, prompt: str) -> Failure:
        outcome = self.outcomes[prompt]
        assert isinstance(outcome, Failure), repr(outcome)
        return outcome


OnStart = Callable[[LocalContext, asyncio.Task[None]], None]


async def ask(
    job: Job, coming: AsyncIterator[Request], context: LocalContext, on_start: OnStart | None
) -> BaseException | None:
    """Run `answer_all` as a task of its own; give what it raised. Nothing of it may still run then."""
    before = asyncio.all_tasks()
    task = asyncio.create_task(answer_all(job, coming, context))
    if on_start is not None:
        on_start(context, task)
    await asyncio.wait({task})
    assert asyncio.all_tasks() == before
    return asyncio.CancelledError() if task.cancelled() else task.exception()


def run(
    folder: Path,
    job: Job,
    prompts: Sequence[str],
    *,
    coming: AsyncIterator[Request] | None = None,
    on_start: OnStart | None = None,
    rng: float = 0.0,
    uptime: Callable[[], float] = time.monotonic,
    raises: bool = False,
) -> Run:
    """Answer the prompts into a new store, and read back what it holds. What is raised is raised, if not expected."""
    store = Store(folder / "store")
    context = LocalContext(job, store, Tally(), rng=lambda: rng, uptime=uptime)
    said = io.StringIO()
    context.progress = Progress(stream=said)
    try:
        error = asyncio.run(ask(job, coming or requests(prompts), context, on_start))
    finally:
        store.close()
    gc.collect()  # a socket that was left open is a warning here, and so an error
    if error is not None and not raises:
        raise error
    with closing(Reader(folder / "store")) as reader:
        assert read_ledger(reader) == context.ledger
        assert context.ledger == context.asked or not (error is None or isinstance(error, Stopped))
        marks = {key: mark for chunk in reader.marks() for key, mark in chunk}
        stored = dict(zip(prompts, reader.get_many([request(prompt).key for prompt in prompts]), strict=True))
    return Run(
        {prompt: read_outcome(value) for prompt, value in stored.items() if value is not None},
        {prompt: marks[key] for prompt in prompts if (key := request(prompt).key) in marks},
        context.ledger,
        context.budget.spent,
        error,
        said.getvalue(),
    )


def only(prompt: str, *answers: Canned) -> Reply:
    """These answers to this prompt, one after the other and the last again and again; the normal ones to all others."""

    def reply(seen: Seen, attempt: int) -> Canned | None:
        return answers[min(attempt, len(answers)) - 1] if seen.prompt == prompt else None

    return reply


class Bell:
    """Does something in the job's loop when a request arrives; before that request's answer can be read."""

    def __init__(self, ring: Callable[[LocalContext, asyncio.Task[None]], None]) -> None:
        self.ring = ring
        self.hear: Callable[[], object] = lambda: None

    def on_start(self, context: LocalContext, task: asyncio.Task[None]) -> None:
        loop = asyncio.get_running_loop()
        self.hear = lambda: loop.call_soon_threadsafe(self.ring, context, task)


def asks_to_stop(context: LocalContext, _task: asyncio.Task[None]) -> None:
    context.stop(ASKED_TO_STOP)


def asks_to_stop_at_once(context: LocalContext, _task: asyncio.Task[None]) -> None:
    context.stop(ASKED_TO_STOP)
    context.abort_drain()


def cancels(_context: LocalContext, task: asyncio.Task[None]) -> None:
    task.cancel()


# ---- everyone is answered


def test_every_request_gets_its_own_answer_once(server: ChatServer, tmp_path: Path) -> None:
    prompts = numbered(200)
    done = run(tmp_path, make_job(server.url, limits__concurrency=16), prompts)
    assert done.answers == {prompt: answer_to(prompt) for prompt in prompts}
    assert set(done.marks.values()) == {"ok"}
    assert (done.tally.ok, done.tally.attempts, server.arrived) == (200, 200, 200)


def test_an_outcome_knows_how_it_was_come_by(server: ChatServer, tmp_path: Path) -> None:
    job = make_job(server.url, prices__input=1e6, prices__output=1e6)
    answer = run(tmp_path, job, ["hello"]).outcomes["hello"]
    assert isinstance(answer, Answer)
    assert (answer.attempts, answer.model, answer.finish_reason) == (1, "m", "stop")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 6)
    assert answer.cost == pytest.approx(8)
    assert answer.asked_at is not None
    assert answer.latency_seconds is not None


def test_one_request_goes_first_and_the_width_opens_after_its_answer(tmp_path: Path) -> None:
    widths: list[int] = []

    def reply(_seen: Seen, _attempt: int) -> None:
        widths.append(server.in_flight)

    with ChatServer(reply, delay_seconds=0.3) as server:
        run(tmp_path, make_job(server.url, limits__concurrency=8), numbered(10))
    assert widths[:2] == [1, 1]  # the second came when the first had been answered
    assert server.most_in_flight == 8
    assert server.log[0].prompt == "row 0"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_fewer_requests_than_slots_are_answered_all_the_same(server: ChatServer, tmp_path: Path, count: int) -> None:
    done = run(tmp_path, make_job(server.url, limits__concurrency=64), numbered(count))
    assert (len(done.answers), server.arrived) == (count, count)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_no_answer_waits_for_others_to_share_its_commit_when_none_can_come(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, concurrency: int
) -> None:
    def give_up_after_a_minute(_context: LocalContext, task: asyncio.Task[None]) -> None:
        asyncio.get_running_loop().call_later(60, task.cancel)

    monkeypatch.setattr("pipeline.store.GROUP_SECONDS", 3600)
    job = make_job(server.url, limits__concurrency=concurrency)
    assert len(run(tmp_path, job, numbered(25), on_start=give_up_after_a_minute).answers) == 25


def test_requests_a_minute_are_obeyed(server: ChatServer, tmp_path: Path) -> None:
    run(tmp_path, make_job(server.url, limits__requests_per_minute=600, limits__concurrency=8), numbered(8))
    assert server.log[-1].at - server.log[0].at > 0.5


# ---- trying again


def test_a_row_that_fails_twice_is_answered_by_its_third_attempt(tmp_path: Path) -> None:
    with ChatServer(only("row 1", SERVER_ERROR, SERVER_ERROR, Canned(body=completion("at last")))) as server:
        done = run(tmp_path, make_job(server.url), numbered(5))
    assert done.answers["row 1"] == "at last"
    assert done.outcomes["row 1"].attempts == 3
    assert len(done.answers) == 5
    assert done.tally.attempts == server.arrived == 7


def test_a_row_to_be_tried_again_waits_in_no_slot(tmp_path: Path) -> None:
    with ChatServer(only("row 1", SERVER_ERROR, Canned(body=completion("at last")))) as server:
        run(tmp_path, make_job(server.url, limits__concurrency=1), numbered(6), rng=0.2)
    assert [seen.prompt for seen in server.log] == ["row 0", "row 1", "row 2", "row 3", "row 4", "row 5", "row 1"]
    assert server.log[6].at - server.log[1].at >= 0.8  # 0.2 of four seconds


def test_a_row_whose_wait_is_over_goes_before_fresh_ones(tmp_path: Path) -> None:
    with ChatServer(only("row 1", SERVER_ERROR, Canned(body=completion("at last")))) as server:
        run(tmp_path, make_job(server.url, limits__concurrency=1), numbered(4))
    assert [seen.prompt for seen in server.log] == ["row 0", "row 1", "row 1", "row 2", "row 3"]


def test_before_the_first_answer_a_few_rows_take_turns_one_at_a_time(tmp_path: Path) -> None:
    with ChatServer(lambda _seen, _attempt: Canned(body=completion(""))) as server:
        done = run(tmp_path, make_job(server.url), numbered(100), raises=True)
    assert done.stop.exit_code is Exit.NEEDS_PERSON
    assert not done.outcomes
    assert server.most_in_flight == 1
    assert Counter(seen.prompt for seen in server.log) == dict.fromkeys(numbered(FIRST_ROWS), 3)


def test_a_first_row_that_hangs_does_not_hold_up_the_others(tmp_path: Path) -> None:
    with ChatServer(only("row 0", Canned(hang=True), Canned(hang=True), Canned(body=completion("at last")))) as server:
        done = run(tmp_path, make_job(server.url, endpoint__timeout_seconds=0.5), numbered(5))
    assert [seen.prompt for seen in server.log][:2] == ["row 0", "row 1"]
    assert len(done.answers) == 5


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


def test_a_retry_after_pauses_everyone_and_costs_the_row_no_attempt(tmp_path: Path) -> None:
    limited = Canned(429, problem("slow down", kind="rate_limit_error"), {"retry-after": "0.8"})

    def reply(seen: Seen, attempt: int) -> Canned | None:
        if seen.prompt == "row 1" and attempt <= 2:
            return limited
        return Canned(body=completion("ok"), delay_seconds=0.1)

    with ChatServer(reply) as server:
        done = run(tmp_path, make_job(server.url), numbered(8))
    refused_at = [seen.at for seen in server.log if seen.prompt == "row 1"][:2]
    for at in refused_at:  # what left before the refusal was read may arrive a moment after it
        assert not [seen for seen in server.log if 0.4 < seen.at - at < 0.8]
    assert len(done.answers) == 8
    assert done.outcomes["row 1"].attempts == 3


def test_the_screen_counts_down_while_everyone_waits(tmp_path: Path) -> None:
    told = []

    class Watched(Progress):
        is_due = True  # type: ignore[assignment] # however lately it told

        def show(self, tally: Tally, wait: Pause = NO_PAUSE, learnt: LearnedLimits | None = None) -> None:
            told.append(round(wait.seconds))
            super().show(tally, wait, learnt)

    limited = Canned(429, problem("slow down"), {"retry-after": "3"})

    def watch(context: LocalContext, _task: asyncio.Task[None]) -> None:
        context.progress = Watched(stream=io.StringIO(), quiet=True)

    with ChatServer(only("row 5", limited, Canned(body=completion("ok")))) as server:
        done = run(tmp_path, make_job(server.url), numbered(8), on_start=watch)
    assert len(done.answers) == 8
    assert {3, 2, 0} <= set(told)


def test_more_429s_than_a_row_has_attempts_do_not_fail_it(tmp_path: Path) -> None:
    limited = Canned(429, problem("slow down"), {"retry-after-ms": "5"})
    with ChatServer(only("row 1", *[limited] * (ATTEMPTS + 1), Canned(body=completion("at last")))) as server:
        done = run(tmp_path, make_job(server.url), numbered(3))
    assert done.answers["row 1"] == "at last"
    assert done.outcomes["row 1"].attempts == ATTEMPTS + 2


# ---- rows that fail


@pytest.mark.parametrize(
    ("answer", "kind", "attempts", "lasting"),
    [
        (BAD_REQUEST, "bad_request", 1, True),
        (Canned(400, problem("too many tokens", code="context_length_exceeded")), "too_long", 1, True),
        (Canned(400, problem("no", code="content_filter")), "filtered", 1, True),
        (Canned(body=bytes(BODY_BYTES_MAX + 1)), "too_large", 1, True),
        (Canned(body=b'{"choices": []}'), "no_choices", 4, True),
        (Canned(body=completion("")), "empty", 3, True),
        (SERVER_ERROR, "server", ATTEMPTS, False),
        (Canned(body=b'{"choi'), "garbled", ATTEMPTS, False),
        (Canned(body=completion("half"), cut_after=20), "cut", ATTEMPTS, False),
        (Canned(close=True), "cut", ATTEMPTS, False),
        (Canned(garbage=True), "protocol", ATTEMPTS, False),
        (Canned(body=completion("part", finish_reason="error")), "broken", ATTEMPTS, False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_row_fails_for_its_own_reason_and_the_others_are_answered(
    answer: Canned, kind: str, attempts: int, lasting: bool, tmp_path: Path
) -> None:
    with ChatServer(only("row 1", answer)) as server:
        done = run(tmp_path, make_job(server.url), numbered(6))
    failure = done.failure("row 1")
    assert (failure.kind, failure.attempts, failure.lasting) == (kind, attempts, lasting)
    assert failure.reason
    assert done.marks["row 1"] == (("filtered" if kind == "filtered" else "failed") if lasting else TEMPORARY)
    assert len(done.answers) == 5
    assert done.tally.attempts == server.arrived == 5 + attempts
    assert done.tally.maybe_paid == (attempts if kind in ("cut", "garbled", "too_large") else 0)


def test_a_hanging_row_costs_its_deadline_and_is_tried_again(tmp_path: Path) -> None:
    with ChatServer(only("row 1", HANG, Canned(body=completion("at last")))) as server:
        done = run(tmp_path, make_job(server.url, endpoint__timeout_seconds=0.5), numbered(3))
    assert done.answers["row 1"] == "at last"
    assert (done.outcomes["row 1"].attempts, done.tally.maybe_paid) == (2, 1)


def test_a_reply_that_repeats_the_key_is_stored_without_it(tmp_path: Path) -> None:
    leak = Canned(400, problem("who are you, sk-secret-0123?"))
    with ChatServer(only("row 1", leak)) as server:
        done = run(tmp_path, make_job(server.url, endpoint__api_key_default="sk-secret-0123"), numbered(2))
    assert done.failure("row 1").reason == "who are you, ***?"
    assert not any(b"sk-secret-0123" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


# ---- jobs that cannot go on


def test_a_wrong_key_costs_one_request_and_tells_the_servers_words(tmp_path: Path) -> None:
    with ChatServer(key="right-key-9999") as server:
        job = make_job(server.url, endpoint__api_key_default="wrong-key-0000")
        done = run(tmp_path, job, numbered(20), raises=True)
    assert server.arrived == done.tally.attempts == 1
    assert "Incorrect API key provided: ***." in str(done.stop)
    assert done.stop.exit_code is Exit.NEEDS_PERSON
    assert not done.outcomes


def test_a_key_that_is_not_set_costs_nothing(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(BadJob, match="NO_SUCH_KEY"):
        run(tmp_path, make_job(server.url, endpoint__api_key_env="NO_SUCH_KEY"), numbered(2))
    assert server.arrived == 0


def test_first_rows_that_are_all_refused_stop_the_job_and_are_not_failed(tmp_path: Path) -> None:
    with ChatServer(lambda _seen, _attempt: BAD_REQUEST) as server:
        done = run(tmp_path, make_job(server.url, limits__concurrency=16), numbered(50), raises=True)
    assert "temperature is too high" in str(done.stop)
    assert not done.outcomes
    assert server.arrived == done.tally.attempts == ALIKE
    assert done.tally.failed == 0


def test_first_rows_that_are_refused_before_an_answer_are_failed(tmp_path: Path) -> None:
    bad = numbered(ALIKE - 1)
    with ChatServer(lambda seen, _attempt: BAD_REQUEST if seen.prompt in bad else None) as server:
        done = run(tmp_path, make_job(server.url), numbered(10))
    assert [done.failure(prompt).kind for prompt in bad] == ["bad_request"] * len(bad)
    assert all(done.failure(prompt).lasting for prompt in bad)
    assert len(done.answers) == 10 - len(bad)
    assert done.tally.attempts == 10


def test_a_short_table_that_is_refused_row_by_row_is_failed_to_its_end(tmp_path: Path) -> None:
    with ChatServer(lambda _seen, _attempt: BAD_REQUEST) as server:
        done = run(tmp_path, make_job(server.url), numbered(ALIKE - 1))
    assert len(done.outcomes) == done.tally.failed == ALIKE - 1


def test_bad_requests_after_an_answer_never_stop_the_job(tmp_path: Path) -> None:
    with ChatServer(lambda seen, _attempt: None if seen.prompt == "row 0" else BAD_REQUEST) as server:
        done = run(tmp_path, make_job(server.url), numbered(30))
    assert (done.tally.ok, done.tally.failed, done.tally.attempts) == (1, 29, 30)


def test_an_endpoint_that_cannot_be_reached_is_given_up_after_three_tries(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    done = run(tmp_path, make_job(f"http://127.0.0.1:{port}/v1"), numbered(20), raises=True)
    assert done.stop.exit_code is Exit.TRY_LATER
    assert done.tally.attempts == 3
    assert not done.outcomes


def test_what_is_in_flight_when_the_key_is_revoked_is_recorded(tmp_path: Path) -> None:
    revoked = Canned(401, problem("revoked"))

    def reply(seen: Seen, _attempt: int) -> Canned | None:
        if seen.prompt in ("row 2", "row 3"):
            return revoked
        return Canned(body=completion("ok"), delay_seconds=0.2)

    with ChatServer(reply) as server:
        done = run(tmp_path, make_job(server.url), numbered(30), raises=True)
    assert "revoked" in str(done.stop)
    assert set(done.answers) == {seen.prompt for seen in server.log} - {"row 2", "row 3"}
    assert done.tally.attempts == server.arrived < 30


def test_a_store_that_takes_nothing_more_stops_the_job(server: ChatServer, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    job = make_job(server.url)
    context = LocalContext(job, store, Tally())
    store.close()
    error = asyncio.run(ask(job, requests(numbered(20)), context, None))
    assert isinstance(error, Stopped)
    assert "closed" in str(error)
    assert server.arrived == 1


# ---- stopped from outside


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


def test_a_stop_leaves_rows_that_wait_to_be_tried_again_pending_and_counts_what_they_took(tmp_path: Path) -> None:
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


def test_rows_refused_before_the_first_answer_are_recorded_as_soon_as_it_comes(tmp_path: Path) -> None:
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


def test_a_stop_while_the_next_request_is_made_keeps_it_back(server: ChatServer, tmp_path: Path) -> None:
    desks: list[LocalContext] = []

    async def coming() -> AsyncIterator[Request]:
        yield request("row 0")
        desks[0].stop(ASKED_TO_STOP)
        yield request("row 1")

    def keep(context: LocalContext, _task: asyncio.Task[None]) -> None:
        desks.append(context)

    job = make_job(server.url, limits__concurrency=1)
    done = run(tmp_path, job, numbered(2), coming=coming(), on_start=keep, raises=True)
    assert done.error is ASKED_TO_STOP
    assert [seen.prompt for seen in server.log] == ["row 0"]


def test_a_hurried_stop_does_not_wait_for_what_hangs_and_tells_that_it_may_be_paid(tmp_path: Path) -> None:
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
def test_a_cancelled_job_is_cancelled_whole_and_its_books_are_kept(stopped_before: bool, tmp_path: Path) -> None:
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


# ---- requests that cannot be made


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


# ---- money: a token of output is a dollar, an answer has 6, and at worst 10


PRICED = {"prices__input": 0.0, "prices__output": 1e6, "parameters__max_tokens": 10}


def test_the_cap_is_never_passed_and_answers_that_cost_less_make_room_for_more(tmp_path: Path) -> None:
    with ChatServer(delay_seconds=0.02) as server:
        job = make_job(server.url, limits__max_cost=100.0, limits__concurrency=16, **PRICED)
        done = run(tmp_path, job, numbered(50), raises=True)
    assert done.stop.exit_code is Exit.AT_LIMIT
    # after 16 answers 96 are spent, but the 16th could leave only while 90 were
    assert len(done.answers) == server.arrived == 16
    assert done.spent == done.tally.cost == pytest.approx(96)


def test_requests_at_once_are_held_within_the_cap_at_their_worst(tmp_path: Path) -> None:
    worst = Canned(body=completion("long", usage={"prompt_tokens": 1, "completion_tokens": 10}), delay_seconds=0.3)
    with ChatServer(lambda _seen, _attempt: worst) as server:
        job = make_job(server.url, limits__max_cost=55.0, limits__concurrency=16, **PRICED)
        done = run(tmp_path, job, numbered(50), raises=True)
    assert done.stop.exit_code is Exit.AT_LIMIT
    assert len(done.answers) == server.arrived == 5
    assert server.most_in_flight == 4
    assert done.spent == pytest.approx(50)


def test_a_cap_below_the_first_request_sends_nothing(server: ChatServer, tmp_path: Path) -> None:
    done = run(tmp_path, make_job(server.url, limits__max_cost=9.0, **PRICED), numbered(5), raises=True)
    assert done.stop.exit_code is Exit.AT_LIMIT
    assert server.arrived == 0


def test_a_cap_that_suffices_stops_nothing(server: ChatServer, tmp_path: Path) -> None:
    done = run(tmp_path, make_job(server.url, limits__max_cost=64.0, **PRICED), numbered(10))
    assert len(done.answers) == 10
    assert done.spent == pytest.approx(60)


def test_an_answer_of_unknown_usage_counts_at_its_worst(tmp_path: Path) -> None:
    with ChatServer(lambda _seen, _attempt: Canned(body=completion("ok", usage=None))) as server:
        done = run(tmp_path, make_job(server.url, limits__max_cost=25.0, **PRICED), numbered(9), raises=True)
    assert done.stop.exit_code is Exit.AT_LIMIT
    assert len(done.answers) == server.arrived == 2
    assert done.spent == pytest.approx(20)
    assert [outcome.cost for outcome in done.outcomes.values()] == [None, None]
    assert done.tally.unpriced == 2


def test_an_attempt_that_broke_off_counts_at_its_worst(tmp_path: Path) -> None:
    cut = Canned(body=completion("half"), cut_after=20)
    with ChatServer(only("row 1", cut, cut, Canned(body=completion("whole")))) as server:
        done = run(tmp_path, make_job(server.url, limits__max_cost=100.0, **PRICED), numbered(2))
    assert done.spent == pytest.approx(6 + 10 + 10 + 6)
    assert (done.tally.maybe_paid, done.tally.cost) == (2, pytest.approx(12))


def test_an_attempt_that_was_refused_costs_nothing(tmp_path: Path) -> None:
    with ChatServer(only("row 1", SERVER_ERROR, SERVER_ERROR, Canned(body=completion("ok")))) as server:
        done = run(tmp_path, make_job(server.url, limits__max_cost=22.0, **PRICED), numbered(2))
    assert done.spent == pytest.approx(12)


def test_failed_attempts_that_report_their_usage_are_in_the_outcomes_cost(tmp_path: Path) -> None:
    with ChatServer(only("row 1", Canned(body=completion("")), Canned(body=completion("ok")))) as server:
        done = run(tmp_path, make_job(server.url, **PRICED), numbered(2))
    assert done.outcomes["row 1"].cost == pytest.approx(12)

    with ChatServer(only("row 1", Canned(body=completion("")))) as server:
        done = run(tmp_path / "failed", make_job(server.url, **PRICED), numbered(2))
    assert done.failure("row 1").cost == pytest.approx(18)
    assert done.tally.cost == pytest.approx(6 + 18)


def test_what_is_known_of_a_rows_cost_is_in_the_ledger_though_not_all_of_it_is_known(tmp_path: Path) -> None:
    untold = Canned(body=completion("ok", usage=None))
    with ChatServer(only("row 1", Canned(body=completion("")), untold)) as server:
        done = run(tmp_path, make_job(server.url, **PRICED), numbered(2))
    assert done.outcomes["row 1"].cost is None
    assert (done.tally.cost, done.tally.unpriced) == (pytest.approx(6 + 6), 1)


def test_what_a_row_cost_before_a_stop_is_in_the_ledger(tmp_path: Path) -> None:
    with ChatServer(only("row 1", Canned(body=completion("")), Canned(401, problem("revoked")))) as server:
        done = run(tmp_path, make_job(server.url, limits__concurrency=1, **PRICED), numbered(2), raises=True)
    assert done.stop.exit_code is Exit.NEEDS_PERSON
    assert set(done.outcomes) == {"row 0"}
    assert done.tally.cost == pytest.approx(6 + 6)
    assert done.tally.attempts == server.arrived
