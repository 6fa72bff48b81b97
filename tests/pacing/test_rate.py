"""The rate limit that is learned from 429s, headers and earlier runs, and the rate that follows from it."""

import math

import pytest
from driven_throttle import USED, answer, drive, send, too_many

from pipeline.job.sections import Limits
from pipeline.pacing.in_flight import InFlight
from pipeline.pacing.rate import Rate
from pipeline.pacing.strays import Strays
from pipeline.pacing.throttle import Throttle
from pipeline.pacing.tuning import DEFAULT_TUNING
from pipeline.records import Allowance, LearnedLimits


def test_the_first_429_teaches_a_rate_below_the_one_at_which_requests_left_and_tokens_in_proportion() -> None:
    throttle = Throttle(Limits(concurrency=50), 0.0)
    left = drive(throttle, 30)
    a_minute = 60 * sum(1 for at, _ in left if at >= 10) / 20
    throttle.on_rejection(throttle.on_sent(30.0, 400), too_many(), 30.2)
    learned = throttle.learned()
    assert learned.requests_per_minute == pytest.approx(0.85 * a_minute, rel=0.15)
    assert learned.tokens_per_minute == pytest.approx(100 * learned.requests_per_minute, rel=0.01)


def test_requests_accepted_between_two_hits_of_the_limit_measure_the_limit() -> None:
    throttle = Throttle(Limits(concurrency=50), 0.0)
    now = 0.0
    for _ in range(4):  # ten leave a second, even if the throttle says no; every twenty seconds two are rejected
        for _ in range(200):
            now += 0.1
            answer(throttle, throttle.on_sent(now, 400), now + 0.01)
        for flight in send(throttle, 2, now):
            throttle.on_rejection(flight, too_many(0.0), now + 0.01)
        throttle.wait_before_next(now + 0.02)
    assert throttle.learned().requests_per_minute == pytest.approx(600, rel=0.01)
    assert throttle.learned().tokens_per_minute == pytest.approx(60_000, rel=0.01)


def test_a_single_429_teaches_nothing_that_outlasts_half_a_minute() -> None:
    throttle = Throttle(Limits(concurrency=32), 0.0)
    drive(throttle, 60)
    throttle.on_rejection(throttle.on_sent(60.0, 400), too_many(12.0), 60.2)
    drive(throttle, 30, since=72.2)
    assert len(drive(throttle, 10, since=102.2)) > 0.9 * 320


def test_a_run_starts_from_the_limits_that_the_run_before_learned() -> None:
    throttle = Throttle(Limits(), 0.0, LearnedLimits(600, 60_000, 40))
    assert throttle.window == 20
    assert throttle.learned() == LearnedLimits(600, 60_000, 20)
    left = drive(throttle, 60)
    assert 0.95 * 600 <= len(left) <= 1.02 * 600


def test_limits_learned_long_ago_are_probed_soon_and_from_a_narrow_window() -> None:
    def leave_in(seconds: float, age_seconds: float) -> int:
        return len(drive(Throttle(Limits(), 0.0, LearnedLimits(600, None, 40, age_seconds)), seconds))

    assert Throttle(Limits(), 0.0, LearnedLimits(600, None, 40, 7200)).window == 8
    assert leave_in(60, 7200) > 1.1 * leave_in(60, 0)


def test_headers_give_the_rate_until_one_is_known_and_a_limit_of_0_is_none() -> None:
    throttle = Throttle(Limits(), 0.0)
    throttle.on_answer(throttle.on_sent(0.0, 400), USED, Allowance(requests_per_minute=0), 1.0)
    assert throttle.learned().requests_per_minute is None
    throttle.on_answer(throttle.on_sent(1.0, 400), USED, Allowance(requests_per_minute=1000), 2.0)
    assert throttle.learned().requests_per_minute == pytest.approx(950)
    assert throttle.learned().tokens_per_minute is None
    throttle.on_answer(throttle.on_sent(2.0, 400), USED, Allowance(requests_per_minute=10), 3.0)
    assert throttle.learned().requests_per_minute == pytest.approx(950)


def request(number: int, left_at: float) -> InFlight:
    return InFlight(number, left_at, 1, 400, 100.0, 100.0, 100.0 * (number - 1))


def rate_after_a_hit() -> Rate:
    """A rate at ten requests a second, whose limit was hit at 0 s by two requests of one moment."""
    rate = Rate(0.0, DEFAULT_TUNING, Strays(DEFAULT_TUNING))
    rate.seed(600.0, None, DEFAULT_TUNING.cubic_seconds, 0.0)
    rate.on_limit_hit(request(1, 0.0), 1, 1.0, 0.0)
    rate.add_to_hit(request(2, 0.0))
    rate.resume(0.0)
    return rate


def test_after_a_429_the_rate_begins_below_the_limit_is_flat_near_it_and_then_probes_beyond() -> None:
    rate = rate_after_a_hit()
    k = DEFAULT_TUNING.cubic_seconds_min  # the limit was not measured yet

    def growth(seconds: float) -> float:
        return rate._growth(seconds)

    assert growth(0.0) == pytest.approx(1 - DEFAULT_TUNING.cubic_depth)
    assert growth(0.75 * k) == pytest.approx(1, abs=0.001)
    assert growth(k) == 1
    assert growth(1.25 * k) == pytest.approx(1, abs=0.001)
    assert 1.05 < growth(2.3 * k) < DEFAULT_TUNING.probing_growth
    # beyond the cubic curve it doubles in 15 s
    assert growth(5 * k + DEFAULT_TUNING.doubling_seconds) == pytest.approx(2 * growth(5 * k))


def test_a_limit_hit_empties_the_bucket_and_the_next_request_waits_for_a_refill() -> None:
    rate = rate_after_a_hit()
    rate.refill(0.0)
    assert rate.seconds_to_wait() == pytest.approx(0.2, rel=0.05)  # two requests are due, at ten a second
    rate.refill(1.0)
    assert rate.seconds_to_wait() <= 0


def test_a_rate_without_a_limit_holds_nobody_up() -> None:
    rate = Rate(0.0, DEFAULT_TUNING, Strays(DEFAULT_TUNING))
    for number in range(1000):
        rate.on_sent(100.0, 0.0)
        assert rate.seconds_to_wait() <= 0, number
    assert not rate.is_known
    assert rate.requests_per_second == math.inf
