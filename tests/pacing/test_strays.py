"""429s that come at random are told from those of a limit."""

import random

from pipeline.pacing.in_flight import InFlight
from pipeline.pacing.strays import Strays
from pipeline.pacing.tuning import DEFAULT_TUNING


def request(number: int) -> InFlight:
    return InFlight(number, float(number), 1, 400, 100.0, 100.0, 0.0)


def answered(strays: Strays, first: int, last: int) -> bool:
    """Answer these requests, and tell whether one of them ended a trial."""
    ends = [strays.on_answer(request(number), number, has_limit=False) for number in range(first, last)]
    return any(ends)


def refused(strays: Strays, number: int) -> bool:
    return strays.is_stray(request(number), number, has_limit=False)


def proven() -> Strays:
    strays = Strays(DEFAULT_TUNING)
    strays.suspect(50, 40)
    refused(strays, 50)
    assert answered(strays, 51, 51 + DEFAULT_TUNING.stray_trial_answers)
    return strays


def test_without_a_trial_every_429_is_a_limits() -> None:
    strays = Strays(DEFAULT_TUNING)
    answered(strays, 1, 200)
    assert not refused(strays, 200)


def test_a_429_is_a_stray_one_if_requests_that_left_later_are_accepted() -> None:
    strays = proven()
    assert 0.01 < strays.share < 0.1
    assert refused(strays, 100)


def test_requests_that_left_before_the_429_prove_nothing() -> None:
    strays = Strays(DEFAULT_TUNING)
    strays.suspect(50, 40)
    assert not answered(strays, 10, 50)


def test_more_429s_in_a_trial_are_a_run_and_so_a_limits() -> None:
    strays = Strays(DEFAULT_TUNING)
    strays.suspect(50, 40)
    assert refused(strays, 50)
    assert not refused(strays, 51)
    assert not answered(strays, 52, 100)
    assert strays.share == 0


def test_as_many_as_expected_are_strays_and_a_run_of_them_is_a_limits() -> None:
    strays, rng = proven(), random.Random(1)
    for number in range(100, 1100):
        if rng.random() < 0.03:
            assert refused(strays, number)
        else:
            answered(strays, number, number + 1)
    assert 0.01 < strays.share < 0.06
    verdicts = [refused(strays, number) for number in range(1100, 1110)]
    assert verdicts.count(False) == 1


def test_after_a_hit_requests_leave_slowly_until_the_share_of_strays_is_known_again() -> None:
    strays = proven()
    before = strays.share
    assert not all(refused(strays, number) for number in range(100, 110))
    assert strays.in_check
    answered(strays, 200, 200 + DEFAULT_TUNING.stray_check_replies)
    assert not strays.in_check
    assert strays.share < before


def test_strays_that_no_longer_come_are_no_longer_expected() -> None:
    strays = proven()
    answered(strays, 100, 2500)
    assert strays.share == 0
    assert not refused(strays, 2500)
