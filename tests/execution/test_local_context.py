"""The context of a run in its own process: an outcome counts once it is on disk, and so does the ledger."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from job_files import MINIMAL

from pipeline.execution.local_context import LocalContext
from pipeline.job.job import Job, settings_id
from pipeline.progress import NO_PAUSE, Pause, Progress
from pipeline.records import (
    TEMPORARY,
    Answer,
    BadJob,
    Failure,
    LearnedLimits,
    Outcome,
    Rejection,
    Request,
    Stopped,
    Tally,
    Usage,
)
from pipeline.store.notes import read_learned_limits, read_ledger
from pipeline.store.outcomes import read_outcome
from pipeline.store.reader import Reader
from pipeline.store.writer import Store
from pipeline.text import BODY_BYTES_AT_ONCE

LABELS = {"answer.labels": ["yes", "no"], "answer.repairs": 0}
YES = Answer(
    text='{"label": "yes"}',
    finish_reason="stop",
    model="m-1",
    usage=Usage(10, 2, total_tokens=12),
    attempts=2,
    asked_at=datetime(2026, 11, 22, 3, 10, tzinfo=UTC),
    latency_seconds=0.25,
    cost=0.5,
)


def job_with(**settings: Any) -> Job:
    return Job.load(["in.csv"], "out.csv", settings={**MINIMAL, **settings})


def request(name: str = "a") -> Request:
    return Request(key=name * 64, body=b"{}" * 10)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store")
    yield store
    store.close()


def context_for(store: Store, ledger: Tally | None = None, **settings: Any) -> LocalContext:
    return LocalContext(job_with(**settings), store, ledger or Tally())


def record(context: LocalContext, *outcomes: Outcome) -> None:
    async def all_of_them() -> None:
        await asyncio.gather(*(context.record(request(chr(97 + at)), each) for at, each in enumerate(outcomes)))

    asyncio.run(all_of_them())


def test_an_outcome_is_found_as_it_was_recorded(store: Store) -> None:
    failure = Failure(kind="too_long", reason="4,097 tokens", attempts=1, cost=0.0)
    context = context_for(store)
    record(context, YES, failure)
    settings = settings_id(job_with().seen_by_model())
    found = Reader(store.folder).get_many(["a" * 64, "b" * 64])
    assert [read_outcome(stored) for stored in found if stored is not None] == [
        msgspec.structs.replace(outcome, settings=settings) for outcome in (YES, failure)
    ]


def test_what_a_retry_is_done_with_carries_its_id_and_what_failed_for_free_or_for_a_while_does_not(
    store: Store,
) -> None:
    context = context_for(store)
    context.retry_id = "3f"
    free = Failure(kind="too_long", reason="4,097 tokens", cost=0.0)
    paid, passing = (msgspec.structs.replace(free, **change) for change in ({"cost": 0.1}, {"lasting": False}))
    record(context, YES, free, paid, passing)
    found = Reader(store.folder).get_many([name * 64 for name in "abcd"])
    assert [read_outcome(stored or b"").retry for stored in found] == ["3f", "", "3f", ""]


def test_an_outcome_is_on_disk_before_it_is_counted_and_counted_before_it_is_shown(store: Store) -> None:
    context, seen = context_for(store), []

    class Watching(Progress):
        def show(self, tally: Tally, *_: object) -> None:
            reader = Reader(store.folder)
            seen.append((tally.ok, context.asked.ok, sum(map(len, reader.marks())), read_ledger(reader).ok))
            reader.close()

    context.progress = Watching()

    async def one_after_the_other() -> None:
        for name in "abc":
            await context.record(request(name), YES)

    asyncio.run(one_after_the_other())
    assert seen == [(1, 1, 1, 1), (2, 2, 2, 2), (3, 3, 3, 3)]


def test_what_cannot_be_written_is_a_stop_and_is_not_counted(store: Store) -> None:
    context = context_for(store)
    store.close()
    with pytest.raises(Stopped):
        record(context, YES)
    assert context.asked == Tally()


def test_the_ledger_is_committed_together_with_the_outcome(store: Store) -> None:
    context = context_for(store, Tally(ok=7, cost=2.0))
    record(context, YES)
    ledger = read_ledger(Reader(store.folder))
    assert ledger == context.ledger
    assert (ledger.ok, ledger.cost) == (8, 2.0)  # its cost is counted with each attempt
    assert (ledger.answers, ledger.request_bytes, ledger.seconds, ledger.usage) == (1, 20, 0.25, YES.usage)


def test_a_folder_in_which_nothing_was_asked_has_an_empty_ledger(store: Store) -> None:
    assert read_ledger(None) == Tally()
    assert read_ledger(Reader(store.folder)) == Tally()


def test_the_ledger_grows_over_runs_and_the_run_counts_for_itself(store: Store) -> None:
    first = context_for(store)
    first.count_attempt(0.5)
    record(first, YES)
    later = context_for(store, read_ledger(Reader(store.folder)))
    later.count_attempt(0.25)
    record(later, YES, Failure(kind="timeout", reason="slow", lasting=False, attempts=6))
    assert (later.asked.rows, later.asked.attempts, later.asked.cost) == (2, 1, 0.25)
    assert (later.ledger.rows, later.ledger.attempts, later.ledger.cost) == (3, 2, 0.75)


def test_an_unknown_cost_counts_as_unpriced_and_never_as_zero_alone(store: Store) -> None:
    context = context_for(store)
    context.count_attempt(None)
    context.count_attempt(0.5)
    assert (context.asked.cost, context.asked.unpriced) == (0.5, 1)


def test_what_was_paid_without_an_outcome_is_in_the_ledger(store: Store) -> None:
    context = context_for(store)
    context.count_attempt(0.25)
    context.count_attempt(None)
    context.count_attempt(0.0, held=0.5, broke_off=True)
    store.close()
    ledger = read_ledger(Reader(store.folder))
    assert (ledger.rows, ledger.attempts, ledger.cost, ledger.unpriced) == (0, 3, 0.25, 1)
    assert (ledger.held, ledger.maybe_paid) == (0.5, 1)
    assert context.asked == ledger


def test_the_budget_knows_what_earlier_runs_spent(store: Store) -> None:
    prices = {"prices.input": 1.0, "prices.output": 1.0, "parameters.max_tokens": 5, "limits.max_cost": 2.0}
    context = context_for(store, Tally(cost=1.5, held=0.5), **prices)
    assert context.budget.spent == 2.0
    assert context.budget.reserve(context.budget.worst(request())) is None


def test_a_killed_run_leaves_a_note_of_what_was_in_flight_under_a_cap(store: Store) -> None:
    prices = {"prices.input": 0.0, "prices.output": 1e6, "parameters.max_tokens": 5, "limits.max_cost": 100.0}
    context, waits = context_for(store, **prices), []

    async def leave(times: int) -> None:
        for _ in range(times):
            waits.append(await context.note_reservation(5.0))
            assert context.budget.reserve(context.budget.worst(request())) == 5.0
            with closing(Reader(store.folder)) as reader:  # as the next run would find it, were this one killed now
                assert read_ledger(reader).aside >= context.budget.reserved

    asyncio.run(leave(16))
    assert waits.count(True) <= 5  # for the 1st, and when there are twice as many
    with closing(Reader(store.folder)) as reader:
        next_run = context_for(store, read_ledger(reader), **prices)
    assert 80.0 <= next_run.budget.spent <= 100.0
    assert next_run.ledger.aside == 0.0
    context.clear_reservation()
    asyncio.run(store.flush())
    with closing(Reader(store.folder)) as reader:
        assert context_for(store, read_ledger(reader), **prices).budget.spent == 0.0


@pytest.mark.parametrize("settings", [{"limits.max_cost": 1.0}, {"answer.schema": {"type": "list"}}])
def test_a_cap_or_contract_that_cannot_be_enforced_is_a_bad_job(store: Store, settings: dict[str, Any]) -> None:
    with pytest.raises(BadJob):
        context_for(store, **settings)


@pytest.mark.parametrize(
    ("outcome", "mark"),
    [
        (YES, "ok"),
        (Answer(text="yes"), "ok"),
        (Answer(text="perhaps"), "invalid"),
        (Answer(text="yes", finish_reason="length"), "truncated"),
        (Answer(text="", finish_reason="content_filter"), "filtered"),
        (Answer(text="", refusal="No."), "refused"),
        (Failure(kind="filtered", reason="policy"), "filtered"),
        (Failure(kind="too_long", reason="long"), "failed"),
        (Failure(kind="timeout", reason="slow", lasting=False), TEMPORARY),
    ],
)
def test_every_outcome_is_marked_with_its_status(store: Store, outcome: Outcome, mark: str) -> None:
    context = context_for(store, **LABELS)
    record(context, outcome)
    assert [mark for chunk in Reader(store.folder).marks() for _, mark in chunk] == [mark]
    assert getattr(context.asked, "failed" if mark == TEMPORARY else mark) == 1


def test_bytes_that_are_no_outcome_are_reported_as_damaged() -> None:
    for stored in (b"", b"{}", b'{"type": "answer"}', b"\x80\x04K\x01.", b'"\xff"'):
        with pytest.raises(Stopped, match="an answer is damaged"):
            read_outcome(stored)


@pytest.mark.parametrize(("verbosity", "is_on_screen"), [(0, False), (1, True)])
def test_a_rejection_is_in_the_log_and_with_verbose_on_the_screen(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], verbosity: int, *, is_on_screen: bool
) -> None:
    job = job_with()
    loud = job.model_copy(update={"this_run": job.this_run.model_copy(update={"verbosity": verbosity})})
    context = LocalContext(loud, store, Tally())
    context.log_rejection(Rejection("retry", "rate", "unseen"))
    context.progress = Progress(tmp_path / "log.txt")
    context.log_rejection(Rejection("retry", "rate", "busy"))
    context.progress.close()
    assert "rate: busy" in (tmp_path / "log.txt").read_text("utf-8")
    assert ("rate: busy" in capsys.readouterr().err) == is_on_screen


def test_learned_limits_are_found_by_the_next_run_of_the_same_endpoint_model_and_key(store: Store) -> None:
    context = context_for(store)
    context.save_learned("m", LearnedLimits(598.0, 41_000.0, 24))
    record(context, YES)
    known = read_learned_limits(Reader(store.folder))
    found = LocalContext(job_with(), store, Tally(), known).learned("m")
    assert found is not None
    assert 0 <= found.age_seconds < 60
    assert (found.requests_per_minute, found.tokens_per_minute, found.window) == (598.0, 41_000.0, 24)
    others = {"endpoint.model": "n", "endpoint.base_url": "http://127.0.0.1:8/v1", "endpoint.api_key_env": "K"}
    for other in ({name: value} for name, value in others.items()):
        job = job_with(**other)
        assert LocalContext(job, store, Tally(), known).learned(job.endpoint.model) is None


def test_each_long_pause_is_logged_once_and_learned_limits_when_they_change(store: Store, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.touch()
    context = context_for(store)
    context.progress = Progress(log, quiet=True)
    context.progress.begin(10)
    for wait in (
        Pause(12.0),
        Pause(11.0),
        None,
        Pause(10.0),
        NO_PAUSE,
        Pause(3.0),
        NO_PAUSE,
        Pause(60.0, "after HTTP 503"),
    ):
        context.show_progress(wait)
    for learned in (LearnedLimits(598.0, None, 24), LearnedLimits(598.0, None, 24), LearnedLimits(600.0, None, 24)):
        context.save_learned("m", learned)
    context.progress.close()
    assert [line.partition(" ")[2] for line in log.read_text("utf-8").splitlines()] == [
        "paused 12 s: the endpoint asked to wait",
        "paused 60 s: after HTTP 503",
        "learned: 598 requests/min, window 24",
        "learned: 600 requests/min, window 24",
    ]


@pytest.mark.parametrize("characters", [10, BODY_BYTES_AT_ONCE + 1])
def test_an_outcome_is_taken_out_of_the_counts_also_if_its_large_text_is_gone(store: Store, characters: int) -> None:
    context, answer = context_for(store), Answer(text="x" * characters, finish_reason="length")
    record(context, answer)
    assert (context.asked.truncated, context.ledger.truncated) == (1, 1)
    kept = answer if characters < BODY_BYTES_AT_ONCE else msgspec.structs.replace(answer, text="")
    context.uncount(request("a"), kept)
    assert (context.asked.rows, context.ledger.rows) == (0, 0)


def test_a_large_answer_that_does_not_fit_is_taken_out_as_invalid(store: Store) -> None:
    context, answer = context_for(store, **LABELS), Answer(text="x" * (BODY_BYTES_AT_ONCE + 1), finish_reason="stop")
    record(context, answer)
    assert context.asked.invalid == 1
    context.uncount(request("a"), msgspec.structs.replace(answer, text=""))
    assert context.asked.rows == 0
