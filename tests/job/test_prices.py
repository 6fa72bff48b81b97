"""Prices make sense only together."""

import pytest
from job_files import complaint_of


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"prices.input": 1.0}, "both prices.input and prices.output"),
        ({"prices.cached_input": 1.0}, "not prices.input and prices.output"),
        ({"prices.models.m": {"output": 1.0}}, "both prices.input and prices.output"),
    ],
)
def test_half_a_price_is_refused(setting: dict[str, object], words: str) -> None:
    assert words in complaint_of(**setting)
