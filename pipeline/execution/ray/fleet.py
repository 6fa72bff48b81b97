"""The run's side of Ray: hand requests to the actors, record what they report, replace an actor that dies.

Only this process writes the store. An outcome counts once it is recorded here, and the actor is then notified. The
requests that an actor had when it died go to other actors, except those whose outcome was recorded.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Self

import msgspec
from msgspec.structs import replace

from ...job import Job, Limits
from ...pacing import TEXT_FAILURES_MAX, WINDOW_FIRST
from ...records import Answer, BadJob, Exit, Request, Stopped
from ...text import one_line
from ..context import DRAIN_SECONDS, RunContext, settle_unanswered
from ..live import FormatFallback
from ..stream import RequestStream
from .actor import (
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
from .share import job_for_actor, scaled, share_of_limits
from .start import RaySession, import_ray, start_session

SPARE_REQUESTS = 32
"""How many requests an actor is handed beyond twice its window, so that it never waits for more."""
HANDED_BYTES_MAX = 64 * 1024 * 1024
"""How many bytes of request bodies an actor is handed at once."""
CRASHES_MAX = 5
"""How many actors may die with no outcome in between: one more is no accident, and stops the run."""

_encoder = msgspec.json.Encoder()


async def answer_all(job: Job, requests: AsyncIterator[Request], context: RunContext) -> None:
    """Ask every request by `run.workers` actors, and record every outcome; return when all are settled.

    Limits of the job are divided among the actors; each learns its own part of the endpoint's limits. The first answer
    comes before the second actor gets a request.

    Raises Stopped when the job cannot go on or was asked to stop; requests without an outcome are then pending. Raises
    BadJob if Ray is not installed, does not start, or the cluster is not reached.
    """
    async with Fleet(job, requests, context) as fleet:
        await fleet.work()
    context.clear_reservation()
    if context.stopping is not None:
        raise context.stopping


class WorkerHandle:
    """One actor, and the requests that it was handed and has not answered."""

    def __init__(self, actor: Any, *arguments: bytes) -> None:  # noqa: ANN401 - Ray's handle has no type of its own
        """`arguments`: those of `Worker.run`."""
        self.actor = actor
        self.running = actor.run.remote(*arguments)
        self.handed: dict[str, Request] = {}
        self.reserved: dict[str, float] = {}
        """US dollars reserved for each of them, by key."""
        self.windows: dict[str, int] = {}
        """How many requests each model's lane was found to take at once."""
        self.takes_requests = False
        """Whether it may be handed requests: the others wait for the first worker's first outcome."""
        self.has_ended = False

    @property
    def window(self) -> int:
        """How many requests it may have in flight."""
        return sum(self.windows.values()) or WINDOW_FIRST


class Fleet:
    """All actors of a run, from the start of Ray to its end."""

    def __init__(self, job: Job, requests: AsyncIterator[Request], context: RunContext) -> None:
        self._job, self._context = job, context
        self._changed = asyncio.Event()
        self._stream = RequestStream(requests, self._changed.set)
        self._format = FormatFallback(job)
        self._waiting: deque[Request] = deque()
        """Requests to hand out before new ones: those of actors that died, follow-ups, and one the budget kept back."""
        self._workers: list[WorkerHandle] = []
        self._has_outcome = False
        self._rejections = 0
        self._crashes = 0
        """How many actors died since the last outcome."""

    async def __aenter__(self) -> Self:
        self._ray = import_ray(self._job.run.address)
        self._session = None if self._ray.is_initialized() else RaySession(self._ray)
        if self._session is not None:
            await start_session(self._session, self._job, self._context)
        if self._job.endpoint.secret_headers and (self._session is None or self._job.run.address):
            raise BadJob(
                "endpoint.headers holds a secret, which is not sent through a cluster.\n"
                "Use endpoint.headers_env instead, and set its variable on every node. Nothing was sent."
            )
        self._actor_class = self._ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(Worker)
        self._workers = [self._new_worker() for _ in range(self._job.run.workers)]
        self._workers[0].takes_requests = True
        self._context.on_tune = self._tune
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stream.close()
        for worker in self._workers:
            self._ray.kill(worker.actor)
        if self._session is not None:
            await asyncio.to_thread(self._session.end)

    def _new_worker(self) -> WorkerHandle:
        share = 1 / self._job.run.workers
        learned = [replace(note, learnt=scaled(note.learnt, share)) for note in self._context.learned_limits.values()]
        return WorkerHandle(
            self._actor_class.remote(),
            job_for_actor(self._job, share),
            _encoder.encode(self._context.ledger),
            _encoder.encode(learned),
        )

    def _tune(self, limits: Limits) -> None:
        """Give each actor, and those that replace them, their share of other limits."""
        self._job = self._job.model_copy(update={"limits": limits})
        share = _encoder.encode(share_of_limits(limits, 1 / self._job.run.workers))
        for worker in self._workers:
            worker.actor.tune.remote(share)

    async def work(self) -> None:
        """Hand out requests and record outcomes until all are settled, or every actor has ended after a stop."""
        stopping = asyncio.create_task(self._forward_stop())
        listening = [asyncio.create_task(self._listen(index)) for index in range(len(self._workers))]
        try:
            while not all(worker.has_ended for worker in self._workers):
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
        """Hand each actor as many requests as it can use; end all actors when no request is left."""
        for index, worker in enumerate(self._workers):
            block: list[Request] = []
            wanted = self._wanted(worker)
            size_bytes = sum(len(request.body) for request in worker.handed.values()) if wanted else 0
            while len(worker.handed) < wanted and size_bytes < HANDED_BYTES_MAX:
                if (following := await self._next()) is None:
                    break
                request, reserved = following
                if worker is not self._workers[index]:  # it died meanwhile
                    self._context.budget.settle(reserved, 0.0)
                    self._waiting.appendleft(request)
                    break
                block.append(request)
                worker.handed[request.key] = request
                worker.reserved[request.key] = reserved
                size_bytes += len(request.body)
            if block:
                worker.actor.take.remote(_encoder.encode(block))
        if self._stream.is_over and not self._waiting and not any(worker.handed for worker in self._workers):
            for worker in self._workers:
                if not worker.has_ended:
                    worker.actor.finish.remote()

    def _wanted(self, worker: WorkerHandle) -> int:
        """How many requests an actor is to hold, those included that were rejected and wait for the first answer."""
        if not worker.takes_requests or worker.has_ended:
            return 0
        unconfirmed = 0 if self._has_outcome else min(self._rejections, TEXT_FAILURES_MAX)
        return 2 * worker.window + SPARE_REQUESTS + unconfirmed

    async def _next(self) -> tuple[Request, float] | None:
        """The next request, and its highest cost, which is reserved; None if there is none now, or outcomes come first.

        Raises Stopped if the budget has no room for it and nothing in flight could make room.
        """
        if not self._waiting and (request := self._stream.take()) is not None:
            self._waiting.append(request)
        if not self._waiting or self._context.stopping is not None:
            return None
        while True:
            sent = self._format.encode(self._waiting[0])
            worst = self._context.budget.worst(sent)
            if not await self._context.note_reservation(worst or 0.0):
                break  # else that took time: a follow-up may have come before it
        reserved = self._context.budget.reserve(worst)
        if reserved is None:
            if not any(worker.handed for worker in self._workers):
                raise self._context.budget.exhausted(sent)
            return None
        return self._waiting.popleft(), reserved

    async def _listen(self, index: int) -> None:
        """Handle the events of one actor, and of those that replace it."""
        while not self._workers[index].has_ended:
            worker = self._workers[index]
            try:
                await self._handle(worker, events_decoder.decode(await worker.actor.events.remote()))
            except self._ray.exceptions.RayActorError as error:
                self._replace_worker(index, error)
            finally:
                self._changed.set()  # after an error above all: `work` raises it

    async def _handle(self, worker: WorkerHandle, events: list[Event]) -> None:
        """Record the outcomes among the events, together, and acknowledge them; apply all other events."""
        for event in events:
            self._apply(worker, event)
        recorded = [event for event in events if isinstance(event, Recorded)]
        if not recorded:
            return
        follow_ups = await asyncio.gather(*(self._record(each) for each in recorded))
        for each, follow_up in zip(recorded, follow_ups, strict=True):
            if each.replaces is not None:
                continue  # a doubtful answer, which was recorded before
            del worker.handed[each.request.key]
            self._context.budget.settle(worker.reserved.pop(each.request.key), 0.0)
            if isinstance(each.outcome, Answer):
                self._context.budget.learn(self._format.encode(each.request), each.outcome.usage)
            if follow_up is not None:
                self._waiting.appendleft(follow_up)
        self._crashes, self._has_outcome = 0, True
        for other in self._workers:
            other.takes_requests = True
        worker.actor.acknowledge.remote(_encoder.encode([each.request.key for each in recorded]))

    async def _record(self, recorded: Recorded) -> Request | None:
        return await self._context.record(
            recorded.request, recorded.outcome, counts=recorded.counts, replaces=recorded.replaces
        )

    def _apply(self, worker: WorkerHandle, event: Event) -> None:
        """Act on any event but `Recorded`. Raises RuntimeError or BadJob if the actor ended with one."""
        match event:
            case AttemptCounted(cost, held, broke_off):
                self._context.budget.settle(0.0, held or cost or 0.0)
                self._context.count_attempt(cost, held=held, broke_off=broke_off)
                if self._context.budget.is_passed and worker.handed:  # an actor retries without asking
                    self._context.stop(self._context.budget.exhausted(next(iter(worker.handed.values()))))
            case ScreenLine(text):
                self._context.say(text)
            case Rejected(rejection):
                self._rejections += 1
                self._context.log_rejection(rejection)
            case LimitsLearned(model, learned):
                worker.windows[model] = learned.window
                self._context.save_learned(model, scaled(learned, self._job.run.workers))
            case ActorEnded(message, exit_code, crash):
                worker.has_ended = True
                if crash:
                    raise RuntimeError(f"Unexpected error in a Ray actor:\n{crash}")
                if exit_code == Exit.USAGE:
                    raise BadJob(f"In a Ray actor, which has the environment variables of its own node: {message}")
                if message and self._context.stopping is None:
                    self._context.stop(Stopped(message, Exit(exit_code)))

    def _replace_worker(self, index: int, error: Exception) -> None:
        """After an actor died, start another, and hand its requests out again; stop if too many have died."""
        worker = self._workers[index]
        self._ray.kill(worker.actor)  # one that Ray only cannot reach may live, and would ask the same requests
        self._crashes += 1
        for worst in worker.reserved.values():  # each may have been in flight
            settle_unanswered(self._context, worst)
        if self._context.stopping is not None or self._crashes > CRASHES_MAX:
            worker.has_ended = True
            self._context.stop(
                Stopped(
                    f"{self._crashes:,} Ray actors died with no answer in between. Each node needs the same version of "
                    f"this program, and one free CPU: see Ray's logs.\nRay says: {one_line(str(error))[:500]}"
                )
            )
            return
        self._context.say(f"A Ray actor died: the {len(worker.handed):,} requests that it was handed are sent again.")
        self._waiting.extendleft(reversed(worker.handed.values()))
        self._workers[index] = self._new_worker()
        self._workers[index].takes_requests = worker.takes_requests

    async def _forward_stop(self) -> None:
        """Once a stop is requested, stop all actors; end those that do not report their end in time."""
        await self._context.stop_requested.wait()
        for worker in self._workers:
            worker.actor.stop.remote()
        self._changed.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._context.drain_aborted.wait()
                for worker in self._workers:
                    worker.actor.abort_drain.remote()
        await asyncio.sleep(DRAIN_SECONDS / 2)
        for worker in self._workers:
            worker.has_ended = True
        self._changed.set()
