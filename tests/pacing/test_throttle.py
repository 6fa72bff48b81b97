"""When the next request may leave, on a clock that the test holds."""

import heapq
import math
import random
import tracemalloc
from collections.abc import Callable
from itertools import count, pairwise

import pytest

from pipeline.job.sections import Limits
from pipeline.pacing.throttle import InFlight, Throttle, TokenEstimate
from pipeline.records import Allowance, LearnedLimits, Rejection, Usage

NOTHING_SAID = Allowance()
USED = Usage(80, 20)


def too_many(wait: float | None = None) -> Rejection:
    return Rejection("retry", "rate", "too many", 429, "rate", wait)


def busy(wait: float | None = None) -> Rejection:
    return Rejection("retry", "overload", "busy", 503, "window", wait)


TIMEOUT = Rejection("retry", "timeout", "no answer", None, "window")


def answered(throttle: Throttle, flight: InFlight, now: float, usage: Usage = USED) -> None:
    throttle.on_answer(flight, usage, NOTHING_SAID, now)


def leave(throttle: Throttle, times: int, now: float = 0.0) -> list[InFlight]:
    return [throttle.on_sent(now, 400) for _ in range(times)]


def drive(
    throttle: Throttle,
    seconds: float,
    *,
    latency: float = 1.0,
    usage: Callable[[], Usage] = lambda: USED,
    since: float = 0.0,
) -> list[tuple[float, int]]:
    """When requests left, and the tokens of each, if one always wants to and all are answered."""
    now, left, flying, order = since, [], [], count()
    while now < since + seconds:
        wait = throttle.wait_before_next(now)
        lands = flying[0][0] if flying else math.inf
        if wait <= 0:
            used = usage()
            left.append((now, (used.prompt_tokens or 0) + (used.completion_tokens or 0)))
            flight = throttle.on_sent(now, 4 * (used.prompt_tokens or 0))
            heapq.heappush(flying, (now + latency, next(order), flight, used))
        elif lands <= now + wait:
            now, _, flight, used = heapq.heappop(flying)
            answered(throttle, flight, now, used)
        else:
            now += wait
    for _, _, flight, used in flying:
        answered(throttle, flight, now, used)
    return left


def busy_for(seconds: float, **limits: int) -> Throttle:
    """One that has asked and been answered for so long."""
    throttle = Throttle(Limits(**limits), 0.0)
    drive(throttle, seconds, latency=0.5)
    return throttle


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


# ---- limits that the user set


@pytest.mark.parametrize("limit", [1, 7, 60, 600, 5000])
def test_no_minute_holds_more_requests_than_the_limit_and_hardly_fewer(limit: int) -> None:
    left = drive(Throttle(Limits(requests_per_minute=limit, concurrency=200), 0.0), 300)
    assert most_in_a_minute(left)[0] <= limit
    assert len(left) >= 0.97 * limit * 5 - 1


@pytest.mark.parametrize("guessed", [0.5, 1.0, 4.0])
def test_no_minute_holds_more_tokens_than_the_limit_but_for_the_request_that_crosses_it(guessed: float) -> None:
    rng = random.Random(1)

    def usage() -> Usage:
        return Usage(round(rng.lognormvariate(5, 0.4)), round(rng.lognormvariate(3, 0.8)))

    throttle = Throttle(Limits(tokens_per_minute=60_000), 0.0, estimate=TokenEstimate(guessed * 0.25, guessed * 30))
    left = drive(throttle, 600, usage=usage)
    assert most_in_a_minute(left)[1] <= 60_000 + max(tokens for _, tokens in left)
    assert sum(tokens for _, tokens in left) >= 0.95 * 60_000 * 10


def test_a_limit_that_the_user_set_holds_whatever_was_learnt_or_told_by_headers() -> None:
    throttle = Throttle(Limits(requests_per_minute=60), 0.0, LearnedLimits(6000, None, 100))
    assert most_in_a_minute(drive(throttle, 180))[0] <= 60
    throttle = Throttle(Limits(requests_per_minute=60), 0.0)
    throttle.on_answer(throttle.on_sent(0.0, 400), USED, Allowance(requests_per_minute=6000), 1.0)
    assert most_in_a_minute([(0.0, 0), *drive(throttle, 180, since=1.0)])[0] <= 60


def test_tokens_of_a_refused_request_are_given_back_unless_it_may_have_been_billed() -> None:
    def wait_after(refusal: Rejection) -> float:
        throttle = Throttle(Limits(tokens_per_minute=6000), 0.0, estimate=TokenEstimate(1.0, 0.0))
        throttle.on_rejection(throttle.on_sent(0.0, 1000), refusal, 0.1)
        return throttle.wait_before_next(0.1)

    assert wait_after(Rejection("retry", "odd", "")) == 0
    assert wait_after(Rejection("retry", "timeout", "", maybe_paid=True)) == pytest.approx(1000 / 98.5 - 0.1)
    assert wait_after(Rejection("retry", "odd", "", usage=Usage(300, 100))) == pytest.approx(400 / 98.5 - 0.1)


# ---- the window


def test_so_many_are_in_flight_as_the_user_said_and_each_landing_makes_room() -> None:
    throttle = Throttle(Limits(concurrency=3), 0.0)
    flights = leave(throttle, 2)
    assert throttle.wait_before_next(0.0) == 0
    flights += leave(throttle, 1)
    assert throttle.wait_before_next(0.0) == math.inf
    answered(throttle, flights[0], 1.0)
    assert throttle.wait_before_next(1.0) == 0
    leave(throttle, 1, 1.0)
    throttle.on_abandoned()
    assert throttle.wait_before_next(1.0) == 0
    leave(throttle, 1, 1.0)
    throttle.on_rejection(flights[1], Rejection("row", "too_long", "", 400), 1.0)
    assert throttle.wait_before_next(1.0) == 0


def test_the_window_opens_from_8_while_answers_are_as_quick_as_before() -> None:
    throttle = Throttle(Limits(), 0.0)
    assert throttle.window == 8
    drive(throttle, 20)
    assert throttle.window > 100


def test_the_window_never_opens_beyond_what_the_user_said() -> None:
    throttle = Throttle(Limits(concurrency=12), 0.0)
    drive(throttle, 20)
    assert throttle.window == 12


def test_an_overload_leaves_the_window_one_below_where_it_was_met() -> None:
    throttle = Throttle(Limits(concurrency=40), 0.0)
    flights = leave(throttle, 33)
    throttle.on_rejection(flights[-1], busy(), 0.2)
    assert throttle.window == 32


def test_a_429_never_narrows_the_window() -> None:
    throttle, now = Throttle(Limits(), 0.0), 20.0
    drive(throttle, 20)
    window = throttle.window
    for _ in range(20):
        throttle.on_rejection(throttle.on_sent(now, 400), too_many(), now + 0.2)
        now += 0.2 + throttle.wait_before_next(now + 0.2)
        assert throttle.window == window


@pytest.mark.parametrize("refusal", [busy(), busy(3.0), TIMEOUT])
def test_overloads_and_timeouts_never_teach_a_rate(refusal: Rejection) -> None:
    throttle, now = Throttle(Limits(), 0.0), 20.0
    drive(throttle, 20)
    for _ in range(20):
        throttle.on_rejection(throttle.on_sent(now, 400), refusal, now + 0.2)
        now += 0.2 + throttle.paused_seconds(now + 0.2)
        assert throttle.learned().requests_per_minute is None
        assert throttle.learned().tokens_per_minute is None


# ---- pauses


def test_a_429_pauses_everyone_for_as_long_as_it_says() -> None:
    throttle = busy_for(20)
    throttle.on_rejection(leave(throttle, 2, 20.0)[0], too_many(12.0), 21.0)
    assert throttle.wait_before_next(21.0) == pytest.approx(12.0)
    assert throttle.paused_seconds(23.0) == pytest.approx(10.0)
    assert not throttle.cause
    assert throttle.wait_before_next(32.9) > 0
    assert throttle.wait_before_next(33.0) < 0.1


def test_an_overload_that_says_how_long_pauses_everyone_so_long() -> None:
    throttle = busy_for(20)
    throttle.on_rejection(leave(throttle, 2, 20.0)[0], busy(7.0), 21.0)
    assert throttle.wait_before_next(21.0) == pytest.approx(7.0)
    assert not throttle.cause


def test_pauses_without_a_word_grow_with_the_time_that_nothing_went_through_up_to_a_minute() -> None:
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
    answered(throttle, throttle.on_sent(now, 400), now + 1)
    throttle.on_rejection(throttle.on_sent(now + 2, 400), too_many(), now + 2)
    assert throttle.paused_seconds(now + 2) == 1.0


def test_one_or_two_overloads_pause_nobody_and_a_third_without_an_answer_does() -> None:
    throttle = Throttle(Limits(), 0.0)
    flights = leave(throttle, 4)
    throttle.on_rejection(flights[0], busy(), 0.1)
    throttle.on_rejection(flights[1], busy(), 0.1)
    assert throttle.paused_seconds(0.1) == 0
    answered(throttle, flights[2], 0.1)
    throttle.on_rejection(flights[3], busy(), 0.1)
    assert throttle.paused_seconds(0.1) == 0
    for _ in range(2):
        throttle.on_rejection(throttle.on_sent(0.1, 400), busy(), 0.2)
    assert throttle.paused_seconds(0.2) == 1.0


def test_an_outage_leaves_the_window_as_it_was() -> None:
    throttle, now = busy_for(20, concurrency=40), 20.0
    for _ in range(30):
        throttle.on_rejection(throttle.on_sent(now, 400), TIMEOUT, now + 0.2)
        now += 0.2 + throttle.paused_seconds(now + 0.2)
    assert throttle.window == 40


def test_refusals_of_one_moment_are_one_episode() -> None:
    once, often = Throttle(Limits(), 0.0), Throttle(Limits(), 0.0)
    for throttle, refusals in ((once, 1), (often, 50)):
        for flight in leave(throttle, 50)[:refusals]:
            throttle.on_rejection(flight, too_many(), 1.0)
    assert often.paused_seconds(1.0) == once.paused_seconds(1.0) == 1.0
    assert often.learnt() == once.learnt()
    again, paused = often.left(2.0, 400), often.paused_seconds(2.0)
    assert paused == 0
    often.refused(again, too_many(), 2.2)
    assert often.paused_seconds(2.2) == 1.0


def test_a_longer_wait_told_to_a_request_of_the_same_moment_is_kept_for_all() -> None:
    throttle = Throttle(Limits(), 0.0)
    first, second = leave(throttle, 2)
    throttle.on_rejection(first, too_many(2.0), 1.0)
    throttle.on_rejection(second, too_many(9.0), 1.5)
    assert throttle.wait_before_next(1.5) == pytest.approx(9.0)


def test_after_a_long_pause_one_goes_first_and_its_answer_lets_the_others_leave() -> None:
    throttle = busy_for(20)
    throttle.on_rejection(throttle.on_sent(20.0, 400), too_many(30.0), 20.2)
    assert throttle.wait_before_next(50.2) < 0.1
    first = throttle.on_sent(50.2, 400)
    assert throttle.wait_before_next(50.3) > 0.8
    answered(throttle, first, 50.4)
    assert throttle.wait_before_next(50.4) < 0.1


def test_one_that_goes_first_and_is_not_refused_in_time_is_consent_however_long_its_answer_takes() -> None:
    throttle = busy_for(20)
    throttle.on_rejection(throttle.on_sent(20.0, 400), too_many(30.0), 20.2)
    throttle.on_sent(50.2, 400)
    assert 0.9 <= throttle.wait_before_next(50.3) <= 2
    assert throttle.wait_before_next(52.3) == 0


def test_after_a_second_pause_in_a_row_one_goes_first_too() -> None:
    throttle = busy_for(20)
    throttle.on_rejection(throttle.on_sent(20.0, 400), too_many(1.0), 20.2)
    throttle.on_sent(21.2, 400)
    assert throttle.wait_before_next(21.2) < 0.1
    throttle.on_rejection(throttle.on_sent(21.2, 400), too_many(1.0), 21.4)
    throttle.on_sent(22.4, 400)
    assert throttle.wait_before_next(22.4) >= 1


def test_a_refusal_that_presses_nothing_pauses_nobody() -> None:
    throttle = Throttle(Limits(), 0.0)
    throttle.on_rejection(throttle.on_sent(0.0, 400), Rejection("row", "too_long", "", 400), 0.0)
    assert throttle.wait_before_next(0.0) == 0


# ---- what is learnt


def test_the_first_429_teaches_a_rate_below_what_left_and_tokens_in_proportion() -> None:
    throttle = Throttle(Limits(concurrency=50), 0.0)
    left = drive(throttle, 30)
    a_minute = 60 * sum(1 for at, _ in left if at >= 10) / 20
    throttle.on_rejection(throttle.on_sent(30.0, 400), too_many(), 30.2)
    learnt = throttle.learned()
    assert learnt.requests_per_minute == pytest.approx(0.85 * a_minute, rel=0.15)
    assert learnt.tokens_per_minute == pytest.approx(100 * learnt.requests_per_minute, rel=0.01)


def test_what_was_accepted_between_two_meetings_of_the_limit_is_the_limit() -> None:
    throttle = Throttle(Limits(concurrency=50), 0.0)
    now = 0.0
    for _ in range(4):  # ten leave a second, whatever the throttle says; each twenty seconds two are refused
        for _ in range(200):
            now += 0.1
            answered(throttle, throttle.on_sent(now, 400), now + 0.01)
        for flight in leave(throttle, 2, now):
            throttle.on_rejection(flight, too_many(0.0), now + 0.01)
        throttle.wait_before_next(now + 0.02)
    assert throttle.learned().requests_per_minute == pytest.approx(600, rel=0.01)
    assert throttle.learned().tokens_per_minute == pytest.approx(60_000, rel=0.01)


def test_a_refusal_alone_teaches_nothing_that_outlasts_half_a_minute() -> None:
    throttle = Throttle(Limits(concurrency=32), 0.0)
    drive(throttle, 60)
    throttle.on_rejection(throttle.on_sent(60.0, 400), too_many(12.0), 60.2)
    drive(throttle, 30, since=72.2)
    assert len(drive(throttle, 10, since=102.2)) > 0.9 * 320


def test_a_window_is_told_once_it_was_found() -> None:
    throttle = Throttle(Limits(), 0.0)
    answered(throttle, throttle.on_sent(0.0, 400), 1.0)
    assert throttle.learned() == LearnedLimits(None, None, 0)
    drive(throttle, 20, since=1.0)
    assert throttle.learned().window == throttle.window > 100
    told = Throttle(Limits(concurrency=12), 0.0)
    drive(told, 20)
    assert told.learnt().window == 0
    told.refused(leave(told, 12, 20.0)[-1], busy(), 20.2)
    assert told.learnt().window == 11


def test_a_run_starts_from_what_the_one_before_learnt() -> None:
    throttle = Throttle(Limits(), 0.0, LearnedLimits(600, 60_000, 40))
    assert throttle.window == 20
    assert throttle.learned() == LearnedLimits(600, 60_000, 20)
    left = drive(throttle, 60)
    assert 0.95 * 600 <= len(left) <= 1.02 * 600


def test_what_was_learnt_long_ago_is_probed_soon_and_from_a_narrow_window() -> None:
    def leave_in(seconds: float, age_seconds: float) -> int:
        return len(drive(Throttle(Limits(), 0.0, LearnedLimits(600, None, 40, age_seconds)), seconds))

    assert Throttle(Limits(), 0.0, LearnedLimits(600, None, 40, 7200)).window == 8
    assert leave_in(60, 7200) > 1.1 * leave_in(60, 0)


def test_headers_tell_the_rate_until_one_is_known_and_no_limit_is_no_rate() -> None:
    throttle = Throttle(Limits(), 0.0)
    throttle.on_answer(throttle.on_sent(0.0, 400), USED, Allowance(requests_per_minute=0), 1.0)
    assert throttle.learned().requests_per_minute is None
    throttle.on_answer(throttle.on_sent(1.0, 400), USED, Allowance(requests_per_minute=1000), 2.0)
    assert throttle.learned().requests_per_minute == pytest.approx(950)
    assert throttle.learned().tokens_per_minute is None
    throttle.on_answer(throttle.on_sent(2.0, 400), USED, Allowance(requests_per_minute=10), 3.0)
    assert throttle.learned().requests_per_minute == pytest.approx(950)


# ---- tokens by size


@pytest.mark.parametrize(("tokens_per_byte", "frame"), [(0.23, 9), (0.47, 4), (0.6, 30)])
def test_the_estimate_calibrates_itself_to_a_percent_or_two(tokens_per_byte: float, frame: int) -> None:
    rng, estimate = random.Random(2), TokenEstimate()

    def row() -> tuple[int, Usage]:
        size = round(rng.lognormvariate(6, 0.6))
        return size, Usage(round(frame + size * tokens_per_byte * rng.gauss(1, 0.05)), 20)

    for _ in range(100):
        estimate.learn(*row())
    rows = [row() for _ in range(1000)]
    expected = sum(estimate.tokens(size)[0] for size, _ in rows)
    used = sum((usage.prompt_tokens or 0) + 20 for _, usage in rows)
    assert expected == pytest.approx(used, rel=0.02)


def test_rows_of_one_size_are_estimated_by_their_ratio() -> None:
    estimate = TokenEstimate()
    for _ in range(20):
        estimate.learn(1000, Usage(300, 0))
    assert estimate.tokens(1000)[0] == pytest.approx(300)
    assert estimate.tokens(2000)[0] == pytest.approx(600)


def test_what_is_hardly_exceeded_is_a_high_quantile_of_the_completions() -> None:
    rng, estimate = random.Random(3), TokenEstimate(0.0, 0.0)
    for _ in range(300):
        estimate.learn(100, Usage(None, rng.randrange(100)))
    likely, most = estimate.tokens(100)
    assert likely == pytest.approx(50, abs=8)
    assert most == pytest.approx(80, abs=8)


def test_until_the_first_answer_the_guess_that_was_given_counts() -> None:
    assert TokenEstimate(0.25, 100.0).tokens(400) == (200.0, 200.0)


def test_a_run_that_never_fills_its_window_remembers_no_more_the_longer_it_lasts() -> None:
    throttle = Throttle(Limits(concurrency=1024), 0.0)

    def one_by_one(requests: int) -> None:
        for _ in range(requests):
            answered(throttle, throttle.on_sent(0.0, 300), 1.0)

    one_by_one(5_000)
    tracemalloc.start()
    one_by_one(20_000)
    grown_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown_bytes < 300_000
