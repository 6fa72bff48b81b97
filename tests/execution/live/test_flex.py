"""The half-price tier is asked as long as it has capacity; without any, the standard one, at its price."""

import json
from typing import Any

import pytest
from priced_jobs import LOOPBACK, job_at

from pipeline.execution.live.flex import FlexTier
from pipeline.records import Answer, Rejection, Request

FLEX = Request("k", b'{"model":"m","service_tier":"flex"}')
OTHER = Request("other", FLEX.body)
LACKING = Rejection("retry", "capacity", "Resource Unavailable", 429)
ANSWER = Answer(text="a")


def tier_of(**settings: Any) -> FlexTier:
    return FlexTier(job_at(LOOPBACK, **{"run.how": "flex", **settings}))


def leaves(tier: FlexTier, now: float, request: Request = FLEX) -> str:
    sent = tier.encode(request, now)
    tier.on_sent(sent, now)
    return str(json.loads(sent.body)["service_tier"])


def test_after_ten_minutes_without_capacity_the_standard_tier_is_asked_and_told() -> None:
    tier = tier_of()
    for now in (0.0, 300.0, 599.0):
        tier.on_result(FLEX, LACKING, now)
        assert leaves(tier, now) == "flex"
    tier.on_result(FLEX, LACKING, 600.0)
    assert leaves(tier, 600.0) == "default"
    assert "no capacity for 10 min" in tier.report()
    assert not tier.report()


@pytest.mark.parametrize("kind", ["rate", "overload", "timeout"])
def test_a_provider_without_a_word_for_it_lacks_capacity_all_the_same(kind: str) -> None:
    tier = tier_of(**{"run.flex_patience": "0s"})
    tier.on_result(FLEX, Rejection("retry", kind, "busy", 503), 0.0)
    assert leaves(tier, 0.0) == "default"


def test_a_rejection_for_another_reason_is_no_lack_of_capacity() -> None:
    tier = tier_of(**{"run.flex_patience": "0s"})
    tier.on_result(FLEX, Rejection("row", "bad_request", "no", 400), 0.0)
    assert leaves(tier, 0.0) == "flex"


def test_an_answer_at_half_price_begins_the_wait_anew() -> None:
    tier = tier_of()
    tier.on_result(FLEX, LACKING, 0.0)
    tier.on_result(FLEX, ANSWER, 500.0)
    tier.on_result(FLEX, LACKING, 700.0)
    assert leaves(tier, 700.0) == "flex"


def test_in_the_standard_tier_one_request_in_ten_minutes_asks_whether_there_is_capacity_again() -> None:
    tier = tier_of()
    tier.on_result(FLEX, LACKING, 0.0)
    tier.on_result(FLEX, LACKING, 600.0)
    assert [leaves(tier, now, OTHER) for now in (700.0, 1200.0, 1201.0)] == ["default", "flex", "default"]
    tier.on_result(OTHER, LACKING, 1202.0)
    assert leaves(tier, 1203.0, OTHER) == "default"
    assert leaves(tier, 1800.0, OTHER) == "flex"
    tier.report()
    tier.on_result(OTHER, ANSWER, 1801.0)
    assert leaves(tier, 1801.0, OTHER) == "flex"
    assert "has capacity again" in tier.report()


def test_an_answer_of_the_standard_tier_says_nothing_about_the_other() -> None:
    tier = tier_of()
    tier.on_result(FLEX, LACKING, 0.0)
    tier.on_result(FLEX, LACKING, 600.0)
    tier.on_result(tier.encode(OTHER, 601.0), ANSWER, 602.0)
    assert leaves(tier, 603.0, OTHER) == "default"
    assert "no capacity" in tier.report()


def test_a_request_that_waits_too_long_leaves_in_the_standard_tier_though_others_find_capacity() -> None:
    tier = tier_of()
    for now in (0.0, 300.0, 600.0):
        tier.on_result(FLEX, LACKING, now)
        tier.on_result(OTHER, ANSWER, now + 1)
    assert leaves(tier, 601.0) == "default"
    assert leaves(tier, 601.0, OTHER) == "flex"
    tier.on_result(tier.encode(FLEX, 601.0), ANSWER, 602.0)
    assert leaves(tier, 603.0) == "flex"
    assert not tier.report()


def test_the_patience_comes_on_top_of_the_time_after_which_a_job_gives_up() -> None:
    assert tier_of(**{"run.flex_patience": "1h"}).give_up_after_seconds(1800.0) == 5400.0
    assert FlexTier(job_at(LOOPBACK)).give_up_after_seconds(1800.0) == 1800.0


def test_a_job_that_never_falls_back_is_patient_with_all_that_may_mean_no_capacity() -> None:
    assert tier_of(**{"run.flex_patience": "never"}).patient_kinds >= {"capacity", "rate", "overload"}
    assert not tier_of().patient_kinds


def test_a_job_that_never_falls_back_waits() -> None:
    tier = tier_of(**{"run.flex_patience": "never"})
    for now in (0.0, 1e9):
        tier.on_result(FLEX, LACKING, now)
        assert leaves(tier, now) == "flex"


def test_other_jobs_leave_as_they_are() -> None:
    plain = Request("k", b'{"model":"m"}')
    assert FlexTier(job_at(LOOPBACK)).encode(plain, 0.0) is plain
