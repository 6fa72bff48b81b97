"""Which requests of a plan have a stored outcome is found from the marks in the store."""

from collections.abc import Callable
from contextlib import closing

import polars as pl
from planned_table import CUT, LASTING, OK, PASSING, PlannedTable

from pipeline.planning.digests import digests_of_text
from pipeline.planning.outcomes import StoredOutcomes, find_outcomes
from pipeline.records import ANSWERED, TEMPORARY
from pipeline.store.reader import Reader


def outcomes_of(rows: PlannedTable, *prompts: str) -> StoredOutcomes:
    with closing(Reader(rows.store.folder)) as reader:
        return find_outcomes(digests_of_text([rows.request(prompt).key for prompt in prompts]), reader)


def test_every_request_is_marked_by_its_outcome_and_all_answers_are_counted(make: Callable[..., PlannedTable]) -> None:
    rows = make("a")
    rows.record(a=OK, b=CUT, c=LASTING, d=PASSING, other=OK)
    found = outcomes_of(rows, "a", "b", "c", "d", "e", "a")
    assert {mark: places.arg_true().to_list() for mark, places in found.by_mark.items()} == {
        "ok": [0, 5], "truncated": [1], "failed": [2], TEMPORARY: [3],
    }  # fmt: skip
    assert found.marked(ANSWERED).to_list() == [True, True, False, False, False, True]
    assert found.any_mark().to_list() == [True, True, True, True, False, True]
    assert found.answers == 3


def test_without_outcomes_no_request_is_marked(make: Callable[..., PlannedTable]) -> None:
    found = outcomes_of(make("a"), "a", "b")
    assert (found.by_mark, found.answers) == ({}, 0)
    assert found.any_mark().equals(pl.Series([False, False]))
