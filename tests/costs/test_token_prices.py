"""What usage costs by kind of token, and that it agrees with genai-prices for every kind and length."""

from decimal import Decimal

import genai_prices
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.costs.token_prices import listed_prices, own_prices
from pipeline.job import ModelPrices
from pipeline.records import Usage

LISTED = [
    ("openai", "gpt-6-luna"),
    ("openai", "gpt-5.4"),
    ("openai", "gpt-4o"),
    ("anthropic", "claude-haiku-4-5"),
    ("google", "gemini-3.1-pro-preview"),
    ("deepseek", "deepseek-chat"),
    ("mistral", "mistral-small-latest"),
]
OWN = ModelPrices(input=1.0, output=4.0)


@given(
    listed=st.sampled_from(LISTED),
    prompt=st.integers(0, 500_000),
    shares=st.tuples(*[st.floats(0, 1)] * 3),
    output=st.integers(0, 10_000),
    context=st.sampled_from([{}, {"service_tier": "flex"}, {"service_tier": "priority"}, {"processing": "batch"}]),
)
def test_listed_prices_give_what_the_list_itself_computes(
    listed: tuple[str, str], prompt: int, shares: tuple[float, ...], output: int, context: dict[str, str]
) -> None:
    cached = round(prompt * shares[0])
    written = round((prompt - cached) * shares[1])
    long = round(written * shares[2]) if listed[0] == "anthropic" else 0  # of others the list says nothing
    expected = genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=prompt,
            cache_read_tokens=cached,
            cache_write_tokens=written,
            cache_write_1h_tokens=long,
            output_tokens=output,
        ),
        listed[1],
        provider_id=listed[0],
        price_context=context,
    )
    usage = Usage(prompt, output, cached_tokens=cached, cache_write_tokens=written, long_cache_write_tokens=long)
    prices = listed_prices(expected.model_price)
    assert prices is not None
    parts = prices.parts(usage)
    assert parts is not None
    assert sum(parts) == pytest.approx(float(expected.total_price), rel=1e-9, abs=1e-12)
    assert sum(parts) <= prices.most(prompt, output, has_long_writes=True) * (1 + 1e-9) or prompt < 512


@pytest.mark.parametrize(
    ("usage", "dollars"),
    [
        (Usage(1_000_000, 0, cache_write_tokens=1_000_000), 1.25),
        (Usage(1_000_000, 0, cache_write_tokens=1_000_000, long_cache_write_tokens=1_000_000), 2.5),
        (Usage(1_000_000, 0, cached_tokens=400_000, cache_write_tokens=400_000), 0.4 + 0.5 + 0.2),
        (Usage(1_000_000, 0, cache_write_tokens=9_000_000), 1.25),  # more than the prompt has
    ],
)
def test_a_write_to_a_cache_costs_more_than_a_prompt_token(usage: Usage, dollars: float) -> None:
    prices = own_prices(OWN)
    assert prices is not None
    assert sum(prices.parts(usage) or ()) == pytest.approx(dollars)


def test_a_long_prompt_makes_all_tokens_of_its_request_dearer() -> None:
    own = ModelPrices(
        input=1.0, output=4.0, cached_input=0.1, long_prompt_tokens=200_000, long_input=2.0, long_output=6.0
    )
    prices = own_prices(own)
    assert prices is not None
    below, above = (prices.parts(Usage(prompt, 1000, cached_tokens=100_000)) for prompt in (200_000, 200_001))
    assert below == pytest.approx((0.1, 0.01, 0.0, 0.004))
    assert above == pytest.approx((0.200002, 0.02, 0.0, 0.006))
    several = prices.parts(Usage(400_000, 2000), requests=2)
    assert sum(several or ()) == pytest.approx(0.4 + 0.008)


def test_an_entry_of_the_list_without_prices_for_tokens_has_none() -> None:
    assert listed_prices(genai_prices.types.ModelPrice(requests_kcount=Decimal(5))) is None


def test_a_write_for_hours_costs_twice_that_for_minutes_where_the_list_says_nothing() -> None:
    listed = genai_prices.calc_price(genai_prices.Usage(input_tokens=1), "gpt-6-luna", provider_id="openai").model_price
    prices = listed_prices(listed)
    assert prices is not None
    short, long = (
        prices.parts(Usage(1000, 0, cache_write_tokens=1000, long_cache_write_tokens=count)) for count in (0, 1000)
    )
    assert sum(long or ()) == pytest.approx(2 * sum(short or ()))
    assert prices.most(1000, 0, has_long_writes=True) == pytest.approx(sum(long or ()))


def test_a_long_prompt_has_its_price_also_where_a_short_one_is_free() -> None:
    own = ModelPrices(input=0.0, output=0.0, long_prompt_tokens=10, long_input=5.0, long_output=6.0)
    prices = own_prices(own)
    assert prices is not None
    assert prices.parts(Usage(1_000_000, 1_000_000)) == pytest.approx((5.0, 0.0, 0.0, 6.0))
