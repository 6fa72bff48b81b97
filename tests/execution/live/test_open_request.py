from datetime import UTC, datetime

from live_run import request

from pipeline.execution.live.open_request import OpenRequest
from pipeline.records import Answer
from pipeline.text import BODY_BYTES_AT_ONCE


def test_a_completed_outcome_has_the_attempts_the_time_and_the_cost_of_all() -> None:
    item = OpenRequest(request("why"))
    item.tries.sent, item.cost = 3, 0.25
    at = datetime(2026, 1, 2, tzinfo=UTC)
    outcome = item.completed(Answer(text="so"), at, 1.23456)
    assert outcome == Answer(text="so", attempts=3, asked_at=at, latency_seconds=1.2346, cost=0.25)


def test_what_was_recorded_is_kept_without_a_large_text() -> None:
    item, small = OpenRequest(request("why")), Answer(text="so", cost=0.5)
    item.keep(small)
    assert item.outcome is small
    item.keep(Answer(text="x" * (BODY_BYTES_AT_ONCE + 1), cost=0.5))
    assert item.outcome == Answer(text="", cost=0.5)
