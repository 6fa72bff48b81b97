"""The congestion window: how it opens, how overloads narrow it, and when it is worth remembering."""

import math
import tracemalloc

from driven_throttle import TIMEOUT, answer, drive, driven, overload, send

from pipeline.job.sections import Limits
from pipeline.pacing.in_flight import InFlight
from pipeline.pacing.throttle import Throttle
from pipeline.pacing.tuning import DEFAULT_TUNING
from pipeline.pacing.window import Window
from pipeline.records import LearnedLimits, Rejection


def test_the_users_number_of_requests_is_in_flight_and_each_that_ends_makes_room() -> None:
    throttle = Throttle(Limits(concurrency=3), 0.0)
    flights = send(throttle, 2)
    assert throttle.wait_before_next(0.0) == 0
    flights += send(throttle, 1)
    assert throttle.wait_before_next(0.0) == math.inf
    answer(throttle, flights[0], 1.0)
    assert throttle.wait_before_next(1.0) == 0
    send(throttle, 1, 1.0)
    throttle.on_abandoned()
    assert throttle.wait_before_next(1.0) == 0
    send(throttle, 1, 1.0)
    throttle.on_rejection(flights[1], Rejection("row", "too_long", "", 400), 1.0)
    assert throttle.wait_before_next(1.0) == 0


def test_in_slow_start_the_window_opens_from_8_while_answers_are_as_quick_as_before() -> None:
    throttle = Throttle(Limits(), 0.0)
    assert throttle.window == 8
    drive(throttle, 20)
    assert throttle.window > 100


def test_the_window_never_opens_beyond_the_users_number() -> None:
    throttle = Throttle(Limits(concurrency=12), 0.0)
    drive(throttle, 20)
    assert throttle.window == 12


def test_an_overload_leaves_the_window_one_below_where_it_was_met() -> None:
    throttle = Throttle(Limits(concurrency=40), 0.0)
    flights = send(throttle, 33)
    throttle.on_rejection(flights[-1], overload(), 0.2)
    assert throttle.window == 32


def test_an_outage_leaves_the_window_as_it_was() -> None:
    throttle, now = driven(20, concurrency=40), 20.0
    for _ in range(30):
        throttle.on_rejection(throttle.on_sent(now, 400), TIMEOUT, now + 0.2)
        now += 0.2 + throttle.paused_seconds(now + 0.2)
    assert throttle.window == 40


def test_a_window_is_reported_once_it_was_found() -> None:
    throttle = Throttle(Limits(), 0.0)
    answer(throttle, throttle.on_sent(0.0, 400), 1.0)
    assert throttle.learned() == LearnedLimits(None, None, 0)
    drive(throttle, 20, since=1.0)
    assert throttle.learned().window == throttle.window > 100
    by_user = Throttle(Limits(concurrency=12), 0.0)
    drive(by_user, 20)
    assert by_user.learned().window == 0
    by_user.on_rejection(send(by_user, 12, 20.0)[-1], overload(), 20.2)
    assert by_user.learned().window == 11


def test_a_run_that_never_fills_its_window_needs_no_more_memory_the_longer_it_lasts() -> None:
    throttle = Throttle(Limits(concurrency=1024), 0.0)

    def one_by_one(requests: int) -> None:
        for _ in range(requests):
            answer(throttle, throttle.on_sent(0.0, 300), 1.0)

    one_by_one(5_000)
    tracemalloc.start()
    one_by_one(20_000)
    grown_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown_bytes < 300_000


def grown(window: Window, answers: int, latency: float, since: float = 0.0) -> None:
    """Answer a full window this number of times."""
    for number in range(1, answers + 1):
        flight = InFlight(number, since, window.requests, 400, 100.0, 100.0, 0.0)
        window.on_answer(flight, window.requests, rate_binds=False, now=since + latency)


def test_in_slow_start_each_answer_adds_one_request_to_a_full_window() -> None:
    window = Window(8, 1024, 0.0, DEFAULT_TUNING, is_set_by_user=False)
    grown(window, 8, 1.0)
    assert (window.requests, window.in_slow_start) == (16, True)
    idle = InFlight(9, 1.0, 3, 400, 100.0, 100.0, 0.0)
    window.on_answer(idle, 3, rate_binds=False, now=2.0)
    assert window.requests == 16


def test_slow_start_ends_where_answers_get_slower_by_as_much_as_there_are_more_of_them() -> None:
    window = Window(8, 1024, 0.0, DEFAULT_TUNING, is_set_by_user=False)
    grown(window, 8, 1.0)
    grown(window, 16, 2.0, since=1.0)
    assert not window.in_slow_start


def test_many_overloads_in_a_window_that_was_good_before_cut_it_by_a_factor() -> None:
    window = Window(40, 40, 0.0, DEFAULT_TUNING, is_set_by_user=True)
    window.end_slow_start(0.0)
    for number in range(1, 15):
        window.on_overload(InFlight(number, 0.0, 40, 400, 100.0, 100.0, 0.0), 40, 1.0)
    assert window.requests == DEFAULT_TUNING.decrease * 40


def test_a_window_that_was_cut_is_probed_later_and_ever_less_often_where_it_fails_again() -> None:
    window = Window(40, 40, 0.0, DEFAULT_TUNING, is_set_by_user=True)
    waits, number, now = [], 0, 0.0
    for _ in range(4):
        number += 1
        window.on_overload(InFlight(number, now, 33, 400, 100.0, 100.0, 0.0), number, now)
        assert (window.requests, window.in_slow_start) == (32, False)
        cut_at = now
        while not window.in_slow_start:
            now, number = now + 1.0, number + 1
            window.on_answer(InFlight(number, now, 32, 400, 100.0, 100.0, 0.0), 32, rate_binds=False, now=now)
        waits.append(now - cut_at)
    assert waits == sorted(waits)
    assert waits[-1] > 3 * waits[0]
