"""When requests left within the last minute."""

import pytest

from pipeline.pacing.last_minute import LastMinute


def test_a_window_of_a_minute_has_room_a_minute_after_the_first_request_that_filled_it() -> None:
    minute = LastMinute()
    for number in range(1, 101):  # four a second from 10 s on
        minute.on_sent(number, 10 + (number - 1) / 4)
    assert minute.sent == 100
    assert minute.seconds_until_past(100, 35.0) == pytest.approx(35, abs=3)
    assert minute.seconds_until_past(20, 35.0) == pytest.approx(55, abs=3)
    assert minute.seconds_until_past(101, 35.0) is None


def test_requests_of_earlier_minutes_are_forgotten() -> None:
    minute = LastMinute()
    for number in range(1, 1001):
        minute.on_sent(number, float(number))
    assert minute.sent == 61
    assert minute.seconds_until_past(100, 1000.0) is None
