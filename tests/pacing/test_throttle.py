"""The throttle on a clock that the test holds: the user's limits, pauses, and the two kinds of pressure."""

import random
from itertools import pairwise

import pytest
from driven_throttle import TIMEOUT, USED, answer, drive, driven, overload, send, too_many

from pipeline.job.sections import Limits
from pipeline.pacing.throttle import Throttle
from pipeline.pacing.tokens import TokenEstimate
from pipeline.records import Allowance, LearnedLimits, Rejection, Usage


def most_in_a_minute(left: list[tuple[float, int]]) -> tuple[int, int]:
    """Requests, and tokens, of the fullest 60 s among all that begin with a request."""
    most, most_tokens, end, tokens = 0, 0, 0, 0
    for begin, (at, used) in enumerate(left):
        while end < len(left) and left[end][0] < at + 60:
            tokens += left[end][1]
            end += 1
        most, most_tokens = max(most, end - begin), max(most_tokens, tokens)
        tokens -= used
    return most, most_tokens


@pytest.mark.parametrize("limit", [1, 7, 60, 600, 5000])
def test_no_minute_holds_more_requests_than_the_users_limit_and_hardly_fewer(limit: int) -> None:
    left = drive(Throttle(Limits(requests_per_minute=limit, concurrency=200), 0.0), 300)
    assert most_in_a_minute(left)[0] <= limit
    assert len(left) >= 0.97 * limit * 5 - 1


@pytest.mark.parametrize("guessed", [0.5, 1.0, 4.0])
def test_no_minute_holds_more_tokens_than_the_users_limit_but_for_the_request_that_crosses_it(guessed: float) -> None:
    rng = random.Random(1)

    def usage() -> Usage:
        return Usage(round(rng.lognormvariate(5, 0.4)), round(rng.lognormvariate(3, 0.8)))

    throttle = Throttle(Limits(tokens_per_minute=60_000), 0.0, estimate=TokenEstimate(guessed * 0.25, guessed * 30))
    left = drive(throttle, 600, usage=usage)
    assert most_in_a_minute(left)[1] <= 60_000 + max(tokens for _, tokens in left)
    assert sum(tokens for _, tokens in left) >= 0.95 * 60_000 * 10


def test_the_users_limit_holds_whatever_was_learned_or_reported_by_headers() -> None:
    throttle = Throttle(Limits(requests_per_minute=60), 0.0, LearnedLimits(6000, None, 100))
    assert most_in_a_minute(drive(throttle, 180))[0] <= 60
    throttle = Throttle(Limits(requests_per_minute=60), 0.0)
    throttle.on_answer(throttle.on_sent(0.0, 400), USED, Allowance(requests_per_minute=6000), 1.0)
    assert most_in_a_minute([(0.0, 0), *drive(throttle, 180, since=1.0)])[0] <= 60


def test_tokens_of_a_rejected_request_are_given_back_unless_it_may_have_been_billed() -> None:
    def wait_after(rejection: Rejection) -> float:
        throttle = Throttle(Limits(tokens_per_minute=6000), 0.0, estimate=TokenEstimate(1.0, 0.0))
        throttle.on_rejection(throttle.on_sent(0.0, 1000), rejection, 0.1)
        return throttle.wait_before_next(0.1)

    assert wait_after(Rejection("retry", "odd", "")) == 0
    assert wait_after(Rejection("retry", "timeout", "", maybe_paid=True)) == pytest.approx(1000 / 98.5 - 0.1)
    assert wait_after(Rejection("retry", "odd", "", usage=Usage(300, 100))) == pytest.approx(400 / 98.5 - 0.1)


# ---- pauses


def test_a_429_pauses_everyone_for_as_long_as_it_says() -> None:
    throttle = driven(20)
    throttle.on_rejection(send(throttle, 2, 20.0)[0], too_many(12.0), 21.0)
    assert throttle.wait_before_next(21.0) == pytest.approx(12.0)
    assert throttle.paused_seconds(23.0) == pytest.approx(10.0)
    assert not throttle.cause
    assert throttle.wait_before_next(32.9) > 0
    assert throttle.wait_before_next(33.0) < 0.1


def test_an_overload_with_retry_after_pauses_everyone_for_as_long_as_it_says() -> None:
    throttle = driven(20)
    throttle.on_rejection(send(throttle, 2, 20.0)[0], overload(7.0), 21.0)
    assert throttle.wait_before_next(21.0) == pytest.approx(7.0)
    assert not throttle.cause


def test_pauses_without_retry_after_grow_with_the_time_without_success_up_to_a_minute() -> None:
    throttle, now, pauses = Throttle(Limits(), 0.0), 0.0, []
    while now < 3600:
        throttle.on_rejection(throttle.on_sent(now, 400), too_many(), now)
        pauses.append(throttle.paused_seconds(now))
        now += pauses[-1]
    assert pauses[0] == 1.0
    assert all(later > before - 1e-6 for before, later in pairwise(pauses))
    assert pauses[-1] == 60.0
    assert len(pauses) < 100
    assert throttle.cause == "after HTTP 429"


def test_an_answer_ends_the_growth_of_pauses() -> None:
    throttle, now = Throttle(Limits(), 0.0), 0.0
    while now < 600:
        throttle.on_rejection(throttle.on_sent(now, 400), too_many(), now)
        now += throttle.paused_seconds(now)
    answer(throttle, throttle.on_sent(now, 400), now + 1)
    throttle.on_rejection(throttle.on_sent(now + 2, 400), too_many(), now + 2)
    assert throttle.paused_seconds(now + 2) == 1.0


def test_one_or_two_overloads_pause_nobody_and_a_third_without_an_answer_does() -> None:
    throttle = Throttle(Limits(), 0.0)
    flights = send(throttle, 4)
    throttle.on_rejection(flights[0], overload(), 0.1)
    throttle.on_rejection(flights[1], overload(), 0.1)
    assert throttle.paused_seconds(0.1) == 0
    answer(throttle, flights[2], 0.1)
    throttle.on_rejection(flights[3], overload(), 0.1)
    assert throttle.paused_seconds(0.1) == 0
    for _ in range(2):
        throttle.on_rejection(throttle.on_sent(0.1, 400), overload(), 0.2)
    assert throttle.paused_seconds(0.2) == 1.0


def test_rejections_of_one_moment_are_one_episode() -> None:
    once, often = Throttle(Limits(), 0.0), Throttle(Limits(), 0.0)
    for throttle, rejections in ((once, 1), (often, 50)):
        for flight in send(throttle, 50)[:rejections]:
            throttle.on_rejection(flight, too_many(), 1.0)
    assert often.paused_seconds(1.0) == once.paused_seconds(1.0) == 1.0
    assert often.learned() == once.learned()
    again, paused = often.on_sent(2.0, 400), often.paused_seconds(2.0)
    assert paused == 0
    often.on_rejection(again, too_many(), 2.2)
    assert often.paused_seconds(2.2) == 1.0


def test_a_longer_retry_after_of_the_same_moment_is_kept_for_everyone() -> None:
    throttle = Throttle(Limits(), 0.0)
    first, second = send(throttle, 2)
    throttle.on_rejection(first, too_many(2.0), 1.0)
    throttle.on_rejection(second, too_many(9.0), 1.5)
    assert throttle.wait_before_next(1.5) == pytest.approx(9.0)


def test_after_a_long_pause_one_request_goes_first_and_its_answer_lets_the_others_leave() -> None:
    throttle = driven(20)
    throttle.on_rejection(throttle.on_sent(20.0, 400), too_many(30.0), 20.2)
    assert throttle.wait_before_next(50.2) < 0.1
    first = throttle.on_sent(50.2, 400)
    assert throttle.wait_before_next(50.3) > 0.8
    answer(throttle, first, 50.4)
    assert throttle.wait_before_next(50.4) < 0.1


def test_a_first_request_that_is_not_rejected_in_time_is_taken_for_accepted_before_its_answer() -> None:
    throttle = driven(20)
    throttle.on_rejection(throttle.on_sent(20.0, 400), too_many(30.0), 20.2)
    throttle.on_sent(50.2, 400)
    assert 0.9 <= throttle.wait_before_next(50.3) <= 2
    assert throttle.wait_before_next(52.3) == 0


def test_after_a_second_pause_in_a_row_one_request_goes_first_too() -> None:
    throttle = driven(20)
    throttle.on_rejection(throttle.on_sent(20.0, 400), too_many(1.0), 20.2)
    throttle.on_sent(21.2, 400)
    assert throttle.wait_before_next(21.2) < 0.1
    throttle.on_rejection(throttle.on_sent(21.2, 400), too_many(1.0), 21.4)
    throttle.on_sent(22.4, 400)
    assert throttle.wait_before_next(22.4) >= 1


def test_a_rejection_without_pressure_pauses_nobody() -> None:
    throttle = Throttle(Limits(), 0.0)
    throttle.on_rejection(throttle.on_sent(0.0, 400), Rejection("row", "too_long", "", 400), 0.0)
    assert throttle.wait_before_next(0.0) == 0


# ---- the two kinds of pressure


def test_a_429_never_narrows_the_window() -> None:
    throttle, now = Throttle(Limits(), 0.0), 20.0
    drive(throttle, 20)
    window = throttle.window
    for _ in range(20):
        throttle.on_rejection(throttle.on_sent(now, 400), too_many(), now + 0.2)
        now += 0.2 + throttle.wait_before_next(now + 0.2)
        assert throttle.window == window


@pytest.mark.parametrize("rejection", [overload(), overload(3.0), TIMEOUT])
def test_overloads_and_timeouts_never_teach_a_rate(rejection: Rejection) -> None:
    throttle, now = Throttle(Limits(), 0.0), 20.0
    drive(throttle, 20)
    for _ in range(20):
        throttle.on_rejection(throttle.on_sent(now, 400), rejection, now + 0.2)
        now += 0.2 + throttle.paused_seconds(now + 0.2)
        assert throttle.learned().requests_per_minute is None
        assert throttle.learned().tokens_per_minute is None


# ---- limits named in words, and 429s at random


def named(requests_per_minute: float, wait_seconds: float) -> Rejection:
    allowance = Allowance(requests_per_minute)
    return Rejection("retry", "rate", "too many", 429, "rate", wait_seconds, allowance=allowance)


def test_a_limit_that_is_named_in_words_is_kept_from_then_on() -> None:
    throttle = Throttle(Limits(), 0.0)
    throttle.on_rejection(throttle.on_sent(0.0, 400), named(120, 5.0), 0.2)
    left = drive(throttle, 300, since=5.2)
    assert most_in_a_minute(left)[0] <= 120
    assert len(left) >= 0.95 * 120 * 5
    assert throttle.learned().requests_per_minute == 120


def test_a_named_limit_never_widens_the_users() -> None:
    throttle = Throttle(Limits(requests_per_minute=60), 0.0)
    throttle.on_rejection(throttle.on_sent(0.0, 400), named(600, 1.0), 0.2)
    assert most_in_a_minute(drive(throttle, 180, since=2.0))[0] <= 60


def test_a_wait_is_no_longer_than_the_named_limit_can_need_unless_that_was_too_short() -> None:
    throttle = Throttle(Limits(concurrency=4), 0.0)
    drive(throttle, 20)  # four a second
    throttle.on_rejection(throttle.on_sent(20.0, 400), named(80, 60.0), 20.2)
    assert 38 <= throttle.paused_seconds(20.2) <= 43
    again = 20.2 + throttle.paused_seconds(20.2)
    throttle.on_rejection(throttle.on_sent(again, 400), named(80, 60.0), again + 0.2)
    assert throttle.paused_seconds(again + 0.2) == pytest.approx(60.0)


def test_a_named_limit_that_was_far_exceeded_is_not_the_one_that_was_hit() -> None:
    throttle = Throttle(Limits(concurrency=20), 0.0)
    drive(throttle, 60)
    throttle.on_rejection(throttle.on_sent(60.0, 400), named(10, 1.0), 60.2)
    assert (throttle.learned().requests_per_minute or 0) > 100


def test_429s_at_random_end_in_waits_of_their_own_rows_and_teach_no_limit() -> None:
    throttle, rng, now, paused = Throttle(Limits(concurrency=8), 0.0), random.Random(3), 0.0, 0.0
    for number in range(2000):
        now += max(0.05, throttle.wait_before_next(now))
        flight = throttle.on_sent(now, 400)
        if rng.random() < 0.05:
            throttle.on_rejection(flight, too_many(1.0), now + 0.01)
            paused += throttle.paused_seconds(now + 0.01) if number > 1000 else 0.0
        else:
            answer(throttle, flight, now + 0.04)
    assert paused == 0
    assert throttle.learned().requests_per_minute is None
