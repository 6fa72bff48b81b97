"""What a lane expects of its first requests."""

from pipeline.execution.live.first_estimate import first_estimate
from pipeline.records import Tally, Usage


def test_the_average_of_the_answers_so_far_is_expected() -> None:
    ledger = Tally(usage=Usage(prompt_tokens=500, completion_tokens=60), answers=10, request_bytes=1000)
    assert first_estimate(ledger).tokens(200) == (200 / 2 + 6, 200 / 2 + 6)
