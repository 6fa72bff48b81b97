"""Answering on many machines: `live` in Ray actors, each over requests that it is handed; the desk stays here.

Only this process writes the store: an actor's outcome counts when the desk has recorded it, and the actor is told so.
What an actor held when it died is handed to another; what was recorded of it is not asked again. Between the processes
travel bytes that are JSON of the nouns.
"""

import asyncio
import contextlib
import math
import os
import secrets
import shutil
import sys
import tempfile
import threading
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Self

import msgspec
from msgspec.structs import replace

from ...job import Job, Limits
from ...pacing import WINDOW_FIRST
from ...records import BadJob, Exit, LearnedLimits, Request, Stopped
from ...text import one_line
from ..context import DRAIN_SECONDS, RunContext
from .actor import ActorEnded, AttemptCounted, Event, LimitsLearned, Recorded, Rejected, Said, Worker, events_decoder

START_SECONDS = "150"
"""Ray's own patience with its start, which takes half a minute on two busy cores."""
SPARE = 32
"""Requests that an actor has in hand beside twice its window."""
HINT = "Each node needs this program, of the same version, and room for an actor: see Ray's logs."
DEATHS_MOST = 5
"""Of actors, without a single outcome in between: it is no accident."""
IN_HAND_BYTES = 64 * 1024 * 1024
"""Of bodies, that an actor has in hand at most."""
START_MOST_SECONDS, JOIN_MOST_SECONDS, REACH_SECONDS = 240.0, 60.0, 10.0
"""For a Ray of our own; to join a cluster; to reach the address of one: Ray itself would try for minutes."""
OBJECTS_BYTES = 256 * 1024 * 1024

_encoder = msgspec.json.Encoder()


# ---- in the run


async def answer_all(job: Job, requests: AsyncIterator[Request], context: RunContext) -> None:
    """Ask every request by `run.workers` actors, record every outcome at the desk; return when all are settled.

    Explicit limits are divided among the actors, each of which learns the endpoint's own. The first answer comes before
    the second actor begins. Raises Stopped as `live.answer_all`, and BadJob where Ray is not installed or not reached.
    """
    async with _Fleet(job, requests, context) as fleet:
        await fleet.work()
    context.clear_reservation()
    if context.stopping is not None:
        raise context.stopping


class _Member:
    """One actor, and what it has in hand."""

    def __init__(self, actor: Any, *told: bytes) -> None:  # noqa: ANN401 - Ray's handle has no type of its own
        self.actor = actor
        self.running = actor.run.remote(*told)
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

    def __init__(self, job: Job, requests: AsyncIterator[Request], context: RunContext) -> None:
        self._job, self._requests, self._context = job, requests, context
        self._returned: deque[Request] = deque()
        self._exhausted = False
        self._members: list[_Member] = []
        self._deaths = 0
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._ray = _ray(self._job.run.address)
        self._own = None if self._ray.is_initialized() else RaySession(self._ray)
        if self._own is not None:
            await self._start(self._own)
        if self._job.endpoint.secret_headers and (self._own is None or self._job.run.address):
            raise BadJob(
                "endpoint.headers hold a secret, which is not sent through a cluster: name a key by "
                "endpoint.api_key_env, and set its variable on every node.\nNothing was sent."
            )
        self._actor = self._ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(Worker)
        self._members = [self._hire() for _ in range(self._job.run.workers)]
        self._members[0].is_open = True
        self._context.on_tune = self._tune
        return self

    async def _start(self, own: "RaySession") -> None:
        """Raises BadJob if Ray does not start or answer, and Stopped if a stop is asked before it does."""
        job, context = self._job, self._context
        if job.run.address:
            await _reach(job.run.address)
        else:
            context.say("Ray starts, which may take half a minute.")
        began, most = context.clock(), JOIN_MOST_SECONDS if job.run.address else START_MOST_SECONDS
        own.begin(job.run.address, job.run.workers)
        while not own.is_over:
            await context.pause(0.05)
            if context.stopping is not None:
                raise context.stopping
            if context.clock() - began > most:
                raise BadJob(f"Ray at {job.run.address or 'this machine'} does not answer.\nNothing was sent.")
        if own.error is not None:
            where = job.run.address or "this machine"
            raise BadJob(f"Ray cannot be started at {where} (run.address): {own.error}\nNothing was sent.")

    async def __aexit__(self, *_: object) -> None:
        for member in self._members:
            self._ray.kill(member.actor)
        if self._own is not None:
            await asyncio.to_thread(self._own.end)

    def _hire(self) -> _Member:
        share = 1 / self._job.run.workers
        told = _far_job(self._job, share)
        found = [replace(each, learnt=_scaled(each.learnt, share)) for each in self._context.learned_limits.values()]
        return _Member(self._actor.remote(), told, _encoder.encode(self._context.ledger), _encoder.encode(found))

    def _tune(self, limits: Limits) -> None:
        """Each actor goes on under its share of other limits, and so does one that takes its place."""
        self._job = self._job.model_copy(update={"limits": limits})
        for member in self._members:
            member.actor.tune.remote(_encoder.encode(_share_of(limits, 1 / self._job.run.workers)))

    async def work(self) -> None:
        """Hand out, listen, record, until all is settled or every actor has stopped."""
        stopping = asyncio.create_task(self._pass_on_stops())
        listening = [asyncio.create_task(self._listen(at)) for at in range(len(self._members))]
        try:
            while not all(member.has_ended for member in self._members):
                self._changed.clear()
                if self._context.stopping is None:
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
            size_bytes = sum(len(request.body) for request in member.in_hand.values()) if wanted else 0
            while len(member.in_hand) < wanted and size_bytes < IN_HAND_BYTES:
                if (request := await self._next()) is None:
                    break
                block.append(request)
                member.in_hand[request.key] = request
                size_bytes += len(request.body)
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
        if not self._returned or self._context.stopping is not None:
            return None
        await self._context.note_reservation(self._returned[0])
        if self._context.budget.reserve(self._returned[0]) is None:
            if not any(member.in_hand for member in self._members):
                raise self._context.budget.exhausted(self._returned[0])
            return None
        return self._returned.popleft()

    async def _listen(self, at: int) -> None:
        """Hear one actor out, and the one that takes its place should it die."""
        while not self._members[at].has_ended:
            member = self._members[at]
            try:
                await self._hear(member, events_decoder.decode(await member.actor.events.remote()))
            except self._ray.exceptions.RayActorError as error:
                self._bury(at, error)
            finally:
                self._changed.set()  # whatever happened, and an error above all

    async def _hear(self, member: _Member, events: list[Event]) -> None:
        for event in events:
            self._take_in(member, event)
        recorded = [event for event in events if isinstance(event, Recorded)]
        if not recorded:
            return
        follow_ups = await asyncio.gather(*(self._context.record(each.request, each.outcome) for each in recorded))
        for each, follow_up in zip(recorded, follow_ups, strict=True):
            del member.in_hand[each.request.key]
            self._context.budget.settle(self._context.budget.worst(each.request) or 0.0, 0.0)
            if follow_up is not None:
                self._returned.appendleft(follow_up)
        self._deaths = 0
        for other in self._members:
            other.is_open = True
        member.actor.acknowledge.remote(_encoder.encode([each.request.key for each in recorded]))

    def _take_in(self, member: _Member, event: Event) -> None:
        """All but what is to be recorded."""
        match event:
            case AttemptCounted(cost, held, broke_off):
                self._context.budget.settle(0.0, held or cost or 0.0)
                self._context.count_attempt(cost, held=held, broke_off=broke_off)
                if held and self._context.budget.is_passed:  # an actor tries again without asking for more
                    self._context.stop(self._context.budget.exhausted(next(iter(member.in_hand.values()))))
            case Said(text):
                self._context.say(text)
            case Rejected(refusal):
                self._context.log_rejection(refusal)
            case LimitsLearned(model, learnt):
                member.windows[model] = learnt.window
                self._context.save_learned(model, _scaled(learnt, self._job.run.workers))
            case ActorEnded(message, exit_code, crash):
                member.has_ended = True
                if crash:
                    raise RuntimeError(f"An actor came to an error that was not foreseen:\n{crash}")
                if exit_code == Exit.USAGE:
                    raise BadJob(f"In a Ray actor, where the variables of its own node count: {message}")
                if message and self._context.stopping is None:
                    self._context.stop(Stopped(message, Exit(exit_code)))

    def _bury(self, at: int, error: Exception) -> None:
        """An actor died: what it had in hand goes to others, and another takes its place."""
        member = self._members[at]
        self._deaths += 1
        for request in member.in_hand.values():  # each may have been in flight
            worst = self._context.budget.worst(request) or 0.0
            self._context.budget.settle(worst, worst)
            self._context.count_attempt(0.0, held=worst, broke_off=True)
        if self._context.stopping is not None or self._deaths > DEATHS_MOST:
            member.has_ended = True
            self._context.stop(
                Stopped(f"The Ray actors die one after the other. {HINT}\nRay says: {one_line(str(error))[:500]}")
            )
            return
        self._context.say(
            f"A Ray actor died; the {len(member.in_hand):,} requests that it had in hand are asked again."
        )
        self._returned.extendleft(reversed(member.in_hand.values()))
        self._members[at] = self._hire()
        self._members[at].is_open = member.is_open

    async def _pass_on_stops(self) -> None:
        await self._context.stop_requested.wait()
        for member in self._members:
            member.actor.stop.remote()
        self._changed.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._context.drain_aborted.wait()
                for member in self._members:
                    member.actor.abort_drain.remote()
        await asyncio.sleep(DRAIN_SECONDS / 2)
        for member in self._members:  # one that says nothing any more is not waited for
            member.has_ended = True
        self._changed.set()


def _ray(address: str) -> Any:  # noqa: ANN401 - a module
    os.environ.setdefault("RAY_raylet_start_wait_time_s", START_SECONDS)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves this machine but requests
    if not address and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        # Ray listens on every address of this machine, and whoever may speak to it may have it run anything
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray  # noqa: PLC0415 - takes seconds, and few jobs need it
    except ImportError:
        raise BadJob(
            'run.how = "ray" needs Ray:  pip install "batch-prompt-pipeline[ray]"\nNothing was sent.'
        ) from None
    return ray


async def _reach(address: str) -> None:
    """Raises BadJob if nobody listens at a cluster's address."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # such as `auto`
    try:
        async with asyncio.timeout(REACH_SECONDS):
            _, writer = await asyncio.open_connection(host, int(port))
    except (OSError, TimeoutError) as error:
        why = str(error) or f"no answer within {REACH_SECONDS:.0f} s"
        raise BadJob(f"There is no Ray cluster at {address} (run.address): {why}\nNothing was sent.") from None
    writer.close()


class RaySession:
    """What this process began with Ray, and ends again: its place in a cluster, or a Ray of this machine alone."""

    def __init__(self, ray: Any) -> None:  # noqa: ANN401 - a module
        self._ray = ray
        self._folder = ""
        self._begun, self._ending = threading.Event(), threading.Event()
        self.error: BaseException | None = None

    def begin(self, address: str, workers: int) -> None:
        """Start it beside the event loop, as it takes half a minute. A daemon: nobody need wait for it to the end."""
        threading.Thread(target=self._live, args=(address, workers), daemon=True).start()

    @property
    def is_over(self) -> bool:
        """It has started, or come to an `error`."""
        return self._begun.is_set()

    def _live(self, address: str, workers: int) -> None:
        given: dict[str, Any] = {"address": address}
        if not address:
            self._folder = tempfile.mkdtemp(prefix="ray-")
            given = {"address": "local", "num_cpus": max(workers, os.cpu_count() or 1), "include_dashboard": False}
            given |= {"_node_ip_address": "127.0.0.1", "_temp_dir": self._folder, "object_store_memory": OBJECTS_BYTES}
        try:
            self._ray.init(**given, log_to_driver=False, logging_level="ERROR")
        except BaseException as error:  # noqa: BLE001 - whatever Ray has to say, SystemExit too, is the user's to read
            self.error = error
        self._begun.set()
        self._ending.wait()  # what a thread started for Ray, Linux kills when the thread is over

    def end(self) -> None:
        """Leave nothing running, and nothing behind."""
        self._ray.shutdown()
        self._ending.set()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def _far_job(job: Job, share: float) -> bytes:
    """The job as an actor is told it: its share of the limits, and no file; it goes there directly, and into no log."""
    settings = {**job.without_secrets(), "limits": _share_of(job.limits, share)}
    settings["endpoint"] |= {"headers": job.endpoint.headers, "api_key_default": job.endpoint.api_key_default}
    waits = {"wait_for_endpoint": job.this_run.wait_for_endpoint}
    return _encoder.encode({**settings, "this_run": waits})


def _share_of(limits: Limits, share: float) -> dict[str, Any]:
    """What an actor keeps to; the run's desk holds the cap, and hands out what it has room for."""
    return {
        **limits.model_dump(by_alias=True),
        "requests_per_minute": _times(limits.requests_per_minute, share),
        "tokens_per_minute": _times(limits.tokens_per_minute, share),
        "concurrency": "auto" if limits.concurrency == "auto" else max(1, int(limits.concurrency * share)),
        "max_cost": None if limits.max_cost is None else 1e12,
        "max_runtime": None,
        "max_failures": None,
    }


def _scaled(learnt: LearnedLimits, by: float) -> LearnedLimits:
    return LearnedLimits(
        _times(learnt.requests_per_minute, by),
        _times(learnt.tokens_per_minute, by),
        math.ceil(learnt.window * by),
        learnt.age_seconds,
    )


def _times(number: float | None, by: float) -> float | None:
    return None if number is None else number * by
