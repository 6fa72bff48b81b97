"""A quota for a period, told by two 429s after the same number of requests."""

SAME_REQUESTS_SHARE = 0.02
"""The share by which the two numbers of requests may differ."""

SAME_WAIT_SECONDS = 0.5
"""The time by which the two waits may differ."""

OTHER_PACE_SHARE = 0.1
"""The share of the period by which the times that the requests took must differ."""

FEW_SHARE = 0.05
"""The share of the last number up to which requests are next to none."""

REQUESTS_MIN = 20
"""The smallest quota that is known so: the numbers of a few requests are easily the same."""

PERIOD_SECONDS_MIN = 5.0
"""The shortest period."""


class RepeatedQuota:
    """Finds the quota of an endpoint that says nothing about it, or always asks to wait for the whole period.

    A bucket has taken more requests when they leave more slowly, as it fills meanwhile; and an endpoint that says how
    long its window still lasts asks for shorter waits the longer the requests took. Only a quota for a period takes the
    same number at another pace. LiteLLM's proxy and sliding windows do so.
    """

    def __init__(self) -> None:
        self._accepted = 0
        """The number of requests accepted before the last 429."""
        self._last: tuple[int, float, float, float | None] | None = None
        """Of the last 429: the requests before it, when the first of them left, how long they took, the wait."""

    def on_limit_hit(self, accepted: int, began_at: float, left_at: float, wait_seconds: float | None) -> float | None:
        """Note the first 429 after a pause; returns the limit of requests a minute if it is known now, else None.

        `accepted`: the requests accepted so far. Those since the last 429 left from `began_at` on, the rejected one at
        `left_at`. A 429 before which next to nothing was accepted belongs to the one before.
        """
        last, seconds = self._last, left_at - began_at
        new = accepted - self._accepted
        if last is not None and new < FEW_SHARE * last[0]:
            return None
        self._last, self._accepted, accepted = (new, began_at, seconds, wait_seconds), accepted, new
        if last is None or accepted < REQUESTS_MIN:
            return None
        before, began_before, seconds_before, wait_before = last
        if wait_seconds is None or wait_before is None:
            has_same_wait, period = wait_seconds is wait_before, began_at - began_before
        else:
            has_same_wait, period = abs(wait_seconds - wait_before) < SAME_WAIT_SECONDS, wait_seconds
        has_same_number = abs(accepted - before) <= SAME_REQUESTS_SHARE * accepted
        has_other_pace = abs(seconds - seconds_before) > OTHER_PACE_SHARE * period
        is_known = has_same_number and has_same_wait and has_other_pace and period >= PERIOD_SECONDS_MIN
        return 60 * accepted / period if is_known else None
