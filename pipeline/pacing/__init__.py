"""When the next request may leave, and whether a rejected one is tried again. Pure: no clock, no sleep, no socket."""

from .in_flight import InFlight
from .retry import (
    ADDRESS_REMEDY,
    ATTEMPTS,
    BACKOFF_MAX_SECONDS,
    REJECTED_ROWS_MAX,
    TEXT_FAILURES_MAX,
    Attempts,
    RetryAfter,
    RetryPolicy,
)
from .throttle import Throttle
from .tokens import TokenEstimate
from .tuning import WINDOW_FIRST, WINDOW_MAX

__all__ = [
    "ADDRESS_REMEDY",
    "ATTEMPTS",
    "BACKOFF_MAX_SECONDS",
    "REJECTED_ROWS_MAX",
    "TEXT_FAILURES_MAX",
    "WINDOW_FIRST",
    "WINDOW_MAX",
    "Attempts",
    "InFlight",
    "RetryAfter",
    "RetryPolicy",
    "Throttle",
    "TokenEstimate",
]
