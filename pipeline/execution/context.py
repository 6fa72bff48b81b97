"""What an executor may use of the run: where outcomes are recorded, what may be spent, and whether to go on.

An outcome counts in a fixed order: on disk, then in the tally, then on the screen.
"""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from ..answers import AnswerChecker
from ..costs import Budget, PriceList, token_bytes
from ..job import Job, Limits, settings_id
from ..progress import NO_PAUSE, Pause, Progress, learned_text, pause_text
from ..records import (
    FOLLOWED_UP,
    TEMPORARY,
    Answer,
    Exit,
    Failure,
    LaneId,
    LearnedLimits,
    Outcome,
    Rejection,
    Request,
    Stopped,
    Tally,
    add_costs,
)
from ..store import LEARNED_LIMITS, LEDGER, RUN_STATUS, LearnedNote, Reader, RunStatus, Store, read_outcome
from ..text import one_line

_encoder = msgspec.json.Encoder()

DRAIN_SECONDS = 20.0
"""After a stop, what is in flight may land for so long."""

ENOUGH_ROWS = 100
"""A share of failures is taken of at least so many rows: the first few tell little."""

TOLD_PAUSE_SECONDS = 5.0
"""The log tells of a pause of so long."""


NOW_SECONDS = 1.0
"""So often that note is brought up to date."""


def lane_id(job: Job, model: str) -> LaneId:
    """Whom the job asks, and with whose key: a pace that was found out holds for no other."""
    return LaneId(job.endpoint.base_url, model, job.endpoint.api_key_env)


def uptime_seconds() -> float:
    """Seconds since some moment, those included for which the machine slept, where the system tells them apart."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.time()


class LocalContext:
    """One run's desk. `asked` is told how many of the run's requests have which status; it grows as they commit."""

    def __init__(  # noqa: PLR0913 - time and chance are parameters
        self,
        job: Job,
        store: Store,
        ledger: Tally,
        found: Mapping[LaneId, LearnedNote] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: Callable[[], float] = random.random,
        uptime: Callable[[], float] = uptime_seconds,
        reader: Reader | None = None,
    ) -> None:
        """`ledger`: all that the job folder ever asked; `found`: what earlier runs found out about the pace of lanes.

        `reader`: of the same store, for what earlier runs left in it. `uptime` tells of a sleep, which `clock` may pass
        over.

        Raises BadJob for a budget or contract that cannot be held.
        """
        self.prices = PriceList(job)
        self.budget = Budget(job, self.prices, ledger.cost + ledger.held + ledger.aside)
        self.clock, self.rng, self.uptime = clock, rng, uptime
        self.asked = Tally()
        # what a killed run had in flight may have been billed, and nobody will tell
        self.ledger = msgspec.structs.replace(ledger, held=ledger.held + ledger.aside, aside=0.0)
        self._wait = NO_PAUSE
        self.learned_limits = dict(found or {})
        self.progress: Progress | None = None
        self.earlier: Reader | None = None
        """Where outcomes that are asked for again are found: what they cost was paid for the row too."""
        self._job, self.limits = job, job.limits
        """The limits as they are now (`tune`)."""
        self._settings = settings_id(job.seen_by_model())
        self._is_one_lane = len(job.models) == 1
        self.on_tune: Callable[[Limits], None] | None = None
        """How the executor is told of other limits."""
        self._now: RunStatus | None = None
        self._now_at = -math.inf
        self._told_all = job.this_run.verbosity > 0
        self.stopping: Stopped | None = None
        self.stop_requested = asyncio.Event()
        self.drain_aborted = asyncio.Event()
        self._store, self._reader, self._checker = store, reader, AnswerChecker(job)

    def begin(self, to_ask: int, limits: Limits, progress: Progress) -> None:
        """So many requests are asked now, under these limits: tell the screen, and other terminals."""
        self.limits, self.progress = limits, progress
        progress.begin(to_ask)
        moment = datetime.now(tz=UTC)
        self._now = RunStatus(moment, moment, to_ask, self.asked, {})
        self._say_now(NO_PAUSE)

    def tune(self, limits: Limits) -> None:
        """Go on under other limits. Raises BadJob for a cap that cannot be held."""
        self.budget.change_cap(limits.max_cost)
        self.limits = limits
        if self.on_tune is not None:
            self.on_tune(limits)
        self._say_now(NO_PAUSE)

    def _say_now(self, wait: Pause) -> None:
        if self._now is None:
            return
        self._now_at = self.clock()
        self._now = msgspec.structs.replace(
            self._now,
            at=datetime.now(tz=UTC),
            asked=self.asked,
            limits=self.limits.model_dump(mode="json"),
            wait_seconds=wait.seconds,
            cause=wait.cause,
            stopping=str(self.stopping or ""),
        )
        self._store.note(RUN_STATUS, _encoder.encode(self._now))

    async def record(
        self, request: Request, outcome: Outcome, *, counts: bool = True, is_urgent: bool = False
    ) -> Request | None:
        """Returns once the outcome is on disk, and counted; what its attempts cost was told by `landed`.

        What it returns is to be asked next, since the answer does not fit, or was cut off; None if the opinion is
        settled. It is counted once, when it is settled. `counts`: it is of those that this run asks for, not only one
        that it came by. `is_urgent`: nothing more is recorded before it is on disk. Raises Stopped if it cannot be
        written.
        """
        outcome = msgspec.structs.replace(outcome, settings=self._settings)
        if isinstance(outcome, Answer) and outcome.logprobs and not self._job.answer.logprobs:
            outcome = msgspec.structs.replace(outcome, logprobs=())  # of a server that tells them unasked
        status, _ = self._checker.check(outcome)
        following = self._checker.follow_up(request, outcome) if status in FOLLOWED_UP else None
        counted = _tally_of(request, outcome)
        if following is None:
            counted = counted.plus(status)
        self._note(counted)
        if self.earlier is not None:
            outcome = _over(self.earlier.get_many([request.key])[0], outcome)
            status, _ = self._checker.check(outcome)
        mark = TEMPORARY if isinstance(outcome, Failure) and not outcome.lasting else status
        await self._store.put(request.key, _encoder.encode(outcome), mark, is_urgent=is_urgent)
        if counts:
            self.asked += counted
        self._stop_at_failures()
        self.show_progress()
        return following

    def _stop_at_failures(self) -> None:
        """Stop once more rows of this run have no answer than the user allows."""
        limit, failed = self.limits.max_failures, self.asked.unanswered
        if limit is None or not failed:
            return
        rows = self.asked.rows
        share = 0 < limit < 1
        if failed > limit * (max(rows, ENOUGH_ROWS) if share else 1):
            allowed = f"{limit:.3g} of the rows" if share else f"{limit:,.0f}"
            self.stop(
                Stopped(
                    f"limits.max_failures of {allowed} is passed: {failed:,} of this run's {rows:,} rows ended without "
                    "an answer.\nSee why (`pipeline show JOB --status failed`); to go on all the same, raise the limit "
                    "(--set limits.max_failures=…).",
                    Exit.AT_LIMIT,
                )
            )

    def show_progress(self, wait: Pause | None = None) -> None:
        """Bring the screen up to date; `wait`: for how long, and why, nothing leaves just now; None for as before."""
        before, self._wait = self._wait, self._wait if wait is None else wait
        if self.progress is not None:
            if self._wait.seconds >= TOLD_PAUSE_SECONDS and self._wait.seconds > before.seconds:
                self.progress.note(pause_text(self._wait))
            if self.progress.is_due:
                learnt = self.learned(self._job.models[0]) if self._is_one_lane else None
                self.progress.show(self.asked, self._wait, learnt)
        if self._now is not None and (
            self.clock() >= self._now_at + NOW_SECONDS or (self._wait.seconds and not self._now.wait_seconds)
        ):
            self._say_now(self._wait)

    def count_attempt(self, cost: float | None, *, held: float = 0.0, broke_off: bool = False) -> None:
        """One attempt is over, whatever becomes of its request: it cost so many US dollars, None if that is unknown.

        `broke_off`: it may be billed, and nobody will tell; `held`: at most so many dollars that nobody will tell of.
        """
        self._count(
            Tally(attempts=1, cost=cost or 0.0, unpriced=int(cost is None), held=held, maybe_paid=int(broke_off))
        )

    async def note_reservation(self, request: Request) -> bool:
        """Before a request leaves under a cap: see that what is then in flight is on disk, so that a kill forgets none.

        True if that took a moment. It is noted in leaps, twice what is needed, so that few requests wait for the disk.
        """
        if self.budget.cap is None:
            return False
        needed = self.budget.reserved + (self.budget.worst(request) or 0.0)
        if not self.ledger.aside < needed <= self.budget.cap - self.budget.spent:
            return False
        aside = min(2 * needed, self.budget.cap - self.budget.spent)
        self.ledger = msgspec.structs.replace(self.ledger, aside=aside)
        self._note(Tally())
        await self._store.flush()
        return True

    def clear_reservation(self) -> None:
        """All that left has landed, or is held."""
        if not self.ledger.aside:
            return
        self.ledger = msgspec.structs.replace(self.ledger, aside=0.0)
        self._note(Tally())

    def _count(self, counted: Tally) -> None:
        self._note(counted)
        self.asked += counted

    def say(self, text: str) -> None:
        """A line for the screen and the log."""
        if self.progress is not None:
            self.progress.say(text)

    def log_rejection(self, refusal: Rejection) -> None:
        """An attempt gave no answer: a line for the log, and for the screen where all is to be seen."""
        if self.progress is not None:
            tell = self.progress.say if self._told_all else self.progress.note
            tell(f"{refusal.kind}: {refusal.message}")

    def read_note(self, name: str) -> bytes | None:
        """What an earlier run left under this name with `note`; None if none did."""
        return None if self._reader is None else self._reader.note(name)

    async def write_note(self, name: str, value: bytes) -> None:
        """Returns once the value is on disk under this name, for the next run. Raises Stopped as `record`."""
        self._store.note(name, value)
        await self._store.flush()

    def asked_at(self, keys: Sequence[str]) -> dict[str, datetime | None]:
        """When the outcomes were asked for that these keys have in the store by now; others are not in it."""
        if self._reader is None:
            return {}
        stored = zip(keys, self._reader.get_many(keys), strict=True)
        return {key: read_outcome(value).asked_at for key, value in stored if value is not None}

    async def pause(self, seconds: float) -> None:
        """Returns after so long, or as soon as a stop is asked."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stop_requested.wait()

    def _note(self, counted: Tally) -> None:
        self.ledger += counted
        self._store.note(LEDGER, self._encoded_ledger)

    def _encoded_ledger(self) -> bytes:
        return msgspec.json.encode(self.ledger)  # in the store's thread; an Encoder is not shared between threads

    def learned(self, model: str) -> LearnedLimits | None:
        """What is known of the pace of a model's lane, with its age."""
        found = self.learned_limits.get(lane_id(self._job, model))
        return None if found is None else found.aged

    def learned_by_model(self) -> list[LearnedLimits | None]:
        """The same of each of the job's models."""
        return [self.learned(model) for model in self._job.models]

    def save_learned(self, model: str, learnt: LearnedLimits) -> None:
        """Keep what was learnt of a lane, for the screen and for the next run; the log tells of a change."""
        lane = lane_id(self._job, model)
        known = self.learned_limits.get(lane)
        if self.progress is not None and (known is None or learnt != known.learnt) and (text := learned_text(learnt)):
            self.progress.note(text if self._is_one_lane else f"{one_line(model)}: {text}")
        self.learned_limits[lane] = LearnedNote(lane, learnt, datetime.now(tz=UTC))
        self._store.note(LEARNED_LIMITS, _encoder.encode(list(self.learned_limits.values())))

    def stop(self, why: Stopped) -> None:
        """Send nothing more; what is in flight may land. The first reason counts."""
        if self.stopping is None:
            self.stopping = why
            self.stop_requested.set()
            self._say_now(NO_PAUSE)

    def abort_drain(self) -> None:
        """Wait for nothing in flight any more."""
        self.drain_aborted.set()


def _over(stored: bytes | None, outcome: Outcome) -> Outcome:
    """The outcome to keep when a row was asked again: a failure never takes an answer's place, and costs add up."""
    if stored is None:
        return outcome
    earlier = read_outcome(stored)
    kept = earlier if isinstance(outcome, Failure) and isinstance(earlier, Answer) else outcome
    return msgspec.structs.replace(kept, cost=add_costs(earlier.cost, outcome.cost))


def _tally_of(request: Request, outcome: Outcome) -> Tally:
    """What one request adds to the books, whatever became of the opinion that it serves."""
    if not isinstance(outcome, Answer):
        return Tally()
    return Tally(
        usage=outcome.usage, answers=1, request_bytes=token_bytes(request.body), seconds=outcome.latency_seconds or 0.0
    )
