"""What an executor may use of a run: where outcomes are recorded, what may be spent, and whether to go on.

Every executor gets a `RunContext`. `LocalContext` implements it in the run's own process, which writes the store;
`ray.actor.ActorContext` implements it in a Ray actor, and sends everything to the run.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from ..costs import Budget, PriceList
from ..job import Endpoint, Limits
from ..progress import Pause
from ..records import Answer, LaneId, LearnedLimits, Outcome, Rejection, Request, Stopped, Tally
from ..store import LearnedNote

DRAIN_SECONDS = 20.0
"""How long requests in flight may still be answered after a stop."""


class RunContext(Protocol):
    """What every executor may use of a run."""

    prices: PriceList
    budget: Budget
    ledger: Tally
    """The tally of everything that the job folder ever asked; in an actor, as it was when the actor started."""
    learned_limits: dict[LaneId, LearnedNote]
    clock: Callable[[], float]
    """Seconds on a clock that may stand still while the machine sleeps."""
    uptime: Callable[[], float]
    """Seconds on a clock that runs while the machine sleeps."""
    rng: Callable[[], float]
    """Random numbers from 0 up to 1."""
    on_tune: Callable[[Limits], None] | None
    """Set by the executor: called with the new limits when they are changed during the run."""
    stopping: Stopped | None
    """Why the run is to stop; None while it goes on."""
    stop_requested: asyncio.Event
    """Set as soon as `stopping` is."""
    drain_aborted: asyncio.Event
    """Set when requests in flight are not to be waited for any more."""

    asks_again: bool
    """Whether a request may be asked again whose outcome is recorded; in an actor it may not."""

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

        `counts=False`: the request is not one that this run asks; its outcome only came by the way. `is_urgent`: commit
        now, since nothing else will be recorded before this is on disk. `replaces`: the outcome that this run recorded
        before, which was another request's; its cost is added. The cost of its attempts is not counted here, but by
        `count_attempt`. Raises Stopped if the outcome cannot be written.
        """
        ...

    def uncount(self, request: Request, outcome: Outcome) -> None:
        """Take a recorded outcome out of the counts, as its request is asked again. A large one may lack its text."""
        ...

    def count_attempt(self, cost: float | None, *, held: float = 0.0, broke_off: bool = False) -> None:
        """Count one attempt that is over, whatever its reply was, and its cost in US dollars; None if unknown.

        `held`: the most that the attempt can have cost, in US dollars, if that will never be known. `broke_off`: the
        attempt gave no answer, and may be billed all the same.
        """
        ...

    async def note_reservation(self, more: float) -> bool:
        """Write to disk what is reserved with `more` US dollars, before a request that can cost so much is sent.

        Returns whether it had to wait for that.

        So the next run knows what a killed run may have been billed for, also if only that one has a cost cap.
        """
        ...

    def clear_reservation(self) -> None:
        """Remove that note, once nothing is in flight."""
        ...

    def learned(self, model: str) -> LearnedLimits | None:
        """The limits learned for a model's lane, with their age; None if there are none."""
        ...

    def save_learned(self, model: str, learned: LearnedLimits) -> None:
        """Keep the limits learned for a model's lane, for the screen and for the next run."""
        ...

    def say(self, text: str) -> None:
        """Write a line to the screen and the log."""
        ...

    def log_rejection(self, rejection: Rejection) -> None:
        """Write a rejected attempt to the log, and with `--verbose` to the screen."""
        ...

    def show_progress(self, pause: Pause | None = None) -> None:
        """Bring the screen up to date. `pause`: how long nothing is sent, and why; None if that has not changed."""
        ...

    def stop(self, why: Stopped) -> None:
        """Send nothing more; requests in flight may still be answered. Only the first reason is kept."""
        ...

    async def pause(self, seconds: float) -> None:
        """Return after that many seconds, or as soon as a stop is requested."""
        ...


class NotesContext(RunContext, Protocol):
    """What batches use in addition, since they outlive the run: notes, and what the store holds by now."""

    def read_note(self, name: str) -> bytes | None:
        """Read the note that an earlier run wrote under this name; None if there is none."""
        ...

    async def write_note(self, name: str, value: bytes) -> None:
        """Return once the note is on disk. Raises Stopped if it cannot be written."""
        ...

    def asked_at(self, keys: Sequence[str]) -> dict[str, datetime | None]:
        """When each stored outcome among these keys was asked (UTC); a key without an outcome is left out."""
        ...


class StopState:
    """Whether a run was asked to stop, why, and whether requests in flight are still waited for."""

    def __init__(self) -> None:
        self.stopping: Stopped | None = None
        self.stop_requested = asyncio.Event()
        self.drain_aborted = asyncio.Event()

    def stop(self, why: Stopped) -> None:
        """Send nothing more; requests in flight may still be answered. Only the first reason is kept."""
        if self.stopping is None:
            self.stopping = why
            self.stop_requested.set()

    def abort_drain(self) -> None:
        """Wait no longer for requests in flight."""
        self.drain_aborted.set()

    async def pause(self, seconds: float) -> None:
        """Return after that many seconds, or as soon as a stop is requested."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stop_requested.wait()


def uptime_seconds() -> float:
    """Seconds on a clock that runs while the machine sleeps, where the system has one; nobody sets it, as a wall clock.

    A wall clock that was set forward would look like sleep, and what is in flight would be sent again.
    """
    # Linux has CLOCK_BOOTTIME; on macOS CLOCK_MONOTONIC goes on in sleep, unlike `time.monotonic` there
    if hasattr(time, "clock_gettime"):
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
    return time.monotonic()


class Clocks(NamedTuple):
    """The two clocks of a run, in seconds from any start. Together they show that the machine slept."""

    clock: Callable[[], float] = time.monotonic
    uptime: Callable[[], float] = uptime_seconds


def lane_id(endpoint: Endpoint, model: str) -> LaneId:
    """The lane of a model: learned limits hold for one endpoint, model and key only."""
    return LaneId(endpoint.base_url, model, endpoint.key_origin)


def settle(
    context: RunContext, sent: Request, result: Answer | Rejection, reserved: float | None = None
) -> float | None:
    """Count an attempt that is over, and return its cost in US dollars; None if it is unknown.

    `sent`: the request as it was sent. `reserved`: what was reserved for the attempt, and is free now; None if the
    reservation is given back in another way. Against the cap, an unknown cost counts as the most that it can be.
    """
    charge = context.budget.charge(sent, result, reserved)
    context.budget.settle(reserved or 0.0, charge.against_cap)
    context.count_attempt(charge.paid, held=charge.held, broke_off=charge.is_maybe_billed)
    if charge.said:
        context.say(charge.said)
    return charge.paid


def settle_unanswered(context: RunContext, reserved: float) -> None:
    """Count an attempt whose reply is not waited for: it may be billed, so its reservation counts against the cap."""
    context.budget.settle(reserved, reserved)
    context.count_attempt(0.0, held=reserved, broke_off=True)
