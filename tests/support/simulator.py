"""Endpoints with hidden limits, and those who ask them without being told, on a virtual clock."""

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from pipeline.job.sections import Limits
from pipeline.pacing.retry import Attempts, RetryAfter, RetryPolicy
from pipeline.pacing.in_flight import InFlight
from pipeline.pacing.throttle import Throttle
from pipeline.records import Allowance, Failure, Rejection, Stopped, Usage

WAITING_MAX = 1000
GIVE_UP_AFTER_SECONDS = 1800.0


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
        self.tries = Attempts()

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass
class Traffic:
    """What came of one simulated run."""

    left_at: list[float] = field(default_factory=list)
    answered_at: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    refused_at: list[float] = field(default_factory=list)
    in_flight: list[tuple[float, int]] = field(default_factory=list)
    lost: int = 0
    stopped: Stopped | None = None


class Job:
    """An endless table, asked as `live` asks it: one gate, one first, retries before fresh ones."""

    def __init__(
        self, clock: Clock, server: "Endpoint", rows: Callable[[], Row], rng: random.Random, limits: Limits
    ) -> None:
        self.clock, self.server, self._new_row = clock, server, rows
        self.throttle = Throttle(limits, clock.now)
        self.patience = RetryPolicy(clock.now, rng.random, give_up_after_seconds=GIVE_UP_AFTER_SECONDS)
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
            flight = self.throttle.on_sent(now, row.bytes)
            self.traffic.left_at.append(now)
            self.server.arrive(self, row, flight)

    def _look_again(self, when: float) -> None:
        if when < self._look_at - 1e-9:
            self._look_at = when
            self.clock.at(when, self._woken, when)

    def _woken(self, when: float) -> None:
        if when == self._look_at:
            self.look()

    def land(self, row: Row, flight: InFlight, said: Rejection | None) -> None:
        now, traffic = self.clock.now, self.traffic
        if said is None:
            self.throttle.on_answer(flight, Usage(row.prompt_tokens, row.completion_tokens), NOTHING_SAID, now)
            self.patience.answered(now)
            traffic.answered_at.append(now)
            traffic.tokens.append(row.tokens)
            if len(traffic.answered_at) % 16 == 0:
                traffic.in_flight.append((now, self.throttle.in_flight))
        else:
            traffic.refused_at.append(now)
            self.throttle.on_rejection(flight, said, now)
            decision = self.patience.decide(said, row.tries, now)
            if isinstance(decision, RetryAfter):
                heapq.heappush(self._later, (now + decision.after_seconds, next(self._order), row))
            elif isinstance(decision, Stopped):
                traffic.stopped = decision
            elif isinstance(decision, Failure):
                traffic.lost += 1
        if self._later:
            self._look_again(self._later[0][0])
        self.look()


class Workers:
    """What is usual: so many at once, each of which waits on its own after a refusal, and tries for ever."""

    def __init__(
        self, clock: Clock, server: "Endpoint", rows: Callable[[], Row], rng: random.Random, _limits: Limits
    ) -> None:
        self.clock, self.server, self._new_row, self.rng = clock, server, rows, rng
        self.traffic = Traffic()
        self.width = 20.0
        self._busy = 0

    def begin(self) -> None:
        while self._busy < int(self.width):
            self._busy += 1
            self._send(self._new_row())

    def _send(self, row: Row) -> None:
        row.tries.sent += 1
        self.server.arrive(self, row, InFlight(0, self.clock.now, self._busy, row.bytes, 0.0, 0.0, 0.0))

    def land(self, row: Row, _flight: InFlight, said: Rejection | None) -> None:
        if said is None:
            self.traffic.answered_at.append(self.clock.now)
            self.traffic.tokens.append(row.tokens)
            self._busy -= 1
            self._widen()
            self.begin()
        else:
            self.traffic.refused_at.append(self.clock.now)
            self._narrow(_flight)
            wait = said.wait_seconds
            if wait is None:  # as the OpenAI SDK does
                wait = min(8.0, 0.5 * 2 ** (row.tries.sent - 1)) * (1 - 0.25 * self.rng.random())
            self.clock.at(self.clock.now + wait, self._send, row)

    def _widen(self) -> None:
        """A fixed number stays."""

    def _narrow(self, flight: InFlight) -> None:
        """A fixed number stays."""


class Aimd(Workers):
    """One more at once for each round of answers, half as many after a refusal, as in TCP."""

    MOST = 200

    def __init__(
        self, clock: Clock, server: "Endpoint", rows: Callable[[], Row], rng: random.Random, limits: Limits
    ) -> None:
        super().__init__(clock, server, rows, rng, limits)
        self.width, self._cut_at = 8.0, -math.inf

    def _widen(self) -> None:
        self.width = min(self.MOST, self.width + 1 / self.width)

    def _narrow(self, flight: InFlight) -> None:
        if flight.left_at > self._cut_at:  # what left before has been answered for
            self.width, self._cut_at = max(1.0, self.width / 2), self.clock.now


Asker = Job | Workers


# ---- endpoints


def rate_refusal(wait: float | None) -> Rejection:
    return Rejection("retry", "rate", "too many", 429, "rate", wait)


NOTHING_SAID = Allowance()
OVERLOAD = Rejection("retry", "overload", "busy", 503, "window")


class Endpoint:
    """Answers after a lognormal latency."""

    def __init__(self, clock: Clock, rng: random.Random, median: float = 1.5, sigma: float = 0.35) -> None:
        self.clock, self.rng, self.median, self.sigma = clock, rng, median, sigma
        self.running = 0

    def refuses(self, _row: Row, _now: float) -> Rejection | None:
        return None

    def seconds(self) -> float:
        return self.rng.lognormvariate(math.log(self.median), self.sigma)

    def arrive(self, job: Asker, row: Row, flight: InFlight) -> None:
        now = self.clock.now
        refusal = self.refuses(row, now)
        if refusal is not None:
            self.clock.at(now + self.rng.uniform(0.15, 0.25), job.land, row, flight, refusal)
        else:
            self.running += 1
            self.clock.at(now + self.seconds(), self._answer, job, row, flight)

    def _answer(self, job: Asker, row: Row, flight: InFlight) -> None:
        self.running -= 1
        job.land(row, flight, None)


class Buckets(Endpoint):
    """A request bucket and a token bucket, both checked at arrival."""

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        *,
        rpm: float = 600.0,
        burst: float = 60.0,
        tpm: float = 60_000.0,
        token_burst: float = 6_000.0,
        tells: bool = True,
        is_empty: bool = False,
        **more: float,
    ) -> None:
        super().__init__(clock, rng, **more)
        self.rate, self.burst, self.level = rpm / 60, burst, burst
        self.token_rate, self.token_burst, self.token_level = tpm / 60, token_burst, token_burst
        self.tells = tells
        self._at = 0.0
        if is_empty:
            self.level = 0.0

    def refuses(self, row: Row, now: float) -> Rejection | None:
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
        self, clock: Clock, rng: random.Random, *, requests: int = 600, period: float = 60.0, **more: float
    ) -> None:
        super().__init__(clock, rng, **more)
        self.requests, self.period, self._used, self._which = requests, period, 0, -1

    def refuses(self, _row: Row, now: float) -> Rejection | None:
        which = int(now // self.period)
        if which != self._which:
            self._which, self._used = which, 0
        if self._used < self.requests:
            self._used += 1
            return None
        return rate_refusal(float(math.ceil((which + 1) * self.period - now)))


class Cap(Endpoint):
    """So many at once, else 503."""

    def __init__(self, clock: Clock, rng: random.Random, *, most: int = 32, **more: float) -> None:
        super().__init__(clock, rng, **more)
        self.most = most

    def refuses(self, _row: Row, _now: float) -> Rejection | None:
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
    """Refuses everything between two moments; what was on its way then breaks off, too."""

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        *,
        start: float,
        end: float,
        refusal: Rejection = OVERLOAD,
        **more: float,
    ) -> None:
        super().__init__(clock, rng, **more)
        self.start, self.end, self.refusal = start, end, refusal

    def refuses(self, row: Row, now: float) -> Rejection | None:
        if self.start <= now < self.end:
            return self.refusal
        return super().refuses(row, now)

    def _answer(self, job: Asker, row: Row, flight: InFlight) -> None:
        if self.refusal is OVERLOAD and self.start <= self.clock.now < self.end:
            self.running -= 1
            job.land(row, flight, OVERLOAD)
        else:
            super()._answer(job, row, flight)


class Flaky(Buckets):
    """A 503 at random."""

    def __init__(self, clock: Clock, rng: random.Random, *, share: float = 0.05, **more: float) -> None:
        super().__init__(clock, rng, **more)
        self.share = share

    def refuses(self, row: Row, now: float) -> Rejection | None:
        return OVERLOAD if self.rng.random() < self.share else super().refuses(row, now)


class Stray(Endpoint):
    """No limit, but a 429 at random, or one alone, at the end of a minute in which every answer was slower."""

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

    def refuses(self, _row: Row, now: float) -> Rejection | None:
        if now < self.at and self.rng.random() >= self.share:
            return None
        if now >= self.at:
            self.at = math.inf
        return rate_refusal(self.wait)

    def seconds(self) -> float:
        return super().seconds() * (self.slower if self.at - 60 <= self.clock.now < self.at else 1.0)


class StrayOnce(Buckets):
    """One 429 that the limit has no part in."""

    def __init__(self, clock: Clock, rng: random.Random, *, at: float, **more: float) -> None:
        super().__init__(clock, rng, **more)
        self.at = at

    def refuses(self, row: Row, now: float) -> Rejection | None:
        if now >= self.at:
            self.at = math.inf
            return rate_refusal(None)
        return super().refuses(row, now)


class Daily(Buckets):
    """A quota for the day under the limit for the minute."""

    def __init__(self, clock: Clock, rng: random.Random, *, quota: int, tells_hours: bool, **more: float) -> None:
        super().__init__(clock, rng, **more)
        self.quota, self.tells_hours = quota, tells_hours

    def refuses(self, row: Row, now: float) -> Rejection | None:
        if self.quota <= 0:
            return rate_refusal(8 * 3600.0 if self.tells_hours else None)
        refusal = super().refuses(row, now)
        self.quota -= refusal is None
        return refusal


class Sharing(Endpoint):
    """Processors shared: up to so many at once are as fast as one, beyond that all get slower."""

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
            job.land(row, flight, None)
        while self.queue and len(self.batch) < self.sequences:
            self.batch.append(self.queue.popleft())
        if not self.batch:
            self.busy = False
            return
        self.batch = [(left - 10, *which) for left, *which in self.batch]
        self.clock.at(self.clock.now + 10 * (0.012 + 0.0005 * len(self.batch)), self._step)
