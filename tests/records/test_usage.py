"""Token counts add up, and what is unknown stays so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import Usage

COUNTS = st.none() | st.integers(0, 10**9)
USAGES = st.builds(Usage, *[COUNTS] * 7)


def test_a_count_unknown_on_both_sides_stays_unknown() -> None:
    assert Usage(1, None, 3) + Usage(10, None, None, 4) == Usage(11, None, 3, 4, None)
    assert Usage() + Usage() == Usage()


@given(USAGES, USAGES, USAGES)
def test_usage_adds_in_any_order_and_nothing_changes_nothing(a: Usage, b: Usage, c: Usage) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Usage() == a


@pytest.mark.parametrize(
    ("usage", "billed"),
    [
        (Usage(prompt_tokens=5, completion_tokens=36, total_tokens=1007), 1002),  # reasoning that only the total shows
        (Usage(prompt_tokens=5, completion_tokens=36, total_tokens=41), 36),
        (Usage(prompt_tokens=5, completion_tokens=36), 36),
        (Usage(completion_tokens=36, total_tokens=1007), 36),
        (Usage(prompt_tokens=5, total_tokens=12), 7),
        (Usage(prompt_tokens=50, completion_tokens=36, total_tokens=41), 36),  # a total that cannot be true
        (Usage(prompt_tokens=5), None),
        (Usage(), None),
    ],
)
def test_hidden_reasoning_is_billed_as_output(usage: Usage, billed: int | None) -> None:
    assert usage.billed_output_tokens == billed
