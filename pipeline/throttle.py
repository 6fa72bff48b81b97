"""When the next request may leave: how many at once, how many requests and tokens a minute, when all must wait.

Pure: monotonic seconds are given in, nothing sleeps. A limit that the user sets is obeyed in every window of 60 s, the
token limit to within the one request that crosses it: requests leave evenly, at 98.5 % of the rate, so that a window
never holds one more than the limit. A 429 and an overload pause every request, twice as long each time one follows
another without an answer between.
"""

import math

from .job import Limits
from .records import Refusal

MARGIN = 0.985
FIRST_PAUSE_SECONDS = 1.0
TICK_SECONDS = 1e-6
"""Less than this is now: a clock's last digits must not make a wait that never ends."""
PAUSE_MAX_SECONDS = {"rate": 60.0, "window": 15.0}


class Throttle:
    """The pace of one endpoint, model and key."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._width = limits.width
        self._requests_per_second = _per_second(limits.requests_per_minute)
        self._tokens_per_second = _per_second(limits.tokens_per_minute)
        self._request_level = 1.0
        self._token_level = 0.0
        self._token_cap = (limits.tokens_per_minute or 0.0) * (1 - MARGIN)
        self._filled_at = now
        self._resume_at = now
        self._pauses = 0
        self._probing = False
        self.reason = ""
        """Why everyone waits, while they do."""

    def wait_before_next(self, now: float, in_flight: int) -> float:
        """Seconds until one more request may leave: 0 for now, infinity for when one in flight has landed."""
        if in_flight >= self._width or (self._probing and in_flight):
            return math.inf
        self._fill(now)
        waits = [self._resume_at - now]
        if self._requests_per_second is not None:
            waits.append((1 - self._request_level) / self._requests_per_second)
        if self._tokens_per_second is not None:
            waits.append(-self._token_level / self._tokens_per_second)
        wait = max(waits)
        return wait if wait > TICK_SECONDS else 0.0

    def left(self, now: float, tokens: float) -> None:
        """A request has left; it is expected to use so many tokens."""
        self._fill(now)
        self._request_level -= 1
        self._token_level -= tokens

    def landed(self, tokens_expected: float, tokens_used: float) -> None:
        """Its tokens are known now."""
        self._token_level += tokens_expected - tokens_used

    def answered(self) -> None:
        """An answer came: the last pause is over and forgotten."""
        self._pauses = 0
        self._probing = False

    def refused(self, refusal: Refusal, left_at: float, now: float) -> None:
        """Pause everyone if the refusal says so; one that left before the pause began only lengthens it."""
        if refusal.pressure is None:
            return
        if left_at >= self._resume_at:
            self._pauses += 1
        pause = min(PAUSE_MAX_SECONDS[refusal.pressure], FIRST_PAUSE_SECONDS * 2.0 ** max(0, self._pauses - 1))
        told = refusal.wait_seconds is not None
        if refusal.wait_seconds is not None:
            pause = refusal.wait_seconds
        self._resume_at = max(self._resume_at, now + pause)
        self._probing = self._pauses > 1 or pause > 5
        self.reason = "the endpoint asked for it" if told else f"after HTTP {refusal.status or refusal.kind}"

    def paused_seconds(self, now: float) -> float:
        """How long everyone still waits because of a refusal; 0 if nobody does."""
        return max(0.0, self._resume_at - now)

    def _fill(self, now: float) -> None:
        passed, self._filled_at = now - self._filled_at, now
        if self._requests_per_second is not None:
            self._request_level = min(1.0, self._request_level + passed * self._requests_per_second)
        if self._tokens_per_second is not None:
            self._token_level = min(self._token_cap, self._token_level + passed * self._tokens_per_second)


def _per_second(per_minute: float | None) -> float | None:
    return None if per_minute is None else MARGIN * per_minute / 60
