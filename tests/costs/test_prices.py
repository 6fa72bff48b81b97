"""What it costs, what it will cost, and a cap that holds."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.costs.prices import Budget, PriceList, expected_usage, text_and_images, token_bytes
from pipeline.job.job import Job
from pipeline.records import BadJob, Exit, Request, Tally, Usage

OPENAI = "https://api.openai.com/v1"
LOOPBACK = "http://127.0.0.1:9/v1"
OWN = {"prices.input": 1.0, "prices.cached_input": 0.25, "prices.output": 4.0}


def job_at(url: str, model: str = "gpt-4o-mini", **settings: Any) -> Job:
    flags = {"endpoint.base_url": url, "endpoint.model": model, **settings}
    return Job.load(["in.csv"], "out.csv", settings=flags)


def capped(cap: float, *, max_tokens: int = 10, spent: float = 0.0, **prices: float) -> Budget:
    job = job_at(LOOPBACK, **{"limits.max_cost": cap, "parameters.max_tokens": max_tokens, **(prices or OWN)})
    return Budget(job, PriceList(job), spent)


def request_of(size: int) -> Request:
    return Request(key="k", body=b"x" * size)


def refusal(job: Job) -> str:
    with pytest.raises(BadJob) as caught:
        Budget(job, PriceList(job), 0.0)
    return str(caught.value)


@pytest.mark.parametrize(
    ("usage", "dollars"),
    [
        (Usage(1_000_000, 0), 1.0),
        (Usage(0, 1_000_000), 4.0),
        (Usage(1_000_000, 0, cached_tokens=1_000_000), 0.25),
        (Usage(1_000_000, 500_000, cached_tokens=400_000), 0.6 + 0.1 + 2.0),
        (Usage(1_000_000, 0, cached_tokens=9_000_000), 0.25),  # more cached than there were
        (Usage(5, 36, total_tokens=1007), (5 + 4 * 1002) / 1e6),  # reasoning that only the total shows
        (Usage(5, 36, reasoning_tokens=30), (5 + 4 * 36) / 1e6),  # reasoning within the completion
        (Usage(0, 0), 0.0),
    ],
)
def test_own_prices_are_per_million_tokens(usage: Usage, dollars: float) -> None:
    assert PriceList(job_at(LOOPBACK, **OWN)).cost(usage) == pytest.approx(dollars)


def test_cached_tokens_cost_as_others_where_no_price_of_theirs_is_given() -> None:
    tariff = PriceList(job_at(LOOPBACK, **{"prices.input": 1.0, "prices.output": 4.0}))
    assert tariff.cost(Usage(1_000_000, 0, cached_tokens=1_000_000)) == pytest.approx(1.0)


@pytest.mark.parametrize("usage", [Usage(), Usage(prompt_tokens=5), Usage(completion_tokens=5), Usage(total_tokens=9)])
def test_a_missing_count_makes_an_unknown_cost(usage: Usage) -> None:
    assert PriceList(job_at(LOOPBACK, **OWN)).cost(usage) is None
    assert PriceList(job_at(OPENAI)).cost(usage) is None


@pytest.mark.parametrize("usage", [Usage(), Usage(10**9, 10**9)])
def test_a_model_on_this_machine_costs_nothing_whatever_it_used(usage: Usage) -> None:
    tariff = PriceList(job_at("local:smollm2-135m"))
    assert tariff.unknown is None
    assert tariff.cost(usage) == 0.0


@pytest.mark.parametrize(
    ("url", "model", "known"),
    [
        (OPENAI, "gpt-4o-mini", True),
        (OPENAI, "no-such-model-9", False),
        (LOOPBACK, "gpt-4o-mini", False),  # a local server may call its model as it likes
        ("https://llm.example.org/v1", "gpt-4o-mini", False),
        ("https://llm.example.org/https://api.openai.com/v1", "gpt-4o-mini", False),
    ],
)
def test_the_price_list_counts_only_at_a_provider_that_it_knows(url: str, model: str, *, known: bool) -> None:
    tariff = PriceList(job_at(url, model))
    assert (tariff.unknown is None) == known
    assert (tariff.cost(Usage(1000, 1000)) is not None) == known


def test_the_list_prices_cached_tokens_and_hidden_reasoning() -> None:
    tariff = PriceList(job_at(OPENAI))
    fresh, cached = tariff.cost(Usage(1000, 0)), tariff.cost(Usage(1000, 0, cached_tokens=1000))
    hidden, plain = tariff.cost(Usage(5, 36, total_tokens=1007)), tariff.cost(Usage(5, 1002))
    assert fresh is not None
    assert cached is not None
    assert 0 < cached < fresh
    assert hidden == plain


def test_own_prices_win_over_the_list() -> None:
    assert PriceList(job_at(OPENAI, **OWN)).cost(Usage(1_000_000, 0)) == pytest.approx(1.0)


def test_before_the_first_answer_usage_is_guessed_from_the_bytes() -> None:
    assert expected_usage(Tally(), 4_000, 10) == Usage(1_000, 1_000)
    assert expected_usage(Tally(), 0, 0) == Usage(0, 0)


def test_after_answers_usage_is_learnt_from_them() -> None:
    known = Tally(ok=2, answers=2, request_bytes=1_000, usage=Usage(500, 60, total_tokens=560))
    assert expected_usage(known, 10_000, 20) == Usage(5_000, 600)


def test_hidden_reasoning_is_expected_too() -> None:
    known = Tally(ok=1, answers=1, request_bytes=20, usage=Usage(5, 36, total_tokens=1007))
    assert expected_usage(known, 200, 10) == Usage(50, 10_020)


@pytest.mark.parametrize(
    "known",
    [
        Tally(failed=3, attempts=3),
        Tally(ok=1, answers=1, request_bytes=100),
        Tally(ok=1, answers=1, request_bytes=100, usage=Usage(completion_tokens=5)),
        Tally(ok=1, answers=1, request_bytes=100, usage=Usage(prompt_tokens=0, completion_tokens=5)),
    ],
)
def test_answers_without_counts_teach_nothing(known: Tally) -> None:
    assert expected_usage(known, 4_000, 10) == expected_usage(Tally(), 4_000, 10)


def test_a_cap_without_a_price_is_refused_with_the_remedy() -> None:
    told = refusal(job_at(LOOPBACK, **{"limits.max_cost": 1.0, "parameters.max_tokens": 10}))
    assert "no price is known of 'gpt-4o-mini' at 127.0.0.1:9" in told
    assert "[prices]" in told
    assert told.endswith("Nothing was sent.")


@pytest.mark.parametrize(
    "parameters", [{}, {"parameters.max_tokens": "10"}, {"parameters.max_tokens": True}, {"parameters.max_tokens": -1}]
)
def test_a_cap_without_a_bound_on_answers_is_refused_with_the_remedy(parameters: dict[str, Any]) -> None:
    told = refusal(job_at(LOOPBACK, **{"limits.max_cost": 1.0, **OWN, **parameters}))
    assert "parameters.max_tokens" in told
    assert told.endswith("Nothing was sent.")


def test_either_name_bounds_an_answer() -> None:
    job = job_at(LOOPBACK, **{"limits.max_cost": 1.0, "parameters.max_completion_tokens": 10, **OWN})
    assert Budget(job, PriceList(job), 0.0).reserve(request_of(10)) == pytest.approx((10 + 40) / 1e6)


def test_the_dearer_of_fresh_and_cached_tokens_is_set_aside() -> None:
    prices = {"prices.input": 1.0, "prices.cached_input": 3.0, "prices.output": 4.0}
    assert capped(1.0, **prices).reserve(request_of(100)) == pytest.approx((300 + 40) / 1e6)


def test_without_a_cap_nothing_is_set_aside_and_nothing_refused() -> None:
    job = job_at(LOOPBACK)
    budget = Budget(job, PriceList(job), 3.0)
    assert budget.reserve(request_of(10**6)) == 0.0
    budget.settle(0.0, 2.0)
    assert budget.spent == 5.0


def test_what_is_in_flight_counts_until_it_lands() -> None:
    budget = capped(200 / 1e6)  # one request of 60 bytes costs 100 millionths at worst
    first, second = budget.reserve(request_of(60)), budget.reserve(request_of(60))
    assert first == second == pytest.approx(100 / 1e6)
    assert budget.reserve(request_of(60)) is None
    budget.settle(first or 0.0, 20 / 1e6)
    assert budget.reserve(request_of(60)) is None
    budget.settle(second or 0.0, 20 / 1e6)
    assert budget.reserve(request_of(60)) is not None


def test_a_cap_reached_in_an_earlier_run_is_reached() -> None:
    budget = capped(1.0, spent=1.0)
    assert budget.reserve(request_of(1)) is None
    stop = budget.exhausted(request_of(1))
    assert stop.exit_code is Exit.AT_LIMIT
    assert "$1 of $1 is spent" in str(stop)
    assert "--max-cost" in str(stop)


@given(
    cap=st.floats(1e-6, 1e-2),
    prices=st.tuples(*[st.floats(0, 100)] * 3),
    sizes=st.lists(st.tuples(st.integers(0, 2000), st.floats(0, 1), st.floats(0, 1), st.booleans()), max_size=40),
)
def test_spent_never_passes_the_cap(
    cap: float, prices: tuple[float, ...], sizes: list[tuple[int, float, float, bool]]
) -> None:
    names = ("prices.input", "prices.cached_input", "prices.output")
    budget = capped(cap, max_tokens=50, **dict(zip(names, prices, strict=True)))
    tariff = PriceList(job_at(LOOPBACK, **dict(zip(names, prices, strict=True))))
    in_flight: list[tuple[float, float]] = []
    for size, prompt_share, cached_share, lands in sizes:
        reserved = budget.reserve(request_of(size))
        if reserved is not None:
            prompt_tokens = round(size * prompt_share)
            used = Usage(prompt_tokens, round(50 * cached_share), cached_tokens=round(prompt_tokens * cached_share))
            paid = tariff.cost(used)
            assert paid is not None
            in_flight.append((reserved, paid))
        if lands and in_flight:
            budget.settle(*in_flight.pop(0))
        assert budget.spent <= cap * (1 + 1e-9)
    for reserved, paid in in_flight:
        budget.settle(reserved, paid)
    assert budget.spent <= cap * (1 + 1e-9)


def body_of(*parts: Any) -> bytes:
    content = [{"type": "text", "text": "What is it?"}, *parts]
    return msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": content}]})


def image(url: str, **more: str) -> Any:
    return {"type": "image_url", "image_url": {**more, "url": url}}


@pytest.mark.parametrize(
    "url", ["data:image/png;base64," + "A" * 3_000_000, "data:image/png;base64,AA", "https://h.example/a"]
)
def test_an_image_is_set_aside_at_its_dearest_whatever_its_bytes(url: str) -> None:
    budget, plain = capped(10.0), capped(10.0).reserve(Request("k", body_of()))
    reserved = budget.reserve(Request("k", body_of(image(url), image(url, detail="high"))))
    assert reserved is not None
    assert plain is not None
    assert 2 * 50_000 <= round((reserved - plain) * 1e6) < 2 * (50_000 + 100)


def test_a_text_that_looks_like_an_image_is_counted_by_its_bytes() -> None:
    looks = '"image_url":{"url":"data:image/png;base64,' + "A" * 90_000 + '"}'
    body = body_of({"type": "text", "text": looks}, {"type": "text", "text": "data:image/png;base64,AAAA"})
    assert text_and_images(body) == (len(body), 0)
    assert token_bytes(body) == len(body)


def test_before_the_first_answer_an_image_is_guessed_to_be_a_thousand_tokens() -> None:
    small, large = (token_bytes(body_of(image(f"data:image/png;base64,{'A' * many}"))) for many in (10, 9_000_000))
    assert small == large
    guessed = [expected_usage(Tally(), size, 1).prompt_tokens or 0 for size in (large, token_bytes(body_of()))]
    assert 1_000 <= guessed[0] - guessed[1] < 1_030
