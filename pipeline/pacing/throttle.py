"""When the next request may leave: how many at once, how many a minute, when all must wait.

Pure: monotonic seconds are given in, nothing sleeps, reads a clock or opens a socket. What it promises:

- A limit that the user sets is obeyed in every window of 60 s, the token limit to within the one request that crosses
  it: requests leave evenly, at 98.5 % of the rate, so that a window never holds one more than the limit.
- A limit that nobody told is found out: a 429 teaches a rate, in requests and in tokens. How much was accepted between
  two times that the limit was met *is* the limit, as the endpoint's bucket was empty both times.
- 503, 529, 52x, timeouts and lost connections narrow the window, which is how many may be in flight. The two kinds of
  pressure are never mixed.
- The window opens until the endpoint refuses, or until more at once bring no more answers a second.
- A pause is one for all. After a long one, or a second without success, one request goes first; if it is not refused
  in the time that refusals take here, that is consent, however long its answer takes.

`make governor` shows what a change of any constant does, at each kind of endpoint.
"""

import math
from collections import deque
from typing import NamedTuple

from ..job import Limits
from ..records import Allowance, LearnedLimits, Pressure, Rejection, Usage

TICK_SECONDS = 1e-6
"""Less than this is now: a clock's last digits must not make a wait that never ends."""

MARGIN = 0.985
"""Of a limit that the user set: the rest is for clocks that differ and for the way to the endpoint."""

# ---- the rate

DIP = 0.03
"""After a 429 the rate starts so much below the limit and rises along a cubic: long near the limit, then beyond it."""
CALM_SECONDS, CALM_SECONDS_MIN, CALM_SECONDS_MAX = 30.0, 10.0, 90.0
"""How long the cubic takes to be back at the limit: short while the limit is known roughly, longer each time that it is
met where it was before. Two and a half of it pass before a limit that was raised is noticed."""
CALM_REQUESTS, CALM_REQUESTS_MIN = 100.0, 10.0
"""… and at least so many requests: each probe of the limit costs a refusal or two. Fewer while it is only guessed."""
FREE_GROWTH = 1.1
"""So far above the limit it is no limit any more: the rate doubles, …"""
DOUBLING_SECONDS, DOUBLING_REQUESTS = 15.0, 100.0
"""… in so many seconds, and not within fewer requests: a full bucket takes so many to be emptied."""
LOST_GROWTH = 1.5
"""Found again so far above, the limit cannot be worked out from what was accepted since: the bucket ran over."""
HEADROOM = 1.25
"""The rate never runs further ahead of what really leaves, when something else than the rate holds it back."""
DOUBTFUL_DOUBLING, DOUBTFUL_HEADROOM = (5.0, 30.0), 1.5
"""The same while a limit rests on one refusal that came alone: it is met again, or left behind, in half a minute."""
FIRST_CUT = 0.85
"""Of what left when a limit was met that was not known, …"""
FIRST_RATE = 4.0
"""… and so many a second at least: whoever is refused at once has found no limit, only an empty bucket."""
SEED_SHARE = 0.95
"""Of a limit that headers tell."""
MEASURED_REQUESTS, MEASURED_WELL = 12, 100
"""Fewer accepted say only that the limit is no higher; so many tell it to a percent or two."""
AGREE = 0.05
"""Measures no further apart are of one limit."""
PROOFS_MAX = 2
"""A 429 may come by chance, where no limit is. A limit is proved when several are refused at one moment, or when two
measures agree; each refusal alone, before the rate was back at the limit, takes away from that, down to doubt."""
BURST_SECONDS, BURST_SECONDS_MIN = 2.0, 0.05
"""What may leave at once after a pause: the endpoint's bucket filled meanwhile. Less where that was too much."""
ROUNDING_SECONDS = 1.2
"""Waits are told in whole seconds, rounded up: so much of one says nothing of when the bucket had room again."""
PERIOD_SECONDS = 61.0
"""Limits are for a minute at most: who refuses everything for longer has other reasons, and they teach no rate."""
METER_SECONDS = 5.0
FRESH_SECONDS = 600.0
"""A limit met so lately is why the window need not be measured, only be wide enough."""
OLD_SECONDS = 3600.0
"""What was learnt so long ago is probed at once."""

# ---- the window

WINDOW_FIRST = 8
"""Polite to a small server, and four doublings from 128."""
WINDOW_MAX = 1024
LOGS = 4 * WINDOW_MAX
"""A stage that never fills its window lasts as long as the run, and must not remember all of it."""
LONG_LATENCY_SECONDS = 8.0
"""Answers that take so long: the window grows fourfold in their time, not twofold, or opening would take an hour."""
LATENCY_SAMPLES = 256
SLOWER = 0.5
"""A doubling that makes answers slower by 2 to this power has to show that it pays."""
TURNOVERS, MEASURED_ANSWERS = 3, 100
"""A width is judged by so many times its own number of answers, after one turnover to settle."""
WIDE_STEP, FINE_STEP = 2.0, 1.25
PAYS = {WIDE_STEP: 1.05, FINE_STEP: 1.02}
"""More answers a second, for a wider window to be kept; a narrower one is kept if it brings no fewer."""
TRIAL_SECONDS = 60.0
STRAY_SHARE = 0.01
"""Overloads so rare that they are not the window's doing; what share is not, at this endpoint, is learnt."""
NARROW = 0.7
"""Where refusals go on at a width that was good before."""
PROBE_SECONDS_MAX = 240.0
PROBE_STEP = 0.02

# ---- pauses

FIRST_PAUSE_SECONDS, PAUSE_SECONDS_MAX = 1.0, 60.0
PAUSE_SHARE: dict[Pressure, float] = {"rate": 1 / 8, "window": 1 / 16}
"""A pause without a word lasts such a share of the time that nothing went through: so coming back is late by no more,
and an endpoint that is down for half an hour is asked less than 100 times (`retry.BLAMELESS_TRIES`)."""
LONG_PAUSE_SECONDS = 5.0
DOWN_REFUSALS = 3
"""So many overloads in a row without an answer: the endpoint is down, and the window is not to blame."""
CONSENT_SECONDS_MIN, CONSENT_SECONDS_MAX, CONSENT_TIMES = 1.0, 15.0, 4.0


class InFlight(NamedTuple):
    """One request on its way, and what was known when it left."""

    number: int
    left_at: float
    in_flight: int
    """How many were, with this one."""
    size: int
    """Bytes."""
    tokens: float
    tokens_most: float
    spent: float
    """Tokens of all that left before it."""


class Pace:
    """A bucket that fills by so many a second, up to a cap; without a rate it holds nobody up."""

    __slots__ = ("_at", "cap", "level", "rate")

    def __init__(self, now: float, rate: float = math.inf, cap: float = 1.0, level: float = 0.0) -> None:
        self.rate, self.cap, self.level = rate, cap, level
        self._at = now

    def fill(self, now: float) -> None:
        """Up to now."""
        passed, self._at = now - self._at, now
        if self.rate < math.inf:
            self.level = min(self.cap, self.level + passed * self.rate)

    def seconds_until(self, level: float) -> float:
        """At once, if there is no rate."""
        return (level - self.level) / self.rate if self.rate < math.inf else 0.0


class TokenEstimate:
    """The tokens that a request will use, by its size: calibrates itself by what the endpoint reports.

    Prompt tokens are a least-squares line over the bytes of the bodies, which needs no tokenizer and errs by a percent
    or two where characters/4 errs by up to 59 %; of completion tokens it knows the mean and a high quantile.
    """

    FORGET = 0.998
    QUANTILE = 0.8
    RECENT = 200
    SPREAD_MIN = 0.02
    """Of the mean size: with less between them, sizes tell no slope."""

    def __init__(self, tokens_per_byte: float = 0.25, completion_tokens: float = 100.0) -> None:
        """What is guessed until the first answer."""
        self._ratio, self._mean, self._high = tokens_per_byte, completion_tokens, completion_tokens
        self._n = self._x = self._y = self._xx = self._xy = 0.0
        self._recent: deque[int] = deque(maxlen=self.RECENT)
        self._seen = 0

    def tokens(self, size: int) -> tuple[float, float]:
        """Of a request of so many bytes: what is likely, and what is hardly exceeded."""
        prompt = self._prompt(size)
        return prompt + self._mean, prompt + max(self._mean, self._high)

    def learn(self, size: int, usage: Usage) -> None:
        """What a request of so many bytes really used."""
        if usage.prompt_tokens is not None:
            y = usage.prompt_tokens
            self._n = self.FORGET * self._n + 1
            self._x = self.FORGET * self._x + size
            self._y = self.FORGET * self._y + y
            self._xx = self.FORGET * self._xx + size * size
            self._xy = self.FORGET * self._xy + size * y
        output = usage.billed_output_tokens
        if output is not None:
            self._seen += 1
            self._mean += (output - self._mean) / min(self._seen, 100)
            self._recent.append(output)
            if self._seen < 20 or self._seen % 20 == 0:  # to sort them each time would cost more than it tells
                self._high = sorted(self._recent)[int(self.QUANTILE * len(self._recent))]

    def _prompt(self, size: int) -> float:
        if not self._n:
            return size * self._ratio
        x, y = self._x / self._n, self._y / self._n
        spread = self._xx / self._n - x * x
        if spread < (self.SPREAD_MIN * x) ** 2:
            return y * size / max(1.0, x)
        slope = max(0.0, (self._xy / self._n - x * y) / spread)
        return max(1.0, y + slope * (size - x))


class Met:
    """One time that a limit was met: from the first request that was refused, in the order they left."""

    __slots__ = (
        "accepted",
        "at",
        "is_early",
        "is_period",
        "left_at",
        "limits",
        "number",
        "refused",
        "seconds",
        "spent",
        "tokens",
    )

    def __init__(self, flight: InFlight, *, is_early: bool) -> None:
        self.is_early = is_early
        """Before the rate was back at the limit: so the limit is lower, or this was refused for another reason."""
        self.is_period = False
        """The wait is so long that it may be for the end of a period."""
        self.number, self.left_at, self.spent = flight.number, flight.left_at, flight.spent
        self.refused = 1
        """Requests, from the first one until the limit is met again."""
        self.at = flight.left_at
        """When there was room again."""
        self.accepted, self.tokens, self.seconds = 0, 0.0, 0.0
        """Since the time before."""
        self.limits = (math.inf, math.inf)
        """As they were believed before."""

    def add(self, flight: InFlight) -> None:
        """One more was refused, that had left before anyone knew."""
        self.refused += 1
        if flight.number < self.number:
            self.number, self.left_at, self.spent = flight.number, flight.left_at, flight.spent


class Rate:
    """The limit of requests and of tokens that an endpoint was found to have: infinite until it is met."""

    def __init__(self, now: float) -> None:
        self.requests = self.tokens = math.inf
        """A second."""
        self.spent = 0.0
        self.met_at = -math.inf
        self._began = now
        self._by_requests, self._by_tokens = Pace(now), Pace(now)
        self._mean_tokens = 0.0
        self._metered, self._metered_at = 0.0, now
        self._grow_from, self._calm = now, CALM_SECONDS
        self._burst_seconds = BURST_SECONDS
        self._before: Met | None = None
        self._now_met: Met | None = None
        self._was_lost = True
        self._proofs = 0
        self._is_again_few = False
        self._doubted = 0.0
        """What was measured when the doubt began: requests a second; 0 without one."""

    @property
    def known(self) -> bool:
        """The limit was met, or told."""
        return self.requests < math.inf or self.tokens < math.inf

    @property
    def _is_doubtful(self) -> bool:
        """Probed at once, as only a measure in doubt is."""
        return self._calm < CALM_SECONDS_MIN

    def seed(self, requests: float | None, tokens: float | None, calm_seconds: float, now: float) -> None:
        """Begin with these limits (a minute; 0 and None for none), which are to be probed."""
        self.requests, self.tokens = (limit / 60 if limit else math.inf for limit in (requests, tokens))
        self._grow_from, self._calm = now, self._calm_enough(calm_seconds)
        self._was_lost = False

    def wait(self) -> float:
        """Seconds until one more may leave."""
        return max(self._by_requests.seconds_until(1), self._by_tokens.seconds_until(0))

    def left(self, tokens: float, now: float) -> None:
        """One more has."""
        self._by_requests.level -= 1
        self._by_tokens.level -= tokens
        self.spent += tokens
        self._metered, self._metered_at = self._leaving(now) + 1 / METER_SECONDS, now

    def settle(self, expected: float, used: float) -> None:
        """One has landed, and its tokens are known."""
        self._by_tokens.level += expected - used
        self.spent += used - expected
        if used:
            self._mean_tokens += (used - self._mean_tokens) / 20 if self._mean_tokens else used

    def meet(self, flight: InFlight, in_flight: int, latency: float, now: float) -> None:
        """A 429 came, the first since the last pause."""
        self._was_lost = not self.known or self._growth(now) > LOST_GROWTH
        self._now_met = Met(flight, is_early=self.known and self._growth(now) < 1)
        self.met_at = now
        if self.requests == math.inf:
            self.requests = max(FIRST_RATE, FIRST_CUT * max(self._leaving(now), in_flight / max(0.1, latency)))
            self.tokens = self.requests * max(1.0, self._mean_tokens or flight.tokens)
        elif self._was_lost:
            self.requests, self.tokens = FIRST_CUT * self._by_requests.rate, FIRST_CUT * self._by_tokens.rate
        self._by_requests.level = self._by_tokens.level = 0.0

    def meet_too(self, flight: InFlight) -> None:
        """Another 429 of the same time."""
        if self._now_met is not None:
            self._now_met.add(flight)
        elif self._before is not None:
            self._before.refused += 1

    def stood_still(self, seconds: float) -> None:
        """The endpoint was down so long: what it accepts is not told by that."""
        if self._before is not None:
            self._before.at += seconds

    def resume(self, resumed_at: float) -> None:
        """The pause is over: what has been accepted up to it tells the limit."""
        met, before = self._now_met, self._before
        self._now_met = None
        if met is None:
            return
        self._grow_from = resumed_at
        met.limits = self.requests, self.tokens
        met.at += max(0.0, resumed_at - met.left_at - ROUNDING_SECONDS)
        met.is_period = resumed_at - met.left_at > LONG_PAUSE_SECONDS  # and so many for it, whenever they leave
        if met.refused > 1:
            self._proofs = PROOFS_MAX
        if before is None and met.is_period and met.refused > 1:
            self.requests = min(self.requests, met.number / (resumed_at - self._began))
            self.tokens = min(self.tokens, met.spent / (resumed_at - self._began))
        if before is None or (self._was_lost and not met.is_period):
            self._before = met
            self._calm = max(CALM_SECONDS_MIN if self._proofs else 0.0, CALM_REQUESTS_MIN / self.requests)
        else:
            met.accepted = met.number - before.number - before.refused
            until = met.left_at if met.is_period and not before.is_period else met.at
            met.tokens, met.seconds = max(1.0, met.spent - before.spent), max(0.1, until - before.at)
            self._calm = self._calm_enough(self._measure(met, before, resumed_at))
        self._refill(met, 0.0 if before is None else resumed_at - met.left_at)

    def fill(self, now: float) -> None:
        """Bring the buckets up to now."""
        if self.known:
            growth = self._growth(now)
            if growth > FREE_GROWTH:
                leaving = self._leaving(now)
                share = max(leaving / self.requests, leaving * self._mean_tokens / self.tokens)
                growth = min(growth, max(FREE_GROWTH, (DOUBTFUL_HEADROOM if self._is_doubtful else HEADROOM) * share))
            self._by_requests.rate = self.requests * growth
            self._by_requests.cap = max(1.0, self._by_requests.rate * self._burst_seconds)
            self._by_tokens.rate = self.tokens * growth
            self._by_tokens.cap = max(4 * self._mean_tokens, self._by_tokens.rate * self._burst_seconds)
        self._by_requests.fill(now)
        self._by_tokens.fill(now)

    def _measure(self, met: Met, before: Met, resumed_at: float) -> float:
        """Learn the limit; give how long to keep calm: not at all, in doubt."""
        if met.accepted <= 0:
            self._wait_longer(met, before, resumed_at)
            return CALM_SECONDS_MIN
        if met.accepted < MEASURED_REQUESTS:  # by chance, or the limit is lower: no more than two of them are chance
            share = min(1.0, (met.accepted + 2) / met.seconds / self.requests)
            if before.accepted and not self._is_again_few:
                share = max(FIRST_CUT, share)
            self._is_again_few = True
            self.requests, self.tokens = share * self.requests, share * self.tokens
            before.refused += met.refused
            return self._calm
        self._is_again_few = False
        requests, tokens = met.accepted / met.seconds, met.tokens / met.seconds
        is_rough = met.accepted < MEASURED_WELL
        off = min(abs(requests / self.requests - 1), abs(tokens / self.tokens - 1))
        if self._doubts(met, before, requests, is_as_believed=off < AGREE):
            self._before, self._doubted = met, requests
            return 0.0
        if is_rough and before.accepted >= MEASURED_WELL and off < 4 / met.accepted:
            before.refused += met.refused  # what was measured better is not contradicted
            return self._calm
        self.requests, self.tokens = requests, tokens
        self._before = met
        if is_rough:
            return CALM_SECONDS_MIN
        return min(CALM_SECONDS_MAX, 1.5 * self._calm) if off < AGREE else CALM_SECONDS

    def _doubts(self, met: Met, before: Met, requests: float, *, is_as_believed: bool) -> bool:
        """Whether this tells of no limit: what is believed stays, and is probed at once."""
        is_alone = met.is_early and met.refused == 1 and before.accepted >= MEASURED_REQUESTS
        doubted, self._doubted = self._doubted, 0.0
        if doubted and abs(requests / doubted - 1) < 2 * AGREE + 2 / met.accepted:
            self._proofs = PROOFS_MAX
        elif is_alone:
            self._proofs = max(0, self._proofs - 1)
        elif is_as_believed:
            self._proofs = min(PROOFS_MAX, self._proofs + 1)
        return is_alone and requests < self.requests and not self._proofs

    def _wait_longer(self, met: Met, before: Met, resumed_at: float) -> None:
        """Nothing was accepted since the last pause: the same limit goes on, of a minute perhaps."""
        before.refused += met.refused
        if resumed_at - before.left_at > PERIOD_SECONDS:
            self.requests, self.tokens = before.limits
            before.at, before.number, before.spent, before.refused = resumed_at, met.number, met.spent, met.refused
        elif before.accepted >= MEASURED_REQUESTS:
            before.seconds += resumed_at - before.at
            before.at = resumed_at
            self.requests, self.tokens = before.accepted / before.seconds, before.tokens / before.seconds

    def _refill(self, met: Met, passed: float) -> None:
        """What has come into the endpoint's bucket since it was empty, less one that is large."""
        if met.accepted < 2 * self._burst_seconds * self.requests:
            self._burst_seconds = max(BURST_SECONDS_MIN, self._burst_seconds / 2)
        elif met.accepted >= MEASURED_WELL:
            self._burst_seconds = min(BURST_SECONDS, 1.5 * self._burst_seconds)
        seconds = min(0.9 * passed, self._burst_seconds)
        if self._doubted:  # no bucket may have filled during the pause: only what is made use of counts
            met.at = max(met.at, met.left_at + passed - seconds / 0.9)
        if self.requests < math.inf:
            self._by_requests.level = self.requests * seconds - 1
        if self.tokens < math.inf:
            self._by_tokens.level = self.tokens * seconds - 2 * self._mean_tokens

    def _calm_enough(self, seconds: float) -> float:
        return max(seconds, (CALM_REQUESTS if seconds else CALM_REQUESTS_MIN) / self.requests)

    def _growth(self, now: float) -> float:
        """By how much the rate is above the limit as it is believed."""
        growth = 1 + DIP * ((now - self._grow_from - self._calm) / self._calm) ** 3
        if growth <= FREE_GROWTH:
            return growth
        free_at = self._grow_from + self._calm * (1 + ((FREE_GROWTH - 1) / DIP) ** (1 / 3))
        seconds, requests = DOUBTFUL_DOUBLING if self._is_doubtful else (DOUBLING_SECONDS, DOUBLING_REQUESTS)
        doubling_seconds = max(seconds, requests / self.requests)
        return FREE_GROWTH * math.exp2(min(40.0, (now - free_at) / doubling_seconds))

    def _leaving(self, now: float) -> float:
        """Requests a second, lately."""
        return self._metered * math.exp((self._metered_at - now) / METER_SECONDS)


class Window:
    """How many may be in flight: opening, or held where it is, with a trial of another width now and then."""

    def __init__(self, size: int, most: int, now: float, *, is_told: bool) -> None:
        """`is_told`: the user named it, so only overloads narrow it."""
        self.most = float(most)
        self.size = float(min(most, size))
        self.latency = 0.0
        """Of an answer, in seconds; 0 before the first."""
        self._is_told = is_told
        # opening
        self._is_opening = True
        self._target = self.most
        self._stage_size = self.size
        self._logs: deque[float] = deque(maxlen=LOGS)
        """The latencies' logarithms since the stage began, of the last answers."""
        self._before: tuple[float, float] | None = None
        """Their mean, and the square of its error, in the stage before."""
        # refusals
        self._ceiling = math.inf
        self._probe_at = math.inf
        self._probe_seconds = 0.0
        self._stray = 0.0
        self._score = 0.0
        self._cut_number = 0
        # trials
        self._best = self._held_at = self.size
        self._best_rate = 0.0
        self._step, self._way, self._next_way = WIDE_STEP, 0, 1
        self._trial_from = now
        self._measured, self._unsettled, self._measured_from = 0, self.size, now

    @property
    def whole(self) -> int:
        """How many, in whole requests."""
        return max(1, int(self.size))

    def answered(self, flight: InFlight, in_flight: int, *, rate_binds: bool, now: float) -> None:
        """An answer came, while so many were in flight."""
        took = max(1e-3, now - flight.left_at)
        samples = min(LATENCY_SAMPLES, max(20.0, self.size))
        self.latency += (took - self.latency) / samples if self.latency else took
        self._score = max(0.0, self._score - max(STRAY_SHARE, 2 * self._stray))
        if self._is_opening:
            self._open(took, is_full=in_flight >= self.whole, now=now)
            return
        self._stray -= self._stray / 100
        if now >= self._probe_at:
            self._reopen(self.size + max(1.0, PROBE_STEP * self.size))
        elif self._ceiling == math.inf and not self._is_told:
            self._climb(in_flight, rate_binds=rate_binds, now=now)

    def refused(self, flight: InFlight, last_number: int, now: float) -> None:
        """An overload: one too many at once, or one of those that come whatever the width."""
        if flight.number <= self._cut_number or flight.in_flight == 1:
            return
        self._score += 1
        if not self._is_opening:
            self._stray += (1 - self._stray) / 100
            if self._score > 4 + 0.15 * self.size:
                self._cut(NARROW * self.size, last_number, now)
        elif self._score > (0.5 if self._stray < STRAY_SHARE else 3.0):
            self._cut(min(self.size, flight.in_flight - 1.0), last_number, now)

    def hold_lock(self, now: float) -> None:
        """Open no further; find out by trials whether another width is better."""
        self._is_opening = False
        self._probe_at = math.inf
        self._step, self._way, self._next_way, self._trial_from = WIDE_STEP, 0, 1, now
        self._best = self._held_at = self.size
        self._settle(now)

    @property
    def is_found(self) -> bool:
        """It is held or was cut, or was widened a doubling beyond where every one begins."""
        return not self._is_opening or (not self._is_told and self.size >= 2 * WINDOW_FIRST)

    @property
    def is_opening(self) -> bool:
        """It grows with every answer."""
        return self._is_opening

    def forget_until(self, number: int) -> None:
        """Refusals of requests that left before say nothing of the window: the endpoint was down."""
        self._cut_number = number

    def _open(self, took: float, *, is_full: bool, now: float) -> None:
        self._logs.append(math.log(took))
        end = min(self.most, self._target)
        if is_full and self.size < end:
            self.size = min(end, self.size + (3.0 if self.latency > LONG_LATENCY_SECONDS else 1.0))
        if not is_full or len(self._logs) < WINDOW_FIRST:
            return
        if self.size >= 2 * self._stage_size or (self.size >= end and len(self._logs) >= self.size):
            self._end_stage(now)

    def _end_stage(self, now: float) -> None:
        """Go on, if answers have not become slower by as much as there are more of them."""
        doublings = math.log2(self.size / self._stage_size)
        mean = math.fsum(self._logs) / len(self._logs)
        variance = math.fsum((log - mean) ** 2 for log in self._logs) / (len(self._logs) - 1)
        before, self._before = self._before, (mean, variance / len(self._logs))
        self._stage_size = self.size
        self._logs.clear()
        if self._target < self.most:  # what was refused before is not any more
            self._ceiling, self._target = math.inf, self.most
        elif self._is_told:
            return
        elif self.size >= self.most:
            self.hold_lock(now)
        elif before is not None and doublings >= 0.5:
            slower = mean - before[0] - math.sqrt(before[1] + self._before[1])
            if slower > SLOWER * math.log(2) * doublings:
                self.hold_lock(now)

    def _reopen(self, target: float) -> None:
        self._is_opening, self._target, self._probe_at = True, target, math.inf
        self._stage_size, self._before = self.size, None
        self._logs.clear()
        self._score = 0.0

    def _cut(self, size: float, last_number: int, now: float) -> None:
        """Stay below, and try again later; the later, the oftener it was met in the same place."""
        size = max(1.0, size)
        again = self._is_opening and abs(size - self._ceiling) <= max(1.0, 0.05 * size)
        self._probe_seconds = min(PROBE_SECONDS_MAX, 2 * self._probe_seconds) if again else 2 + 3 * self.latency
        self.size = self._ceiling = size
        self._is_opening = False
        self._probe_at = now + self._probe_seconds
        self._score, self._cut_number = 0.0, last_number

    def _settle(self, now: float) -> None:
        self._unsettled, self._measured, self._measured_from = self.size, 0, now

    def _climb(self, in_flight: int, *, rate_binds: bool, now: float) -> None:
        if not self.whole <= in_flight <= self.size + 1:  # something else binds, or a wider window still empties
            self._settle(now)
        elif rate_binds:
            self.size = min(self.most, self.size + 0.25)
        elif self._unsettled > 0:
            self._unsettled -= 1
            self._measured_from = now
        else:
            self._measured += 1
            if self._measured >= max(MEASURED_ANSWERS, TURNOVERS * self.size):
                self._decide(self._measured / max(1e-9, now - self._measured_from), now)

    def _decide(self, answers_per_second: float, now: float) -> None:
        """Another width, or back to the best, by what this one brought.

        Wide steps first: up as long as that pays; if it never did, down as long as that costs nothing. Then fine ones.
        """
        pays = answers_per_second > self._best_rate * (PAYS[self._step] if self._way > 0 else 1.0)
        if not self._way or pays:
            self._best, self._best_rate = self.size, answers_per_second
        if not self._way:
            self._way = self._next_way if now >= self._trial_from else 0
        elif not pays or self._step == FINE_STEP:
            if self._step == WIDE_STEP and self._way > 0 and self._best == self._held_at:
                self._way = -1
            else:
                self._step, self._trial_from = FINE_STEP, now + max(TRIAL_SECONDS, 4 * self.latency)
                self._way, self._next_way = 0, -self._way
        self.size = min(self.most, max(1.0, self._best * self._step**self._way))
        self._settle(now)


class Throttle:
    """The pace of one endpoint, model and key. Each request that `left` ends in one of answered, refused, given up."""

    def __init__(
        self, limits: Limits, now: float, learnt: LearnedLimits | None = None, estimate: TokenEstimate | None = None
    ) -> None:
        """`learnt`: by an earlier run, from which this one goes on."""
        self.in_flight = 0
        self.cause = ""
        """Why everyone waits, while they do; empty if the endpoint asked to wait."""
        self._limits = limits
        self._told_requests = _pace_of_requests(limits, now)
        self._told_tokens = _pace_of_tokens(limits, now)
        self._estimate = estimate or TokenEstimate()
        self._rate = Rate(now)
        size = WINDOW_FIRST
        if learnt is not None:
            is_old = learnt.age_seconds > OLD_SECONDS
            size = max(size, 0 if is_old else learnt.window // 2)
            if learnt.requests_per_minute is not None or learnt.tokens_per_minute is not None:
                calm = CALM_SECONDS_MIN if is_old else CALM_SECONDS
                self._rate.seed(learnt.requests_per_minute, learnt.tokens_per_minute, calm, now)
        self._window = _window(limits, size, now)
        self._number = 0
        self._resume_at = now
        self._last_number = 0
        """Of the last request that had left when the last pause began."""
        self._pauses = 0
        """In a row, without success."""
        self._overloads = 0
        """In a row, without an answer."""
        self._down_since: float | None = None
        self._probed_at = math.inf
        """When the first request left after the last pause, until it is known to have gone through."""
        self._one_first = False
        self._paused_by: Pressure = "rate"
        self._refusal_seconds = 0.5

    @property
    def window(self) -> int:
        """How many may be in flight."""
        return self._window.whole

    def tune(self, limits: Limits, now: float) -> None:
        """Go on under these limits: those that changed hold in full from now on, what was learnt stays."""
        self._fill(now)
        before, self._limits = self._limits, limits
        if limits.requests_per_minute != before.requests_per_minute:
            self._told_requests = _pace_of_requests(limits, now)
        if limits.tokens_per_minute != before.tokens_per_minute:
            self._told_tokens = _pace_of_tokens(limits, now)
        if limits.concurrency != before.concurrency:
            self._window = _window(limits, max(WINDOW_FIRST, self.window), now)
            self._window.forget_until(self._number)

    def wait_before_next(self, now: float) -> float:
        """Seconds until one more request may leave: 0 for now, infinity for when one in flight has landed."""
        if self.in_flight >= self.window:
            return math.inf
        unsure = self._seconds_unsure(now)
        if unsure <= 0:
            self._went_through()
        elif self._one_first and unsure < math.inf:
            return unsure
        self._fill(now)
        wait = max(
            self._resume_at - now,
            self._told_requests.seconds_until(1),
            self._told_tokens.seconds_until(0),
            self._rate.wait(),
        )
        return wait if wait > TICK_SECONDS else 0.0

    def on_sent(self, now: float, size: int) -> InFlight:
        """A request has left, of so many bytes."""
        self._fill(now)
        self.in_flight += 1
        self._number += 1
        flight = InFlight(self._number, now, self.in_flight, size, *self._estimate.tokens(size), self._rate.spent)
        self._told_requests.level -= 1
        self._told_tokens.level -= flight.tokens_most
        self._rate.left(flight.tokens, now)
        if self._pauses and self._probed_at == math.inf:
            self._probed_at = now
        return flight

    def on_answer(self, flight: InFlight, usage: Usage, allowance: Allowance, now: float) -> None:
        """It was answered, and used so much; the answer's headers said so."""
        in_flight = self.in_flight
        self._estimate.learn(flight.size, usage)
        self._land(flight, _used(usage) or flight.tokens)
        self._overloads = 0
        if flight.number > self._last_number:
            self._went_through()
        if not self._rate.known and (allowance.requests_per_minute or allowance.tokens_per_minute):
            requests, tokens = allowance.requests_per_minute or 0.0, allowance.tokens_per_minute or 0.0
            self._rate.seed(SEED_SHARE * requests, SEED_SHARE * tokens, CALM_SECONDS, now)
        rate_binds = now < self._rate.met_at + max(FRESH_SECONDS, 6 * self._window.latency)
        self._window.answered(flight, in_flight, rate_binds=rate_binds, now=now)

    def on_rejection(self, flight: InFlight, refusal: Rejection, now: float) -> None:
        """It was refused. What presses nothing only makes room for the next."""
        self._land(flight, _used(refusal.usage or Usage()) or (flight.tokens if refusal.maybe_paid else 0.0))
        if refusal.pressure is None:
            return
        self._refusal_seconds += 0.2 * (now - flight.left_at - self._refusal_seconds)
        is_new = flight.number > self._last_number
        if not is_new and refusal.wait_seconds is not None:
            self._resume_at = max(self._resume_at, now + refusal.wait_seconds)
        if refusal.pressure == "rate":
            self._slow_down(flight, refusal, now, is_new=is_new)
        else:
            self._narrow(flight, refusal, now, is_new=is_new)

    def on_abandoned(self) -> None:
        """One was broken off by ourselves: that teaches nothing."""
        self.in_flight -= 1

    def paused_seconds(self, now: float) -> float:
        """How long everyone still waits because of a refusal; 0 if nobody does."""
        return max(0.0, self._resume_at - now)

    def learned(self) -> LearnedLimits:
        """What is known by now."""
        requests, tokens = (
            60 * limit if limit < math.inf else None for limit in (self._rate.requests, self._rate.tokens)
        )
        return LearnedLimits(requests, tokens, self.window if self._window.is_found else 0)

    def _slow_down(self, flight: InFlight, refusal: Rejection, now: float, *, is_new: bool) -> None:
        if not is_new:
            self._rate.meet_too(flight)
            return
        self._rate.resume(self._resume_at)
        self._rate.meet(flight, self.in_flight, self._window.latency, now)
        if self._window.is_opening:
            self._window.hold_lock(now)
        self._pause("rate", refusal, now)

    def _narrow(self, flight: InFlight, refusal: Rejection, now: float, *, is_new: bool) -> None:
        self._overloads += 1
        is_down = self._overloads >= DOWN_REFUSALS
        if not is_down:
            self._window.refused(flight, self._number, now)
        if is_new and (is_down or refusal.wait_seconds is not None):
            self._pause("window", refusal, now)
            self._window.forget_until(self._number)

    def _pause(self, pressure: Pressure, refusal: Rejection, now: float) -> None:
        if self._down_since is None:
            self._down_since = now
        is_told = refusal.wait_seconds is not None
        by_experience = PAUSE_SHARE["window" if is_told else pressure] * (now - self._down_since)
        if refusal.wait_seconds is None:
            pause = min(PAUSE_SECONDS_MAX, max(FIRST_PAUSE_SECONDS, by_experience))
        else:  # a word is kept, though not for ever if it never holds
            pause = max(refusal.wait_seconds, min(PAUSE_SECONDS_MAX, by_experience) if self._pauses >= 3 else 0.0)
        self._pauses += 1
        self._paused_by = pressure
        self._resume_at = max(self._resume_at, now + pause)
        self._last_number = self._number
        self._one_first = self._pauses > 1 or pause > LONG_PAUSE_SECONDS
        self._probed_at = math.inf
        self.cause = "" if is_told else f"after HTTP {refusal.status or refusal.kind}"

    def _seconds_unsure(self, now: float) -> float:
        """Until the first request after a pause is taken for accepted, if it is not refused before."""
        usual = min(CONSENT_SECONDS_MAX, CONSENT_TIMES * self._refusal_seconds)
        return self._probed_at + max(CONSENT_SECONDS_MIN, usual) - now

    def _went_through(self) -> None:
        if self._down_since is not None and self._paused_by == "window":
            self._rate.stood_still(self._resume_at - self._down_since)
        self._pauses, self._down_since = 0, None
        self._one_first, self._probed_at = False, math.inf

    def _land(self, flight: InFlight, used: float) -> None:
        self.in_flight -= 1
        self._told_tokens.level += flight.tokens_most - used
        self._rate.settle(flight.tokens, used)

    def _fill(self, now: float) -> None:
        self._told_requests.fill(now)
        self._told_tokens.fill(now)
        self._rate.fill(now)
        if now >= self._resume_at:
            self._rate.resume(self._resume_at)


def _pace_of_requests(limits: Limits, now: float) -> Pace:
    return Pace(now, _a_second(limits.requests_per_minute), level=1.0)


def _pace_of_tokens(limits: Limits, now: float) -> Pace:
    per_minute = limits.tokens_per_minute
    return Pace(now, _a_second(per_minute), cap=(per_minute or 0.0) * (1 - MARGIN))


def _window(limits: Limits, size: int, now: float) -> Window:
    """As many as the user said; else to be found out, from `size` on."""
    if limits.concurrency == "auto":
        return Window(size, WINDOW_MAX, now, is_told=False)
    return Window(limits.concurrency, limits.concurrency, now, is_told=True)


def _a_second(per_minute: float | None) -> float:
    return math.inf if per_minute is None else MARGIN * per_minute / 60


def _used(usage: Usage) -> float:
    return (usage.prompt_tokens or 0) + (usage.billed_output_tokens or 0)
