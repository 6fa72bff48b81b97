"""Tallies add field by field."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import STATUSES, Tally, Usage

COUNTS = st.none() | st.integers(0, 10**9)
USAGES = st.builds(Usage, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
WHOLE = st.integers(0, 10**6)
TALLIES = st.builds(Tally, *[WHOLE] * len(STATUSES), usage=USAGES, cost=WHOLE.map(float), attempts=WHOLE)


@given(TALLIES, TALLIES)
def test_tallies_add_field_by_field_and_so_do_their_rows(a: Tally, b: Tally) -> None:
    both = a + b
    assert both == b + a
    assert both.rows == a.rows + b.rows
    assert both.usage == a.usage + b.usage
    assert (both.ok, both.cost, both.attempts) == (a.ok + b.ok, a.cost + b.cost, a.attempts + b.attempts)
    assert a + Tally() == a


@pytest.mark.parametrize("status", STATUSES)
def test_one_more_of_a_status_is_one_more_row(status: str) -> None:
    tally = Tally(ok=2, cost=0.5).plus(status)  # type: ignore[arg-type] # a status, out of their list
    assert tally.rows == 3
    assert tally.cost == 0.5
    assert getattr(tally, status) == (3 if status == "ok" else 1)


def test_truncated_rows_are_answered_and_pending_ones_are_not_counted_as_failures() -> None:
    tally = Tally(ok=1, truncated=2, filtered=4, refused=8, invalid=16, failed=32, pending=64)
    assert tally.rows == 127
    assert tally.unanswered == 4 + 8 + 16 + 32


def test_tokens_are_prompt_and_billed_output_as_far_as_known() -> None:
    assert Tally(usage=Usage(5, 36, total_tokens=1007)).tokens == 1007
    assert Tally(usage=Usage(prompt_tokens=5)).tokens == 5
    assert Tally().tokens == 0


@given(TALLIES)
def test_a_tally_survives_its_way_through_json_with_all_its_numbers(tally: Tally) -> None:
    stored = msgspec.json.encode(tally)
    assert msgspec.json.decode(stored, type=Tally) == tally
    assert set(msgspec.json.decode(stored)) == set(Tally.__struct_fields__)
