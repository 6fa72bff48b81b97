from datetime import UTC, datetime

from live_run import request

from pipeline.execution.live.open_request import OpenRequest
from pipeline.records import Answer


def test_a_completed_outcome_has_the_attempts_the_time_and_the_cost_of_all() -> None:
    item = OpenRequest(request("why"))
    item.tries.sent, item.cost = 3, 0.25
    at = datetime(2026, 1, 2, tzinfo=UTC)
    outcome = item.completed(Answer(text="so"), at, 1.23456)
    assert outcome == Answer(text="so", attempts=3, asked_at=at, latency_seconds=1.2346, cost=0.25)
