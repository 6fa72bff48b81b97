"""The cost cap: what is reserved before a request is sent, and when a cap is refused or reached."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from priced_jobs import LOOPBACK, OWN, body_of, image, job_at

from pipeline.costs.budget import Budget
from pipeline.costs.prices import PriceList
from pipeline.job.job import Job
from pipeline.records import Answer, BadJob, Exit, Request, Usage


def capped(cap: float, *, max_tokens: int = 10, spent: float = 0.0, **prices: float) -> Budget:
    job = job_at(LOOPBACK, **{"limits.max_cost": cap, "parameters.max_tokens": max_tokens, **(prices or OWN)})
    return Budget(job, PriceList(job), spent)


def reserve(budget: Budget, request: Request) -> float | None:
    return budget.reserve(budget.worst(request))


def request_of(size: int) -> Request:
    return Request(key="k", body=b"x" * size)


def complaint_about(job: Job) -> str:
    with pytest.raises(BadJob) as caught:
        Budget(job, PriceList(job), 0.0)
    return str(caught.value)


def test_a_cap_without_a_price_is_refused_with_the_remedy() -> None:
    message = complaint_about(job_at(LOOPBACK, **{"limits.max_cost": 1.0, "parameters.max_tokens": 10}))
    assert "no price is known of 'gpt-4o-mini' at 127.0.0.1:9" in message
    assert "[prices]" in message
    assert message.endswith("Nothing was sent.")


@pytest.mark.parametrize(
    "parameters", [{}, {"parameters.max_tokens": "10"}, {"parameters.max_tokens": True}, {"parameters.max_tokens": -1}]
)
def test_a_cap_without_a_bound_on_answers_is_refused_with_the_remedy(parameters: dict[str, Any]) -> None:
    message = complaint_about(job_at(LOOPBACK, **{"limits.max_cost": 1.0, **OWN, **parameters}))
    assert "parameters.max_tokens" in message
    assert message.endswith("Nothing was sent.")


def test_max_completion_tokens_bounds_an_answer_too() -> None:
    job = job_at(LOOPBACK, **{"limits.max_cost": 1.0, "parameters.max_completion_tokens": 10, **OWN})
    assert reserve(Budget(job, PriceList(job), 0.0), request_of(10)) == pytest.approx((10 + 40) / 1e6)


def test_the_more_expensive_of_fresh_and_cached_tokens_is_reserved() -> None:
    prices = {"prices.input": 1.0, "prices.cached_input": 3.0, "prices.output": 4.0}
    assert reserve(capped(1.0, **prices), request_of(100)) == pytest.approx((300 + 40) / 1e6)


def test_without_a_cap_nothing_is_reserved_and_no_request_is_held_back() -> None:
    job = job_at(LOOPBACK)
    budget = Budget(job, PriceList(job), 3.0)
    assert reserve(budget, request_of(10**6)) == 0.0
    budget.settle(0.0, 2.0)
    assert budget.spent == 5.0


def test_a_reservation_counts_until_its_attempt_is_settled() -> None:
    budget = capped(200 / 1e6)  # one request of 60 bytes costs 100 millionths at worst
    first, second = reserve(budget, request_of(60)), reserve(budget, request_of(60))
    assert first == second == pytest.approx(100 / 1e6)
    assert reserve(budget, request_of(60)) is None
    budget.settle(first or 0.0, 20 / 1e6)
    assert reserve(budget, request_of(60)) is None
    budget.settle(second or 0.0, 20 / 1e6)
    assert reserve(budget, request_of(60)) is not None


def test_a_cap_reached_in_an_earlier_run_leaves_no_room() -> None:
    budget = capped(1.0, spent=1.0)
    assert reserve(budget, request_of(1)) is None
    stop = budget.exhausted(request_of(1))
    assert stop.exit_code is Exit.AT_LIMIT
    assert "$1 of $1 is spent" in str(stop)
    assert "--max-cost" in str(stop)


@given(
    cap=st.floats(1e-6, 1e-2),
    prices=st.tuples(*[st.floats(0, 100)] * 3),
    sizes=st.lists(st.tuples(st.integers(0, 2000), st.floats(0, 1), st.floats(0, 1), st.booleans()), max_size=40),
)
def test_spending_never_passes_the_cap(
    cap: float, prices: tuple[float, ...], sizes: list[tuple[int, float, float, bool]]
) -> None:
    names = ("prices.input", "prices.cached_input", "prices.output")
    budget = capped(cap, max_tokens=50, **dict(zip(names, prices, strict=True)))
    prices_of_job = PriceList(job_at(LOOPBACK, **dict(zip(names, prices, strict=True))))
    in_flight: list[tuple[float, float]] = []
    for size, prompt_share, cached_share, is_over in sizes:
        reserved = reserve(budget, request_of(size))
        if reserved is not None:
            prompt_tokens = round(size * prompt_share)
            used = Usage(prompt_tokens, round(50 * cached_share), cached_tokens=round(prompt_tokens * cached_share))
            paid = prices_of_job.cost(used)
            assert paid is not None
            in_flight.append((reserved, paid))
        if is_over and in_flight:
            budget.settle(*in_flight.pop(0))
        assert budget.spent <= cap * (1 + 1e-9)
    for reserved, paid in in_flight:
        budget.settle(reserved, paid)
    assert budget.spent <= cap * (1 + 1e-9)


@pytest.mark.parametrize(
    "url", ["data:image/png;base64," + "A" * 3_000_000, "data:image/png;base64,AA", "https://h.example/a"]
)
def test_an_image_is_reserved_at_its_highest_price_for_any_size(url: str) -> None:
    prices = {"prices.input": 1.0, "prices.output": 4.0, "prices.cache_write": 1.0}
    budget, plain = capped(10.0, **prices), reserve(capped(10.0, **prices), Request("k", body_of()))
    reserved = reserve(budget, Request("k", body_of(image(url), image(url, detail="high"))))
    assert reserved is not None
    assert plain is not None
    assert 2 * 50_000 <= round((reserved - plain) * 1e6) < 2 * (50_000 + 100)


def charged(usage: Usage, text: str = "fine", size: int = 2000) -> tuple[float, str]:
    budget = capped(1.0)
    charge = budget.charge(request_of(size), Answer(text=text, usage=usage), 0.5)
    return charge.against_cap, charge.said


@pytest.mark.parametrize(
    ("usage", "text", "words"),
    [
        (Usage(0, 5), "fine", "0 prompt tokens for a request of 2,000 bytes"),
        (Usage(3, 5), "fine", "3 prompt tokens for a request of 2,000 bytes"),
        (Usage(400, 0), "fine", "0 completion tokens for an answer of 4 characters"),
        (Usage(400, 1), "fine " * 200, "1 completion tokens for an answer of 1,000 characters"),
        (Usage(None, 5, untrue="prompt_tokens: -7"), "fine", "prompt_tokens: -7"),
        (Usage(400, None, untrue="completion_tokens: 1e+300"), "fine", "completion_tokens: 1e+300"),
    ],
)
def test_counts_that_cannot_be_true_are_told_and_free_no_money_under_the_cap(
    usage: Usage, text: str, words: str
) -> None:
    against_cap, said = charged(usage, text)
    assert against_cap == 0.5
    assert words in said


def test_more_tokens_than_a_request_can_explain_are_told_and_cost_what_they_say() -> None:
    against_cap, said = charged(Usage(400, 1_000_000))
    assert against_cap == pytest.approx((400 + 4 * 1_000_000) / 1e6)
    assert "1,000,000 output tokens where 10 was the most expected" in said


def test_counts_that_are_missing_are_no_lie_and_are_not_told() -> None:
    assert charged(Usage()) == (0.5, "")


def test_counts_that_cannot_be_true_are_told_once() -> None:
    budget = capped(1.0)
    said = [budget.charge(request_of(2000), Answer(text="a", usage=Usage(0, 5)), 0.1).said for _ in range(3)]
    assert [bool(each) for each in said] == [True, False, False]


def test_a_dearer_tier_than_was_asked_for_is_told_and_reserved_for() -> None:
    budget = capped(1.0)
    before = budget.worst(request_of(100))
    charge = budget.charge(request_of(100), Answer(text="a", usage=Usage(90, 5, tier="priority")), 0.1)
    assert charge.paid == pytest.approx(2 * (90 + 5 * 4) / 1e6)
    assert "service tier priority, which costs more" in charge.said
    assert budget.worst(request_of(100)) == pytest.approx(2 * (before or 0.0))
    assert not budget.charge(request_of(100), Answer(text="a", usage=Usage(90, 5, tier="priority")), 0.1).said


def test_tokens_that_are_reported_and_not_billed_cost_nothing() -> None:
    assert charged(Usage(400, 0, is_billed=False), text="") == (0.0, "")
