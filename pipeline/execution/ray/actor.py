"""A Ray actor: answers the requests it is handed with the live executor, and reports everything to the run.

The run and its actors exchange bytes: JSON of records.
"""

import asyncio
import random
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterable

import msgspec

from ...costs import Budget, PriceList
from ...job import Job, Limits
from ...progress import Pause
from ...records import BadJob, Exit, LearnedLimits, Outcome, Record, Rejection, Request, Stopped, Tally
from ...store import LearnedNote
from ..context import StopState, lane_id, uptime_seconds
from ..live import answer_all as answer_live

GATHER_SECONDS = 0.02
"""Events that happen in an actor within this time are sent together."""


class Recorded(Record, frozen=True, tag="recorded"):
    """A request has an outcome, which the run is to record."""

    request: Request
    outcome: Outcome
    counts: bool = True
    replaces: Outcome | None = None
    """These are the arguments of `RunContext.record`."""


class AttemptCounted(Record, frozen=True, tag="attempt"):
    """An attempt is over: the arguments of `RunContext.count_attempt`."""

    cost: float | None
    held: float
    broke_off: bool


class ScreenLine(Record, frozen=True, tag="line"):
    """A line for the screen."""

    text: str


class LimitsLearned(Record, frozen=True, tag="learned"):
    """The limits that an actor learned for a model's lane: of its own share of the endpoint."""

    model: str
    learned: LearnedLimits


class Rejected(Record, frozen=True, tag="rejected"):
    """An attempt was rejected."""

    rejection: Rejection


class ActorEnded(Record, frozen=True, tag="ended"):
    """An actor has nothing in flight any more, and takes no more requests."""

    message: str = ""
    """Why it stopped; empty if every request was answered."""
    exit_code: int = 0
    crash: str = ""
    """The traceback of an unexpected error."""


Event = Recorded | AttemptCounted | ScreenLine | LimitsLearned | Rejected | ActorEnded

events_decoder = msgspec.json.Decoder(list[Event])

_encoder = msgspec.json.Encoder()
_requests = msgspec.json.Decoder(list[Request])
_keys = msgspec.json.Decoder(list[str])
_learned_notes = msgspec.json.Decoder(list[LearnedNote])


class ActorContext(StopState):
    """A `RunContext` without a store: sends outcomes, attempts and lines to the run, which records them."""

    def __init__(self, job: Job, ledger: Tally, learned: Iterable[LearnedNote]) -> None:
        """`ledger`, `learned`: as they are in the run when the actor starts, `learned` scaled to the actor's share."""
        super().__init__()
        self.prices = PriceList(job)
        self.budget = Budget(job, self.prices, ledger.cost + ledger.held + ledger.aside)
        self.ledger = ledger
        self.learned_limits = {note.lane: note for note in learned}
        self.clock, self.uptime, self.rng = time.monotonic, uptime_seconds, random.random
        self.on_tune: Callable[[Limits], None] | None = None
        self.asks_again = False  # a follow-up of the old outcome may be with another actor
        self._job = job
        self._outbox: list[Event] = []
        self._has_events = asyncio.Event()
        self._unacknowledged: dict[str, asyncio.Future[None]] = {}

    def post(self, event: Event) -> None:
        """Send an event to the run."""
        self._outbox.append(event)
        self._has_events.set()

    async def take_events(self) -> bytes:
        """All events since the last call; waits until there is one."""
        await self._has_events.wait()
        await asyncio.sleep(GATHER_SECONDS)
        events, self._outbox = self._outbox, []
        self._has_events.clear()
        return _encoder.encode(events)

    def acknowledge(self, keys: bytes) -> None:
        """The outcomes of these requests are on disk."""
        for key in _keys.decode(keys):
            waiting = self._unacknowledged.pop(key, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    async def record(
        self,
        request: Request,
        outcome: Outcome,
        *,
        counts: bool = True,
        is_urgent: bool = False,  # noqa: ARG002 - only the run knows what other actors record
        replaces: Outcome | None = None,
    ) -> Request | None:
        """Return None once the run has the outcome on disk; the run also hands out the follow-up."""
        self._unacknowledged[request.key] = waiting = asyncio.get_running_loop().create_future()
        self.post(Recorded(request, outcome, counts, replaces))
        await waiting
        return None

    def uncount(self, request: Request, outcome: Outcome) -> None:
        """Never called: an actor asks nothing again."""
        raise NotImplementedError

    def count_attempt(self, cost: float | None, *, held: float = 0.0, broke_off: bool = False) -> None:
        """Have the run count an attempt."""
        self.post(AttemptCounted(cost, held, broke_off))

    async def note_reservation(self, more: float) -> bool:  # noqa: ARG002 - the signature is the Protocol's
        """Return False: the run noted the reservation before it handed out the request."""
        return False

    def clear_reservation(self) -> None:
        """Do nothing: the run clears its own note."""

    def learned(self, model: str) -> LearnedLimits | None:
        """The limits that earlier runs learned for a model's lane; None if there are none."""
        noted = self.learned_limits.get(lane_id(self._job.endpoint, model))
        return None if noted is None else noted.aged

    def save_learned(self, model: str, learned: LearnedLimits) -> None:
        """Have the run keep these limits."""
        self.post(LimitsLearned(model, learned))

    def say(self, text: str) -> None:
        """Have the run write a line to the screen and the log."""
        self.post(ScreenLine(text))

    def log_rejection(self, rejection: Rejection) -> None:
        """Have the run log a rejected attempt."""
        self.post(Rejected(rejection))

    def show_progress(self, pause: Pause | None = None) -> None:
        """Do nothing: the run shows the progress of all actors together."""


class Worker:
    """The Ray actor class. Ray runs its methods as coroutines of one event loop, several at once."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Request | None] = asyncio.Queue()
        self._context: ActorContext
        self._has_context = asyncio.Event()

    async def run(self, job: bytes, ledger: bytes, learned: bytes) -> None:
        """Answer the requests that `take` brings until `finish` or `stop`. The key comes from the actor's environment.

        Returns when nothing is in flight any more. Errors are reported as an `ActorEnded` event, not raised.
        """
        own_job = Job.model_validate({**msgspec.json.decode(job), "inputs": ("-",)})  # an actor reads no input
        self._context = ActorContext(own_job, msgspec.json.decode(ledger, type=Tally), _learned_notes.decode(learned))
        self._has_context.set()
        try:
            await answer_live(own_job, self._requests(), self._context)
            self._context.post(ActorEnded())
        except Stopped as stop:
            self._context.post(ActorEnded(str(stop), int(stop.exit_code)))
        except BadJob as bad:
            self._context.post(ActorEnded(str(bad), int(Exit.USAGE)))
        except Exception:  # noqa: BLE001 - the run raises it again
            self._context.post(ActorEnded(crash=traceback.format_exc()))

    async def _requests(self) -> AsyncIterator[Request]:
        while (request := await self._queue.get()) is not None:
            yield request

    async def take(self, requests: bytes) -> None:
        """Add these requests to the queue."""
        for request in _requests.decode(requests):
            self._queue.put_nowait(request)

    async def finish(self) -> None:
        """End once the queue is empty: no more requests will come."""
        self._queue.put_nowait(None)

    async def events(self) -> bytes:
        """The events since the last call; waits until there is one."""
        await self._has_context.wait()
        return await self._context.take_events()

    async def acknowledge(self, keys: bytes) -> None:
        """The outcomes of these requests are on disk."""
        self._context.acknowledge(keys)

    async def stop(self) -> None:
        """Send nothing more; requests in flight may still be answered."""
        await self._has_context.wait()
        self._context.stop(Stopped("stopped"))
        self._queue.put_nowait(None)

    async def tune(self, limits: bytes) -> None:
        """Go on under other limits: this actor's share."""
        await self._has_context.wait()
        if self._context.on_tune is not None:
            self._context.on_tune(Limits.model_validate(msgspec.json.decode(limits)))

    async def abort_drain(self) -> None:
        """Wait no longer for requests in flight."""
        await self._has_context.wait()
        self._context.abort_drain()
