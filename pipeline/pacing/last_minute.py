"""The requests that left within the last minute."""

from collections import deque

MINUTE = 60.0

LATE_SECONDS = 2.0
"""What is added to it: requests are noted to the second, and take a moment to arrive."""


class LastMinute:
    """When requests left, to the second, for a minute: it tells when a limit for a minute has room again at last."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()
        """The number of the first request that left in each second in which one did."""
        self._last = 0

    def on_sent(self, number: int, now: float) -> None:
        """Take in that a request has left."""
        self._last = number
        if not self._marks or now >= self._marks[-1][0] + 1:
            self._marks.append((now, number))
        while self._marks[0][0] < now - MINUTE:
            self._marks.popleft()

    @property
    def sent(self) -> int:
        """Requests that left in the minute before the last one left."""
        return self._last - self._marks[0][1] + 1 if self._marks else 0

    def seconds_until_past(self, requests: int, now: float) -> float | None:
        """Seconds until a window that took this number of requests, the latest ones, has surely ended.

        It began before the first of them, so it ends within a minute of that one. None if they left over more than a
        minute.
        """
        first = self._last - requests + 1
        if not self._marks or first < self._marks[0][1]:
            return None
        left_at = next(at for at, number in reversed(self._marks) if number <= first)
        return max(0.0, left_at + LATE_SECONDS + MINUTE - now)
