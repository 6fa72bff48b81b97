"""The throttle at each kind of endpoint, in simulation: throughput, rejections, and the time until it is up to speed.

    python tests/support/scenarios.py [--seeds 3] [--only outage] [--alone] [--set cut=0.8 --set cubic_seconds=20]

prints a table with the bounds that the tests hold each row to, beside a fixed number of workers and AIMD.
`--set` varies a constant of `pipeline.pacing.tuning`.
"""

import argparse
import math
import random
import statistics
from collections.abc import Callable

import msgspec
from odd_scenarios import ODD_SCENARIOS
from simulated_endpoints import (
    Batching,
    Buckets,
    Calendar,
    Cap,
    Changing,
    Daily,
    Failing,
    Flaky,
    Sharing,
    Stray,
    StrayOnce,
    rate_limited,
)
from simulation import MEAN_LATENCY, Result, Scenario, simulate, steady
from simulator import Aimd, Workers

from pipeline.job.sections import Limits
from pipeline.pacing.tuning import DEFAULT_TUNING, Tuning
from pipeline.text import did_you_mean


def pieces(*steps: tuple[float, float]) -> Callable[[float, float], float]:
    """A rate that changes at given times."""

    def total(start: float, end: float) -> float:
        ends = [at for at, _ in steps[1:]] + [math.inf]
        return sum(
            per_minute / 60 * max(0.0, min(end, until) - max(start, begins))
            for (begins, per_minute), until in zip(steps, ends, strict=True)
        )

    return total


def batching_best() -> float:
    """Answers a minute with 256 sequences always running; a sequence takes whole strides of ten steps."""
    rng = random.Random(0)
    strides = statistics.fmean(math.ceil(rng.lognormvariate(math.log(150.0) - 0.08, 0.4) / 10) for _ in range(100_000))
    return 60 * 256 / (strides * 10 * (0.012 + 0.0005 * 256))


MEAN_RATE_OF_ONE = 60 / (0.05 * math.exp(0.35**2 / 2))
STORM = pieces((0, 600), (300, 0), (600, 600))

SCENARIOS = (
    Scenario("600 requests/min, burst 60", Buckets, steady(600), 0.97, 0.005, 15),
    Scenario("60,000 tokens/min binds", Buckets, steady(60_000), 0.963, 0.0075, 15, tokens=(300, 0.5), by_tokens=True),
    Scenario("both bind", Buckets, steady(600), 0.97, 0.0033, 15, tokens=(100, 0.4)),
    Scenario(
        "as the first, no Retry-After", lambda c, d: Buckets(c, d, says_when=False), steady(600), 0.977, 0.0033, 15
    ),
    Scenario("calendar-minute window", Calendar, steady(600), 0.96, 0.01, 15),
    Scenario("as the first, 12 s latency", lambda c, d: Buckets(c, d, median=12.0), steady(600), 0.97, 0.005, 60),
    Scenario("32 at once, else 503", Cap, steady(60 * 32 / MEAN_LATENCY), 0.97, 0.0068, 30),
    Scenario(
        "10,000 requests/min, first 5 min",
        lambda c, d: Buckets(c, d, rpm=10_000, burst=1000, tpm=1e6, token_burst=1e5),
        steady(10_000),
        0.9,
        0.0054,
        30,
        seconds=300,
        counted_from=0,
    ),
    Scenario("vLLM-like, 256 sequences", Batching, steady(batching_best()), 0.964, 0.0, 60, counted_from=300),
    Scenario(
        "the limit halves, then doubles",
        lambda c, d: Changing(c, d, changes=((300, 0.5), (900, 2.0))),
        pieces((0, 600), (300, 300), (900, 600)),
        0.95,
        0.01,
        15,
        seconds=1500,
    ),
    Scenario(
        "60 s outage",
        lambda c, d: Failing(c, d, start=300, end=360),
        pieces((0, 600), (300, 0), (360, 600)),
        0.97,
        0.0125,
        15,
        ramp_from=360,
    ),
    Scenario(
        "60 s outage at 6,000 requests/min",
        lambda c, d: Failing(c, d, start=120, end=180, rpm=6000, burst=600, tpm=1e7, token_burst=1e7),
        pieces((0, 6000), (120, 0), (180, 6000)),
        0.97,
        0.015,
        15,
        seconds=360,
        counted_from=60,
        ramp_from=180,
    ),
    Scenario(
        "5 min of 429, Retry-After 20 s",
        lambda c, d: Failing(c, d, start=300, end=600, rejection=rate_limited(20.0)),
        STORM,
        0.95,
        0.01,
        25,
        ramp_from=600,
    ),
    Scenario(
        "5 min of 429, no Retry-After",
        lambda c, d: Failing(c, d, start=300, end=600, rejection=rate_limited(None)),
        STORM,
        0.95,
        0.01,
        50,
        ramp_from=600,
    ),
    Scenario("two jobs share 600/min", Buckets, steady(600), 0.97, 0.011, 15, jobs=2),
    Scenario(
        "daily quota of 3,000, with Retry-After",
        lambda c, d: Daily(c, d, quota=3000, says_hours=True),
        lambda start, end: min(10 * end, 3000) - min(10 * start, 3000),
        0.99,
        0.015,
        15,
        counted_from=0,
        must_stop=True,
    ),
    Scenario(
        "daily quota of 3,000, no Retry-After",
        lambda c, d: Daily(c, d, quota=3000, says_hours=False),
        lambda start, end: min(10 * end, 3000) - min(10 * start, 3000),
        0.99,
        0.04,
        15,
        seconds=3600,
        counted_from=0,
        must_stop=True,
    ),
    Scenario(
        "answers of 5 minutes, 100/min",
        lambda c, d: Buckets(c, d, rpm=100, burst=10, median=300.0),
        steady(100),
        0.95,
        0.0075,
        2500,
        seconds=14_400,
        counted_from=3600,
    ),
    Scenario("latency grows with load", Sharing, steady(60 * 24 / MEAN_LATENCY), 0.97, 0.0, 30, counted_from=300),
    Scenario("503 at random, 5 %", Flaky, steady(600), 0.97, 0.06, 90),
    Scenario(
        "429 at random, 1 %",
        lambda c, d: Stray(c, d, share=0.01),
        steady(60 * 16 / MEAN_LATENCY),
        0.68,
        0.0125,
        30,
        limits=Limits(concurrency=16),
    ),
    Scenario(
        "429 at random, 1 %, one at a time",
        lambda c, d: Stray(c, d, share=0.01, median=0.05),
        steady(MEAN_RATE_OF_ONE),
        0.6,
        0.0125,
        60,
        seconds=600,
        limits=Limits(concurrency=1),
    ),
    Scenario(
        "a stray 429 at 6,000 requests/min",
        lambda c, d: StrayOnce(c, d, at=300.0, rpm=6000, burst=600, tpm=1e7, token_burst=1e7),
        steady(6000),
        0.95,
        0.005,
        30,
        seconds=420,
        counted_from=300,
        ramp_from=302,
    ),
    Scenario(
        "a stray 429 when slow, Retry-After 12 s",
        lambda c, d: Stray(c, d, at=300.0, slower=3.0, wait=12.0),
        steady(60 * 32 / MEAN_LATENCY),
        0.88,
        0.001,
        30,
        seconds=420,
        counted_from=312,
        ramp_from=312,
        limits=Limits(concurrency=32),
    ),
    Scenario(
        "600/min as 10 a second", lambda c, d: Calendar(c, d, requests=10, period=1.0), steady(600), 0.7, 0.01, 30
    ),
    Scenario(
        "15 requests/min, burst 15",
        lambda c, d: Buckets(c, d, rpm=15, burst=15),
        steady(15),
        0.93,
        0.02,
        15,
        seconds=7200,
        counted_from=600,
    ),
    Scenario(
        "600/min, all used up at the start", lambda c, d: Buckets(c, d, is_empty=True), steady(600), 0.97, 0.005, 60
    ),
    Scenario(
        "600/min, the user's limit 300/min",
        Buckets,
        steady(300),
        0.97,
        0.0,
        15,
        limits=Limits(requests_per_minute=300),
    ),
)


def cell(results: list[Result]) -> str:
    goodput = 100 * statistics.fmean(result.goodput for result in results)
    rejected = 100 * statistics.fmean(result.rejected for result in results)
    seconds = max(result.ramp_seconds for result in results)
    return f"{goodput:5.1f} {rejected:5.2f} {'never' if seconds == math.inf else f'{seconds:.0f}':>5}"


def tuning_of(settings: list[str]) -> Tuning:
    """The tuning with settings such as `cut=0.8`. Raises ValueError for one that is none, with the near name."""
    values: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if name not in Tuning.__struct_fields__:
            raise ValueError(f"--set {setting}: no such constant{did_you_mean(name, Tuning.__struct_fields__)}")
        if not equals:
            raise ValueError(f"--set {setting}: give a value, such as {name}={getattr(DEFAULT_TUNING, name)}")
        values[name] = value
    return msgspec.convert(values, Tuning, strict=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each scenario; the slowest ramp is shown")
    parser.add_argument("--only", default="", help="only scenarios whose name holds this")
    parser.add_argument("--alone", action="store_true", help="only the throttle, without workers and AIMD")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another value of a constant")
    options = parser.parse_args()
    try:
        tuning = tuning_of(options.set)
    except ValueError as error:
        parser.error(str(error))
    for name in Tuning.__struct_fields__:
        if (value := getattr(tuning, name)) != (default := getattr(DEFAULT_TUNING, name)):
            print(f"{name} = {value} (default: {default})")
    usual: tuple[type[Workers], ...] = () if options.alone else (Workers, Aimd)
    columns = ["the throttle", "bounds", *("20 workers", "AIMD")[: len(usual)]]
    print("% of the best, % rejected, seconds to 90 %".ljust(44) + "".join(f"{column:22}" for column in columns))
    for scenario in (*SCENARIOS, *ODD_SCENARIOS):
        if options.only not in scenario.name:
            continue
        seeds = range(options.seeds)
        results = [simulate(scenario, seed, tuning=tuning) for seed in seeds]
        bounds = f"{100 * scenario.floor:5.1f} {100 * scenario.ceiling:5.2f} {scenario.ramp_seconds:5.0f}"
        others = [
            cell([simulate(scenario, seed, workers) for seed in seeds]) for workers in usual if not scenario.must_stop
        ]
        lost = sum(result.lost for result in results)
        print(
            f"{scenario.name:40}" + "".join(f"{text:>20}  " for text in (cell(results), bounds, *others)),
            f"in flight {statistics.fmean(result.in_flight for result in results):4.0f}  lost {lost}",
            "  stopped" if results[0].stopped else "",
            flush=True,
            sep="",
        )


if __name__ == "__main__":
    main()
