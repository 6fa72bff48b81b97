"""A lane under a cost cap. One output token costs a dollar; an answer has 6, and 10 at most."""

from pathlib import Path
from typing import Any

import pytest
from chat_server import Canned, ChatServer, completion, problem
from live_run import SERVER_ERROR, make_job, numbered, only, run

from pipeline.records import Exit

PRICED = {"prices__input": 0.0, "prices__output": 1e6, "parameters__max_tokens": 10}


def test_the_cap_is_never_passed_and_answers_that_cost_less_make_room_for_more(tmp_path: Path) -> None:
    with ChatServer(delay_seconds=0.02) as server:
        job = make_job(server.url, limits__max_cost=100.0, limits__concurrency=16, **PRICED)
        done = run(tmp_path, job, numbered(50), raises=True)
    assert done.stop.exit_code is Exit.AT_LIMIT
    # after 16 answers 96 are spent, but the 16th could leave only while 90 were
    assert len(done.answers) == server.arrived == 16
    assert done.spent == done.tally.cost == pytest.approx(96)


def test_requests_in_flight_at_once_stay_within_the_cap_at_their_highest_cost(tmp_path: Path) -> None:
    worst = Canned(body=completion("long", usage={"prompt_tokens": 1, "completion_tokens": 10}), delay_seconds=0.3)
    with ChatServer(lambda _seen, _attempt: worst) as server:
        job = make_job(server.url, limits__max_cost=55.0, limits__concurrency=16, **PRICED)
        done = run(tmp_path, job, numbered(50), raises=True)
    assert done.stop.exit_code is Exit.AT_LIMIT
    assert len(done.answers) == server.arrived == 5
    assert server.most_in_flight == 4
    assert done.spent == pytest.approx(50)


def test_a_cap_below_the_first_request_sends_nothing(server: ChatServer, tmp_path: Path) -> None:
    done = run(tmp_path, make_job(server.url, limits__max_cost=9.0, **PRICED), numbered(5), raises=True)
    assert done.stop.exit_code is Exit.AT_LIMIT
    assert server.arrived == 0


def test_a_cap_that_suffices_stops_nothing(server: ChatServer, tmp_path: Path) -> None:
    done = run(tmp_path, make_job(server.url, limits__max_cost=64.0, **PRICED), numbered(10))
    assert len(done.answers) == 10
    assert done.spent == pytest.approx(60)


def test_an_answer_of_unknown_usage_counts_at_its_highest_cost(tmp_path: Path) -> None:
    with ChatServer(lambda _seen, _attempt: Canned(body=completion("ok", usage=None))) as server:
        done = run(tmp_path, make_job(server.url, limits__max_cost=25.0, **PRICED), numbered(9), raises=True)
    assert done.stop.exit_code is Exit.AT_LIMIT
    assert len(done.answers) == server.arrived == 2
    assert done.spent == pytest.approx(20)
    assert [outcome.cost for outcome in done.outcomes.values()] == [None, None]
    assert done.tally.unpriced == 2


def test_an_attempt_that_broke_off_counts_at_its_highest_cost(tmp_path: Path) -> None:
    cut = Canned(body=completion("half"), cut_after=20)
    with ChatServer(only("row 1", cut, cut, Canned(body=completion("whole")))) as server:
        done = run(tmp_path, make_job(server.url, limits__max_cost=100.0, **PRICED), numbered(2))
    assert done.spent == pytest.approx(6 + 10 + 10 + 6)
    assert (done.tally.maybe_paid, done.tally.cost) == (2, pytest.approx(12))


@pytest.mark.parametrize(
    "rejected",
    [
        Canned(429, problem("slow down"), headers={"retry-after": "0.01"}),
        Canned(503, problem("busy"), headers={"retry-after": "0.01"}),
        Canned(529, problem("overloaded")),
    ],
    ids=lambda canned: str(canned.status),
)
def test_an_attempt_that_was_turned_away_costs_nothing(tmp_path: Path, rejected: Canned) -> None:
    with ChatServer(only("row 1", rejected, Canned(body=completion("ok")))) as server:
        done = run(tmp_path, make_job(server.url, limits__max_cost=22.0, **PRICED), numbered(2))
    assert (done.spent, done.tally.maybe_paid) == (pytest.approx(12), 0)


@pytest.mark.parametrize(
    "odd",
    [
        SERVER_ERROR,
        Canned(502),
        Canned(503),
        Canned(504, b"<html>upstream</html>"),
        Canned(body=completion("", usage=None)),
        Canned(body=completion(None, usage=None)),
        Canned(body=b'{"choices": []}'),
        Canned(body=b'{"choi'),
        Canned(body=b"<html>hello</html>"),
        Canned(body=completion("part", finish_reason="error", usage=None)),
        Canned(body=problem("upstream went away", kind="server_error")),
        Canned(garbage=True),
        Canned(close=True),
    ],
    ids=lambda canned: f"{canned.status} {canned.body[:60].decode()}",
)
def test_a_failed_attempt_that_may_be_billed_counts_at_its_highest_cost(tmp_path: Path, odd: Canned) -> None:
    with ChatServer(only("row 1", odd, Canned(body=completion("ok")))) as server:
        done = run(tmp_path, make_job(server.url, limits__max_cost=100.0, limits__concurrency=1, **PRICED), numbered(2))
    rejected = done.tally.maybe_paid
    assert rejected == 1
    assert done.spent == pytest.approx(6 * (done.tally.attempts - 1) + 10)
    assert done.tally.held == pytest.approx(10)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        {"prompt_tokens": 4, "completion_tokens": 0},
        {"prompt_tokens": -1, "completion_tokens": -1},
        {"prompt_tokens": 4},
        {"prompt_tokens": "four", "completion_tokens": "two"},
        {"prompt_tokens": 4.5, "completion_tokens": 2.5},
        {"prompt_tokens": 10**30, "completion_tokens": 1},
        {"prompt_tokens": True, "completion_tokens": True},
        [],
    ],
    ids=str,
)
def test_usage_that_cannot_be_true_counts_at_the_highest_cost(tmp_path: Path, usage: Any) -> None:
    with ChatServer(lambda _seen, _attempt: Canned(body=completion("ok", usage=usage))) as server:
        done = run(tmp_path, make_job(server.url, limits__max_cost=25.0, **PRICED), numbered(9), raises=True)
    assert done.stop.exit_code is Exit.AT_LIMIT
    assert (server.arrived, done.spent) == (2, pytest.approx(20))


def test_an_answer_without_usage_counts_at_least_at_its_own_length(tmp_path: Path) -> None:
    long = Canned(body=completion("x" * 50, usage=None))
    with ChatServer(lambda _seen, _attempt: long) as server:
        done = run(tmp_path, make_job(server.url, limits__max_cost=55.0, **PRICED), numbered(9), raises=True)
    assert server.arrived == 1
    assert done.spent >= 50


def test_a_limit_that_the_endpoint_ignores_is_reserved_at_what_it_uses(tmp_path: Path) -> None:
    usage = {"prompt_tokens": 4, "completion_tokens": 100}
    with ChatServer(lambda _seen, _attempt: Canned(body=completion("ok", usage=usage))) as server:
        job = make_job(server.url, limits__max_cost=1000.0, limits__concurrency=64, **PRICED)
        done = run(tmp_path, job, numbered(100), raises=True)
    assert done.stop.exit_code is Exit.AT_LIMIT
    assert done.spent == pytest.approx(server.arrived * done.outcomes["row 0"].cost)
    assert done.spent <= 1000
    assert done.said.count("From now on the cost cap reserves 1.5 times the largest number seen.") == 1


def test_failed_attempts_that_report_their_usage_are_in_the_outcomes_cost(tmp_path: Path) -> None:
    with ChatServer(only("row 1", Canned(body=completion("")), Canned(body=completion("ok")))) as server:
        done = run(tmp_path, make_job(server.url, **PRICED), numbered(2))
    assert done.outcomes["row 1"].cost == pytest.approx(12)

    with ChatServer(only("row 1", Canned(body=completion("")))) as server:
        done = run(tmp_path / "failed", make_job(server.url, **PRICED), numbered(2))
    assert done.failure("row 1").cost == pytest.approx(18)
    assert done.tally.cost == pytest.approx(6 + 18)


def test_the_known_part_of_a_rows_cost_is_in_the_ledger(tmp_path: Path) -> None:
    without_usage = Canned(body=completion("ok", usage=None))
    with ChatServer(only("row 1", Canned(body=completion("")), without_usage)) as server:
        done = run(tmp_path, make_job(server.url, **PRICED), numbered(2))
    assert done.outcomes["row 1"].cost is None
    assert (done.tally.cost, done.tally.unpriced) == (pytest.approx(6 + 6), 1)


def test_what_a_row_cost_before_a_stop_is_in_the_ledger(tmp_path: Path) -> None:
    with ChatServer(only("row 1", Canned(body=completion("")), Canned(402, problem("no credit")))) as server:
        done = run(tmp_path, make_job(server.url, limits__concurrency=1, **PRICED), numbered(2), raises=True)
    assert done.stop.exit_code is Exit.NEEDS_PERSON
    assert set(done.outcomes) == {"row 0"}
    assert done.tally.cost == pytest.approx(6 + 6)
    assert done.tally.attempts == server.arrived
