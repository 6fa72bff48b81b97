"""The requests that left within the last minute."""

from collections import deque

MINUTE = 60.0


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
        """Seconds until the first of the last so many requests is a minute ago; None if they took longer than that.

        A window of a minute in which so many requests were accepted began before that one, and ends by then.
        """
        first = self._last - requests + 1
        if not self._marks or first < self._marks[0][1]:
            return None
        left_at = next(at for at, number in reversed(self._marks) if number <= first)
        return max(0.0, left_at + 2 + MINUTE - now)
