"""When the next request may leave, on a clock that the test holds."""

import math

import pytest

from pipeline.job import Limits
from pipeline.records import Refusal
from pipeline.throttle import Throttle


def leaving_times(throttle: Throttle, seconds: float, tokens: float = 0.0, used: float | None = None) -> list[float]:
    """When requests leave, if one always wants to and each lands at once."""
    now, left = 0.0, []
    while now < seconds:
        wait = throttle.wait_before_next(now, 0)
        if wait > 0:
            now += wait
            continue
        throttle.left(now, tokens)
        throttle.landed(tokens, tokens if used is None else used)
        left.append(now)
        now += 1e-6
    return left


def most_in_a_minute(left: list[float]) -> int:
    return max(sum(1 for other in left if at <= other < at + 60) for at in left[:: max(1, len(left) // 50)])


@pytest.mark.parametrize("limit", [1, 7, 60, 600, 5000])
def test_no_minute_holds_more_requests_than_the_limit_and_hardly_fewer(limit: int) -> None:
    left = leaving_times(Throttle(Limits(requests_per_minute=limit), 0.0), 300)
    assert most_in_a_minute(left) <= limit
    assert len(left) >= 0.97 * limit * 5 - 1


@pytest.mark.parametrize(("expected", "used"), [(100.0, 100.0), (50.0, 100.0), (400.0, 100.0)])
def test_no_minute_holds_more_tokens_than_the_limit_but_for_the_request_that_crosses_it(
    expected: float, used: float
) -> None:
    left = leaving_times(Throttle(Limits(tokens_per_minute=60_000), 0.0), 300, expected, used)
    assert most_in_a_minute(left) * used <= 60_000 + max(expected, used)
    assert len(left) * used >= 0.95 * 60_000 * 5


def test_the_window_is_the_concurrency() -> None:
    throttle = Throttle(Limits(concurrency=3), 0.0)
    assert throttle.wait_before_next(0.0, 2) == 0
    assert throttle.wait_before_next(0.0, 3) == math.inf


def test_a_429_pauses_everyone_for_as_long_as_it_says() -> None:
    throttle = Throttle(Limits(), 0.0)
    throttle.refused(Refusal("retry", "rate", "", 429, "rate", 12.0), 0.0, 1.0)
    assert throttle.wait_before_next(1.0, 0) == pytest.approx(12.0)
    assert throttle.paused_seconds(3.0) == pytest.approx(10.0)
    assert throttle.wait_before_next(13.0, 0) == 0
    assert throttle.reason == "the endpoint asked for it"


def test_pauses_without_a_word_double_and_an_answer_ends_them() -> None:
    throttle, now, pauses = Throttle(Limits(), 0.0), 0.0, []
    for _ in range(8):
        throttle.refused(Refusal("retry", "overload", "", 503, "window"), now, now)
        pauses.append(throttle.wait_before_next(now, 0))
        now += pauses[-1]
    assert pauses == pytest.approx([1, 2, 4, 8, 15, 15, 15, 15])
    throttle.answered()
    throttle.refused(Refusal("retry", "overload", "", 503, "window"), now, now)
    assert throttle.wait_before_next(now, 0) == pytest.approx(1)


def test_refusals_of_one_moment_are_one_pause() -> None:
    throttle = Throttle(Limits(), 0.0)
    for _ in range(50):
        throttle.refused(Refusal("retry", "rate", "", 429, "rate"), 0.0, 1.0)
    assert throttle.wait_before_next(1.0, 0) == pytest.approx(1)


def test_after_a_long_pause_one_request_goes_first() -> None:
    throttle = Throttle(Limits(), 0.0)
    throttle.refused(Refusal("retry", "rate", "", 429, "rate", 30.0), 0.0, 0.0)
    assert throttle.wait_before_next(30.0, 0) == 0
    assert throttle.wait_before_next(30.0, 1) == math.inf
    throttle.answered()
    assert throttle.wait_before_next(31.0, 1) == 0


def test_a_refusal_that_presses_nothing_pauses_nobody() -> None:
    throttle = Throttle(Limits(), 0.0)
    throttle.refused(Refusal("row", "too_long", "", 400), 0.0, 0.0)
    assert throttle.wait_before_next(0.0, 0) == 0
