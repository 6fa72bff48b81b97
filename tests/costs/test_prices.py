"""Prices of a job's models, and the tokens that requests are expected to use."""

import pytest
from priced_jobs import LOOPBACK, OWN, body_of, image, job_at

from pipeline.costs.prices import PriceList, expected_usage, text_and_images, token_bytes
from pipeline.records import Tally, Usage

OPENAI = "https://api.openai.com/v1"


@pytest.mark.parametrize(
    ("usage", "dollars"),
    [
        (Usage(1_000_000, 0), 1.0),
        (Usage(0, 1_000_000), 4.0),
        (Usage(1_000_000, 0, cached_tokens=1_000_000), 0.25),
        (Usage(1_000_000, 500_000, cached_tokens=400_000), 0.6 + 0.1 + 2.0),
        (Usage(1_000_000, 0, cached_tokens=9_000_000), 0.25),  # more cached tokens than prompt tokens
        (Usage(5, 36, total_tokens=1007), (5 + 4 * 1002) / 1e6),  # reasoning that only the total shows
        (Usage(5, 36, reasoning_tokens=30), (5 + 4 * 36) / 1e6),  # reasoning within the completion
        (Usage(0, 0), 0.0),
    ],
)
def test_prices_of_the_job_file_are_per_million_tokens(usage: Usage, dollars: float) -> None:
    assert PriceList(job_at(LOOPBACK, **OWN)).cost(usage) == pytest.approx(dollars)


def test_cached_tokens_cost_as_much_as_others_if_no_price_is_given_for_them() -> None:
    prices = PriceList(job_at(LOOPBACK, **{"prices.input": 1.0, "prices.output": 4.0}))
    assert prices.cost(Usage(1_000_000, 0, cached_tokens=1_000_000)) == pytest.approx(1.0)


@pytest.mark.parametrize("usage", [Usage(), Usage(prompt_tokens=5), Usage(completion_tokens=5), Usage(total_tokens=9)])
def test_a_missing_token_count_makes_the_cost_unknown(usage: Usage) -> None:
    assert PriceList(job_at(LOOPBACK, **OWN)).cost(usage) is None
    assert PriceList(job_at(OPENAI)).cost(usage) is None


@pytest.mark.parametrize("usage", [Usage(), Usage(10**9, 10**9)])
def test_a_model_on_this_machine_costs_nothing_for_any_usage(usage: Usage) -> None:
    prices = PriceList(job_at("local:smollm2-135m"))
    assert prices.unknown is None
    assert prices.cost(usage) == 0.0


@pytest.mark.parametrize(
    ("url", "model", "known"),
    [
        (OPENAI, "gpt-4o-mini", True),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "models/gemini-3.5-flash", True),
        (OPENAI, "no-such-model-9", False),
        (LOOPBACK, "gpt-4o-mini", False),  # a local server may give its model any name
        ("https://llm.example.org/v1", "gpt-4o-mini", False),
        ("https://llm.example.org/https://api.openai.com/v1", "gpt-4o-mini", False),
    ],
)
def test_listed_prices_count_only_at_a_provider_that_the_list_knows(url: str, model: str, *, known: bool) -> None:
    prices = PriceList(job_at(url, model))
    assert (prices.unknown is None) == known
    assert (prices.cost(Usage(1000, 1000)) is not None) == known


def test_listed_prices_cover_cached_tokens_and_hidden_reasoning() -> None:
    prices = PriceList(job_at(OPENAI))
    fresh, cached = prices.cost(Usage(1000, 0)), prices.cost(Usage(1000, 0, cached_tokens=1000))
    hidden, plain = prices.cost(Usage(5, 36, total_tokens=1007)), prices.cost(Usage(5, 1002))
    assert fresh is not None
    assert cached is not None
    assert 0 < cached < fresh
    assert hidden == plain


def test_prices_of_the_job_file_come_before_listed_ones() -> None:
    assert PriceList(job_at(OPENAI, **OWN)).cost(Usage(1_000_000, 0)) == pytest.approx(1.0)


def test_before_the_first_answer_usage_is_estimated_from_the_bytes() -> None:
    assert expected_usage(Tally(), 4_000, 10) == Usage(1_000, 1_000)
    assert expected_usage(Tally(), 0, 0) == Usage(0, 0)


def test_after_the_first_answer_usage_is_estimated_from_the_answers() -> None:
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
def test_answers_without_token_counts_do_not_change_the_estimate(known: Tally) -> None:
    assert expected_usage(known, 4_000, 10) == expected_usage(Tally(), 4_000, 10)


def test_a_text_that_looks_like_an_image_is_counted_by_its_bytes() -> None:
    lookalike = '"image_url":{"url":"data:image/png;base64,' + "A" * 90_000 + '"}'
    body = body_of({"type": "text", "text": lookalike}, {"type": "text", "text": "data:image/png;base64,AAAA"})
    assert text_and_images(body) == (len(body), 0)
    assert token_bytes(body) == len(body)


def test_before_the_first_answer_an_image_is_assumed_to_be_a_thousand_tokens() -> None:
    small, large = (token_bytes(body_of(image(f"data:image/png;base64,{'A' * length}"))) for length in (10, 9_000_000))
    assert small == large
    estimated = [expected_usage(Tally(), size, 1).prompt_tokens or 0 for size in (large, token_bytes(body_of()))]
    assert 1_000 <= estimated[0] - estimated[1] < 1_030


def test_the_tier_that_a_reply_names_decides_its_price() -> None:
    own, listed = PriceList(job_at(LOOPBACK, **OWN)), PriceList(job_at(OPENAI, "gpt-6-luna"))
    for prices in (own, listed):
        standard, flex, priority, other = (
            prices.cost(Usage(1000, 100, tier=tier)) for tier in ("default", "flex", "priority", "on_demand")
        )
        assert standard
        assert flex == pytest.approx(standard / 2)
        assert priority == pytest.approx(2 * standard)
        assert other == standard


def test_a_dearer_tier_without_a_listed_price_is_never_counted_too_low() -> None:
    prices = PriceList(job_at(OPENAI, "gpt-4o-mini"))
    standard, ultra = (prices.cost(Usage(1000, 100, tier=tier)) for tier in ("", "ultrafast"))
    assert ultra == pytest.approx(6 * (standard or 0.0))


def test_the_job_file_may_say_what_a_tier_costs() -> None:
    prices = PriceList(job_at(LOOPBACK, **OWN, **{"prices.tiers": {"flex": 1.0, "turbo": 3.0}}))
    costs = [prices.cost(Usage(1_000_000, 0, tier=tier)) for tier in ("flex", "turbo")]
    assert costs == pytest.approx([1.0, 3.0])


def test_the_job_file_may_say_what_a_tier_costs_also_of_listed_and_of_single_models() -> None:
    listed = PriceList(job_at(OPENAI, "gpt-6-luna", **{"prices.tiers": {"priority": 3.0, "scale": 1.5}}))
    standard = listed.cost(Usage(1000, 100)) or 0.0
    assert listed.cost(Usage(1000, 100, tier="priority")) == pytest.approx(3 * standard)
    assert listed.cost(Usage(1000, 100, tier="scale")) == pytest.approx(1.5 * standard)
    single = {"prices.tiers": {"turbo": 10.0}, "prices.models.m": {"input": 1.0, "output": 1.0}}
    prices = PriceList(job_at(LOOPBACK, "m", **single))
    before = prices.worst_cost(100, 10, "m") or 0.0
    assert prices.cost(Usage(100, 10, tier="turbo"), "m") == pytest.approx(10 * before)
    assert prices.learn_tier("turbo", "m")
    assert prices.worst_cost(100, 10, "m") == pytest.approx(10 * before)


def test_where_the_provider_may_choose_the_dearest_tier_is_reserved() -> None:
    auto = PriceList(job_at(LOOPBACK, **OWN, **{"parameters.service_tier": "auto"}))
    assert auto.worst_cost(100, 10) == pytest.approx(2 * (100 + 40) / 1e6)
    assert not auto.learn_tier("priority", "")


def test_claudes_priority_is_capacity_that_was_paid_for_before() -> None:
    prices = PriceList(job_at("https://api.anthropic.com/v1", "claude-haiku-4-5"))
    assert prices.cost(Usage(1000, 100, tier="priority")) == prices.cost(Usage(1000, 100))


def test_a_job_that_asks_for_a_tier_expects_its_price_and_reserves_the_dearest() -> None:
    plain, flex, priority = (
        PriceList(job_at(OPENAI, "gpt-6-luna", **settings))
        for settings in ({}, {"run.how": "flex"}, {"parameters.service_tier": "priority"})
    )
    usage = Usage(1_000_000, 0)
    standard = plain.expected_cost(usage, 1000)
    assert standard
    assert flex.expected_cost(usage, 1000) == pytest.approx(standard / 2)
    assert priority.expected_cost(usage, 1000) == pytest.approx(2 * standard)
    assert flex.worst_cost(1000, 10) == plain.worst_cost(1000, 10)  # it may fall back to the standard tier
    assert priority.worst_cost(1000, 10) == pytest.approx(2 * (plain.worst_cost(1000, 10) or 0.0))


def test_listed_prices_are_looked_up_again_as_some_depend_on_the_time() -> None:
    now = [0.0]
    prices = PriceList(job_at(OPENAI, "gpt-6-luna"), lambda: now[0])
    before = prices.cost(Usage(1000, 100))
    now[0] += 3600
    assert prices.cost(Usage(1000, 100)) == before


def test_the_shares_from_and_to_a_cache_are_expected_to_stay() -> None:
    used = Usage(1000, 60, cached_tokens=200, cache_write_tokens=500, long_cache_write_tokens=100)
    known = Tally(ok=2, answers=2, request_bytes=1_000, usage=used)
    assert expected_usage(known, 10_000, 20) == Usage(
        10_000, 600, cached_tokens=2_000, cache_write_tokens=5_000, long_cache_write_tokens=1_000
    )


def test_a_listed_price_of_a_job_in_batches_is_the_batch_price() -> None:
    costs = [PriceList(job_at(OPENAI, **{"run.how": how})).cost(Usage(1000, 1000)) for how in ("live", "batch")]
    assert costs[0] is not None
    assert costs[1] == pytest.approx(costs[0] / 2)
