"""The rate limit that an endpoint was found to have, and the rate at which requests leave because of it."""

import math

from .in_flight import InFlight
from .strays import Strays
from .token_bucket import TokenBucket
from .tuning import Tuning


class LimitHit:
    """One time that the limit was hit: the 429s of requests that had left before the first of them came back."""

    __slots__ = (
        "accepted",
        "is_early",
        "is_long",
        "left_at",
        "limits",
        "number",
        "rejected",
        "room_at",
        "seconds",
        "sent_before",
        "tokens",
        "tokens_sent_before",
    )

    def __init__(self, flight: InFlight, *, is_early: bool) -> None:
        self.is_early = is_early
        """The rate was still below the known limit: so the limit is lower now, or the 429 is spurious."""
        self.is_long = False
        """The pause after it is so long that it may last until the end of a calendar period."""
        self.number, self.left_at, self.tokens_sent_before = flight.number, flight.left_at, flight.tokens_sent_before
        """Of the rejected request that left first."""
        self.rejected = 1
        """The number of requests rejected from here until the next hit."""
        self.room_at = flight.left_at
        """When the endpoint's bucket had room again, as far as that is known."""
        self.accepted, self.tokens, self.seconds = 0, 0.0, 0.0
        """What was accepted since the hit before: requests, their tokens, and the seconds between the two."""
        self.sent_before = 0
        """Requests accepted before it, if it is the first hit."""
        self.limits = (math.inf, math.inf)
        """The limits (requests and tokens a second) that were believed before this hit."""

    def add(self, flight: InFlight) -> None:
        """Count another rejected request of the same hit."""
        self.rejected += 1
        if flight.number < self.number:
            self.number, self.left_at = flight.number, flight.left_at
            self.tokens_sent_before = flight.tokens_sent_before


class Rate:
    """The limits of requests and tokens of an endpoint, infinite until they are found; and the rate that they allow.

    What is known of a limit:

    - The first 429 gives a guess: multiplicative decrease (as in AIMD) of the rate at which requests were leaving.
    - Every later one measures. At both hits the endpoint's bucket was empty, so the requests accepted between them,
      divided by the seconds between them, are the limit.
    - A single 429 that came too early, with no earlier proof of a limit, is taken for spurious (compare RFC 9438,
      section 4.9): the limit is kept, and probed at once.

    The rate around a known limit L follows the window increase function of CUBIC (RFC 9438, section 4.2), scaled to L:

        rate(t) = L * (1 + cubic_depth * ((t - K) / K)^3)

    t are the seconds since the last hit. The curve begins a little below L, is flat near it (the plateau) until t = K,
    and then probes beyond it. Unlike in CUBIC, K is set, not computed from the decrease, as L is measured. From
    `probing_growth` on the rate grows exponentially: the limit is gone. Two token buckets, refilled at this rate, let
    a short burst leave after a pause.
    """

    def __init__(self, now: float, tuning: Tuning, strays: Strays) -> None:
        self._tuning, self._strays = tuning, strays
        self.requests_per_second = self.tokens_per_second = math.inf
        """The limits as they are believed; infinity for none."""
        self._sent = 0
        """The number of requests that left."""
        self.tokens_sent = 0.0
        """The sum of tokens of all requests that left: estimates, corrected when their usage is known."""
        self.hit_at = -math.inf
        """When the limit was hit last."""
        self._began_at = now
        self._request_bucket, self._token_bucket = TokenBucket(now), TokenBucket(now)
        self._tokens_per_request = 0.0
        self._departures_per_second, self._metered_at = 0.0, now
        """An exponential average, and the time for which it was computed."""
        self._epoch_at, self._cubic_seconds = now, tuning.cubic_seconds
        """Start of the cubic curve, and its K."""
        self._burst_seconds = tuning.burst_seconds
        self._anchor: LimitHit | None = None
        """The hit from which the next measurement counts."""
        self._hit: LimitHit | None = None
        """The hit whose pause is not over."""
        self._is_unanchored = True
        """The last hit cannot be measured: no limit was known, or it was left far behind."""
        self._is_measured = False
        """The limit is more than a guess from a single 429."""
        self._proofs = 0
        self._had_few = False
        """The last measurement had too few requests."""
        self._early_hits = 0
        """Hits in a row that came too early."""
        self._doubted_requests_per_second = 0.0
        """What was measured when the last hit was taken for spurious; 0 if it was not."""

    @property
    def is_known(self) -> bool:
        """Whether a limit was found, or reported by headers or an earlier run."""
        return self.requests_per_second < math.inf or self.tokens_per_second < math.inf

    @property
    def _is_unconfirmed(self) -> bool:
        # only a limit that is probed at once has so short a K
        return self._cubic_seconds < self._tuning.cubic_seconds_min

    def seed(
        self, requests_per_minute: float | None, tokens_per_minute: float | None, cubic_seconds: float, now: float
    ) -> None:
        """Begin with limits reported by others (None or 0 for none), to be probed after `cubic_seconds`."""
        self.requests_per_second = requests_per_minute / 60 if requests_per_minute else math.inf
        self.tokens_per_second = tokens_per_minute / 60 if tokens_per_minute else math.inf
        self._epoch_at, self._cubic_seconds = now, self._cubic_seconds_from(cubic_seconds)
        self._is_unanchored, self._is_measured = False, True

    def forget(self) -> None:
        """Forget the limits: there are none, or the 429s that taught them were no limit's."""
        self.requests_per_second = self.tokens_per_second = math.inf
        self._request_bucket.rate = self._token_bucket.rate = math.inf
        self.hit_at, self._burst_seconds = -math.inf, self._tuning.burst_seconds
        self._anchor = self._hit = None
        self._is_measured, self._proofs, self._had_few = False, 0, False
        self._doubted_requests_per_second = 0.0

    def accepted_since_hit(self, flight: InFlight) -> int:
        """The number of requests accepted since the last hit, and before this one."""
        anchor = self._anchor
        return 0 if anchor is None else flight.number - anchor.number - anchor.rejected

    def is_unexplained(self, flight: InFlight, now: float) -> bool:
        """Whether the 429 of this request cannot be the limit's: it had far more room, and requests left slowly."""
        tuning, anchor = self._tuning, self._anchor
        if anchor is None or not self._is_measured or self._growth(now) >= 1:
            return False
        accepted = self.accepted_since_hit(flight)
        seconds = max(1e-6, flight.left_at - anchor.left_at)
        tokens = flight.tokens_sent_before - anchor.tokens_sent_before
        share = max(accepted / (self.requests_per_second * seconds), tokens / (self.tokens_per_second * seconds))
        return accepted >= tuning.unexplained_requests and (
            share < tuning.unexplained_share or self._early_hits >= tuning.unexplained_hits
        )

    def seconds_to_wait(self) -> float:
        """Seconds until one more request may leave; not above 0 if it may now."""
        return max(self._request_bucket.seconds_until(1), self._token_bucket.seconds_until(0))

    def on_sent(self, tokens: float, now: float) -> None:
        """Charge the buckets for a request that leaves."""
        self._request_bucket.level -= 1
        self._token_bucket.level -= tokens
        self.tokens_sent += tokens
        if not self._sent:
            self._began_at = now
        self._sent += 1
        self._departures_per_second = self._departures(now) + 1 / self._tuning.meter_seconds
        self._metered_at = now

    def settle(self, expected_tokens: float, used_tokens: float) -> None:
        """Correct the charge for a request whose usage is known now."""
        self._token_bucket.level += expected_tokens - used_tokens
        self.tokens_sent += used_tokens - expected_tokens
        if used_tokens:
            mean = self._tokens_per_request
            self._tokens_per_request += (used_tokens - mean) / self._tuning.usage_requests if mean else used_tokens

    def on_limit_hit(self, flight: InFlight, in_flight: int, latency_seconds: float, now: float) -> None:
        """Take in the first 429 since the last pause; a limit that was not known is guessed."""
        tuning = self._tuning
        self._is_unanchored = not self.is_known or self._growth(now) > tuning.lost_growth
        self._hit = LimitHit(flight, is_early=self.is_known and self._growth(now) < 1)
        self.hit_at = now
        if self.requests_per_second == math.inf:
            departures = max(self._departures(now), in_flight / max(0.1, latency_seconds))
            self.requests_per_second = max(tuning.first_rate, tuning.cut * departures)
            self.tokens_per_second = self.requests_per_second * max(1.0, self._tokens_per_request or flight.tokens)
        elif self._is_unanchored:
            self._is_measured = False
            self.requests_per_second = tuning.cut * self._request_bucket.rate
            self.tokens_per_second = tuning.cut * self._token_bucket.rate
        self._request_bucket.level = self._token_bucket.level = 0.0

    def add_to_hit(self, flight: InFlight) -> None:
        """Take in a 429 of a request that had left before the last hit was known."""
        if self._hit is not None:
            self._hit.add(flight)
        elif self._anchor is not None:
            self._anchor.rejected += 1

    def exclude(self, seconds: float) -> None:
        """Leave a time during which the endpoint was down out of the measurement."""
        if self._anchor is not None:
            self._anchor.room_at += seconds

    def resume(self, resumed_at: float) -> None:
        """Measure the limit by what was accepted since the last hit, once the pause after this one is over."""
        tuning = self._tuning
        hit, anchor = self._hit, self._anchor
        self._hit = None
        if hit is None:
            return
        self._epoch_at = resumed_at
        pause = resumed_at - hit.left_at
        self._early_hits = self._early_hits + 1 if hit.is_early else 0
        hit.limits = self.requests_per_second, self.tokens_per_second
        hit.room_at += max(0.0, pause - tuning.rounding_seconds)
        hit.is_long = pause > tuning.long_pause_seconds
        if hit.rejected > 1:
            self._proofs = tuning.proofs_max
        is_run = hit.rejected > 1 and 2 * hit.rejected > self._sent - hit.number
        if anchor is None and hit.is_long and is_run:
            # the limit is perhaps a number for a calendar period: all sent so far, in the time until its end
            seconds = resumed_at - self._began_at
            self.requests_per_second = min(self.requests_per_second, hit.number / seconds)
            self.tokens_per_second = min(self.tokens_per_second, hit.tokens_sent_before / seconds)
        if anchor is None or (self._is_unanchored and not hit.is_long):
            self._anchor = hit
            hit.sent_before = self._sent - hit.rejected if anchor is None else 0
            known_roughly = tuning.cubic_seconds_min if self._proofs else 0.0
            self._cubic_seconds = max(known_roughly, self._cubic_seconds_from(0.0))
        else:
            hit.accepted = hit.number - anchor.number - anchor.rejected
            until = hit.left_at if hit.is_long and not anchor.is_long else hit.room_at
            hit.tokens = max(1.0, hit.tokens_sent_before - anchor.tokens_sent_before)
            hit.seconds = max(0.1, until - anchor.room_at)
            self._cubic_seconds = self._cubic_seconds_from(self._measure(hit, anchor, resumed_at))
            self._is_measured = True
        self._refill_after_pause(hit, 0.0 if anchor is None else pause)

    def refill(self, now: float) -> None:
        """Bring the rate and the buckets up to the present time."""
        if self.is_known:
            tuning = self._tuning
            growth = self._growth(now)
            if self._strays.in_check:
                growth = tuning.stray_check_pace
            if growth > tuning.probing_growth:
                departures = self._departures(now)
                share = max(
                    departures / self.requests_per_second,
                    departures * self._tokens_per_request / self.tokens_per_second,
                )
                headroom = tuning.unconfirmed_headroom if self._is_unconfirmed else tuning.headroom
                growth = min(growth, max(tuning.probing_growth, headroom * share))
            requests, tokens = self._request_bucket, self._token_bucket
            requests.rate = self.requests_per_second * growth
            requests.capacity = max(1.0, requests.rate * self._burst_seconds)
            tokens.rate = self.tokens_per_second * growth
            tokens.capacity = max(tuning.burst_rows * self._tokens_per_request, tokens.rate * self._burst_seconds)
        self._request_bucket.refill(now)
        self._token_bucket.refill(now)

    def _measure(self, hit: LimitHit, anchor: LimitHit, resumed_at: float) -> float:
        """Learn the limit from two hits. Return the seconds of K before it is probed; 0 for at once."""
        tuning = self._tuning
        if hit.accepted <= 0:
            self._on_nothing_accepted(hit, anchor, resumed_at)
            return tuning.cubic_seconds_min
        if hit.accepted < tuning.measured_requests:
            self._decrease(hit, anchor)
            return self._cubic_seconds
        self._had_few = False
        requests, tokens = hit.accepted / hit.seconds, hit.tokens / hit.seconds
        is_rough = hit.accepted < tuning.measured_well_requests
        off = min(abs(requests / self.requests_per_second - 1), abs(tokens / self.tokens_per_second - 1))
        if self._is_spurious(hit, anchor, requests, is_as_believed=off < tuning.agreement):
            self._anchor, self._doubted_requests_per_second = hit, requests
            return 0.0
        if is_rough and anchor.accepted >= tuning.measured_well_requests and off < 4 / hit.accepted:
            anchor.rejected += hit.rejected  # a better measurement is not contradicted, and stays
            return self._cubic_seconds
        self.requests_per_second, self.tokens_per_second = requests, tokens
        self._anchor = hit
        if is_rough:
            return tuning.cubic_seconds_min
        if off < tuning.agreement:
            return min(tuning.cubic_seconds_max, tuning.cubic_seconds_growth * self._cubic_seconds)
        return tuning.cubic_seconds

    def _decrease(self, hit: LimitHit, anchor: LimitHit) -> None:
        """Decrease the limit after a hit with too few requests to measure it: it is lower, or the 429 was spurious."""
        share = min(1.0, (hit.accepted + 2) / hit.seconds / self.requests_per_second)
        if anchor.accepted and not self._had_few:  # two spurious ones running are not to be expected
            share = max(self._tuning.cut, share)
        self._had_few = True
        self.requests_per_second *= share
        self.tokens_per_second *= share
        anchor.rejected += hit.rejected

    def _is_spurious(self, hit: LimitHit, anchor: LimitHit, requests: float, *, is_as_believed: bool) -> bool:
        """Whether a hit tells nothing about the limit; counts the proofs that there is one."""
        tuning = self._tuning
        is_single = hit.is_early and hit.rejected == 1 and anchor.accepted >= tuning.measured_requests
        doubted, self._doubted_requests_per_second = self._doubted_requests_per_second, 0.0
        if doubted and abs(requests / doubted - 1) < 2 * tuning.agreement + 2 / hit.accepted:
            self._proofs = tuning.proofs_max
        elif is_single:
            self._proofs = max(0, self._proofs - 1)
        elif is_as_believed:
            self._proofs = min(tuning.proofs_max, self._proofs + 1)
        return is_single and requests < self.requests_per_second and not self._proofs

    def _on_nothing_accepted(self, hit: LimitHit, anchor: LimitHit, resumed_at: float) -> None:
        """Extend the pause before this one: the same limit, perhaps for a whole minute, is still in force."""
        tuning = self._tuning
        anchor.rejected += hit.rejected
        if resumed_at - anchor.left_at > tuning.period_seconds:
            self.requests_per_second, self.tokens_per_second = anchor.limits
            anchor.room_at, anchor.number, anchor.rejected = resumed_at, hit.number, hit.rejected
            anchor.tokens_sent_before = hit.tokens_sent_before
        elif not anchor.accepted and anchor.sent_before >= tuning.measured_requests:
            # the first limit that was met is perhaps one for a period: all sent so far, in the time until its end
            share = anchor.sent_before / (resumed_at - self._began_at) / self.requests_per_second
            self.requests_per_second *= min(1.0, share)
            self.tokens_per_second *= min(1.0, share)
            anchor.room_at = resumed_at
        elif anchor.accepted >= tuning.measured_requests:
            anchor.seconds += resumed_at - anchor.room_at
            anchor.room_at = resumed_at
            self.requests_per_second = anchor.accepted / anchor.seconds
            self.tokens_per_second = anchor.tokens / anchor.seconds

    def _refill_after_pause(self, hit: LimitHit, pause_seconds: float) -> None:
        """Allow a burst of what came into the endpoint's bucket during the pause, less one large request."""
        tuning = self._tuning
        if hit.accepted < 2 * self._burst_seconds * self.requests_per_second:
            self._burst_seconds = max(tuning.burst_seconds_min, self._burst_seconds / 2)
        elif hit.accepted >= tuning.measured_well_requests:
            self._burst_seconds = min(tuning.burst_seconds, tuning.burst_growth * self._burst_seconds)
        seconds = min(tuning.refill_share * pause_seconds, self._burst_seconds)
        if self._doubted_requests_per_second:  # perhaps no bucket refilled: count only the time that the burst uses
            hit.room_at = max(hit.room_at, hit.left_at + pause_seconds - seconds / tuning.refill_share)
        if self.requests_per_second < math.inf:
            self._request_bucket.level = self.requests_per_second * seconds - 1
        if self.tokens_per_second < math.inf:
            self._token_bucket.level = self.tokens_per_second * seconds - 2 * self._tokens_per_request

    def _cubic_seconds_from(self, seconds: float) -> float:
        """K: these seconds, or as long as enough requests take to leave."""
        tuning = self._tuning
        requests = tuning.cubic_requests if seconds else tuning.cubic_requests_min
        requests += tuning.cubic_requests_strays * self._strays.share
        return max(seconds, requests / self.requests_per_second)

    def _growth(self, now: float) -> float:
        """The rate as a multiple of the limit: the cubic curve, then exponential growth."""
        tuning = self._tuning
        k = self._cubic_seconds
        growth = 1 + tuning.cubic_depth * ((now - self._epoch_at - k) / k) ** 3
        if growth <= tuning.probing_growth:
            return growth
        cubic_ends_at = self._epoch_at + k * (1 + ((tuning.probing_growth - 1) / tuning.cubic_depth) ** (1 / 3))
        if self._is_unconfirmed:
            seconds, requests = tuning.unconfirmed_doubling_seconds, tuning.unconfirmed_doubling_requests
        else:
            seconds, requests = tuning.doubling_seconds, tuning.doubling_requests
        requests += tuning.cubic_requests_strays * self._strays.share
        doubling_seconds = max(seconds, requests / self.requests_per_second)
        return tuning.probing_growth * math.exp2(min(40.0, (now - cubic_ends_at) / doubling_seconds))

    def _departures(self, now: float) -> float:
        """Requests that left a second, averaged over the last seconds."""
        return self._departures_per_second * math.exp((self._metered_at - now) / self._tuning.meter_seconds)
