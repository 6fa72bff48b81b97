"""The governor against endpoints with hidden limits, on a virtual clock.

python tests/simulator.py [--seeds 3] [--only outage]
"""

import argparse
import heapq
import math
import random
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from pipeline.job import Limits
from pipeline.records import Allowance, Failure, Refusal, Stopped, Usage
from pipeline.retry import Again, Patience, Tries
from pipeline.throttle import Flight, Throttle

WAITING_MAX = 1000
SETTLED_SECONDS = 10.0


class Clock:
    """Events in the order of their time."""

    __slots__ = ("_events", "_order", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._order = count()

    def at(self, when: float, do: Callable[..., None], *given: object) -> None:
        heapq.heappush(self._events, (max(when, self.now), next(self._order), do, given))

    def run(self, seconds: float) -> None:
        events = self._events
        while events and events[0][0] <= seconds:
            self.now, _, do, given = heapq.heappop(events)
            do(*given)
        self.now = seconds


class Row:
    __slots__ = ("bytes", "completion_tokens", "prompt_tokens", "tries")

    def __init__(self, prompt_tokens: int, completion_tokens: int) -> None:
        self.prompt_tokens, self.completion_tokens = prompt_tokens, completion_tokens
        self.bytes = 4 * prompt_tokens
        self.tries = Tries()

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass
class Traffic:
    """What came of one simulated run."""

    answered_at: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    refused_at: list[float] = field(default_factory=list)
    in_flight: list[tuple[float, int]] = field(default_factory=list)
    drawn: int = 0
    lost: int = 0
    unsettled: int = 0
    stopped: Stopped | None = None
    stopped_at: float = math.inf


class Job:
    """An endless table, asked as `live` asks it: one gate, one first, retries before fresh ones."""

    def __init__(
        self, clock: Clock, server: "Endpoint", rows: Callable[[], Row], dice: random.Random, limits: Limits
    ) -> None:
        self.clock, self.server, self._new_row = clock, server, rows
        self.throttle = Throttle(limits, clock.now)
        self.patience = Patience(clock.now, dice.random)
        self.traffic = Traffic()
        self._later: list[tuple[float, int, Row]] = []
        self._order = count()
        self._look_at = math.inf
        self._fresh: Row | None = None

    def begin(self) -> None:
        self.look()

    def look(self) -> None:
        """Let leave what may leave now."""
        now = self.clock.now
        if self._look_at <= now:
            self._look_at = math.inf
        while self.traffic.stopped is None:
            if self._later and self._later[0][0] <= now:
                row = self._later[0][2]
            elif len(self._later) < WAITING_MAX:
                if self._fresh is None:
                    self._fresh = self._new_row()
                    self.traffic.drawn += 1
                row = self._fresh
            else:
                self._look_again(self._later[0][0])
                return
            if self.throttle.in_flight and not self.patience.answers:
                return
            wait = self.throttle.wait_before_next(now)
            if wait > 0:
                if wait < math.inf:
                    self._look_again(now + wait)
                return
            if row is self._fresh:
                self._fresh = None
            else:
                heapq.heappop(self._later)
            row.tries.sent += 1
            flight = self.throttle.left(now, row.bytes)
            self.server.arrive(self, row, flight)

    def _look_again(self, when: float) -> None:
        if when < self._look_at - 1e-9:
            self._look_at = when
            self.clock.at(when, self._woken, when)

    def _woken(self, when: float) -> None:
        if when == self._look_at:
            self.look()

    def land(self, row: Row, flight: Flight, said: Refusal | None) -> None:
        now, traffic = self.clock.now, self.traffic
        if said is None:
            self.throttle.answered(flight, Usage(row.prompt_tokens, row.completion_tokens), NOTHING_SAID, now)
            self.patience.answered(now)
            traffic.answered_at.append(now)
            traffic.tokens.append(row.tokens)
            if len(traffic.answered_at) % 16 == 0:
                traffic.in_flight.append((now, self.throttle.in_flight))
        else:
            traffic.refused_at.append(now)
            self.throttle.refused(flight, said, now)
            decision = self.patience.decide(said, row.tries, now)
            if isinstance(decision, Again):
                heapq.heappush(self._later, (now + decision.after_seconds, next(self._order), row))
            elif isinstance(decision, Stopped):
                traffic.stopped, traffic.stopped_at = decision, now
            elif isinstance(decision, Failure):
                traffic.lost += 1
        if self._later:
            self._look_again(self._later[0][0])
        self.look()


# ---- endpoints


def rate_refusal(wait: float | None) -> Refusal:
    return Refusal("retry", "rate", "too many", 429, "rate", wait)


NOTHING_SAID = Allowance()
OVERLOAD = Refusal("retry", "overload", "busy", 503, "window")


class Endpoint:
    """Answers after a lognormal latency."""

    def __init__(self, clock: Clock, dice: random.Random, median: float = 1.5, sigma: float = 0.35) -> None:
        self.clock, self.dice, self.median, self.sigma = clock, dice, median, sigma
        self.running = 0

    def refuses(self, _row: Row, _now: float) -> Refusal | None:
        return None

    def seconds(self) -> float:
        return self.dice.lognormvariate(math.log(self.median), self.sigma)

    def arrive(self, job: Job, row: Row, flight: Flight) -> None:
        now = self.clock.now
        refusal = self.refuses(row, now)
        if refusal is not None:
            self.clock.at(now + self.dice.uniform(0.15, 0.25), job.land, row, flight, refusal)
        else:
            self.running += 1
            self.clock.at(now + self.seconds(), self._answer, job, row, flight)

    def _answer(self, job: Job, row: Row, flight: Flight) -> None:
        self.running -= 1
        job.land(row, flight, None)


class Buckets(Endpoint):
    """A request bucket and a token bucket, both checked at arrival."""

    def __init__(
        self,
        clock: Clock,
        dice: random.Random,
        *,
        rpm: float = 600.0,
        burst: float = 60.0,
        tpm: float = 60_000.0,
        token_burst: float = 6_000.0,
        tells: bool = True,
        **more: float,
    ) -> None:
        super().__init__(clock, dice, **more)
        self.rate, self.burst, self.level = rpm / 60, burst, burst
        self.token_rate, self.token_burst, self.token_level = tpm / 60, token_burst, token_burst
        self.tells = tells
        self._at = 0.0

    def refuses(self, row: Row, now: float) -> Refusal | None:
        passed, self._at = now - self._at, now
        self.level = min(self.burst, self.level + passed * self.rate)
        self.token_level = min(self.token_burst, self.token_level + passed * self.token_rate)
        if self.level >= 1 and self.token_level >= row.tokens:
            self.level -= 1
            self.token_level -= row.tokens
            return None
        wait = max((1 - self.level) / self.rate, (row.tokens - self.token_level) / self.token_rate)
        return rate_refusal(float(math.ceil(wait)) if self.tells else None)


class Calendar(Endpoint):
    """So many in each period of the clock."""

    def __init__(
        self, clock: Clock, dice: random.Random, *, requests: int = 600, period: float = 60.0, **more: float
    ) -> None:
        super().__init__(clock, dice, **more)
        self.requests, self.period, self._used, self._which = requests, period, 0, -1

    def refuses(self, _row: Row, now: float) -> Refusal | None:
        which = int(now // self.period)
        if which != self._which:
            self._which, self._used = which, 0
        if self._used < self.requests:
            self._used += 1
            return None
        return rate_refusal(float(math.ceil((which + 1) * self.period - now)))


class Cap(Endpoint):
    """So many at once, else 503."""

    def __init__(self, clock: Clock, dice: random.Random, *, most: int = 32, **more: float) -> None:
        super().__init__(clock, dice, **more)
        self.most = most

    def refuses(self, _row: Row, _now: float) -> Refusal | None:
        return OVERLOAD if self.running >= self.most else None


class Changing(Buckets):
    """The limit is multiplied at given times."""

    def __init__(
        self, clock: Clock, dice: random.Random, *, changes: tuple[tuple[float, float], ...], **more: float
    ) -> None:
        super().__init__(clock, dice, **more)
        for at, factor in changes:
            clock.at(at, self._change, factor)

    def _change(self, factor: float) -> None:
        self.rate *= factor
        self.burst *= factor
        self.level = min(self.level, self.burst)


class Failing(Buckets):
    """Refuses everything between two moments; what was on its way then breaks off, too."""

    def __init__(
        self, clock: Clock, dice: random.Random, *, start: float, end: float, refusal: Refusal = OVERLOAD, **more: float
    ) -> None:
        super().__init__(clock, dice, **more)
        self.start, self.end, self.refusal = start, end, refusal

    def refuses(self, row: Row, now: float) -> Refusal | None:
        if self.start <= now < self.end:
            return self.refusal
        return super().refuses(row, now)

    def _answer(self, job: Job, row: Row, flight: Flight) -> None:
        if self.refusal is OVERLOAD and self.start <= self.clock.now < self.end:
            self.running -= 1
            job.land(row, flight, OVERLOAD)
        else:
            super()._answer(job, row, flight)


class Flaky(Buckets):
    """A 503 at random."""

    def __init__(self, clock: Clock, dice: random.Random, *, share: float = 0.05, **more: float) -> None:
        super().__init__(clock, dice, **more)
        self.share = share

    def refuses(self, row: Row, now: float) -> Refusal | None:
        return OVERLOAD if self.dice.random() < self.share else super().refuses(row, now)


class Daily(Buckets):
    """A quota for the day under the limit for the minute."""

    def __init__(self, clock: Clock, dice: random.Random, *, quota: int, tells_hours: bool, **more: float) -> None:
        super().__init__(clock, dice, **more)
        self.quota, self.tells_hours = quota, tells_hours

    def refuses(self, row: Row, now: float) -> Refusal | None:
        if self.quota <= 0:
            return rate_refusal(8 * 3600.0 if self.tells_hours else None)
        refusal = super().refuses(row, now)
        self.quota -= refusal is None
        return refusal


class Sharing(Endpoint):
    """Processors shared: up to so many at once are as fast as one, beyond that all get slower."""

    def __init__(self, clock: Clock, dice: random.Random, *, lanes: int = 24, **more: float) -> None:
        super().__init__(clock, dice, **more)
        self.lanes = lanes

    def seconds(self) -> float:
        return super().seconds() * max(1.0, self.running / self.lanes)


class Batching(Endpoint):
    """vLLM-like: ten decode steps at a time, each of 12 ms and 0.5 ms for every sequence; first in, first out."""

    def __init__(self, clock: Clock, dice: random.Random) -> None:
        super().__init__(clock, dice)
        self.sequences, self.mu, self.sd = 256, math.log(150.0) - 0.08, 0.4
        self.queue: deque[tuple[float, Job, Row, Flight]] = deque()
        self.batch: list[tuple[float, Job, Row, Flight]] = []
        self.busy = False

    def arrive(self, job: Job, row: Row, flight: Flight) -> None:
        self.queue.append((self.dice.lognormvariate(self.mu, self.sd), job, row, flight))
        if not self.busy:
            self.busy = True
            self.clock.at(self.clock.now, self._step)

    def _step(self) -> None:
        self.batch, done = [e for e in self.batch if e[0] > 0], [e for e in self.batch if e[0] <= 0]
        for _, job, row, flight in done:
            job.land(row, flight, None)
        while self.queue and len(self.batch) < self.sequences:
            self.batch.append(self.queue.popleft())
        if not self.batch:
            self.busy = False
            return
        self.batch = [(left - 10, *which) for left, *which in self.batch]
        self.clock.at(self.clock.now + 10 * (0.012 + 0.0005 * len(self.batch)), self._step)


# ---- scenarios


@dataclass(frozen=True)
class Scenario:
    name: str
    server: Callable[[Clock, random.Random], Endpoint]
    best: float  # a second: answers, or tokens
    tokens: tuple[float, float] = (60.0, 0.4)  # mean, sigma
    seconds: float = 1200.0
    counted_from: float = 120.0
    unit: str = "answers"
    goodput_floor: float = 0.0
    refused_ceiling: float = 1.0
    ramp_from: float = 0.0
    best_seconds: Callable[[float, float], float] | None = None  # of the best, between two moments
    jobs: int = 1
    must_stop: bool = False


def steady(rate: float) -> Callable[[float, float], float]:
    return lambda start, end: rate * (end - start)


def pieces(*steps: tuple[float, float]) -> Callable[[float, float], float]:
    """The sum of a rate that changes at given moments."""

    def total(start: float, end: float) -> float:
        found = 0.0
        for (begins, rate), (ends, _) in zip(steps, [*steps[1:], (math.inf, 0.0)], strict=True):
            found += rate * max(0.0, min(end, ends) - max(start, begins))
        return found

    return total


def batching_best() -> float:
    """Answers a second with 256 sequences always running; a sequence takes whole strides of ten steps."""
    dice = random.Random(0)
    mu = math.log(150.0) - 0.08
    strides = statistics.fmean(math.ceil(dice.lognormvariate(mu, 0.4) / 10) for _ in range(100_000))
    return 256 / (strides * 10 * (0.012 + 0.0005 * 256))


MEAN = math.exp(0.35**2 / 2)
SCENARIOS = (
    Scenario("600 requests/min, burst 60", Buckets, 10.0),
    Scenario("60,000 tokens/min binds", Buckets, 1000.0, tokens=(300, 0.5), unit="tokens"),
    Scenario("both bind", Buckets, 10.0, tokens=(100, 0.4)),
    Scenario("no Retry-After", lambda c, d: Buckets(c, d, tells=False), 10.0),
    Scenario("calendar-minute window", Calendar, 10.0),
    Scenario("12 s latency", lambda c, d: Buckets(c, d, median=12.0), 10.0),
    Scenario("32 at once, else 503", Cap, 32 / (1.5 * MEAN)),
    Scenario(
        "10,000 requests/min, first 5 min",
        lambda c, d: Buckets(c, d, rpm=10_000, burst=1000, tpm=1e6, token_burst=1e5),
        10_000 / 60,
        seconds=300,
        counted_from=0,
    ),
    Scenario("vLLM-like, 256 sequences", Batching, batching_best(), counted_from=300),
    Scenario(
        "limit halves, then doubles",
        lambda c, d: Changing(c, d, changes=((300, 0.5), (900, 2.0))),
        10.0,
        best_seconds=pieces((0, 10.0), (300, 5.0), (900, 10.0)),
        seconds=1500,
    ),
    Scenario(
        "60 s outage",
        lambda c, d: Failing(c, d, start=300, end=360),
        10.0,
        best_seconds=pieces((0, 10.0), (300, 0.0), (360, 10.0)),
        ramp_from=360,
    ),
    Scenario(
        "60 s outage at 6,000 requests/min",
        lambda c, d: Failing(c, d, start=300, end=360, rpm=6000, burst=600, tpm=1e7, token_burst=1e7),
        100.0,
        best_seconds=pieces((0, 100.0), (300, 0.0), (360, 100.0)),
        ramp_from=360,
    ),
    Scenario(
        "5 min of 429, Retry-After",
        lambda c, d: Failing(c, d, start=300, end=600, refusal=rate_refusal(20.0)),
        10.0,
        best_seconds=pieces((0, 10.0), (300, 0.0), (600, 10.0)),
        ramp_from=600,
    ),
    Scenario(
        "5 min of 429, no Retry-After",
        lambda c, d: Failing(c, d, start=300, end=600, refusal=rate_refusal(None)),
        10.0,
        best_seconds=pieces((0, 10.0), (300, 0.0), (600, 10.0)),
        ramp_from=600,
    ),
    Scenario("two jobs share 600/min", Buckets, 10.0, jobs=2),
    Scenario("daily quota, hours told", lambda c, d: Daily(c, d, quota=3000, tells_hours=True), 10.0, must_stop=True),
    Scenario(
        "daily quota, nothing told",
        lambda c, d: Daily(c, d, quota=3000, tells_hours=False),
        10.0,
        must_stop=True,
        seconds=3600,
    ),
    Scenario(
        "answers of 5 minutes",
        lambda c, d: Buckets(c, d, rpm=100, burst=10, median=300.0),
        100 / 60,
        seconds=14_400,
        counted_from=3600,
    ),
    Scenario("latency grows with load", Sharing, 24 / (1.5 * MEAN), counted_from=300),
    Scenario("503 at random, 5 %", Flaky, 10.0),
    Scenario("600/min as 10 a second", lambda c, d: Calendar(c, d, requests=10, period=1.0), 10.0),
    Scenario("15 requests/min", lambda c, d: Buckets(c, d, rpm=15, burst=15), 0.25, seconds=7200, counted_from=600),
)


@dataclass(frozen=True)
class Result:
    goodput: float
    refused: float
    ramp: float
    lost: int
    stopped: Stopped | None
    in_flight: float
    shares: list[float]


def simulate(scenario: Scenario, seed: int, seconds: float | None = None) -> Result:
    dice = random.Random(seed)
    clock = Clock()
    server = scenario.server(clock, dice)
    mean, sigma = scenario.tokens
    mu = math.log(mean) - sigma * sigma / 2

    def new_row() -> Row:
        tokens = max(2, round(dice.lognormvariate(mu, sigma)))
        prompt = max(1, round(tokens * dice.uniform(0.6, 0.9)))
        return Row(prompt, max(1, tokens - prompt))

    jobs = [Job(clock, server, new_row, dice, Limits()) for _ in range(scenario.jobs)]
    for number, job in enumerate(jobs):
        clock.at(number * 20.0, job.begin)
    clock.run(seconds or scenario.seconds)
    end = clock.now
    all_answers = sorted(at for job in jobs for at in job.traffic.answered_at)
    amounts = sorted((at, n) for job in jobs for at, n in zip(job.traffic.answered_at, job.traffic.tokens, strict=True))
    best = scenario.best_seconds or steady(scenario.best)
    by_tokens = scenario.unit == "tokens"
    got = sum((n if by_tokens else 1) for at, n in amounts if at >= scenario.counted_from)
    refused = sum(len(job.traffic.refused_at) for job in jobs)
    return Result(
        goodput=got / best(scenario.counted_from, end),
        refused=refused / max(1, refused + len(all_answers)),
        ramp=ramp(amounts, best, scenario.ramp_from, by_tokens),
        lost=sum(job.traffic.lost for job in jobs),
        stopped=next((job.traffic.stopped for job in jobs if job.traffic.stopped), None),
        in_flight=statistics.fmean([n for job in jobs for at, n in job.traffic.in_flight if at > end / 2] or [0]),
        shares=[len(job.traffic.answered_at) / max(1, len(all_answers)) for job in jobs],
    )


def ramp(
    amounts: list[tuple[float, int]], best: Callable[[float, float], float], since: float, by_tokens: bool
) -> float:
    """Seconds until the ten seconds before hold 90 % of the best."""
    recent: deque[tuple[float, int]] = deque()
    total = 0.0
    for at, tokens in amounts:
        if at < since:
            continue
        worth = tokens if by_tokens else 1
        recent.append((at, worth))
        total += worth
        while recent[0][0] <= at - SETTLED_SECONDS:
            total -= recent.popleft()[1]
        if total >= 0.9 * best(max(0, at - SETTLED_SECONDS), at) and (
            total >= 0.9 * best(since, since + SETTLED_SECONDS)
        ):
            return at - since
    return math.inf


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    for scenario in SCENARIOS:
        if options.only not in scenario.name:
            continue
        began = time.perf_counter()
        results = [simulate(scenario, seed) for seed in range(options.seeds)]
        took = time.perf_counter() - began
        stopped = {str(r.stopped)[:40] for r in results if r.stopped}
        print(
            f"{scenario.name:40} {100 * statistics.fmean(r.goodput for r in results):6.1f} % "
            f"{100 * statistics.fmean(r.refused for r in results):6.2f} % refused  "
            f"90 % after {max(r.ramp for r in results):5.0f} s  lost {sum(r.lost for r in results)} "
            f"in flight {statistics.fmean(r.in_flight for r in results):5.0f} {took:5.1f} s {stopped or ''} "
            + (" ".join(f"{s:.2f}" for s in results[0].shares) if scenario.jobs > 1 else ""),
            flush=True,
        )


if __name__ == "__main__":
    main()
