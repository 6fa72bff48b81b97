"""A request in flight, as the throttle knows it."""

from typing import NamedTuple


class InFlight(NamedTuple):
    """One request in flight, and what was known when it left."""

    number: int
    """Counts the requests of this throttle, from 1, in the order in which they left."""
    left_at: float
    """Monotonic seconds."""
    in_flight: int
    """The number of requests in flight when it left, this one included."""
    size_bytes: int
    tokens: float
    """The tokens that it will probably use."""
    tokens_high: float
    """The tokens that it will hardly exceed."""
    tokens_sent_before: float
    """The sum of tokens of all requests that left before it."""
