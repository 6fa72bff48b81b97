"""When the next request may leave: requests in flight, requests and tokens a minute, and pauses for all.

Pure: monotonic seconds are parameters; nothing here sleeps, reads a clock or opens a socket. What is promised:

- A limit that the user sets holds in every window of 60 s; the token limit, up to the one request that crosses it.
  Requests leave evenly, at 98.5 % of the rate, so that no 60 s hold one request more than the limit.
- A limit that nobody reported is found. A 429 teaches a rate of requests and of tokens (`rate`).
- A limit that the endpoint names in words, or shows as a quota (`repeated_quota`), is kept as the user's is. 429s that
  come at random teach nothing, and pause nobody (`strays`).
- 503, 529, 52x, timeouts and lost connections are overloads. They narrow the window: the number of requests in flight
  (`window`). The two kinds of pressure are never mixed.
- The window opens until an overload, or until more requests in flight bring no more answers a second.
- A pause holds for everyone. After a long pause, or a second one in a row, a single request goes first (the half-open
  state of a circuit breaker). If no rejection comes back in the time that rejections usually take, it is taken for
  accepted, however long its answer takes.

`make governor SET="cut=0.8"` shows what a change of a constant of `tuning` does, at each kind of endpoint.
"""

import math

from msgspec.structs import replace

from ..job import Limits
from ..records import Allowance, LearnedLimits, Pressure, Rejection, Usage
from .in_flight import InFlight
from .last_minute import LastMinute
from .rate import Rate
from .repeated_quota import RepeatedQuota
from .strays import Strays
from .token_bucket import TokenBucket
from .tokens import TokenEstimate
from .tuning import DEFAULT_TUNING, Tuning
from .window import Window

TICK_SECONDS = 1e-6
"""A shorter wait is none: rounding of a clock's last digits must not make a wait that never ends."""


class Throttle:
    """The pace of the requests to one endpoint, model and key.

    Every request that is reported by `on_sent` ends in one call of `on_answer`, `on_rejection` or `on_abandoned`.
    """

    def __init__(
        self,
        limits: Limits,
        now: float,
        learned: LearnedLimits | None = None,
        estimate: TokenEstimate | None = None,
        tuning: Tuning = DEFAULT_TUNING,
    ) -> None:
        """`learned` are the limits that an earlier run found, with which this one begins."""
        self.in_flight = 0
        """The number of requests in flight."""
        self.cause = ""
        """The reason for the present pause, for the screen; empty if the endpoint itself asked for it."""
        self._limits = limits
        self._tuning = tuning
        self._stated = Allowance()
        """The limits that the endpoint named in words: they hold as the user's do."""
        self._last_minute, self._quota = LastMinute(), RepeatedQuota()
        self._user_requests = _user_request_bucket(limits, self._stated, now, tuning)
        self._user_tokens = _user_token_bucket(limits, self._stated, now, tuning)
        self._estimate = estimate or TokenEstimate(tuning=tuning)
        self._strays = Strays(tuning)
        self._rate = Rate(now, tuning, self._strays)
        window = tuning.window_first
        if learned is not None:
            is_stale = learned.age_seconds > tuning.stale_seconds
            window = max(window, 0 if is_stale else learned.window // 2)
            if learned.requests_per_minute is not None or learned.tokens_per_minute is not None:
                cubic_seconds = tuning.cubic_seconds_min if is_stale else tuning.cubic_seconds
                self._rate.seed(learned.requests_per_minute, learned.tokens_per_minute, cubic_seconds, now)
        self._window = _window(limits, window, now, tuning)
        self._number = self._rejected = 0
        """The number of the request that left last."""
        self._resume_at = now
        """When the last pause ends or ended."""
        self._pause_number = 0
        """The number of the request that left last before the last pause."""
        self._pauses_in_a_row = 0
        self._overloads_in_a_row = 0
        self._failing_since: float | None = None
        """When the first of the pauses in a row began."""
        self._first_left_at = math.inf
        """When the first request after the last pause left, until it is taken for accepted."""
        self._is_half_open = False
        """After the pause a single request goes first."""
        self._paused_by: Pressure = "rate"
        self._rejection_seconds = tuning.rejection_seconds
        """An average of the time that a rejection takes to come back."""

    @property
    def window(self) -> int:
        """The number of requests that may be in flight."""
        requests = self._window.requests
        return max(1, int(self._tuning.stray_check_pace * requests)) if self._strays.in_check else requests

    def tune(self, limits: Limits, now: float) -> None:
        """Go on under these limits. Those that changed hold in full from now on; what was learned stays."""
        self._refill(now)
        before, self._limits = self._limits, limits
        if limits.requests_per_minute != before.requests_per_minute:
            self._user_requests = _user_request_bucket(limits, self._stated, now, self._tuning)
        if limits.tokens_per_minute != before.tokens_per_minute:
            self._user_tokens = _user_token_bucket(limits, self._stated, now, self._tuning)
        if limits.concurrency != before.concurrency:
            self._window = _window(limits, max(self._tuning.window_first, self._window.requests), now, self._tuning)
            self._window.ignore_until(self._number)

    def wait_before_next(self, now: float) -> float:
        """Seconds until one more request may leave: 0 for now, infinity if one in flight must end first."""
        if self.in_flight >= self.window:
            return math.inf
        until_accepted = self._seconds_until_accepted(now)
        if until_accepted <= 0:
            self._end_outage()
        elif self._is_half_open and until_accepted < math.inf:
            return until_accepted
        self._refill(now)
        wait = max(
            self._resume_at - now,
            self._user_requests.seconds_until(1),
            self._user_tokens.seconds_until(0),
            self._rate.seconds_to_wait(),
        )
        return wait if wait > TICK_SECONDS else 0.0

    def on_sent(self, now: float, size_bytes: int) -> InFlight:
        """Take in that a request of this size has left."""
        self._refill(now)
        self.in_flight += 1
        self._number += 1
        tokens, tokens_high = self._estimate.tokens(size_bytes)
        flight = InFlight(self._number, now, self.in_flight, size_bytes, tokens, tokens_high, self._rate.tokens_sent)
        self._last_minute.on_sent(self._number, now)
        self._user_requests.level -= 1
        self._user_tokens.level -= tokens_high
        self._rate.on_sent(tokens, now)
        if self._pauses_in_a_row and self._first_left_at == math.inf:
            self._first_left_at = now
        return flight

    def on_answer(self, flight: InFlight, usage: Usage, allowance: Allowance, now: float) -> None:
        """Take in the answer to a request: the usage that it reports, and the limits in its headers."""
        in_flight = self.in_flight
        self._estimate.learn(flight.size_bytes, usage)
        self._settle(flight, _tokens_of(usage) or flight.tokens)
        self._overloads_in_a_row = 0
        if self._strays.on_answer(flight, self._number, has_limit=self._rate.is_known):
            self._rate.forget()
            self._window.begin_slow_start()
        if flight.number > self._pause_number:
            self._end_outage()
        tuning, rate = self._tuning, self._rate
        if not rate.is_known and (allowance.requests_per_minute or allowance.tokens_per_minute):
            share = tuning.header_share
            requests, tokens = allowance.requests_per_minute or 0.0, allowance.tokens_per_minute or 0.0
            rate.seed(share * requests, share * tokens, tuning.cubic_seconds, now)
        latencies = tuning.rate_bound_latencies * self._window.latency_seconds
        rate_binds = now < rate.hit_at + max(tuning.rate_bound_seconds, latencies)
        self._window.on_answer(flight, in_flight, rate_binds=rate_binds, now=now)

    def on_rejection(self, flight: InFlight, rejection: Rejection, now: float) -> None:
        """Take in the rejection of a request. One without pressure only makes room for the next request."""
        used = _tokens_of(rejection.usage or Usage()) or (flight.tokens if rejection.maybe_paid else 0.0)
        self._settle(flight, used)
        if rejection.pressure is None:
            return
        self._rejection_seconds += self._tuning.rejection_weight * (now - flight.left_at - self._rejection_seconds)
        is_new = flight.number > self._pause_number
        if not is_new and rejection.wait_seconds is not None:
            self._resume_at = max(self._resume_at, now + rejection.wait_seconds)
        if rejection.pressure == "rate":
            self._on_limit_hit(flight, rejection, now, is_new=is_new)
        else:
            self._on_overload(flight, rejection, now, is_new=is_new)

    def on_abandoned(self) -> None:
        """Take in that a request was given up by the program itself, which teaches nothing."""
        self.in_flight -= 1

    def paused_seconds(self, now: float) -> float:
        """Seconds for which everyone still waits because of a rejection; 0 without a pause."""
        return max(0.0, self._resume_at - now)

    def learned(self) -> LearnedLimits:
        """The limits as far as they are known."""
        rate = self._rate
        requests, tokens = (
            60 * limit if limit < math.inf else None for limit in (rate.requests_per_second, rate.tokens_per_second)
        )
        return LearnedLimits(requests, tokens, self._window.requests if self._window.is_found else 0)

    def _on_limit_hit(self, flight: InFlight, rejection: Rejection, now: float, *, is_new: bool) -> None:
        """Lower the rate, and pause; a 429 of a request that left before the pause only counts (one cut an episode)."""
        self._rejected += 1
        if not is_new:
            self._rate.add_to_hit(flight)
            return
        rate = self._rate
        rate.resume(self._resume_at)
        if not self._is_half_open:
            if rate.is_unexplained(flight, now):
                self._strays.suspect(self._number, rate.accepted_since_hit(flight))
            if self._strays.is_stray(flight, self._number, has_limit=rate.is_known):
                rate.add_to_hit(flight)
                return
        if self._takes_stated(self._allowance_of(flight, rejection), now):
            self._pause("rate", self._shortened(rejection, now), now)
            return
        self._rate.on_limit_hit(flight, self.in_flight, self._window.latency_seconds, now)
        if self._window.in_slow_start:
            self._window.end_slow_start(now)
        self._pause("rate", rejection, now)

    def _allowance_of(self, flight: InFlight, rejection: Rejection) -> Allowance:
        """The limits that a 429 names in words, or that it shows together with the one before."""
        found = self._quota.on_limit_hit(
            flight.number - self._rejected, self._resume_at, flight.left_at, rejection.wait_seconds
        )
        is_named = rejection.allowance != Allowance()
        return rejection.allowance if is_named or found is None else Allowance(found)

    def _takes_stated(self, allowance: Allowance, now: float) -> bool:
        """Take in the limits that an endpoint names in words, if they are new and may be the ones that were hit."""
        if allowance in (Allowance(), self._stated):
            return False
        requests, tokens = allowance.requests_per_minute, allowance.tokens_per_minute
        if requests is not None and self._last_minute.sent > self._tuning.stated_times_max * requests:
            return False
        self._stated = Allowance(requests or self._stated.requests_per_minute, tokens or self._stated.tokens_per_minute)
        self._user_requests = _user_request_bucket(self._limits, self._stated, now, self._tuning)
        self._user_tokens = _user_token_bucket(self._limits, self._stated, now, self._tuning)
        self._rate.seed(requests, tokens, self._tuning.cubic_seconds, now)
        if self._window.in_slow_start:
            self._window.end_slow_start(now)
        return True

    def _shortened(self, rejection: Rejection, now: float) -> Rejection:
        """The rejection with no longer wait than the limit that it names can need; a second one is kept as it is."""
        requests, wait = rejection.allowance.requests_per_minute, rejection.wait_seconds
        needed = None if requests is None else self._last_minute.seconds_until_past(int(requests), now)
        if wait is None or needed is None or self._pauses_in_a_row:
            return rejection
        return replace(rejection, wait_seconds=min(wait, needed))

    def _on_overload(self, flight: InFlight, rejection: Rejection, now: float, *, is_new: bool) -> None:
        """Narrow the window, or pause if the endpoint is down or asks for it."""
        self._overloads_in_a_row += 1
        is_down = self._overloads_in_a_row >= self._tuning.down_rejections
        if not is_down:
            self._window.on_overload(flight, self._number, now)
        if is_new and (is_down or rejection.wait_seconds is not None):
            self._pause("window", rejection, now)
            self._window.ignore_until(self._number)

    def _pause(self, pressure: Pressure, rejection: Rejection, now: float) -> None:
        """Pause everyone: as long as Retry-After says, else by exponential backoff."""
        tuning = self._tuning
        if self._failing_since is None:
            self._failing_since = now
        is_asked_for = rejection.wait_seconds is not None
        by_rate = pressure == "rate" and not is_asked_for
        share = tuning.rate_pause_share if by_rate else tuning.window_pause_share
        backoff = share * (now - self._failing_since)
        if rejection.wait_seconds is None:
            pause = min(tuning.pause_seconds_max, max(tuning.first_pause_seconds, backoff))
        else:  # kept as it is, unless it never holds
            is_doubted = self._pauses_in_a_row >= tuning.doubted_pauses
            pause = max(rejection.wait_seconds, min(tuning.pause_seconds_max, backoff) if is_doubted else 0.0)
        self._pauses_in_a_row += 1
        self._paused_by = pressure
        self._resume_at = max(self._resume_at, now + pause)
        self._pause_number = self._number
        self._is_half_open = self._pauses_in_a_row > 1 or pause > tuning.long_pause_seconds
        self._first_left_at = math.inf
        self.cause = "" if is_asked_for else f"after HTTP {rejection.status or rejection.kind}"

    def _seconds_until_accepted(self, now: float) -> float:
        """Seconds until the first request after a pause is taken for accepted; infinity if none has left."""
        tuning = self._tuning
        usual = min(tuning.accepted_seconds_max, tuning.accepted_times * self._rejection_seconds)
        return self._first_left_at + max(tuning.accepted_seconds_min, usual) - now

    def _end_outage(self) -> None:
        """Take in that a request was accepted: the next pause is a first one."""
        if self._failing_since is not None and self._paused_by == "window":
            self._rate.exclude(self._resume_at - self._failing_since)
        self._pauses_in_a_row, self._failing_since = 0, None
        self._is_half_open, self._first_left_at = False, math.inf

    def _settle(self, flight: InFlight, used_tokens: float) -> None:
        """Count a request as ended, and correct the charge for its tokens."""
        self.in_flight -= 1
        self._user_tokens.level += flight.tokens_high - used_tokens
        self._rate.settle(flight.tokens, used_tokens)

    def _refill(self, now: float) -> None:
        self._user_requests.refill(now)
        self._user_tokens.refill(now)
        self._rate.refill(now)
        if now >= self._resume_at:
            self._rate.resume(self._resume_at)


def _user_request_bucket(limits: Limits, stated: Allowance, now: float, tuning: Tuning) -> TokenBucket:
    """The user's limit of requests, or a lower one that the endpoint named: without a burst, they leave evenly."""
    per_minute = _lower(limits.requests_per_minute, stated.requests_per_minute)
    return TokenBucket(now, _per_second(per_minute, tuning), level=1.0)


def _user_token_bucket(limits: Limits, stated: Allowance, now: float, tuning: Tuning) -> TokenBucket:
    """The same for tokens: its burst is what the rate leaves of the limit."""
    per_minute = _lower(limits.tokens_per_minute, stated.tokens_per_minute)
    capacity = (per_minute or 0.0) * (1 - tuning.user_limit_share)
    return TokenBucket(now, _per_second(per_minute, tuning), capacity=capacity)


def _lower(*limits: float | None) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _window(limits: Limits, size: int, now: float, tuning: Tuning) -> Window:
    """The window that the user set; else one that is to be found, beginning with this size."""
    if limits.concurrency == "auto":
        return Window(size, tuning.window_max, now, tuning, is_set_by_user=False)
    return Window(limits.concurrency, limits.concurrency, now, tuning, is_set_by_user=True)


def _per_second(per_minute: float | None, tuning: Tuning) -> float:
    return math.inf if per_minute is None else tuning.user_limit_share * per_minute / 60


def _tokens_of(usage: Usage) -> float:
    return (usage.prompt_tokens or 0) + (usage.billed_output_tokens or 0)
