"""Prices make sense only together."""

import pytest
from job_files import complaint_of


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"prices.input": 1.0}, "both prices.input and prices.output"),
        ({"prices.cached_input": 1.0}, "not prices.input and prices.output"),
        ({"prices.cache_write": 1.0}, "prices.cache_write is given, but not prices.input"),
        (
            {"prices.input": 1.0, "prices.output": 1.0, "prices.long_input": 1.0},
            "prices.long_input is given, but not prices.long_prompt_tokens",
        ),
        ({"prices.models.m": {"output": 1.0}}, "both prices.input and prices.output"),
    ],
)
def test_half_a_price_is_refused(setting: dict[str, object], words: str) -> None:
    assert words in complaint_of(**setting)
