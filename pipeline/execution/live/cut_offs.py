"""Attempts that are cut off after the same time: a gateway between does not wait longer for an answer.

Pure: the times are given. Waiting longer, or trying again, helps nothing then; answers that come in pieces do.
"""

from collections import deque
from typing import NamedTuple

from ...records import Rejection

SECONDS_MIN = 10.0
"""Gateways wait for 30, 60, 100, 120, 300 or 600 seconds. What fails sooner fails for another reason."""

SHARE = 0.05
"""How much the times may differ."""

ATTEMPTS_MIN, ROWS_MIN = 3, 2
"""How many attempts, and of how many rows: one row may need the same time again until it brings a server down."""

APART_SECONDS = 1.0
"""A server that stops breaks off all that is in flight at one moment: attempts that end closer together count once."""

KEPT = 50
"""How many attempts are looked at."""

TIME_OUTS = frozenset({504, 524})
"""The statuses that say themselves that a gateway stopped waiting."""

BREAKS = frozenset({0, 200, 502, 520})
"""The statuses of a connection that a gateway closed, or that was closed behind it."""


class CutOff(NamedTuple):
    """An attempt that was cut off."""

    key: str
    seconds: float
    """How long it took."""
    ended_at: float


class CutOffs:
    """The attempts of one lane that were cut off."""

    def __init__(self, *, is_streamed: bool) -> None:
        """`is_streamed`: answers come in pieces already."""
        self._is_told = is_streamed
        self._longest_seconds = 0.0
        """The longest time after which an answer came."""
        self._kept: deque[CutOff] = deque(maxlen=KEPT)

    def answered(self, seconds: float) -> None:
        """Take note of how long an answer took."""
        self._longest_seconds = max(self._longest_seconds, seconds)

    def rejected(self, key: str, rejection: Rejection, seconds: float, now: float) -> str:
        """Take note of a rejected attempt; a line for the screen, once, if a gateway seems to cut attempts off."""
        is_time_out = rejection.status in TIME_OUTS
        is_break = rejection.status in BREAKS and rejection.kind in ("cut", "overload")
        if self._is_told or seconds < SECONDS_MIN or not (is_time_out or is_break):
            return ""
        is_alone = is_time_out or all(abs(now - each.ended_at) >= APART_SECONDS for each in self._kept)
        if not is_alone:
            return ""
        self._kept.append(CutOff(key, seconds, now))
        alike = [each for each in self._kept if abs(each.seconds - seconds) <= SHARE * seconds]
        if len(alike) < ATTEMPTS_MIN or len({each.key for each in alike}) < ROWS_MIN:
            return ""
        if self._longest_seconds > (1 + SHARE) * seconds:
            return ""
        self._is_told = True
        return (
            f"{len(alike)} requests were cut off after about {seconds:,.0f} s each; a gateway between may not wait "
            "longer.\nSet endpoint.stream = true in the job file, or --set endpoint.stream=true: answers then come in "
            "pieces, and what is answered is not asked again."
        )
