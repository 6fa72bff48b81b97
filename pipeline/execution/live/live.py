"""Answering now: many requests in flight, each tried until it is settled."""

import asyncio
import contextlib
import heapq
import math
from collections import deque
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import count

from msgspec.structs import replace

from ...answers import RESPONSE_FORMATS, ContractEncoder
from ...costs import expected_usage, token_bytes
from ...endpoint import Client, read_allowance, read_reply, rejects_response_format
from ...job import Job, Limits, duration_seconds
from ...pacing import WINDOW_MAX, Attempts, InFlight, RetryAfter, RetryPolicy, Throttle, TokenEstimate
from ...progress import NO_PAUSE, Pause
from ...records import Answer, Outcome, Rejection, Reply, Request, Stopped, Tally, Usage, add_costs
from ...text import duration
from ..context import DRAIN_SECONDS, RunContext

TICK_SECONDS = 2.0
SLEEP_SECONDS = 60.0
"""How often we look whether the machine has slept, and for how long at least to call it that."""
LANDING_SECONDS = 3.0
"""So long after it woke, answers that had come before may be read."""

SHOW_SECONDS = 1.0
"""While everyone waits, the screen counts down so often."""

LEARNT_SECONDS = 5.0
"""What was learnt of the endpoint is noted so often."""

OTHER_FILES = 128
"""The table, the store, the log and what Python itself has open."""

WAITING_MAX = 1000
"""While so many requests wait to be tried again, no fresh one is begun: trouble must not draw in the whole table."""

DRAWN_MAX = 1000
DRAWN_BYTES_MAX = 64 * 1024 * 1024
"""So much is drawn ahead for other lanes while one's own is looked for: a slow one must not draw in the whole table."""


FIRST_ROWS = 5
"""Before the first answer, so many rows take turns."""


async def answer_all(job: Job, requests: AsyncIterator[Request], context: RunContext) -> None:
    """Ask every request, and what follows on its answer, record every outcome at the desk; return when all are settled.

    One request of each model goes first; the rest follow after the first answer, as many at once as the throttle
    allows: a worker comes into being when there is a slot for it, and a connection when there is a request for it. A
    request that is to be tried again, or that follows on an answer, waits in a queue by time, not in a slot, and goes
    before fresh ones. Raises Stopped when the job cannot go on or was asked to stop; what was in flight is then pending
    again.
    """
    _allow_connections(len(job.models), job.limits)
    async with Client(job.endpoint, job.endpoint.key()) as client:
        lanes = _Lanes(job, requests, context, client)
        context.on_tune = lanes.tune
        working = asyncio.create_task(lanes.work())
        watching = asyncio.create_task(lanes.notice_sleep())
        stop_requested = asyncio.create_task(context.stop_requested.wait())
        drain_aborted = asyncio.create_task(context.drain_aborted.wait())
        try:
            await asyncio.wait({working, stop_requested}, return_when=asyncio.FIRST_COMPLETED)
            lanes.look_again()
            await asyncio.wait({working, drain_aborted}, timeout=DRAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            lanes.abandon()
            await working
        finally:
            # an error or a cancellation may end this, too: nothing goes on behind the caller's back
            for task in (working, watching, stop_requested, drain_aborted):
                task.cancel()
            await asyncio.wait({working, watching, stop_requested, drain_aborted})
        lanes.end()
    context.clear_reservation()
    if context.stopping is not None:
        raise context.stopping


def _estimate(known: Tally) -> TokenEstimate:
    """Tokens by size, as all answers of the job folder had them on average."""
    many = 1_000_000
    usage = expected_usage(known, many, many)
    return TokenEstimate((usage.prompt_tokens or 0) / many, (usage.completion_tokens or 0) / many)


def _allow_connections(lanes: int, limits: Limits) -> None:
    """Each request in flight is an open file, of which some systems grant 256 until they are asked for more."""
    most = lanes * (WINDOW_MAX if limits.concurrency == "auto" else limits.concurrency)
    try:
        import resource  # noqa: PLC0415 - there is none on Windows, and no such limit
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # fewer will do: who cannot connect, narrows the window
            resource.setrlimit(
                resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
            )


class _Turn:
    """A request on its way to an outcome."""

    __slots__ = ("cost", "flight", "request", "reserved", "sent", "taken_back", "tries")

    def __init__(self, request: Request) -> None:
        self.request = self.sent = request
        """As it was made, and as it is sent: with the form in which its contract is conveyed."""
        self.tries = Attempts()
        self.cost: float | None = 0.0
        self.flight: InFlight | None = None
        self.reserved = 0.0
        self.taken_back = False
        """Its last attempt is given up, and it is asked again."""

    def settled(self, outcome: Outcome, asked_at: datetime, seconds: float) -> Outcome:
        """The outcome with all that this run knows of it."""
        return replace(
            outcome, attempts=self.tries.sent, asked_at=asked_at, latency_seconds=round(seconds, 4), cost=self.cost
        )


class _Lanes:
    """All traffic of a run: one stream of requests, drawn as they are wanted, each into the lane of its model."""

    def __init__(self, job: Job, requests: AsyncIterator[Request], context: RunContext, client: Client) -> None:
        self._job, self._requests, self._context, self._client = job, requests, context, client
        self._first_model = job.models[0]
        self._lanes: dict[str, _Lane] = {}
        self._drawn: dict[str, deque[Request]] = {}
        self._drawn_bytes = 0
        self._is_full = False
        self._drawing = asyncio.Lock()
        self._is_over = False
        self._tasks: asyncio.TaskGroup

    async def work(self) -> None:
        """Ask until none is left or a stop is asked; an unforeseen error in one worker ends all, and is raised."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                for model in self._job.models:
                    self._open(model)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    def _open(self, model: str) -> None:
        self._drawn[model] = deque()
        self._lanes[model] = _Lane(self._job, model, self, self._context, self._client)
        self._tasks.create_task(self._lanes[model].work())

    async def draw(self, model: str) -> Request | None:
        """The next request of a model; None if there is none just now, or none any more (`is_over`)."""
        mine = self._drawn[model]
        async with self._drawing:
            while not mine and not self._is_over and not self._is_full:
                request = await anext(self._requests, None)
                if request is None:
                    self._is_over = True
                    self.look_again()
                else:
                    self._file(request)
        if not mine:
            return None
        request = mine.popleft()
        self._drawn_bytes -= len(request.body)
        if self._is_full:
            self._is_full = False
            self.look_again()
        return request

    def _file(self, request: Request) -> None:
        """Into the lane of its model, which is opened if there is none."""
        model = request.model or self._first_model
        if model not in self._lanes:
            self._open(model)
        self._drawn[model].append(request)
        self._drawn_bytes += len(request.body)
        self._is_full = len(self._drawn[model]) >= DRAWN_MAX or self._drawn_bytes >= DRAWN_BYTES_MAX
        self._lanes[model].changed.set()

    def is_over(self, model: str) -> bool:
        """No request of this model is to come any more."""
        return self._is_over and not self._drawn[model]

    @property
    def in_flight(self) -> int:
        """Requests that have left and not landed, of all models."""
        return sum(lane.in_flight for lane in self._lanes.values())

    def tune(self, limits: Limits) -> None:
        """Go on under these limits, each lane for itself."""
        self._job = self._job.model_copy(update={"limits": limits})
        _allow_connections(len(self._lanes), limits)
        for lane in self._lanes.values():
            lane.tune(limits)

    def look_again(self) -> None:
        """Whoever waits at a gate looks again: a stop was asked, money or room became free."""
        for lane in self._lanes.values():
            lane.changed.set()

    def abandon(self) -> None:
        """Wait no longer for those in flight."""
        for lane in self._lanes.values():
            lane.abandon()

    async def notice_sleep(self) -> None:
        """When the machine slept, or we were stopped: what was in flight then, and does not land soon, is taken back.

        Its connections are dead as a rule, and would be waited for in vain until their deadline.
        """
        before = self._context.uptime()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = self._context.uptime()
            slept, before = now - before - TICK_SECONDS, now
            if slept < SLEEP_SECONDS:
                continue
            woken = self._context.clock()
            self._context.say(f"woke after {duration(slept)}: what was in flight, and lands no more, is asked again.")
            await asyncio.sleep(LANDING_SECONDS)
            for lane in self._lanes.values():
                lane.take_back(woken)

    def end(self) -> None:
        """Keep what was learnt."""
        for lane in self._lanes.values():
            lane.end()


class _Lane:
    """The traffic to one endpoint, model and key: one gate through which requests leave one by one."""

    def __init__(self, job: Job, model: str, lanes: _Lanes, context: RunContext, client: Client) -> None:
        self._model, self._lanes, self._context, self._client = model, lanes, context, client
        now = context.clock()
        self._throttle = Throttle(job.limits, now, context.learned(model), _estimate(context.ledger))
        self._conveying = ContractEncoder(job)
        self._forms = RESPONSE_FORMATS if job.answer.contract is not None else RESPONSE_FORMATS[:1]
        self._form = 0
        self._refused_form = ""
        """What the endpoint said of the first form, while another is tried."""
        self._patience = RetryPolicy(
            now,
            context.rng,
            give_up_after_seconds=duration_seconds(job.limits.give_up_after),
            waits=job.this_run.wait_for_endpoint,
        )
        self._gate = asyncio.Lock()
        self._fresh: _Turn | None = None
        self._reformed: _Turn | None = None
        """What is asked at once in the next form, its last one having been refused."""
        self._later: list[tuple[float, int, _Turn]] = []
        self._order = count()
        self._workers: asyncio.TaskGroup
        self._hired = self._at_gate = 0
        self._noted_at = -math.inf
        self._asking: dict[asyncio.Task[None], _Turn] = {}
        self._doubtful: list[tuple[_Turn, Outcome]] = []
        """Rows that failed before anything was answered: recorded once it is sure that not the job is bad."""
        self.changed = asyncio.Event()
        """Something landed, or a stop was asked: whoever waits at the gate looks again."""

    @property
    def in_flight(self) -> int:
        """Requests that have left and not landed."""
        return self._throttle.in_flight

    async def work(self) -> None:
        """Ask until none is left or a stop is asked."""
        try:
            async with asyncio.TaskGroup() as self._workers:
                self._hire()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    def _hire(self) -> None:
        """One more worker, if nobody waits at the gate: one for each slot, and one for each answer being stored."""
        if not self._at_gate and self._hired < 2 * self._throttle.window:
            self._hired += 1
            self._at_gate += 1
            self._workers.create_task(self._work())

    async def _work(self) -> None:
        try:
            while (turn := await self._next_turn()) is not None:
                self._at_gate -= 1
                self._hire()
                await self._ask(turn)
                self._at_gate += 1
        except Stopped as stop:
            self._context.stop(stop)
            self.changed.set()

    def tune(self, limits: Limits) -> None:
        """Go on under these limits."""
        self._throttle.tune(limits, self._context.clock())
        self.changed.set()

    def abandon(self) -> None:
        """Wait no longer for those in flight."""
        for task in self._asking:
            task.cancel()

    def take_back(self, moment: float) -> None:
        """Ask again what has been in flight since before that moment."""
        for task, turn in self._asking.items():
            if turn.flight is not None and turn.flight.left_at <= moment:
                turn.taken_back = True
                task.cancel()

    async def _next_turn(self) -> _Turn | None:
        """The next request that may leave now, marked as in flight; None when there is none left."""
        async with self._gate:
            while self._context.stopping is None:
                self.changed.clear()
                turn = await self._candidate()
                if self._context.stop_requested.is_set():
                    break
                wait = self._wait(turn)
                if turn is not None and wait <= 0:
                    turn.sent = self._conveyed(turn.request)
                    if await self._context.note_reservation(turn.sent):
                        continue  # that took a moment: a stop or a pause may have come
                    if self._afford(turn):
                        self._leave(turn)
                        return turn
                if turn is None and not self._later and not self.in_flight and self._lanes.is_over(self._model):
                    break
                await self._look_again_after(wait if wait > 0 else math.inf)
            if self._context.stopping is None:
                await self._trust_the_doubtful()
            return None

    async def _candidate(self) -> _Turn | None:
        """The request that would leave next, left where it stands: one to be tried again, else a fresh one.

        Before the first answer a fresh one has precedence, for a few: one bad row must not hold up the others.
        """
        if self._reformed is not None:
            return self._reformed
        again = self._due()
        first = not self._patience.answers
        room = not self._later or len(self._later) + len(self._doubtful) < (FIRST_ROWS if first else WAITING_MAX)
        if again is not None and not (first and room):
            return again
        if self._fresh is None and room:
            request = await self._lanes.draw(self._model)
            self._fresh = _Turn(request) if request is not None else None
        return self._fresh or self._due()  # asked anew: while the next row was made, another may have come before it

    def _due(self) -> _Turn | None:
        """The first that is to be tried again, if its time has come."""
        return self._later[0][2] if self._later and self._later[0][0] <= self._context.clock() else None

    def _wait(self, turn: _Turn | None) -> float:
        """Seconds until it is worth looking again; infinity if something must land first."""
        now = self._context.clock()
        due = self._later[0][0] - now if self._later else math.inf
        if turn is None:
            return max(due, 1e-3)
        if self._throttle.in_flight and not self._patience.answers:
            return math.inf
        return self._throttle.wait_before_next(now)

    def _conveyed(self, request: Request) -> Request:
        """The request in the form in which its contract is conveyed."""
        body = self._conveying.conveyed(request.body, self._forms[self._form])
        return request if body is request.body else replace(request, body=body)

    def _afford(self, turn: _Turn) -> bool:
        """Set the worst case aside; False if what is in flight must land first. Raises Stopped if that cannot help."""
        reserved = self._context.budget.reserve(turn.sent)
        if reserved is not None:
            turn.reserved = reserved
        elif not self._lanes.in_flight:
            raise self._context.budget.exhausted(turn.sent)
        return reserved is not None

    def _leave(self, turn: _Turn) -> None:
        if turn is self._reformed:
            self._reformed = None
        elif turn is self._fresh:
            self._fresh = None
        else:
            heapq.heappop(self._later)
        turn.flight = self._throttle.on_sent(self._context.clock(), token_bytes(turn.request.body))

    async def _look_again_after(self, seconds: float) -> None:
        paused = self._throttle.paused_seconds(self._context.clock())
        self._context.show_progress(Pause(paused, self._throttle.cause) if paused >= 1 else NO_PAUSE)
        if paused >= 1:
            seconds = min(seconds, SHOW_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                await self.changed.wait()

    async def _ask(self, turn: _Turn) -> None:
        """One attempt, and what follows from it."""
        turn.tries.sent += 1
        turn.taken_back = False
        asked_at, flight = datetime.now(tz=UTC), turn.flight
        assert flight is not None  # noqa: S101 - `_leave` gave it one
        try:
            reply = await self._attempt(turn)
        except BaseException:
            self._throttle.on_abandoned()
            raise
        finally:
            turn.sent = turn.request
            self._landed()
        if reply is None:
            self._throttle.on_abandoned()
            if turn.taken_back and self._context.stopping is None:
                heapq.heappush(self._later, (flight.left_at, next(self._order), turn))
            return
        said, now = read_reply(reply), self._context.clock()
        self._account(turn, said)
        if isinstance(said, Answer):
            self._throttle.on_answer(flight, said.usage, read_allowance(reply.headers), now)
            self._patience.answered(now)
            self._settle_form()
            self._keep_learnt(now)
            await self._record(turn, turn.settled(said, asked_at, reply.seconds))
            await self._trust_the_doubtful()
            return
        self._throttle.on_rejection(flight, said, now)
        self._context.log_rejection(said)
        if self._takes_another_form(said):
            self._reformed = turn
            return
        decision = self._patience.decide(said, turn.tries, now)
        if isinstance(decision, RetryAfter):
            heapq.heappush(self._later, (now + decision.after_seconds, next(self._order), turn))
        elif isinstance(decision, Stopped):
            raise decision
        else:
            failure = turn.settled(decision, asked_at, reply.seconds)
            if not self._patience.answers:
                self._doubtful.append((turn, failure))
            else:
                await self._record(turn, failure)

    async def _record(self, turn: _Turn, outcome: Outcome) -> None:
        """Have it written down, and put what follows on it before all fresh requests."""
        # all others of this lane wait for the disk as well, or there are none: no other would come to share its commit
        is_last = not self.in_flight and (not self._at_gate or self._lanes.is_over(self._model))
        following = await self._context.record(turn.request, outcome, is_urgent=is_last)
        if following is not None:
            heapq.heappush(self._later, (self._context.clock(), next(self._order), _Turn(following)))
            self.changed.set()

    def _takes_another_form(self, refusal: Rejection) -> bool:
        """Before the first answer, whether it is the contract's form that may be refused, and the next is to be tried.

        If the last one is refused too, it is not the form: the row has failed, and the next begins with the first form.
        """
        if self._patience.answers or not rejects_response_format(refusal):
            return False
        self._refused_form = self._refused_form or f"HTTP {refusal.status}: {refusal.message}"
        self._form = (self._form + 1) % len(self._forms)
        if not self._form:
            self._refused_form = ""
        return self._form > 0

    def _settle_form(self) -> None:
        """Say, at the first answer, if its contract was conveyed in another form than the first."""
        if self._refused_form:
            takes_no = " and no ".join(self._forms[: self._form])
            instead = "by json_object" if self._form == 1 else "in plain words"
            self._context.say(f"the endpoint takes no {takes_no} ({self._refused_form}): asked {instead} instead")
            self._refused_form = ""

    def _landed(self) -> None:
        """Whoever waits for a slot looks again, and for money that became free those of other lanes too."""
        if self._context.budget.cap is None:
            self.changed.set()
        else:
            self._lanes.look_again()

    async def _attempt(self, turn: _Turn) -> Reply | None:
        """The reply; None if the wait for it was given up."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs is a task's
        self._asking[task] = turn
        try:
            return await self._client.attempt(turn.sent)
        except asyncio.CancelledError:
            self._break_off(turn)
            if self._context.stopping is None and not turn.taken_back:
                raise
            task.uncancel()
            return None
        finally:
            del self._asking[task]

    def _account(self, turn: _Turn, said: Answer | Rejection) -> None:
        """Settle tokens and money of one attempt; what may have been billed counts at its worst against the cap."""
        usage = said.usage or Usage()
        known = isinstance(said, Answer) or said.usage is not None
        paid = self._context.prices.cost(usage, self._model) if known else 0.0
        turn.cost = add_costs(turn.cost, paid)
        broke_off = isinstance(said, Rejection) and said.maybe_paid
        doubtful = paid is None or (broke_off and not known)
        self._context.budget.settle(turn.reserved, turn.reserved if doubtful else paid or 0.0)
        self._context.count_attempt(paid, held=turn.reserved if doubtful else 0.0, broke_off=broke_off)
        turn.reserved = 0.0

    def _keep_learnt(self, now: float) -> None:
        """Now and then, so that a run that is killed leaves behind what it found out."""
        if now >= self._noted_at + LEARNT_SECONDS:
            self._noted_at = now
            self._context.save_learned(self._model, self._throttle.learned())

    def end(self) -> None:
        """Keep what was learnt, if anything was answered."""
        if self._patience.answers:
            self._context.save_learned(self._model, self._throttle.learned())

    def _break_off(self, turn: _Turn) -> None:
        """Account for an attempt whose reply is not waited for: it may be billed."""
        self._context.budget.settle(turn.reserved, turn.reserved)
        self._context.count_attempt(0.0, held=turn.reserved, broke_off=True)
        turn.reserved = 0.0

    async def _trust_the_doubtful(self) -> None:
        while self._doubtful:
            turn, failure = self._doubtful.pop()
            await self._record(turn, failure)
