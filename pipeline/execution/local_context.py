"""The run context of the process that owns the store: every outcome is written, then counted, then shown.

The order is fixed. The ledger that includes an outcome is committed with it or before it, so that no cost is forgotten;
the run's own tally counts the outcome once it is on disk. Attempts and their cost are counted as soon as they end.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from ..answers import AnswerChecker
from ..costs import Budget, PriceList, token_bytes
from ..job import Job, Limits, settings_id
from ..progress import NO_PAUSE, Pause, Progress, learned_text, pause_text
from ..records import (
    ANSWERED,
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
    Status,
    Stopped,
    Tally,
    add_costs,
)
from ..store import (
    LEARNED_LIMITS,
    LEDGER,
    REPORTED,
    RUN_STATUS,
    LearnedNote,
    OrderResult,
    Reader,
    RunStatus,
    Store,
    read_outcome,
    read_reported,
    read_served_models,
)
from ..text import BODY_BYTES_AT_ONCE, in_thread_if, one_line
from .context import Clocks, StopState, lane_id
from .reported import ReportedColumns
from .served_models import ServedModels
from .unusual import UnusualAnswers

_encoder = msgspec.json.Encoder()

SHARE_ROWS_MIN = 100
"""`limits.max_failures` as a share is taken of at least this many rows: the share among the first few means little."""

TEXT_CHARACTERS_AT_ONCE = 4_000
"""An answer of up to this length is checked at once: to mend broken JSON takes about 10 µs for each character."""

LOGGED_PAUSE_SECONDS = 5.0
"""Pauses of at least this length are written to the log."""

ORDERS_NOTED = 20
"""How many results of orders the run status keeps."""
STATUS_SECONDS = 1.0
"""How often the run status is noted for other terminals."""


class LocalContext(StopState):
    """One run's budget, tallies, screen and store. `asked` counts outcomes once they are on disk, and attempts at once.

    `limits` are those in force now, which `tune` changes.
    """

    def __init__(
        self,
        job: Job,
        store: Store,
        ledger: Tally,
        learned: Mapping[LaneId, LearnedNote] | None = None,
        *,
        reader: Reader | None = None,
        clocks: Clocks | None = None,
        rng: Callable[[], float] = random.random,
    ) -> None:
        """`ledger`, `learned`: the notes of earlier runs. `reader`: reads the same store, for other notes and outcomes.

        Raises BadJob for a cost cap or a contract that cannot be enforced.
        """
        super().__init__()
        self.prices = PriceList(job)
        self.budget = Budget(job, self.prices, ledger.cost + ledger.held + ledger.aside)
        self.clock, self.uptime = clocks or Clocks()
        self.rng = rng
        self.asked = Tally()
        # requests in flight when a run was killed may have been billed, which nobody will report
        self.ledger = msgspec.structs.replace(ledger, held=ledger.held + ledger.aside, aside=0.0)
        self.learned_limits = dict(learned or {})
        self.served = ServedModels(job, read_served_models(reader))
        self.limits = job.limits
        self.on_tune: Callable[[Limits], None] | None = None
        self.asks_again = True
        self.progress: Progress | None = None
        self.earlier: Reader | None = None
        """Reads the earlier outcomes of requests that are asked again: their costs were paid for the same rows."""
        self.retry_id = ""
        """The id of the retry that this run begins or goes on with; the outcomes that it is done with carry it."""
        self._job = job
        self._settings = settings_id(job.seen_by_model())
        self._is_one_lane = len(job.models) == 1
        self._is_verbose = job.this_run.verbosity > 0
        self._pause_shown = NO_PAUSE
        self._large_statuses: dict[str, Status] = {}
        """The status of each large answer that this run recorded, by its request's key: its text is not kept."""
        self._unusual = UnusualAnswers()
        self._status: RunStatus | None = None
        self._status_noted_at = -math.inf
        self._store, self._reader, self._checker = store, reader, AnswerChecker(job)
        self._reported = ReportedColumns(read_reported(reader), has_tiers=job.run.how == "flex")

    def begin(self, to_ask: int, limits: Limits, progress: Progress) -> None:
        """Start to ask `to_ask` requests under these limits; shown on this screen and in other terminals."""
        self.limits, self.progress = limits, progress
        progress.begin(to_ask)
        now = datetime.now(tz=UTC)
        self._status = RunStatus(now, now, to_ask, self.asked, {})
        self._note_status(NO_PAUSE)

    def tune(self, limits: Limits) -> None:
        """Go on under other limits. Raises BadJob for a cost cap that cannot be enforced."""
        self.budget.change_cap(limits.max_cost)
        self.limits = limits
        if self.on_tune is not None:
            self.on_tune(limits)
        self._note_status(NO_PAUSE)

    def stop(self, why: Stopped) -> None:
        """Send nothing more; requests in flight may still be answered. Only the first reason is kept."""
        if self.stopping is None:
            super().stop(why)
            self._note_status(NO_PAUSE)

    async def report_orders(self, results: Mapping[str, OrderResult]) -> None:
        """Note what came of orders from other terminals, by their ids; returns once those terminals can read it."""
        if self._status is not None:
            latest = dict([*self._status.orders.items(), *results.items()][-ORDERS_NOTED:])
            self._status = msgspec.structs.replace(self._status, orders=latest)
            self._note_status(NO_PAUSE)
        await self._store.flush()

    def _note_status(self, pause: Pause) -> None:
        """Note how the run stands, for `pipeline status` in other terminals."""
        if self._status is None:
            return
        self._status_noted_at = self.clock()
        self._status = msgspec.structs.replace(
            self._status,
            at=datetime.now(tz=UTC),
            asked=self.asked,
            limits=self.limits.model_dump(mode="json"),
            wait_seconds=pause.seconds,
            cause=pause.cause,
            stopping=str(self.stopping or ""),
        )
        self._store.note(RUN_STATUS, _encoder.encode(self._status))

    async def record(
        self,
        request: Request,
        outcome: Outcome,
        *,
        counts: bool = True,
        is_urgent: bool = False,
        replaces: Outcome | None = None,
    ) -> Request | None:
        """Return once the outcome is on disk and counted, with the follow-up to ask next; None if there is none.

        A sample is counted once: when its last outcome is recorded, from which nothing follows. See `RunContext`.
        """
        outcome = msgspec.structs.replace(outcome, settings=self._settings)
        if isinstance(outcome, Answer):
            outcome = self._prepared(request, outcome)
        is_long = isinstance(outcome, Answer) and len(outcome.text) > TEXT_CHARACTERS_AT_ONCE
        status, following = await in_thread_if(is_long, self._judged, request, outcome)
        if isinstance(outcome, Answer) and len(outcome.text) > BODY_BYTES_AT_ONCE:
            self._large_statuses[request.key] = status
        counted = _tally_of(request, outcome)
        if following is None:
            counted = counted.plus(status)
        if counts or replaces is None:
            self._add_to_ledger(counted)
        is_settled, is_paid = not isinstance(outcome, Failure) or outcome.lasting, outcome.cost != 0
        if self.earlier is not None:
            stored = self.earlier.get_many([request.key])[0]
            outcome = _merged(stored, outcome, keeps_answer=replaces is None)
            status, _ = await in_thread_if(is_long, self._checker.check, outcome)
        elif replaces is not None:
            outcome = msgspec.structs.replace(outcome, cost=add_costs(replaces.cost, outcome.cost))
        if self.retry_id and is_settled and (is_paid or status in ANSWERED):  # what failed for free is asked once more
            outcome = msgspec.structs.replace(outcome, retry=self.retry_id)
        mark = TEMPORARY if isinstance(outcome, Failure) and not outcome.lasting else status
        await self._store.put(request.key, _encoder.encode(outcome), mark, is_urgent=is_urgent)
        if counts:
            self.asked += counted
        self._stop_at_failures()
        self.show_progress()
        return following

    def _prepared(self, request: Request, answer: Answer) -> Answer:
        """The answer as it is stored. What is unusual is told; who gave it, and which columns it fills, is noted."""
        self.served.count(request, answer, self._store, self.progress)
        for line in self._unusual.lines_for(answer):
            self.say(line)
        if self._reported.add(answer):
            self._store.note(REPORTED, _encoder.encode(sorted(self._reported.names)))
        # some servers send log probabilities although nobody asked for them
        is_asked = self._job.answer.logprobs or not answer.logprobs
        return answer if is_asked else msgspec.structs.replace(answer, logprobs=())

    def uncount(self, request: Request, outcome: Outcome) -> None:
        """Take a recorded outcome out of the counts, as its request is asked again. A large one may lack its text."""
        status = self._large_statuses.get(request.key) or self._checker.check(outcome)[0]
        if isinstance(outcome, Answer):
            self.served.uncount(request, outcome)
        self.asked = self.asked.plus(status, -1)
        self.ledger = self.ledger.plus(status, -1)
        self._note_ledger()

    def _judged(self, request: Request, outcome: Outcome) -> tuple[Status, Request | None]:
        """The status of an outcome, and the request that follows from it."""
        checked = status, _ = self._checker.check(outcome)
        return status, self._checker.follow_up(request, outcome, checked) if status in FOLLOWED_UP else None

    def _stop_at_failures(self) -> None:
        """Stop if more of this run's rows ended without an answer than `limits.max_failures` allows."""
        limit, failed = self.limits.max_failures, self.asked.unanswered
        if limit is None or not failed:
            return
        rows = self.asked.rows
        is_share = 0 < limit < 1
        if failed > limit * (max(rows, SHARE_ROWS_MIN) if is_share else 1):
            allowed = f"{limit:.3g} of the rows" if is_share else f"{limit:,.0f}"
            self.stop(
                Stopped(
                    f"limits.max_failures of {allowed} is passed: {failed:,} of this run's {rows:,} rows ended without "
                    "an answer.\nSee why with `pipeline show JOB --status failed`. To go on all the same, raise the "
                    "limit (--set limits.max_failures=…).",
                    Exit.AT_LIMIT,
                )
            )

    def count_attempt(self, cost: float | None, *, held: float = 0.0, broke_off: bool = False) -> None:
        """Count one attempt that is over, and its cost in US dollars; None if unknown. See `RunContext`."""
        counted = Tally(attempts=1, cost=cost or 0.0, unpriced=int(cost is None), held=held, maybe_paid=int(broke_off))
        self._add_to_ledger(counted)
        self.asked += counted

    async def note_reservation(self, more: float) -> bool:
        """Write to disk what is reserved with `more`; True if it had to wait for that. See `RunContext`.

        Twice the amount that is needed now is noted, so that few requests wait for the disk.
        """
        budget = self.budget
        needed = budget.reserved + more
        left = math.inf if budget.cap is None else budget.cap - budget.spent
        if not self.ledger.aside < needed <= left:
            return False
        self.ledger = msgspec.structs.replace(self.ledger, aside=min(2 * needed, left))
        self._note_ledger()
        await self._store.flush()
        return True

    def clear_reservation(self) -> None:
        """Remove that note, once nothing is in flight."""
        if self.ledger.aside:
            self.ledger = msgspec.structs.replace(self.ledger, aside=0.0)
            self._note_ledger()

    def _add_to_ledger(self, counted: Tally) -> None:
        self.ledger += counted
        self._note_ledger()

    def _note_ledger(self) -> None:
        self._store.note(LEDGER, self._encoded_ledger)

    def _encoded_ledger(self) -> bytes:
        return msgspec.json.encode(self.ledger)  # called in the store's thread; threads must not share an Encoder

    def show_progress(self, pause: Pause | None = None) -> None:
        """Bring the screen up to date. `pause`: how long nothing is sent, and why; None if that has not changed."""
        before, self._pause_shown = self._pause_shown, self._pause_shown if pause is None else pause
        if self.progress is not None:
            if self._pause_shown.seconds >= LOGGED_PAUSE_SECONDS and self._pause_shown.seconds > before.seconds:
                self.progress.note(pause_text(self._pause_shown))
            if self.progress.is_due:
                learned = self.learned(self._job.models[0]) if self._is_one_lane else None
                self.progress.show(self.asked, self._pause_shown, learned)
        if self._status is not None and (
            self.clock() >= self._status_noted_at + STATUS_SECONDS
            or (self._pause_shown.seconds and not self._status.wait_seconds)
        ):
            self._note_status(self._pause_shown)

    def say(self, text: str) -> None:
        """Write a line to the screen and the log."""
        if self.progress is not None:
            self.progress.say(text)

    def log_rejection(self, rejection: Rejection) -> None:
        """Write a rejected attempt to the log, and with `--verbose` to the screen."""
        if self.progress is not None:
            write = self.progress.say if self._is_verbose else self.progress.note
            write(f"{rejection.kind}: {rejection.message}")

    def learned(self, model: str) -> LearnedLimits | None:
        """The limits learned for a model's lane, with their age; None if there are none."""
        noted = self.learned_limits.get(lane_id(self._job.endpoint, model))
        return None if noted is None else noted.aged

    def learned_by_model(self) -> list[LearnedLimits | None]:
        """The learned limits of each of the job's models, in their order."""
        return [self.learned(model) for model in self._job.models]

    def save_learned(self, model: str, learned: LearnedLimits) -> None:
        """Keep the limits learned for a model's lane, for the screen and for the next run; log a change."""
        lane = lane_id(self._job.endpoint, model)
        known = self.learned_limits.get(lane)
        if self.progress is not None and (known is None or learned != known.learnt) and (text := learned_text(learned)):
            self.progress.note(text if self._is_one_lane else f"{one_line(model)}: {text}")
        self.learned_limits[lane] = LearnedNote(lane, learned, datetime.now(tz=UTC))
        self._store.note(LEARNED_LIMITS, _encoder.encode(list(self.learned_limits.values())))

    def read_note(self, name: str) -> bytes | None:
        """Read the note that an earlier run wrote under this name; None if there is none."""
        return None if self._reader is None else self._reader.note(name)

    async def write_note(self, name: str, value: bytes) -> None:
        """Return once the note is on disk. Raises Stopped if it cannot be written."""
        self._store.note(name, value)
        await self._store.flush()

    def asked_at(self, keys: Sequence[str]) -> dict[str, datetime | None]:
        """When each stored outcome among these keys was asked (UTC); a key without an outcome is left out."""
        if self._reader is None:
            return {}
        stored = zip(keys, self._reader.values(keys), strict=True)
        return {key: read_outcome(value).asked_at for key, value in stored if value is not None}


def _merged(stored: bytes | None, outcome: Outcome, *, keeps_answer: bool) -> Outcome:
    """The outcome to keep when a row is asked again: the costs add up.

    `keeps_answer`: a failure does not replace an answer.
    """
    if stored is None:
        return outcome
    earlier = read_outcome(stored)
    is_kept = keeps_answer and isinstance(outcome, Failure) and isinstance(earlier, Answer)
    kept = earlier if is_kept else outcome
    return msgspec.structs.replace(kept, cost=add_costs(earlier.cost, outcome.cost))


def _tally_of(request: Request, outcome: Outcome) -> Tally:
    """What one answer adds to the tallies, beside its status and its cost."""
    counted = Tally(in_outcomes=outcome.cost or 0.0)
    if not isinstance(outcome, Answer):
        return counted
    return msgspec.structs.replace(
        counted,
        usage=outcome.usage,
        answers=1,
        request_bytes=token_bytes(request.body),
        seconds=outcome.latency_seconds or 0.0,
    )
