"""Every row of the last plan has one status, found from the store."""

from collections.abc import Callable

from planned_table import CUT, LASTING, OK, PASSING, PlannedTable

from pipeline.records import Answer, Failure, Tally


def test_the_rows_of_the_last_plan_are_tallied_by_status(make: Callable[..., PlannedTable]) -> None:
    rows = make("a", "b", "c", "d", "e", "f", "g", "a", None)
    rows.record(a=OK, b=CUT, c=LASTING, d=PASSING, e=Answer(text="", refusal="No."), f=Failure("filtered", "policy"))
    rows.plan()
    assert rows.tally() == Tally(ok=2, truncated=1, failed=3, refused=1, filtered=1, pending=1)


def test_statuses_come_in_row_order(make: Callable[..., PlannedTable]) -> None:
    rows = make("a", "b", None, "c", "d", "a")
    rows.record(a=OK, b=CUT, c=PASSING)
    rows.plan()
    assert rows.statuses() == ["ok", "truncated", "failed", "failed", "pending", "ok"]


def test_a_row_has_the_best_status_of_its_samples_and_is_pending_while_one_is(
    make: Callable[..., PlannedTable],
) -> None:
    rows = make("a", "b", "c", **{"answer.samples": 2})
    rows.record_chains(
        (rows.request("a", 0), [LASTING]), (rows.request("a", 1), [CUT]),
        (rows.request("b", 0), [LASTING]), (rows.request("b", 1), [LASTING]),
        (rows.request("c", 0), [OK]),
    )  # fmt: skip
    rows.plan()
    assert rows.statuses() == ["truncated", "failed", "pending"]


def test_the_last_answer_of_a_chain_decides_the_status(make: Callable[..., PlannedTable]) -> None:
    rows = make("a", "b", **{"answer.labels": ["yes", "no"]})
    bad, good = Answer(text="Hm."), Answer(text='{"label": "no"}')
    rows.record_chains((rows.request("a"), [bad, good]), (rows.request("b"), [bad]))
    rows.plan()
    assert rows.statuses() == ["ok", "pending"]


def test_an_answer_that_does_not_fit_is_tallied_as_invalid(make: Callable[..., PlannedTable]) -> None:
    rows = make("a", "b", **{"answer.labels": ["yes", "no"], "answer.repairs": 0})
    rows.record(a=Answer(text="perhaps"), b=Answer(text='{"label": "no"}'))
    plan = rows.plan()
    assert plan.to_ask == 0
    assert rows.tally() == Tally(ok=1, invalid=1)
