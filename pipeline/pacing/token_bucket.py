"""A token bucket: what may leave at once, refilled at a constant rate up to a capacity."""

import math


class TokenBucket:
    """A token bucket that may go into debt; it counts requests, or the tokens of a language model.

    `level` grows by `rate` a second, up to `capacity`. A request that leaves is subtracted from it. An infinite rate
    means that there is no limit.
    """

    __slots__ = ("_refilled_at", "capacity", "level", "rate")

    def __init__(self, now: float, rate: float = math.inf, capacity: float = 1.0, level: float = 0.0) -> None:
        """`rate` is a second; `now` is in monotonic seconds."""
        self.rate, self.capacity, self.level = rate, capacity, level
        self._refilled_at = now

    def refill(self, now: float) -> None:
        """Bring the level up to the present time."""
        passed, self._refilled_at = now - self._refilled_at, now
        if self.rate < math.inf:
            self.level = min(self.capacity, self.level + passed * self.rate)

    def seconds_until(self, level: float) -> float:
        """Seconds until the bucket holds this level; 0 or less if it does already."""
        return (level - self.level) / self.rate if self.rate < math.inf else 0.0
