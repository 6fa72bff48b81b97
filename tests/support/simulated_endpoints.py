"""Simulated endpoints with hidden limits."""

import math
import random
from collections import deque

from simulator import Asker, Clock, Row

from pipeline.pacing.in_flight import InFlight
from pipeline.records import Allowance, Rejection


def rate_limited(wait: float | None) -> Rejection:
    return Rejection("retry", "rate", "too many", 429, "rate", wait)


OVERLOAD = Rejection("retry", "overload", "busy", 503, "window")


class Endpoint:
    """An endpoint without limits: answers after a lognormal latency."""

    def __init__(self, clock: Clock, rng: random.Random, median: float = 1.5, sigma: float = 0.35) -> None:
        self.clock, self.rng, self.median, self.sigma = clock, rng, median, sigma
        self.running = 0

    def rejects(self, _row: Row, _now: float) -> Rejection | None:
        return None

    def seconds(self) -> float:
        return self.rng.lognormvariate(math.log(self.median), self.sigma)

    def arrive(self, job: Asker, row: Row, flight: InFlight) -> None:
        now = self.clock.now
        rejection = self.rejects(row, now)
        if rejection is not None:
            self.clock.at(now + self.rng.uniform(0.15, 0.25), job.on_reply, row, flight, rejection)
        else:
            self.running += 1
            self.clock.at(now + self.seconds(), self._answer, job, row, flight)

    def _answer(self, job: Asker, row: Row, flight: InFlight) -> None:
        self.running -= 1
        job.on_reply(row, flight, None)


class Buckets(Endpoint):
    """A token bucket of requests and one of tokens, both checked at arrival."""

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        *,
        rpm: float = 600.0,
        burst: float = 60.0,
        tpm: float = 60_000.0,
        token_burst: float = 6_000.0,
        says_when: bool = True,
        is_empty: bool = False,
        **more: float,
    ) -> None:
        super().__init__(clock, rng, **more)
        self.rate, self.burst, self.level = rpm / 60, burst, burst
        self.token_rate, self.token_burst, self.token_level = tpm / 60, token_burst, token_burst
        self.says_when = says_when
        self._at = 0.0
        if is_empty:
            self.level = 0.0

    def rejects(self, row: Row, now: float) -> Rejection | None:
        passed, self._at = now - self._at, now
        self.level = min(self.burst, self.level + passed * self.rate)
        self.token_level = min(self.token_burst, self.token_level + passed * self.token_rate)
        if self.level >= 1 and self.token_level >= row.tokens:
            self.level -= 1
            self.token_level -= row.tokens
            return None
        wait = max((1 - self.level) / self.rate, (row.tokens - self.token_level) / self.token_rate)
        return rate_limited(float(math.ceil(wait)) if self.says_when else None)


class Calendar(Endpoint):
    """A number of requests for each period of the clock."""

    def __init__(
        self, clock: Clock, rng: random.Random, *, requests: int = 600, period: float = 60.0, **more: float
    ) -> None:
        super().__init__(clock, rng, **more)
        self.requests, self.period, self._used, self._which = requests, period, 0, -1

    def rejects(self, _row: Row, now: float) -> Rejection | None:
        which = int(now // self.period)
        if which != self._which:
            self._which, self._used = which, 0
        if self._used < self.requests:
            self._used += 1
            return None
        return rate_limited(float(math.ceil((which + 1) * self.period - now)))


class Sliding(Endpoint):
    """A number of requests in any period; HAProxy's stick tables count those that they refuse, too."""

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        *,
        requests: int = 100,
        period: float = 10.0,
        counts_refused: bool = False,
        **more: float,
    ) -> None:
        super().__init__(clock, rng, **more)
        self.requests, self.period, self.counts_refused = requests, period, counts_refused
        self._recent: deque[float] = deque()

    def rejects(self, _row: Row, now: float) -> Rejection | None:
        while self._recent and self._recent[0] <= now - self.period:
            self._recent.popleft()
        is_refused = len(self._recent) >= self.requests
        if not is_refused or self.counts_refused:
            self._recent.append(now)
        return rate_limited(None) if is_refused else None


class Gateway(Endpoint):
    """LiteLLM's windows: each begins with the first request after the one before, and every 429 asks for 60 s."""

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        *,
        requests: int = 600,
        period: float = 60.0,
        wait: float = 60.0,
        names_limit: bool = True,
        **more: float,
    ) -> None:
        super().__init__(clock, rng, **more)
        allowance = Allowance(requests) if names_limit else Allowance()
        self.requests, self.period = requests, period
        self.rejection = Rejection("retry", "rate", "too many", 429, "rate", wait, allowance=allowance)
        self._used, self._ends_at = 0, 0.0

    def rejects(self, _row: Row, now: float) -> Rejection | None:
        if now >= self._ends_at:
            self._used, self._ends_at = 0, now + self.period
        if self._used >= self.requests:
            return self.rejection
        self._used += 1
        return None


class Cap(Endpoint):
    """A number of requests at once; more are rejected with 503."""

    def __init__(self, clock: Clock, rng: random.Random, *, most: int = 32, **more: float) -> None:
        super().__init__(clock, rng, **more)
        self.most = most

    def rejects(self, _row: Row, _now: float) -> Rejection | None:
        return OVERLOAD if self.running >= self.most else None


class Changing(Buckets):
    """The limit is multiplied at given times."""

    def __init__(
        self, clock: Clock, rng: random.Random, *, changes: tuple[tuple[float, float], ...], **more: float
    ) -> None:
        super().__init__(clock, rng, **more)
        for at, factor in changes:
            clock.at(at, self._change, factor)

    def _change(self, factor: float) -> None:
        self.rate *= factor
        self.burst *= factor
        self.level = min(self.level, self.burst)


class Failing(Buckets):
    """Rejects everything between two times; requests in flight then break off, too."""

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        *,
        start: float,
        end: float,
        rejection: Rejection = OVERLOAD,
        **more: float,
    ) -> None:
        super().__init__(clock, rng, **more)
        self.start, self.end, self.rejection = start, end, rejection

    def rejects(self, row: Row, now: float) -> Rejection | None:
        if self.start <= now < self.end:
            return self.rejection
        return super().rejects(row, now)

    def _answer(self, job: Asker, row: Row, flight: InFlight) -> None:
        if self.rejection is OVERLOAD and self.start <= self.clock.now < self.end:
            self.running -= 1
            job.on_reply(row, flight, OVERLOAD)
        else:
            super()._answer(job, row, flight)


class Flaky(Buckets):
    """A rejection at random, whatever the pace, on top of the limits."""

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        *,
        share: float = 0.05,
        rejection: Rejection = OVERLOAD,
        **more: float,
    ) -> None:
        super().__init__(clock, rng, **more)
        self.share, self.rejection = share, rejection

    def rejects(self, row: Row, now: float) -> Rejection | None:
        return self.rejection if self.rng.random() < self.share else super().rejects(row, now)


class Stray(Endpoint):
    """No limit, but 429s at random, or a single one at the end of a minute in which every answer was slower."""

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        *,
        share: float = 0.0,
        at: float = math.inf,
        slower: float = 1.0,
        wait: float | None = None,
        **more: float,
    ) -> None:
        super().__init__(clock, rng, **more)
        self.share, self.at, self.slower, self.wait = share, at, slower, wait

    def rejects(self, _row: Row, now: float) -> Rejection | None:
        if now < self.at and self.rng.random() >= self.share:
            return None
        if now >= self.at:
            self.at = math.inf
        return rate_limited(self.wait)

    def seconds(self) -> float:
        return super().seconds() * (self.slower if self.at - 60 <= self.clock.now < self.at else 1.0)


class StrayOnce(Buckets):
    """A limit, and a single 429 that has nothing to do with it."""

    def __init__(self, clock: Clock, rng: random.Random, *, at: float, **more: float) -> None:
        super().__init__(clock, rng, **more)
        self.at = at

    def rejects(self, row: Row, now: float) -> Rejection | None:
        if now >= self.at:
            self.at = math.inf
            return rate_limited(None)
        return super().rejects(row, now)


class Daily(Buckets):
    """A quota for the day besides the limit for the minute."""

    def __init__(self, clock: Clock, rng: random.Random, *, quota: int, says_hours: bool, **more: float) -> None:
        super().__init__(clock, rng, **more)
        self.quota, self.says_hours = quota, says_hours

    def rejects(self, row: Row, now: float) -> Rejection | None:
        if self.quota <= 0:
            return rate_limited(8 * 3600.0 if self.says_hours else None)
        rejection = super().rejects(row, now)
        self.quota -= rejection is None
        return rejection


class Sharing(Endpoint):
    """Shared processors: up to `lanes` requests at once are as fast as one, beyond that all get slower."""

    def __init__(self, clock: Clock, rng: random.Random, *, lanes: int = 24, **more: float) -> None:
        super().__init__(clock, rng, **more)
        self.lanes = lanes

    def seconds(self) -> float:
        return super().seconds() * max(1.0, self.running / self.lanes)


class Batching(Endpoint):
    """vLLM-like: ten decode steps at a time, each of 12 ms and 0.5 ms for every sequence; first in, first out."""

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        super().__init__(clock, rng)
        self.sequences, self.mu, self.sd = 256, math.log(150.0) - 0.08, 0.4
        self.queue: deque[tuple[float, Asker, Row, InFlight]] = deque()
        self.batch: list[tuple[float, Asker, Row, InFlight]] = []
        self.busy = False

    def arrive(self, job: Asker, row: Row, flight: InFlight) -> None:
        self.queue.append((self.rng.lognormvariate(self.mu, self.sd), job, row, flight))
        if not self.busy:
            self.busy = True
            self.clock.at(self.clock.now, self._step)

    def _step(self) -> None:
        self.batch, done = [e for e in self.batch if e[0] > 0], [e for e in self.batch if e[0] <= 0]
        for _, job, row, flight in done:
            job.on_reply(row, flight, None)
        while self.queue and len(self.batch) < self.sequences:
            self.batch.append(self.queue.popleft())
        if not self.batch:
            self.busy = False
            return
        self.batch = [(left - 10, *which) for left, *which in self.batch]
        self.clock.at(self.clock.now + 10 * (0.012 + 0.0005 * len(self.batch)), self._step)
