"""Answer requests now: one stream of requests, spread over the lanes of their models."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import cast

from ...endpoint import Client
from ...job import Job, Limits
from ...pacing import WINDOW_MAX
from ...records import Request
from ...text import duration, in_thread_if
from ..context import DRAIN_SECONDS, RunContext
from ..stream import RequestStream
from .lane import Lane
from .open_request import OpenRequest

TICK_SECONDS = 2.0
"""How often the two clocks are compared, to notice that the machine slept."""
SLEEP_SECONDS = 60.0
"""The shortest sleep that counts as one."""
LATE_REPLY_SECONDS = 3.0
"""How long after a sleep the replies that had already arrived are still read."""

OTHER_FILES = 128
"""Open files beside the connections: the table, the store, the log, and those of Python itself."""

DRAWN_MAX = 1000
"""How many requests of one model are drawn ahead while another model's are wanted: a slow lane must not load the whole
table."""
DRAWN_BYTES_MAX = 64 * 1024 * 1024
"""How many bytes of request bodies are drawn ahead for all lanes together."""


async def answer_all(job: Job, requests: AsyncIterator[Request], context: RunContext) -> None:
    """Ask every request and its follow-ups, and record every outcome; return when all are settled.

    One request of each model goes first. After its first answer a lane sends as many at once as its throttle allows,
    with as many workers and connections as that takes. Retries and follow-ups wait in a queue by time, without taking
    a slot, and go before new requests.

    Raises Stopped when the job cannot go on or was asked to stop; requests without an outcome are then pending. What is
    in flight at a stop may still be answered for DRAIN_SECONDS.
    """
    _raise_open_file_limit(len(job.models), job.limits)
    # in a Ray actor the command of the key runs only now
    key = await in_thread_if(job.endpoint.key_command is not None, job.endpoint.key)
    async with Client(job.endpoint, key) as client:
        lanes = Lanes(job, requests, context, client)
        context.on_tune = lanes.tune
        working = asyncio.create_task(lanes.work())
        watching = asyncio.create_task(lanes.watch_for_sleep())
        stop_requested = asyncio.create_task(context.stop_requested.wait())
        drain_aborted = asyncio.create_task(context.drain_aborted.wait())
        try:
            await asyncio.wait({working, stop_requested}, return_when=asyncio.FIRST_COMPLETED)
            lanes.wake_all()
            await asyncio.wait({working, drain_aborted}, timeout=DRAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            lanes.abandon()
            await working
        finally:
            # after an error or a cancellation, too, no task may go on behind the caller's back
            for task in (working, watching, stop_requested, drain_aborted):
                task.cancel()
            await asyncio.wait({working, watching, stop_requested, drain_aborted})
            await lanes.close()
        lanes.save_learned()
    context.clear_reservation()
    if context.stopping is not None:
        raise context.stopping


def _raise_open_file_limit(lanes: int, limits: Limits) -> None:
    """Allow an open file for each request in flight: some systems allow only 256 until a process asks for more."""
    connections = lanes * (WINDOW_MAX if limits.concurrency == "auto" else limits.concurrency)
    try:
        import resource  # noqa: PLC0415 - Windows has neither the module nor the limit
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # a failed connection narrows the window, so fewer will do
            resource.setrlimit(
                resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
            )


class Lanes:
    """All lanes of a run, and their `RequestSource`: draws each request when the lane of its model wants one."""

    def __init__(self, job: Job, requests: AsyncIterator[Request], context: RunContext, client: Client) -> None:
        self._job, self._context, self._client = job, context, client
        self._stream = RequestStream(requests, self.wake_all)
        self._first_model = job.models[0]
        self._lanes: dict[str, Lane] = {}
        self._drawn: dict[str, deque[Request]] = {}
        """Requests drawn from the stream and not yet taken by their lane, by model."""
        self._drawn_bytes = 0
        self._is_full = False
        """No more is drawn until a lane takes one of its drawn requests."""
        self._has_told = False
        """The user was told that the endpoint sends responses that nobody asked for."""
        client.on_doubt(self._doubt)
        self._tasks: asyncio.TaskGroup

    async def work(self) -> None:
        """Return when no request is left, or after a stop. An unexpected error in a lane ends all, and is raised."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                for model in self._job.models:
                    self._open(model)
            while await self._has_doubted():
                async with asyncio.TaskGroup() as self._tasks:
                    for lane in self._lanes.values():
                        self._tasks.create_task(lane.work())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _has_doubted(self) -> bool:
        """Whether requests are to be asked again whose recorded answers turned out, by now, to be doubtful."""
        if not self._context.drain_aborted.is_set():
            await self._client.confirm()
        doubted = [await lane.take_back_doubted() for lane in self._lanes.values()]
        return any(doubted) and self._context.stopping is None

    def _doubt(self, owners: Sequence[object]) -> None:
        """Ask requests again whose answers may be those of others: an unasked response came on their connection."""
        asked = [cast(tuple[Lane, OpenRequest, int], owner) for owner in owners]
        for lane, item, attempt in asked:
            lane.doubt(item, attempt)
        if asked and not self._has_told:
            self._has_told = True
            self._context.say(
                "The endpoint sent a response that no request had asked for. Answers that came on the same connection\n"
                "are asked again, as they may be those of other rows. From now on each request has its own connection."
            )

    def _open(self, model: str) -> None:
        self._drawn[model] = deque()
        self._lanes[model] = Lane(self._job, model, self, self._context, self._client)
        self._tasks.create_task(self._lanes[model].work())

    def draw(self, model: str) -> Request | None:
        """The next request of a model; None if there is none at the moment, or none ever again (`is_over`)."""
        drawn = self._drawn[model]
        while not drawn and not self._is_full and (request := self._stream.take()) is not None:
            self._sort_in(request)
        if not drawn:
            return None
        request = drawn.popleft()
        self._drawn_bytes -= len(request.body)
        if self._is_full:
            self._is_full = False
            self.wake_all()
        return request

    def _sort_in(self, request: Request) -> None:
        """Keep a request for the lane of its model; open the lane if there is none."""
        model = request.model or self._first_model
        if model not in self._lanes:
            self._open(model)
        self._drawn[model].append(request)
        self._drawn_bytes += len(request.body)
        self._is_full = len(self._drawn[model]) >= DRAWN_MAX or self._drawn_bytes >= DRAWN_BYTES_MAX
        self._lanes[model].changed.set()

    def is_over(self, model: str) -> bool:
        """Whether no more requests of this model will come."""
        return self._stream.is_over and not self._drawn[model]

    @property
    def in_flight(self) -> int:
        """The number of requests in flight, of all lanes."""
        return sum(lane.in_flight for lane in self._lanes.values())

    @property
    def has_answers(self) -> bool:
        """Whether any model of the run has answered."""
        return any(lane.has_answers for lane in self._lanes.values())

    def tune(self, limits: Limits) -> None:
        """Go on under other limits, which hold for each lane."""
        self._job = self._job.model_copy(update={"limits": limits})
        _raise_open_file_limit(len(self._lanes), limits)
        for lane in self._lanes.values():
            lane.tune(limits)

    def wake_all(self) -> None:
        """Wake the workers of all lanes: a stop was requested, or money or room became free."""
        for lane in self._lanes.values():
            lane.changed.set()

    def abandon(self) -> None:
        """Give up every attempt in flight."""
        for lane in self._lanes.values():
            lane.abandon()

    async def close(self) -> None:
        """Draw no more requests."""
        await self._stream.close()

    async def watch_for_sleep(self) -> None:
        """After the machine slept or this process was suspended, send again what was in flight and gets no reply.

        The connections are usually dead by then, which would only show at each request's timeout.
        """
        before = self._context.uptime()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = self._context.uptime()
            slept, before = now - before - TICK_SECONDS, now
            if slept < SLEEP_SECONDS:
                continue
            woke_at = self._context.clock()
            self._context.say(
                f"woke after {duration(slept)}: requests that were in flight and get no reply now are sent again."
            )
            await asyncio.sleep(LATE_REPLY_SECONDS)
            for lane in self._lanes.values():
                lane.withdraw(woke_at)

    def save_learned(self) -> None:
        """Save the learned limits of every lane that had an answer."""
        for lane in self._lanes.values():
            lane.save_learned()
