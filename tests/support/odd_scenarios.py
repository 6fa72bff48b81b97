"""Endpoints whose refusals are not those of a bucket: at random, by windows, with waits that are too long.

The aim is 90 % of the best, and 1 % refused beyond those at random. The bounds are what is reached so far.
"""

import random
from collections.abc import Callable

from simulated_endpoints import Calendar, Endpoint, Flaky, Gateway, Sharing, Sliding, rate_limited
from simulation import MEAN_LATENCY, Scenario, steady
from simulator import Clock, Row

from pipeline.job.sections import Limits
from pipeline.records import Rejection

NO_LIMIT = {"rpm": 1e9, "burst": 1e9, "tpm": 1e12, "token_burst": 1e12}


def at_random(share: float, wait: float | None = 1.0, **more: float) -> Callable[[Clock, random.Random], Endpoint]:
    """An endpoint that refuses a share of all requests, whatever the pace."""
    limits = {**NO_LIMIT, **more}
    return lambda clock, rng: Flaky(clock, rng, share=share, rejection=rate_limited(wait), **limits)


def of_width(width: int, share: float, median: float = 1.5) -> Callable[[float, float], float]:
    """What so many requests in flight can bring: a refusal takes 0.2 s of them, too."""
    return steady(60 * width / (MEAN_LATENCY * median / 1.5 + 0.2 * share / (1 - share)))


class SharingAtRandom(Sharing):
    """Shared processors, and a gateway before them that refuses a share of all requests."""

    def rejects(self, _row: Row, _now: float) -> Rejection | None:
        return rate_limited(None) if self.rng.random() < 0.05 else None


WIDE = Limits(concurrency=32)

ODD_SCENARIOS = (
    Scenario(
        "429 at random, 2 %, 32 at once",
        at_random(0.02),
        of_width(32, 0.02),
        0.85,
        0.03,
        200,
        limits=WIDE,
        seconds=600,
        counted_from=0,
    ),
    Scenario(
        "429 at random, 5 %, 32 at once",
        at_random(0.05),
        of_width(32, 0.05),
        0.9,
        0.06,
        60,
        limits=WIDE,
        seconds=600,
        counted_from=0,
    ),
    Scenario(
        "429 at random, 10 %, 32 at once",
        at_random(0.1),
        of_width(32, 0.1),
        0.8,
        0.115,
        150,
        limits=WIDE,
        seconds=600,
        counted_from=0,
    ),
    Scenario(
        "429 at random, 2 %, fast",
        at_random(0.02, median=0.15),
        of_width(32, 0.02, 0.15),
        0.75,
        0.03,
        90,
        limits=WIDE,
        seconds=120,
        counted_from=0,
    ),
    Scenario(
        "429 at random, 10 %, fast",
        at_random(0.1, median=0.15),
        of_width(32, 0.1, 0.15),
        0.6,
        0.115,
        60,
        limits=WIDE,
        seconds=120,
        counted_from=0,
    ),
    Scenario(
        "429 at random, 5 %, 12 s latency",
        at_random(0.05, median=12.0),
        of_width(64, 0.05, 12.0),
        0.9,
        0.06,
        120,
        limits=Limits(concurrency=64),
    ),
    Scenario(
        "429 at random, 10 %, 4 at once",
        at_random(0.1),
        of_width(4, 0.1),
        0.8,
        0.115,
        400,
        limits=Limits(concurrency=4),
    ),
    Scenario(
        "429 at random, 5 %, Retry-After 20 s", at_random(0.05, 20.0), of_width(32, 0.05), 0.7, 0.06, 400, limits=WIDE
    ),
    Scenario(
        "429 at random, 5 %, no Retry-After",
        SharingAtRandom,
        steady(60 * 24 / MEAN_LATENCY),
        0.85,
        0.06,
        120,
    ),
    Scenario("429 at random, 3 %, and 600/min", at_random(0.03, rpm=600.0, burst=60.0), steady(600), 0.8, 0.045, 100),
    Scenario("429 at random, 10 %, and 600/min", at_random(0.1, rpm=600.0, burst=60.0), steady(600), 0.4, 0.125, 500),
    Scenario(
        "429 at random, 3 %, and 6,000/min",
        at_random(0.03, rpm=6000.0, burst=600.0),
        steady(6000),
        0.9,
        0.045,
        100,
        seconds=600,
    ),
    Scenario("LiteLLM's windows of 600/min", Gateway, steady(600), 0.9, 0.01, 15),
    Scenario(
        "LiteLLM's windows of 60/min", lambda c, d: Gateway(c, d, requests=60), steady(60), 0.9, 0.01, 15, seconds=3600
    ),
    Scenario(
        "windows of 600/min, always 60 s", lambda c, d: Gateway(c, d, names_limit=False), steady(600), 0.9, 0.01, 15
    ),
    Scenario("100 per 10 s, sliding", Sliding, steady(600), 0.85, 0.01, 30),
    Scenario(
        "100 per 10 s, refused ones count", lambda c, d: Sliding(c, d, counts_refused=True), steady(600), 0.8, 0.01, 30
    ),
    Scenario(
        "600 per 60 s, sliding", lambda c, d: Sliding(c, d, requests=600, period=60.0), steady(600), 0.9, 0.012, 30
    ),
    Scenario("20 per 10 s, sliding", lambda c, d: Sliding(c, d, requests=20), steady(120), 0.8, 0.01, 30, seconds=3600),
    Scenario(
        "50 a second, by the clock", lambda c, d: Calendar(c, d, requests=50, period=1.0), steady(3000), 0.7, 0.01, 200
    ),
)
