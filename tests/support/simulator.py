"""Clients that ask a simulated endpoint on a virtual clock: the throttle of `pipeline`, and two that are usual."""

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from pipeline.pacing.in_flight import InFlight
from pipeline.pacing.retry import Attempts, RetryAfter, RetryPolicy
from pipeline.pacing.throttle import Throttle
from pipeline.records import Allowance, Failure, Rejection, Stopped, Usage

WAITING_MAX = 1000
"""Rows that wait to be tried again, at most, before no new ones are taken."""
GIVE_UP_AFTER_SECONDS = 1800.0
NO_ALLOWANCE = Allowance()


class Clock:
    """A virtual clock: runs events in the order of their time."""

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
    __slots__ = ("attempts", "bytes", "completion_tokens", "prompt_tokens")

    def __init__(self, prompt_tokens: int, completion_tokens: int) -> None:
        self.prompt_tokens, self.completion_tokens = prompt_tokens, completion_tokens
        self.bytes = 4 * prompt_tokens
        self.attempts = Attempts()

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass
class Traffic:
    """The requests of one simulated run, and their outcomes."""

    left_at: list[float] = field(default_factory=list)
    answered_at: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    rejected_at: list[float] = field(default_factory=list)
    in_flight: list[tuple[float, int]] = field(default_factory=list)
    lost: int = 0
    stopped: Stopped | None = None


class Server(Protocol):
    """An endpoint, as its clients see it."""

    def arrive(self, job: "Asker", row: Row, flight: InFlight) -> None:
        """Take a request, and reply by `job.on_reply`."""


class Job:
    """An endless table, asked as `execution.live` asks: one request first, and retries before new rows."""

    def __init__(
        self, clock: Clock, server: Server, make_row: Callable[[], Row], rng: random.Random, throttle: Throttle
    ) -> None:
        self.clock, self.server, self._make_row = clock, server, make_row
        self.throttle = throttle
        self.retry_policy = RetryPolicy(clock.now, rng.random, give_up_after_seconds=GIVE_UP_AFTER_SECONDS)
        self.traffic = Traffic()
        self._delayed: list[tuple[float, int, Row]] = []
        self._order = count()
        self._send_at = math.inf
        self._new: Row | None = None

    def begin(self) -> None:
        self.send()

    def send(self) -> None:
        """Send the requests that may leave now."""
        now = self.clock.now
        if self._send_at <= now:
            self._send_at = math.inf
        while self.traffic.stopped is None:
            if self._delayed and self._delayed[0][0] <= now:
                row = self._delayed[0][2]
            elif len(self._delayed) < WAITING_MAX:
                if self._new is None:
                    self._new = self._make_row()
                row = self._new
            else:
                self._send_later(self._delayed[0][0])
                return
            if self.throttle.in_flight and not self.retry_policy.answers:
                return
            wait = self.throttle.wait_before_next(now)
            if wait > 0:
                if wait < math.inf:
                    self._send_later(now + wait)
                return
            if row is self._new:
                self._new = None
            else:
                heapq.heappop(self._delayed)
            row.attempts.sent += 1
            flight = self.throttle.on_sent(now, row.bytes)
            self.traffic.left_at.append(now)
            self.server.arrive(self, row, flight)

    def _send_later(self, when: float) -> None:
        if when < self._send_at - 1e-9:
            self._send_at = when
            self.clock.at(when, self._on_time, when)

    def _on_time(self, when: float) -> None:
        if when == self._send_at:
            self.send()

    def on_reply(self, row: Row, flight: InFlight, rejection: Rejection | None) -> None:
        now, traffic = self.clock.now, self.traffic
        if rejection is None:
            self.throttle.on_answer(flight, Usage(row.prompt_tokens, row.completion_tokens), NO_ALLOWANCE, now)
            self.retry_policy.answered(now)
            traffic.answered_at.append(now)
            traffic.tokens.append(row.tokens)
            if len(traffic.answered_at) % 16 == 0:
                traffic.in_flight.append((now, self.throttle.in_flight))
        else:
            traffic.rejected_at.append(now)
            self.throttle.on_rejection(flight, rejection, now)
            decision = self.retry_policy.decide(rejection, row.attempts, now)
            if isinstance(decision, RetryAfter):
                heapq.heappush(self._delayed, (now + decision.after_seconds, next(self._order), row))
            elif isinstance(decision, Stopped):
                traffic.stopped = decision
            elif isinstance(decision, Failure):
                traffic.lost += 1
        if self._delayed:
            self._send_later(self._delayed[0][0])
        self.send()


class Workers:
    """A fixed number of requests in flight; each waits on its own after a rejection, and is tried for ever."""

    def __init__(self, clock: Clock, server: Server, make_row: Callable[[], Row], rng: random.Random) -> None:
        self.clock, self.server, self._make_row, self.rng = clock, server, make_row, rng
        self.traffic = Traffic()
        self.width = 20.0
        self._busy = 0

    def begin(self) -> None:
        while self._busy < int(self.width):
            self._busy += 1
            self._send(self._make_row())

    def _send(self, row: Row) -> None:
        row.attempts.sent += 1
        self.server.arrive(self, row, InFlight(0, self.clock.now, self._busy, row.bytes, 0.0, 0.0, 0.0))

    def on_reply(self, row: Row, _flight: InFlight, rejection: Rejection | None) -> None:
        if rejection is None:
            self.traffic.answered_at.append(self.clock.now)
            self.traffic.tokens.append(row.tokens)
            self._busy -= 1
            self._widen()
            self.begin()
        else:
            self.traffic.rejected_at.append(self.clock.now)
            self._narrow(_flight)
            wait = rejection.wait_seconds
            if wait is None:  # as the OpenAI SDK does
                wait = min(8.0, 0.5 * 2 ** (row.attempts.sent - 1)) * (1 - 0.25 * self.rng.random())
            self.clock.at(self.clock.now + wait, self._send, row)

    def _widen(self) -> None:
        """Nothing: the number is fixed."""

    def _narrow(self, flight: InFlight) -> None:
        """Nothing: the number is fixed."""


class Aimd(Workers):
    """AIMD: one more in flight for each round of answers, half as many after a rejection, as in TCP Reno."""

    MOST = 200

    def __init__(self, clock: Clock, server: Server, make_row: Callable[[], Row], rng: random.Random) -> None:
        super().__init__(clock, server, make_row, rng)
        self.width, self._cut_at = 8.0, -math.inf

    def _widen(self) -> None:
        self.width = min(self.MOST, self.width + 1 / self.width)

    def _narrow(self, flight: InFlight) -> None:
        if flight.left_at > self._cut_at:  # one cut for all that had left before
            self.width, self._cut_at = max(1.0, self.width / 2), self.clock.now


Asker = Job | Workers
