"""Run a scenario: a job, or usual workers, at a simulated endpoint; and measure what came of it."""

import math
import random
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from simulated_endpoints import Endpoint
from simulator import Asker, Clock, Job, Row, Workers

from pipeline.job.sections import Limits
from pipeline.pacing.throttle import Throttle
from pipeline.pacing.tuning import DEFAULT_TUNING, Tuning
from pipeline.records import LearnedLimits, Stopped

SETTLED_SECONDS = 10.0
"""Seconds for which 90 % of the best must hold to count."""


MEAN_LATENCY = 1.5 * math.exp(0.35**2 / 2)
"""Seconds of an answer of the simulated endpoints, on average, where a scenario gives no other median."""


def steady(per_minute: float) -> Callable[[float, float], float]:
    return lambda start, end: per_minute / 60 * (end - start)


@dataclass(frozen=True)
class Scenario:
    name: str
    server: Callable[[Clock, random.Random], Endpoint]
    best: Callable[[float, float], float]
    """The requests (or tokens, if `by_tokens`) that the endpoint could answer between two times."""
    floor: float
    """Share of the best that is answered, at least."""
    ceiling: float
    """Share of all requests that is rejected, at most."""
    ramp_seconds: float
    """Seconds until 90 % of the best, at most."""
    by_tokens: bool = False
    tokens: tuple[float, float] = (60.0, 0.4)
    """The tokens of a row: mean and sigma of a lognormal distribution."""
    seconds: float = 1200.0
    counted_from: float = 120.0
    ramp_from: float = 0.0
    jobs: int = 1
    must_stop: bool = False
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Result:
    goodput: float
    """Share of the best that was answered."""
    rejected: float
    """Share of all requests that was rejected."""
    ramp_seconds: float
    lost: int
    stopped: Stopped | None
    in_flight: float
    shares: list[float]
    """Each job's share of the answers."""
    most_left_in_a_minute: int
    learned: LearnedLimits | None


def simulate(
    scenario: Scenario, seed: int, usual: type[Workers] | None = None, tuning: Tuning = DEFAULT_TUNING
) -> Result:
    """Run one scenario with the throttle, or with `usual` workers in its place. It takes a second or so."""
    rng, clock = random.Random(seed), Clock()
    server = scenario.server(clock, rng)
    mean, sigma = scenario.tokens

    def make_row() -> Row:
        tokens = max(2, round(rng.lognormvariate(math.log(mean) - sigma * sigma / 2, sigma)))
        prompt = max(1, round(tokens * rng.uniform(0.6, 0.9)))
        return Row(prompt, max(1, tokens - prompt))

    def asker() -> Asker:
        if usual is not None:
            return usual(clock, server, make_row, rng)
        return Job(clock, server, make_row, rng, Throttle(scenario.limits, clock.now, tuning=tuning))

    jobs = [asker() for _ in range(scenario.jobs)]
    for number, job in enumerate(jobs):
        clock.at(number * 20.0, job.begin)
    clock.run(scenario.seconds)
    answers = sorted(
        (at, tokens if scenario.by_tokens else 1)
        for job in jobs
        for at, tokens in zip(job.traffic.answered_at, job.traffic.tokens, strict=True)
    )
    rejected = sum(len(job.traffic.rejected_at) for job in jobs)
    first = jobs[0]
    return Result(
        goodput=sum(worth for at, worth in answers if at >= scenario.counted_from)
        / scenario.best(scenario.counted_from, clock.now),
        rejected=rejected / max(1, rejected + len(answers)),
        ramp_seconds=ramp_seconds(answers, scenario),
        lost=sum(job.traffic.lost for job in jobs),
        stopped=first.traffic.stopped,
        in_flight=statistics.fmean([n for at, n in first.traffic.in_flight if at > clock.now / 2] or [0]),
        shares=[len(job.traffic.answered_at) / max(1, len(answers)) for job in jobs],
        most_left_in_a_minute=most_in_a_minute(first.traffic.left_at),
        learned=first.throttle.learned() if isinstance(first, Job) else None,
    )


def ramp_seconds(answers: list[tuple[float, int]], scenario: Scenario) -> float:
    """Seconds until ten seconds held 90 % of the best; infinity if none did."""
    recent: deque[tuple[float, int]] = deque()
    since, total = scenario.ramp_from, 0.0
    for at, worth in answers:
        if at < since:
            continue
        recent.append((at, worth))
        total += worth
        while recent[0][0] <= at - SETTLED_SECONDS:
            total -= recent.popleft()[1]
        best = max(scenario.best(max(0, at - SETTLED_SECONDS), at), scenario.best(since, since + SETTLED_SECONDS))
        if total >= 0.9 * best:
            return at - since
    return math.inf


def most_in_a_minute(times: list[float]) -> int:
    recent: deque[float] = deque()
    most = 0
    for at in times:
        recent.append(at)
        while recent[0] <= at - 60:
            recent.popleft()
        most = max(most, len(recent))
    return most
