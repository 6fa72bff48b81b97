"""When the next request may leave, and whether a rejected one is tried again. Pure: no clock, no sleep, no socket."""

from .retry import ALIKE_BY_TEXT, ATTEMPTS, BACKOFF_MAX_SECONDS, Attempts, RetryAfter, RetryPolicy
from .throttle import WINDOW_FIRST, WINDOW_MAX, InFlight, Throttle, TokenEstimate

__all__ = [
    "ALIKE_BY_TEXT",
    "ATTEMPTS",
    "BACKOFF_MAX_SECONDS",
    "WINDOW_FIRST",
    "WINDOW_MAX",
    "Attempts",
    "InFlight",
    "RetryAfter",
    "RetryPolicy",
    "Throttle",
    "TokenEstimate",
]
