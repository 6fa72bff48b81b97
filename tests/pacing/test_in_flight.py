"""The record of a request in flight holds what was known when it left."""

from driven_throttle import answer, send

from pipeline.job.sections import Limits
from pipeline.pacing.throttle import Throttle
from pipeline.pacing.tokens import TokenEstimate


def test_a_request_in_flight_knows_its_number_its_size_and_what_left_before_it() -> None:
    throttle = Throttle(Limits(), 0.0, estimate=TokenEstimate(0.25, 100.0))
    first, second = send(throttle, 2, 3.0)
    assert [(each.number, each.left_at, each.in_flight) for each in (first, second)] == [(1, 3.0, 1), (2, 3.0, 2)]
    assert (second.size_bytes, second.tokens, second.tokens_high) == (400, 200.0, 200.0)
    assert (first.tokens_sent_before, second.tokens_sent_before) == (0.0, 200.0)
    answer(throttle, first, 4.0)  # which used 100 tokens
    assert send(throttle, 1, 4.0)[0].tokens_sent_before == 300.0
