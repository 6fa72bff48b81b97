"""Answering on many machines: `live` in Ray actors, each over requests that it is handed; the desk stays here.

Only this process writes the store: an actor's outcome counts when the desk has recorded it, and the actor is told so.
What an actor held when it died is handed to another; what was recorded of it is not asked again. Between the processes
travel bytes that are JSON of the nouns.
"""

import asyncio
import contextlib
import math
import os
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Any, Self

import msgspec
from msgspec.structs import replace

from .desk import Desk, Found
from .job import Job
from .live import DRAIN_SECONDS
from .live import answer_all as answer_live
from .records import BadJob, Exit, Learnt, Outcome, Record, Refusal, Request, Stopped, Tally
from .throttle import WINDOW_FIRST

START_SECONDS = "150"
"""Ray's own patience with its start, which takes half a minute on two busy cores."""
SPARE = 32
"""Requests that an actor has in hand beside twice its window."""
DEATHS_MOST = 5
"""Of actors, without a single outcome in between: it is no accident."""
GATHER_SECONDS = 0.02
"""What happens in an actor within so long travels together."""
SECRETS = "PIPELINE_WORKER_SECRETS"
"""The variable of an actor's environment that holds the endpoint's key and headers."""


class Recorded(Record, frozen=True, tag="recorded"):
    """A request has come to an outcome, which is to be recorded."""

    request: Request
    outcome: Outcome


class Landed(Record, frozen=True, tag="landed"):
    """An attempt is over, as `Desk.landed` is told it."""

    cost: float | None
    held: float
    broke_off: bool


class Told(Record, frozen=True, tag="told"):
    """A line for the screen."""

    text: str


class Learned(Record, frozen=True, tag="learned"):
    """What an actor found out about the pace of a model's lane."""

    model: str
    learnt: Learnt


class Refused(Record, frozen=True, tag="refused"):
    """An attempt gave no answer."""

    refusal: Refusal


class Ended(Record, frozen=True, tag="ended"):
    """An actor has nothing in flight any more; why it stopped, if it did."""

    message: str = ""
    exit_code: int = 0


Event = Recorded | Landed | Told | Learned | Refused | Ended
Reply = tuple[str, Request | None]
"""The key of an outcome that is on disk, and what is to be asked next in its row."""

_encoder = msgspec.json.Encoder()
_events = msgspec.json.Decoder(list[Event])
_requests = msgspec.json.Decoder(list[Request])
_replies = msgspec.json.Decoder(list[Reply])


# ---- in an actor


class FarDesk(Desk):
    """A desk that passes on what it is told, to the one desk of the run."""

    def __init__(self, job: Job, ledger: Tally, found: Iterable[Found]) -> None:
        super().__init__(job, None, ledger, {each.lane: each for each in found})  # type: ignore[arg-type] # it has no store, and writes nothing
        self._outbox: list[Event] = []
        self._filled = asyncio.Event()
        self._recorded: dict[str, asyncio.Future[Request | None]] = {}

    def post(self, event: Event) -> None:
        """Pass it on."""
        self._outbox.append(event)
        self._filled.set()

    async def outbox(self) -> bytes:
        """All that happened since this was last asked for; waits until something did."""
        await self._filled.wait()
        await asyncio.sleep(GATHER_SECONDS)
        events, self._outbox = self._outbox, []
        self._filled.clear()
        return _encoder.encode(events)

    def acknowledge(self, replies: bytes) -> None:
        """These are on disk."""
        for key, follow_up in _replies.decode(replies):
            waiting = self._recorded.pop(key, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(follow_up)

    async def record(self, request: Request, outcome: Outcome, *, counts: bool = True) -> Request | None:
        """Returns once the outcome is on disk at the run's desk."""
        assert counts  # noqa: S101 - an actor comes by nothing that it was not handed
        waiting: asyncio.Future[Request | None] = asyncio.get_running_loop().create_future()
        self._recorded[request.key] = waiting
        self.post(Recorded(request, outcome))
        return await waiting

    def landed(self, cost: float | None, *, held: float = 0.0, broke_off: bool = False) -> None:
        """Pass it on."""
        self.post(Landed(cost, held, broke_off))

    def refused(self, refusal: Refusal) -> None:
        """Pass it on."""
        self.post(Refused(refusal))

    def tell(self, text: str) -> None:
        """Pass it on."""
        self.post(Told(text))

    def learn(self, model: str, learnt: Learnt) -> None:
        """Pass it on."""
        self.post(Learned(model, learnt))

    async def set_aside(self, request: Request) -> bool:  # noqa: ARG002 - as the desk has it
        """The run's desk did, before it handed the request out."""
        return False

    def nothing_in_flight(self) -> None:
        """The run's desk sees to it."""


class Worker:
    """The actor. Its methods run on one event loop."""

    def __init__(self, job: bytes, ledger: bytes, found: bytes) -> None:
        """Begin to answer what it is handed, as a job whose secrets are in the environment."""
        told = msgspec.json.decode(job)
        secrets = msgspec.json.decode(os.environ.get(SECRETS, "{}"))
        told["endpoint"] |= secrets
        self._job = Job.model_validate({**told, "inputs": ("-",)})  # it reads none
        known = msgspec.json.decode(ledger, type=Tally), msgspec.json.decode(found, type=list[Found])
        self._desk = FarDesk(self._job, *known)
        self._coming: asyncio.Queue[Request | None] = asyncio.Queue()

    async def run(self) -> None:
        """Answer until the end, or a stop; an error that was not foreseen is raised."""
        try:
            await answer_live(self._job, self._handed(), self._desk)
            self._desk.post(Ended())
        except (Stopped, BadJob) as stop:
            code = stop.exit_code if isinstance(stop, Stopped) else Exit.NEEDS_PERSON
            self._desk.post(Ended(str(stop), int(code)))

    async def _handed(self) -> AsyncIterator[Request]:
        while (request := await self._coming.get()) is not None:
            yield request

    async def take(self, requests: bytes) -> None:
        """Answer these too."""
        for request in _requests.decode(requests):
            self._coming.put_nowait(request)

    async def finish(self) -> None:
        """Nothing more will come."""
        self._coming.put_nowait(None)

    async def events(self) -> bytes:
        """What happened since."""
        return await self._desk.outbox()

    async def acknowledge(self, replies: bytes) -> None:
        """These outcomes are on disk."""
        self._desk.acknowledge(replies)

    async def stop(self) -> None:
        """Send nothing more."""
        self._desk.stop(Stopped("stopped"))
        self._coming.put_nowait(None)

    async def hurry(self) -> None:
        """Wait for nothing."""
        self._desk.hurry()


# ---- in the run


async def answer_all(job: Job, requests: AsyncIterator[Request], desk: Desk) -> None:
    """Ask every request by `run.workers` actors, record every outcome at the desk; return when all are settled.

    Explicit limits are divided among the actors, each of which learns the endpoint's own. The first answer comes before
    the second actor begins. Raises Stopped as `live.answer_all`, and BadJob where Ray is not installed or not reached.
    """
    async with _Fleet(job, requests, desk) as fleet:
        await fleet.work()
    desk.nothing_in_flight()
    if desk.stopping is not None:
        raise desk.stopping


class _Member:
    """One actor, and what it has in hand."""

    def __init__(self, actor: Any) -> None:  # noqa: ANN401 - Ray's handle has no type of its own
        self.actor = actor
        self.running = actor.run.remote()
        self.in_hand: dict[str, Request] = {}
        self.windows: dict[str, int] = {}
        """How many at once each model's lane was found to take."""
        self.is_open = False
        """It may be handed requests."""
        self.has_ended = False

    @property
    def window(self) -> int:
        """How many it may have in flight."""
        return sum(self.windows.values()) or WINDOW_FIRST


class _Fleet:
    """All actors of a run."""

    def __init__(self, job: Job, requests: AsyncIterator[Request], desk: Desk) -> None:
        self._job, self._requests, self._desk = job, requests, desk
        self._returned: deque[Request] = deque()
        self._exhausted = False
        self._members: list[_Member] = []
        self._deaths = 0
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._ray = _ray()
        self._is_ours = not self._ray.is_initialized()
        if self._is_ours:
            self._desk.tell("Ray starts, which may take half a minute.")
            await asyncio.to_thread(_start, self._ray, self._job)
        secrets = {
            "headers": self._job.endpoint.headers,
            "api_key_env": self._job.endpoint.api_key_env,
            "api_key_default": self._job.endpoint.api_key_default,
        }
        key = self._job.endpoint.key()
        if key is not None:
            secrets |= {"api_key_env": "", "api_key_default": key.get_secret_value()}
        environment = {SECRETS: _encoder.encode(secrets).decode()}
        self._actor = self._ray.remote(num_cpus=1, scheduling_strategy="SPREAD", runtime_env={"env_vars": environment})(
            Worker
        )
        self._members = [self._hire() for _ in range(self._job.run.workers)]
        self._members[0].is_open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        for member in self._members:
            self._ray.kill(member.actor)
        if self._is_ours:
            await asyncio.to_thread(self._ray.shutdown)

    def _hire(self) -> _Member:
        share = 1 / self._job.run.workers
        told = _far_job(self._job, share)
        found = [replace(each, learnt=_scaled(each.learnt, share)) for each in self._desk.found.values()]
        return _Member(self._actor.remote(told, _encoder.encode(self._desk.ledger), _encoder.encode(found)))

    async def work(self) -> None:
        """Hand out, listen, record, until all is settled or every actor has stopped."""
        stopping = asyncio.create_task(self._pass_on_stops())
        listening = [asyncio.create_task(self._listen(at)) for at in range(len(self._members))]
        try:
            while not all(member.has_ended for member in self._members):
                self._changed.clear()
                if self._desk.stopping is None:
                    await self._hand_out()
                for task in listening:
                    if task.done():
                        task.result()
                await self._changed.wait()
        finally:
            for task in (stopping, *listening):
                task.cancel()
            await asyncio.gather(stopping, *listening, return_exceptions=True)

    async def _hand_out(self) -> None:
        """Give each actor as many requests as it can use."""
        for member in self._members:
            block: list[Request] = []
            wanted = 2 * member.window + SPARE if member.is_open and not member.has_ended else 0
            while len(member.in_hand) < wanted and (request := await self._next()) is not None:
                block.append(request)
                member.in_hand[request.key] = request
            if block:
                member.actor.take.remote(_encoder.encode(block))
        if self._exhausted and not self._returned and not any(member.in_hand for member in self._members):
            for member in self._members:
                if not member.has_ended:
                    member.actor.finish.remote()

    async def _next(self) -> Request | None:
        """The next request that the budget has room for; None if there is none, or some must land first."""
        if not self._returned and not self._exhausted:
            request = await anext(self._requests, None)
            self._exhausted = request is None
            if request is not None:
                self._returned.append(request)
        if not self._returned or self._desk.stopping is not None:
            return None
        await self._desk.set_aside(self._returned[0])
        if self._desk.budget.reserve(self._returned[0]) is None:
            if not any(member.in_hand for member in self._members):
                raise self._desk.budget.exhausted(self._returned[0])
            return None
        return self._returned.popleft()

    async def _listen(self, at: int) -> None:
        """Hear one actor out, and the one that takes its place should it die."""
        while not self._members[at].has_ended:
            member = self._members[at]
            try:
                events = _events.decode(await member.actor.events.remote())
            except self._ray.exceptions.RayActorError as error:
                self._bury(at, error)
            else:
                await self._hear(member, events)
            self._changed.set()

    async def _hear(self, member: _Member, events: list[Event]) -> None:
        for event in events:
            self._take_in(member, event)
        recorded = [event for event in events if isinstance(event, Recorded)]
        if not recorded:
            return
        follow_ups = await asyncio.gather(*(self._desk.record(each.request, each.outcome) for each in recorded))
        for each, follow_up in zip(recorded, follow_ups, strict=True):
            del member.in_hand[each.request.key]
            self._desk.budget.settle(self._desk.budget.worst(each.request) or 0.0, 0.0)
            if follow_up is not None:
                member.in_hand[follow_up.key] = follow_up
                self._desk.budget.reserved += self._desk.budget.worst(follow_up) or 0.0
        self._deaths = 0
        for other in self._members:
            other.is_open = True
        replies = [(each.request.key, follow_up) for each, follow_up in zip(recorded, follow_ups, strict=True)]
        member.actor.acknowledge.remote(_encoder.encode(replies))

    def _take_in(self, member: _Member, event: Event) -> None:
        """All but what is to be recorded."""
        match event:
            case Landed(cost, held, broke_off):
                self._desk.budget.settle(0.0, held or cost or 0.0)
                self._desk.landed(cost, held=held, broke_off=broke_off)
            case Told(text):
                self._desk.tell(text)
            case Refused(refusal):
                self._desk.refused(refusal)
            case Learned(model, learnt):
                member.windows[model] = learnt.window
                self._desk.learn(model, _scaled(learnt, self._job.run.workers))
            case Ended(message, exit_code):
                member.has_ended = True
                if message and self._desk.stopping is None:
                    self._desk.stop(Stopped(message, Exit(exit_code)))

    def _bury(self, at: int, error: Exception) -> None:
        """An actor died: what it had in hand goes to others, and another takes its place."""
        member = self._members[at]
        self._deaths += 1
        for number, request in enumerate(member.in_hand.values()):
            worst = self._desk.budget.worst(request) or 0.0
            if number < member.window:  # as many may have been in flight
                self._desk.budget.settle(worst, worst)
                self._desk.landed(0.0, held=worst, broke_off=True)
            else:
                self._desk.budget.settle(worst, 0.0)
        if self._desk.stopping is not None or self._deaths > DEATHS_MOST:
            member.has_ended = True
            self._desk.stop(Stopped(f"The Ray actors die one after the other: {str(error).strip()[:500]}"))
            return
        self._desk.tell(f"A Ray actor died; the {len(member.in_hand):,} requests that it had in hand are asked again.")
        self._returned.extendleft(reversed(member.in_hand.values()))
        self._members[at] = self._hire()
        self._members[at].is_open = member.is_open

    async def _pass_on_stops(self) -> None:
        await self._desk.stop_asked.wait()
        for member in self._members:
            member.actor.stop.remote()
        self._changed.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._desk.hurried.wait()
                for member in self._members:
                    member.actor.hurry.remote()
        await asyncio.sleep(DRAIN_SECONDS / 2)
        for member in self._members:  # one that says nothing any more is not waited for
            member.has_ended = True
        self._changed.set()


def _ray() -> Any:  # noqa: ANN401 - a module
    os.environ.setdefault("RAY_raylet_start_wait_time_s", START_SECONDS)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves this machine but requests
    try:
        import ray  # noqa: PLC0415 - takes seconds, and few jobs need it
    except ImportError:
        raise BadJob(
            'run.how = "ray" needs Ray:  pip install "batch-prompt-pipeline[ray]"\nNothing was sent.'
        ) from None
    return ray


def _start(ray: Any, job: Job) -> None:  # noqa: ANN401 - a module
    """Join the cluster that the job names, or make one of this machine. Raises BadJob."""
    given: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    if job.run.address:
        given = {"address": job.run.address, "log_to_driver": False, "logging_level": "ERROR"}
    else:
        cpus = max(job.run.workers, os.cpu_count() or 1)
        given |= {"address": "local", "num_cpus": cpus, "_node_ip_address": "127.0.0.1"}  # for nobody else
    try:
        ray.init(**given)
    except Exception as error:  # whatever Ray has to say, it is the user's to read
        where = job.run.address or "this machine"
        raise BadJob(f"Ray cannot be started at {where} (run.address): {error}\nNothing was sent.") from error


def _far_job(job: Job, share: float) -> bytes:
    """The job as an actor is told it: its share of the limits, no secret, and no file."""
    limits = job.limits.model_dump(by_alias=True)
    limits["requests_per_minute"] = _times(job.limits.requests_per_minute, share)
    limits["tokens_per_minute"] = _times(job.limits.tokens_per_minute, share)
    if job.limits.concurrency != "auto":
        limits["concurrency"] = max(1, int(job.limits.concurrency * share))
    # the run's desk holds the cap, and hands out what it has room for
    limits |= {"max_cost": None if job.limits.max_cost is None else 1e12, "max_runtime": None, "max_failures": None}
    settings = {**job.without_secrets(), "limits": limits}
    settings["endpoint"]["headers"] = {}
    waits = {"wait_for_endpoint": job.this_run.wait_for_endpoint}
    return _encoder.encode({**settings, "this_run": waits})


def _scaled(learnt: Learnt, by: float) -> Learnt:
    return Learnt(
        _times(learnt.requests_per_minute, by),
        _times(learnt.tokens_per_minute, by),
        math.ceil(learnt.window * by),
        learnt.age_seconds,
    )


def _times(number: float | None, by: float) -> float | None:
    return None if number is None else number * by
