"""A request that a lane is asking: its attempts so far, what they cost, and what was recorded for it."""

from datetime import datetime
from typing import TypeVar

from msgspec.structs import replace

from ...pacing import Attempts, InFlight
from ...records import Answer, Failure, Outcome, Request
from ...text import BODY_BYTES_AT_ONCE

Ended = TypeVar("Ended", Answer, Failure)


class OpenRequest:
    """A request of a run: its attempts so far, their cost, its reservation, and once it is recorded, its outcome."""

    __slots__ = (
        "cost",
        "flight",
        "following",
        "is_doubtful",
        "is_superseded",
        "is_withdrawn",
        "outcome",
        "rejected_at",
        "replaces",
        "request",
        "reserved",
        "sent",
        "tries",
    )

    def __init__(self, request: Request) -> None:
        self.request = request
        self.sent = request
        """The request as it is sent: with the contract in the response format of this lane."""
        self.tries = Attempts()
        self.cost: float | None = 0.0
        """US dollars for all attempts so far; None if that of one is unknown."""
        self.flight: InFlight | None = None
        """What the throttle knows of the last attempt."""
        self.reserved = 0.0
        """US dollars reserved for the attempt in flight."""
        self.rejected_at: float | None = None
        """When it was rejected for its key, model or address for the first time, in the clock of the run."""
        self.is_withdrawn = False
        """The attempt in flight was given up, and the request is to be sent again."""
        self.outcome: Outcome | None = None
        """What was recorded for it; a large text is left out."""
        self.following: OpenRequest | None = None
        """The follow-up that came of its outcome, or the same request asked again."""
        self.replaces: Outcome | None = None
        """The recorded outcome that the next one takes the place of."""
        self.is_doubtful = False
        """The reply to its last attempt may have been another request's."""
        self.is_superseded = False
        """What it follows is asked again, so its own outcome does not count."""

    def keep(self, outcome: Outcome) -> None:
        """Keep what was recorded, without a large text: a request is held as long as its answer may be doubtful."""
        is_large = isinstance(outcome, Answer) and len(outcome.text) > BODY_BYTES_AT_ONCE
        self.outcome = replace(outcome, text="") if is_large else outcome

    def completed(self, outcome: Ended, asked_at: datetime, seconds: float) -> Ended:
        """The outcome with the number of attempts, the time of the last one, and the cost of all."""
        return replace(
            outcome, attempts=self.tries.sent, asked_at=asked_at, latency_seconds=round(seconds, 4), cost=self.cost
        )
