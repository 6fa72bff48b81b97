"""A lane: the traffic to one endpoint, model and key, sent by workers at the pace that its throttle allows."""

import asyncio
import contextlib
import math
from datetime import UTC, datetime

from msgspec.structs import replace

from ...costs import token_bytes
from ...endpoint import Client, RoomShare, read_allowance, read_reply
from ...job import Job, Limits, duration_seconds
from ...pacing import RetryAfter, RetryPolicy, Throttle
from ...progress import NO_PAUSE, Pause
from ...records import Answer, Failure, Outcome, Rejection, Reply, Stopped, add_costs
from ...text import BODY_BYTES_AT_ONCE, in_thread_if
from ..context import RunContext, settle, settle_unanswered
from .body_form import BodyForm
from .cut_offs import CutOffs
from .delayed import Delayed
from .doubts import Doubts
from .first_estimate import first_estimate
from .key_check import KeyCheck
from .open_request import OpenRequest
from .source import RequestSource
from .unconfirmed import Unconfirmed

COUNTDOWN_SECONDS = 1.0
"""How often the screen is updated while the endpoint's pause lasts."""

SAVE_LEARNED_SECONDS = 5.0
"""How often the learned limits are saved, so that a killed run leaves them behind."""

DELAYED_MAX = 1000
"""While this many requests wait to be sent again, no new ones are drawn: an outage must not load the whole table."""

IDLE_SECONDS = 1.0
"""When no request came for this long and none is in flight, no answer will confirm the failures that wait for one."""

FLIGHT_BYTES_MAX = 256 * 1024 * 1024
"""How many bytes of request bodies are in flight at once, in all lanes together, unless one alone is larger; and how
many wait to be sent again before no new ones are drawn. Pictures must not fill the memory."""

FIRST_ROWS = 5
"""How many rows are tried, in turn, before the first answer."""


class Lane:
    """Sends the requests of one model. Requests leave one by one, as soon as throttle and budget allow.

    A worker sends one request at a time and records its outcome. Workers are added as the window opens; all of them
    take turns at choosing the request that leaves next.
    """

    def __init__(self, job: Job, model: str, source: RequestSource, context: RunContext, client: Client) -> None:
        self._model, self._source, self._context, self._client = model, source, context, client
        now, learned = context.clock(), context.learned(model)
        self._throttle = Throttle(job.limits, now, learned, first_estimate(context.ledger))
        self._form = BodyForm(job, learned)
        self._retry_policy = RetryPolicy(
            now,
            context.rng,
            give_up_after_seconds=self._form.tier.give_up_after_seconds(duration_seconds(job.limits.give_up_after)),
            waits=job.this_run.wait_for_endpoint,
            is_proven=learned is not None,
            patient_kinds=self._form.tier.patient_kinds,
            checks_key=True,
        )
        self._choosing = asyncio.Lock()
        """Held by the worker that chooses the next request to send."""
        self._new: OpenRequest | None = None
        """The request drawn last, until it is sent."""
        self._reformatted: OpenRequest | None = None
        """The request to send at once in the next response format, as its last one was rejected."""
        self._delayed = Delayed()
        self._unconfirmed = Unconfirmed(source, model, job.columns.model)
        self._key_check = KeyCheck(
            context, source, self._retry_policy, self._unconfirmed, self._form.parameters, self._send_check
        )
        self._doubts, self._cut_offs = Doubts(), CutOffs(is_streamed=job.endpoint.stream)

        self._tasks: asyncio.TaskGroup
        self._workers = 0
        self._waiting_workers = 0
        """How many workers have no request: one chooses the next, the others wait for their turn."""
        self._attempts: dict[asyncio.Task[None], OpenRequest] = {}
        """The attempts in flight, each by the task that waits for its reply."""
        self._flight_bytes, self.flight_bytes_max = 0, FLIGHT_BYTES_MAX // len(job.models)
        """The bytes of the request bodies in flight, and the most that there may be."""
        self._learned_saved_at = -math.inf
        self.changed = asyncio.Event()
        """Set when the worker that waits to send should look again: a reply came, or a stop was requested."""

    @property
    def in_flight(self) -> int:
        """The number of requests in flight."""
        return self._throttle.in_flight

    @property
    def has_answers(self) -> bool:
        """Whether the model has answered in this run."""
        return self._retry_policy.answers > 0

    async def work(self) -> None:
        """Return when no request is left, or after a stop. An unexpected error in a worker is raised.

        May be called again, once the outcomes of earlier requests were found doubtful.
        """
        self._workers = self._waiting_workers = 0
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._add_worker()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    def _add_worker(self) -> None:
        """Add a worker if none is waiting: up to two for each slot of the window, as one may be storing an answer."""
        if not self._waiting_workers and self._workers < 2 * self._throttle.window:
            self._workers += 1
            self._waiting_workers += 1
            self._tasks.create_task(self._work())

    async def _work(self) -> None:
        try:
            while (item := await self._next()) is not None:
                self._waiting_workers -= 1
                self._add_worker()
                with self._client.share() as share:
                    await self._attempt(item, share)
                self._waiting_workers += 1
        except Stopped as stop:
            self._context.stop(stop)
            self.changed.set()

    def tune(self, limits: Limits) -> None:
        """Go on under other limits."""
        self._throttle.tune(limits, self._context.clock())
        self.changed.set()

    def abandon(self) -> None:
        """Give up every attempt in flight."""
        for task in self._attempts:
            task.cancel()

    def withdraw(self, sent_before: float) -> None:
        """Give up the attempts that were sent until then; their requests are sent again."""
        for task, item in self._attempts.items():
            if item.flight is not None and item.flight.left_at <= sent_before:
                item.is_withdrawn = True
                task.cancel()

    def doubt(self, item: OpenRequest, attempt: int) -> None:
        """Ask a request again, as the reply to this attempt may have been another request's."""
        if self._doubts.add(item, attempt):
            self.changed.set()

    async def take_back_doubted(self) -> bool:
        """Take back recorded outcomes that are doubtful, and queue their requests; whether there were any."""
        requests = await self._doubts.take_back(self._context)
        for item in requests:
            self._delayed.add(item, self._context.clock())
        return bool(requests)

    def save_learned(self) -> None:
        """Save the learned limits, if anything was answered."""
        if self._retry_policy.answers:
            self._context.save_learned(self._model, replace(self._throttle.learned(), **self._form.learned))

    def _save_learned_at_times(self, now: float) -> None:
        if now >= self._learned_saved_at + SAVE_LEARNED_SECONDS:
            self._learned_saved_at = now
            self.save_learned()

    async def _next(self) -> OpenRequest | None:
        """Wait until a request may leave, and mark it as sent; None when no request is left, or after a stop."""
        async with self._choosing:
            while self._context.stopping is None:
                self.changed.clear()
                await self._settle_doubts()
                item = self._candidate()
                if self._context.stop_requested.is_set():
                    break
                wait = self._seconds_to_wait(item)
                if item is not None and wait <= 0:
                    item.sent = self._form.encode(item.request, self._context.clock())
                    worst = self._context.budget.worst(item.sent)
                    if await self._context.note_reservation(worst or 0.0):
                        continue  # that took time: there may be a stop or a pause now
                    if self._reserve(item, worst):
                        self._mark_sent(item)
                        return item
                is_idle = item is None and not self._delayed and not self.in_flight
                if is_idle and self._source.is_over(self._model) and not self._unconfirmed.is_model_in_doubt():
                    break
                if is_idle and self._unconfirmed:
                    if not await self._wait_for_change(IDLE_SECONDS) and not self._unconfirmed.is_model_in_doubt():
                        await self._record_all(await self._key_check.settle())
                    continue
                await self._wait_for_change(wait if wait > 0 else math.inf)
            if self._context.stopping is None:
                await self._record_all(await self._key_check.settle())
            return None

    async def _settle_doubts(self) -> None:
        await self.take_back_doubted()
        if self._retry_policy.is_key_in_doubt:
            await self._record_all(await self._key_check.ask())

    def _candidate(self) -> OpenRequest | None:
        """The request to send next, not yet removed from its queue: one that is due again, else a new one.

        Before the first answer a few new requests go first, so that one bad row does not hold up the others.
        """
        if self._reformatted is not None:
            return self._reformatted
        delayed = self._delayed.due(self._context.clock())
        is_first = not self._retry_policy.answers
        delayed_max = FIRST_ROWS if is_first else DELAYED_MAX
        are_few = len(self._delayed) + len(self._unconfirmed) < delayed_max
        has_room = not self._delayed or (are_few and self._delayed.size_bytes < self.flight_bytes_max)
        if delayed is not None and not (is_first and has_room):
            return delayed
        if self._new is None and has_room:
            request = self._source.draw(self._model)
            self._new = OpenRequest(request) if request is not None else None
        return self._new or delayed

    def _seconds_to_wait(self, item: OpenRequest | None) -> float:
        """Seconds until the candidate may leave, or until one may be due; infinity if a reply must come first."""
        now = self._context.clock()
        if item is None:
            return max(self._delayed.first_at - now, 1e-3)
        has_room = self._flight_bytes + len(item.request.body) <= self.flight_bytes_max
        if self._throttle.in_flight and not (self._retry_policy.answers and has_room):
            return math.inf
        return self._throttle.wait_before_next(now)

    def _reserve(self, item: OpenRequest, worst: float | None) -> bool:
        """Reserve the most that an attempt can cost (`worst`); False if replies must come first.

        Raises Stopped if nothing is in flight that could free enough of the budget.
        """
        reserved = self._context.budget.reserve(worst)
        if reserved is not None:
            item.reserved = reserved
        elif not self._source.in_flight:
            raise self._context.budget.exhausted(item.sent)
        return reserved is not None

    def _mark_sent(self, item: OpenRequest) -> None:
        """Remove the request from its queue, and count it as in flight."""
        if item is self._reformatted:
            self._reformatted = None
        elif item is self._new:
            self._new = None
        else:
            self._delayed.remove_first()
        self._form.tier.on_sent(item.sent, self._context.clock())
        item.flight = self._throttle.on_sent(self._context.clock(), token_bytes(item.request.body))

    async def _wait_for_change(self, seconds: float) -> bool:
        """Return after that many seconds, or as soon as something changed, and whether it did.

        The endpoint's pause is shown meanwhile.
        """
        paused = self._throttle.paused_seconds(self._context.clock())
        self._context.show_progress(Pause(paused, self._throttle.cause) if paused >= 1 else NO_PAUSE)
        if paused >= 1:
            seconds = min(seconds, COUNTDOWN_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                await self.changed.wait()
        return self.changed.is_set()

    async def _attempt(self, item: OpenRequest, share: RoomShare) -> None:
        """Make one attempt, and act on its reply: record an outcome, or put the request back into a queue."""
        item.tries.sent += 1
        item.is_withdrawn = item.is_doubtful = False
        asked_at, flight = datetime.now(tz=UTC), item.flight
        assert flight is not None  # noqa: S101 - `_mark_sent` set it
        try:
            reply = await self._reply_to(item, share)
            is_large = reply is not None and len(reply.body) > BODY_BYTES_AT_ONCE
            result = None if reply is None else await in_thread_if(is_large, read_reply, reply, item.sent.body)
        except BaseException:
            self._throttle.on_abandoned()
            raise
        finally:
            self._wake()
        if reply is None or result is None:
            self._throttle.on_abandoned()
            if item.is_withdrawn and self._context.stopping is None:
                self._delayed.add(item, flight.left_at)
            return
        now = self._context.clock()
        item.cost = add_costs(item.cost, settle(self._context, item.sent, result, item.reserved))
        item.reserved = 0.0
        self._form.tier.on_result(item.sent, result, now)
        item.sent = item.request
        if item.is_doubtful:
            item.is_doubtful = False
            self._throttle.on_abandoned()
            self._delayed.add(item, now)
            return
        if isinstance(result, Answer):
            self._throttle.on_answer(flight, result.usage, read_allowance(reply.headers), now)
            self._retry_policy.answered(now)
            self._cut_offs.answered(reply.seconds)
            confirmed = self._unconfirmed.take(flight.left_at)
            for line in self._form.on_answer(result):
                self._context.say(line)
            self._save_learned_at_times(now)
            await self._record(item, item.completed(result, asked_at, reply.seconds))
            await self._record_all(confirmed)
            return
        self._throttle.on_rejection(flight, result, now)
        self._context.log_rejection(result)
        if line := self._cut_offs.rejected(item.request.key, result, reply.seconds, now):
            self._context.say(line)
        decision = self._decide(item, result, now)
        if isinstance(decision, Failure):
            failure = item.completed(decision, asked_at, reply.seconds)
            if not self._retry_policy.answers or self._unconfirmed.is_key_in_doubt(item, failure):
                self._unconfirmed.add(item, failure)
            else:
                await self._record(item, failure)

    def _decide(self, item: OpenRequest, rejection: Rejection, now: float) -> Failure | None:
        """Queue a rejected request to be sent again, or return its failure. Raises Stopped if the job cannot go on."""
        if not self._retry_policy.answers and self._form.try_other(rejection):
            self._reformatted = item
            return None
        named_by = self._unconfirmed.named_by
        if rejection.kind == "not_found" and named_by is not None and not self._retry_policy.answers:
            reason = f"the model {self._model!r} in the column {named_by!r}: {rejection.message}"
            return Failure(kind="not_found", reason=reason)
        decision = self._retry_policy.decide(rejection, item.tries, now)
        self._key_check.look_at(item, rejection, now)
        if isinstance(decision, RetryAfter):
            self._delayed.add(item, now + decision.after_seconds)
            return None
        if isinstance(decision, Stopped):
            raise decision
        return decision

    async def _send_check(self, item: OpenRequest) -> Reply | None:
        with self._client.share() as share:
            return await self._reply_to(item, share)

    async def _reply_to(self, item: OpenRequest, share: RoomShare) -> Reply | None:
        """Send the request and wait for the reply; None if the attempt was given up."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine always runs in a task
        self._attempts[task] = item
        size = len(item.request.body)
        self._flight_bytes += size
        try:
            return await self._client.attempt(item.sent, (self, item, item.tries.sent), share)
        except asyncio.CancelledError:
            settle_unanswered(self._context, item.reserved)
            item.reserved = 0.0
            if self._context.stopping is None and not item.is_withdrawn:
                raise
            task.uncancel()
            return None
        finally:
            self._flight_bytes -= size
            del self._attempts[task]

    def _wake(self) -> None:
        """Wake the worker that waits for a slot; under a cost cap those of other lanes, too, as money became free."""
        if self._context.budget.cap is None:
            self.changed.set()
        else:
            self._source.wake_all()

    async def _record(self, item: OpenRequest, outcome: Outcome) -> None:
        """Record an outcome, and queue its follow-up before all new requests."""
        # urgent if no other outcome can come to share this one's commit: no reply is awaited, no request can be sent
        is_last = not self.in_flight and (not self._waiting_workers or self._source.is_over(self._model))
        following = await self._context.record(item.request, outcome, is_urgent=is_last, replaces=item.replaces)
        item.keep(outcome)
        if item.is_superseded:
            if following is None:
                self._context.uncount(item.request, outcome)
        elif following is not None:
            item.following = OpenRequest(following)
            self._delayed.add(item.following, self._context.clock())
            self.changed.set()
        if item.is_doubtful:
            self.doubt(item, item.tries.sent)

    async def _record_all(self, failed: list[tuple[OpenRequest, Failure]]) -> None:
        for item, failure in failed:
            await self._record(item, failure)
