"""Drive a throttle without an endpoint, on a clock that the test holds."""

import heapq
import math
from collections.abc import Callable
from itertools import count

from pipeline.job.sections import Limits
from pipeline.pacing.in_flight import InFlight
from pipeline.pacing.throttle import Throttle
from pipeline.records import Allowance, Rejection, Usage

NO_ALLOWANCE = Allowance()
USED = Usage(80, 20)
TIMEOUT = Rejection("retry", "timeout", "no answer", None, "window")


def too_many(wait_seconds: float | None = None) -> Rejection:
    return Rejection("retry", "rate", "too many", 429, "rate", wait_seconds)


def overload(wait_seconds: float | None = None) -> Rejection:
    return Rejection("retry", "overload", "busy", 503, "window", wait_seconds)


def answer(throttle: Throttle, flight: InFlight, now: float, usage: Usage = USED) -> None:
    throttle.on_answer(flight, usage, NO_ALLOWANCE, now)


def send(throttle: Throttle, times: int, now: float = 0.0) -> list[InFlight]:
    return [throttle.on_sent(now, 400) for _ in range(times)]


def drive(
    throttle: Throttle,
    seconds: float,
    *,
    latency: float = 1.0,
    usage: Callable[[], Usage] = lambda: USED,
    since: float = 0.0,
) -> list[tuple[float, int]]:
    """Send whenever the throttle allows it, and answer everything. Return when each request left, and its tokens."""
    now, left, flying, order = since, [], [], count()
    while now < since + seconds:
        wait = throttle.wait_before_next(now)
        answered_at = flying[0][0] if flying else math.inf
        if wait <= 0:
            used = usage()
            left.append((now, (used.prompt_tokens or 0) + (used.completion_tokens or 0)))
            flight = throttle.on_sent(now, 4 * (used.prompt_tokens or 0))
            heapq.heappush(flying, (now + latency, next(order), flight, used))
        elif answered_at <= now + wait:
            now, _, flight, used = heapq.heappop(flying)
            answer(throttle, flight, now, used)
        else:
            now += wait
    for _, _, flight, used in flying:
        answer(throttle, flight, now, used)
    return left


def driven(seconds: float, **limits: int) -> Throttle:
    """A throttle that has sent requests for this time, all of which were answered."""
    throttle = Throttle(Limits(**limits), 0.0)
    drive(throttle, seconds, latency=0.5)
    return throttle
