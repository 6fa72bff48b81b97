"""Which requests a run sends: the first of equals, those without an outcome, those to retry; every row is counted."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planned_table import CUT, LASTING, OK, PASSING, PlannedTable

from pipeline.job.job import ThisRun
from pipeline.planning.plan import select_rows
from pipeline.records import STATUSES, Answer, BadJob, Outcome, Tally


def test_of_equal_rows_only_the_first_is_asked_and_the_others_are_duplicates(make: Callable[..., PlannedTable]) -> None:
    rows = make("a", "b", "a", "a", "c", "b")
    plan = rows.plan()
    assert plan.ask.to_list() == [True, True, False, False, True, False]
    assert (plan.rows, plan.to_ask, plan.duplicates, plan.answered, plan.rows_without_request) == (6, 3, 3, 0, 0)
    assert plan.request_bytes == sum(len(rows.request(prompt).body) for prompt in "abc")


def test_a_row_with_an_answer_is_not_asked_nor_are_its_duplicates(make: Callable[..., PlannedTable]) -> None:
    rows = make("a", "b", "a", "c")
    rows.record(a=OK)
    plan = rows.plan()
    assert (plan.answered, plan.to_ask, plan.duplicates) == (2, 2, 0)
    assert rows.asked(plan) == [rows.request("b"), rows.request("c")]


def test_answers_of_rows_that_are_gone_are_counted_as_unused(make: Callable[..., PlannedTable]) -> None:
    rows = make("a", "b")
    rows.record(a=OK, gone=OK, failed=LASTING)
    plan = rows.plan()
    assert (plan.stored, plan.unused) == (2, 1)


def test_a_temporary_failure_is_asked_again_and_a_lasting_one_is_not(make: Callable[..., PlannedTable]) -> None:
    rows = make("a", "b", "c")
    rows.record(a=LASTING, b=PASSING, c=OK)
    plan = rows.plan()
    assert plan.ask.to_list() == [False, True, False]
    assert (plan.answered, plan.to_ask) == (2, 1)


@pytest.mark.parametrize(
    ("retry", "asked"),
    [
        ((), ["b"]),
        (("failed",), ["a", "b"]),
        (("truncated",), ["b", "c"]),
        (("failed", "truncated", "invalid"), ["a", "b", "c"]),
        (("ok",), ["b", "d"]),
    ],
)
def test_retry_asks_those_of_the_named_statuses_again(
    make: Callable[..., PlannedTable], retry: tuple[str, ...], asked: list[str]
) -> None:
    rows = make("a", "b", "c", "d")
    rows.record(a=LASTING, b=PASSING, c=CUT, d=OK)
    assert rows.asked(rows.plan(retry=retry)) == [rows.request(prompt) for prompt in asked]


def test_a_row_that_cannot_be_asked_has_its_reason_and_no_request(make: Callable[..., PlannedTable]) -> None:
    rows = make("a", None, " ", "b", None)
    plan = rows.plan()
    assert (plan.rows, plan.to_ask, plan.duplicates, plan.rows_without_request) == (5, 2, 0, 3)
    assert plan.first_row_error == "the prompt is null"
    assert rows.asked(plan) == [rows.request("a"), rows.request("b")]
    assert rows.tally() == Tally(failed=3, pending=2)


def test_a_job_is_refused_if_no_row_can_be_asked(tmp_path: Path, make: Callable[..., PlannedTable]) -> None:
    rows = make(None, "", None)
    with pytest.raises(BadJob, match=r"None of the 3 rows can be asked. The first: the prompt is null"):
        rows.plan()
    assert not (tmp_path / "keys.part.parquet").exists()


def test_a_table_without_rows_is_planned(make: Callable[..., PlannedTable]) -> None:
    rows = make()
    plan = rows.plan()
    assert (plan.rows, plan.to_ask, plan.answered, plan.duplicates, plan.rows_without_request) == (0, 0, 0, 0, 0)
    assert rows.asked(plan) == []
    assert rows.tally() == Tally()


@pytest.mark.parametrize(
    ("this_run", "rows"), [({}, 6), ({"limit": 2}, 2), ({"limit": 9}, 6), ({"sample": 3}, 3), ({"sample": 99}, 6)]
)
def test_a_pilot_plans_its_rows_alone(make: Callable[..., PlannedTable], this_run: dict[str, int], rows: int) -> None:
    whole = make(*"abcdef")
    table = select_rows(ThisRun(**this_run), whole.table)
    plan = whole.plan(table=table, **this_run)
    assert (plan.rows, plan.to_ask, whole.tally().rows) == (rows, rows, rows)
    asked = whole.asked(plan, table)
    in_order = [whole.request(prompt) for prompt in "abcdef"]
    assert asked == [request for request in in_order if request in asked]
    if "limit" in this_run:
        assert asked == in_order[: this_run["limit"]]


def test_a_sample_is_the_same_for_the_same_seed(make: Callable[..., PlannedTable]) -> None:
    whole = make(*map(str, range(50)))
    drawn = [select_rows(ThisRun(sample=5, seed=seed), whole.table) for seed in (1, 1, 2)]
    first, again, other = [whole.asked(whole.plan(table=table), table) for table in drawn]
    assert first == again != other


def test_answers_of_a_pilot_count_in_the_full_run(make: Callable[..., PlannedTable]) -> None:
    whole = make(*"abcd")
    whole.record(a=OK, b=OK)
    assert whole.plan(table=whole.table.head(2)).to_ask == 0
    assert (whole.plan().answered, whole.plan().to_ask) == (2, 2)


PROMPTS = st.lists(st.sampled_from([None, "", "a", "b", "c", "d", "e"]), max_size=12)
OUTCOMES = st.dictionaries(st.sampled_from("abcdex"), st.sampled_from([OK, CUT, LASTING, PASSING]))
RETRY = st.sets(st.sampled_from(["failed", "truncated", "ok"])).map(lambda names: tuple(sorted(names)))


@settings(max_examples=15, deadline=None)
@given(prompts=PROMPTS, outcomes=OUTCOMES, retry=RETRY)
def test_every_row_is_counted_once_and_the_unknown_ones_are_asked(
    prompts: list[str | None], outcomes: dict[str, Outcome], retry: tuple[str, ...]
) -> None:
    with tempfile.TemporaryDirectory() as folder, PlannedTable(Path(folder), prompts) as rows:
        rows.record(**outcomes)
        askable = [prompt for prompt in prompts if prompt]
        again = {prompt for prompt, each in outcomes.items() if each is PASSING or each.status in retry}
        expected = [prompt for prompt in dict.fromkeys(askable) if prompt not in outcomes or prompt in again]
        if prompts and not askable:
            with pytest.raises(BadJob):
                rows.plan(retry=retry)
            return
        plan = rows.plan(retry=retry)
        assert plan.answered + plan.to_ask + plan.duplicates + plan.rows_without_request == plan.rows == len(prompts)
        assert rows.asked(plan) == [rows.request(prompt) for prompt in expected]
        assert plan.request_bytes == sum(len(rows.request(prompt).body) for prompt in expected)
        assert plan.stored == sum(isinstance(each, Answer) for each in outcomes.values())
        tally = rows.tally()
        statuses = [outcomes[prompt].status if prompt in outcomes else "pending" for prompt in askable]
        statuses += ["failed"] * (len(prompts) - len(askable))
        assert [getattr(tally, status) for status in STATUSES] == [statuses.count(status) for status in STATUSES]
