"""Decisions about rejections: try the row again, fail it, or stop the job."""

import pytest

from pipeline.endpoint.rejections import KINDS
from pipeline.pacing.retry import (
    ATTEMPTS,
    OUTAGE_ROWS_MIN,
    REJECTED_ROWS_MAX,
    SAME_FAILURES_MAX,
    TEXT_FAILURES_MAX,
    UNCOUNTED_ATTEMPTS_MAX,
    Attempts,
    RetryAfter,
    RetryPolicy,
)
from pipeline.records import Exit, Failure, Rejection, Stopped


def rejection(kind: str, *, status: int = 0, wait_seconds: float | None = None) -> Rejection:
    known = KINDS[kind]
    return Rejection(known.verdict, kind, "the message", status, known.pressure, wait_seconds)


HALF_AN_HOUR = 1800.0


def policy_with(*, answered: bool = False, waits: bool = False) -> RetryPolicy:
    made = RetryPolicy(0.0, rng=lambda: 0.5, give_up_after_seconds=HALF_AN_HOUR, waits=waits)
    if answered:
        made.answered(0.0)
    return made


def decisions(kind: str, times: int, *, answered: bool = True, alive: bool = True, **more: float) -> list[object]:
    """The decisions about one row, rejected this number of times; `alive`: another row is answered after each."""
    policy, attempts, made = policy_with(answered=answered), Attempts(), []
    for _ in range(times):
        made.append(policy.decide(rejection(kind, **more), attempts, 1.0))  # type: ignore[arg-type]
        if alive:
            policy.answered(1.0)
    return made


@pytest.mark.parametrize("kind", ["server", "overload", "timeout", "cut", "protocol", "garbled", "broken", "connect"])
def test_a_row_that_fails_for_temporary_reasons_is_tried_six_times_and_asked_again_by_the_next_run(kind: str) -> None:
    *again, last = decisions(kind, ATTEMPTS)
    assert all(isinstance(decision, RetryAfter) for decision in again)
    assert isinstance(last, Failure)
    assert not last.lasting


@pytest.mark.parametrize(("kind", "attempts"), [("empty", 3), ("no_choices", 4)])
def test_an_empty_answer_is_asked_again_a_few_times_and_then_the_row_fails_for_good(kind: str, attempts: int) -> None:
    *again, last = decisions(kind, attempts)
    assert all(isinstance(decision, RetryAfter) for decision in again)
    assert isinstance(last, Failure)
    assert last.lasting


def test_a_429_costs_the_row_no_attempt() -> None:
    assert all(isinstance(decision, RetryAfter) for decision in decisions("rate", 500, status=429))


def test_a_rate_limit_under_another_status_ends_some_day() -> None:
    policy, row = policy_with(answered=True), Attempts()
    for sent in range(1, UNCOUNTED_ATTEMPTS_MAX + ATTEMPTS + 1):
        row.sent = sent
        decision = policy.decide(rejection("rate", status=400), row, 1.0)
    assert isinstance(decision, Failure)
    assert not decision.lasting


@pytest.mark.parametrize("kind", ["overload", "connect"])
def test_while_nobody_is_answered_an_overload_costs_the_row_no_attempt(kind: str) -> None:
    made = decisions(kind, 50, alive=False)
    assert all(isinstance(decision, RetryAfter) for decision in made)


@pytest.mark.parametrize("kind", ["overload", "connect", "timeout"])
def test_a_last_row_that_always_brings_the_endpoint_down_fails_in_the_end(kind: str) -> None:
    policy, attempts = policy_with(answered=True), Attempts()
    for _ in range(UNCOUNTED_ATTEMPTS_MAX + ATTEMPTS):
        attempts.sent += 1
        decision = policy.decide(rejection(kind), attempts, 1.0)
        if isinstance(decision, Failure):
            break
    assert isinstance(decision, Failure)
    assert not decision.lasting


@pytest.mark.parametrize("kind", ["too_long", "filtered", "too_large", "bad_request"])
def test_a_row_that_can_never_succeed_fails_at_once(kind: str) -> None:
    (decision,) = decisions(kind, 1)
    assert isinstance(decision, Failure)
    assert decision.lasting


@pytest.mark.parametrize("kind", ["tls", "url", "billing", "daily"])
def test_a_fault_that_no_row_can_get_past_stops_the_job_at_once(kind: str) -> None:
    (decision,) = decisions(kind, 1)
    assert isinstance(decision, Stopped)
    assert "the message" in str(decision)


@pytest.mark.parametrize("kind", ["auth", "forbidden", "not_found"])
def test_what_refuses_every_row_stops_the_job(kind: str) -> None:
    assert isinstance(decisions(kind, 1, answered=False)[0], Stopped)
    policy = policy_with(answered=True)
    made = [policy.decide(rejection(kind), Attempts(), 1.0) for _ in range(REJECTED_ROWS_MAX[kind])]
    assert all(isinstance(decision, RetryAfter) for decision in made[:-1])
    assert isinstance(made[-1], Stopped)


@pytest.mark.parametrize("kind", ["auth", "forbidden", "not_found"])
@pytest.mark.parametrize("alive", [True, False])
def test_a_row_that_alone_is_refused_fails_after_three_tries_whatever_else_is_answered(kind: str, alive: bool) -> None:
    *again, last = decisions(kind, 3, alive=alive)
    assert all(isinstance(decision, RetryAfter) for decision in again)
    assert isinstance(last, Failure)
    assert last.lasting


def test_a_key_that_answered_in_an_earlier_run_is_not_to_blame_for_one_row() -> None:
    policy, row = RetryPolicy(0.0, rng=lambda: 0.5, is_proven=True), Attempts()
    made = [policy.decide(rejection("auth"), row, 1.0) for _ in range(3)]
    assert [type(decision) for decision in made] == [RetryAfter, RetryAfter, Failure]
    assert isinstance(policy.decide(rejection("auth"), Attempts(), 1.0), RetryAfter)
    assert isinstance(policy.decide(rejection("auth"), Attempts(), 1.0), Stopped)


def test_a_gateways_time_out_is_paid_for_a_few_times_and_is_an_outage_only_if_many_rows_have_it() -> None:
    *again, last = decisions("gateway_timeout", 3, alive=False)
    assert all(isinstance(decision, RetryAfter) for decision in again)
    assert isinstance(last, Failure)
    assert not last.lasting
    policy, rows, made = policy_with(answered=True), [Attempts() for _ in range(OUTAGE_ROWS_MIN)], []
    for row in [row for _ in range(8) for row in rows]:
        row.sent += 1
        made.append(policy.decide(rejection("gateway_timeout"), row, 1.0))
    assert all(isinstance(decision, RetryAfter) for decision in made[: 5 * OUTAGE_ROWS_MIN])
    assert all(isinstance(decision, Failure) for decision in made[-OUTAGE_ROWS_MIN:])


def test_an_endpoint_that_was_never_reached_stops_the_job_after_three_attempts_to_be_tried_later() -> None:
    made = decisions("connect", 3, answered=False, alive=False)
    assert [type(decision) for decision in made] == [RetryAfter, RetryAfter, Stopped]
    assert isinstance(made[2], Stopped)
    assert made[2].exit_code is Exit.TRY_LATER


def test_a_web_page_first_of_all_means_a_wrong_address_and_later_a_temporary_fault() -> None:
    assert isinstance(decisions("html", 1, answered=False)[0], Stopped)
    assert isinstance(decisions("html", 1)[0], RetryAfter)


def test_a_used_up_quota_is_believed_after_three_in_a_row_over_thirty_seconds() -> None:
    policy, attempts = policy_with(answered=True), Attempts()
    assert isinstance(policy.decide(rejection("quota"), attempts, 0.0), RetryAfter)
    assert isinstance(policy.decide(rejection("quota"), attempts, 10.0), RetryAfter)
    assert isinstance(policy.decide(rejection("quota"), attempts, 20.0), RetryAfter)
    assert isinstance(policy.decide(rejection("quota"), attempts, 30.0), Stopped)


def test_two_timeouts_and_an_empty_answer_do_not_fail_a_row_for_good() -> None:
    policy, attempts = policy_with(answered=True), Attempts()
    for kind in ("timeout", "timeout", "empty"):
        assert isinstance(policy.decide(rejection(kind), attempts, 1.0), RetryAfter)


def test_the_first_five_rows_that_fail_for_one_reason_stop_the_job() -> None:
    policy = policy_with()
    made = [
        policy.decide(rejection("bad_request", status=400 + 22 * (n % 2)), Attempts(), 1.0)
        for n in range(SAME_FAILURES_MAX)
    ]
    assert [type(decision) for decision in made] == [Failure] * (SAME_FAILURES_MAX - 1) + [Stopped]


@pytest.mark.parametrize("kind", ["too_long", "filtered"])
def test_first_rows_that_fail_by_their_text_are_given_longer_before_they_stop_the_job(kind: str) -> None:
    policy = policy_with()
    made = [policy.decide(rejection(kind, status=400), Attempts(), 1.0) for _ in range(TEXT_FAILURES_MAX)]
    assert [type(decision) for decision in made] == [Failure] * (TEXT_FAILURES_MAX - 1) + [Stopped]
    assert "leave them out" in str(made[-1])


@pytest.mark.parametrize(("kind", "code"), [("empty", Exit.NEEDS_PERSON), ("server", Exit.TRY_LATER)])
def test_first_rows_whose_attempts_all_run_out_stop_the_job_before_it_pays_for_every_row(kind: str, code: Exit) -> None:
    policy, stop = policy_with(), None
    for _ in range(SAME_FAILURES_MAX):
        attempts = Attempts()
        while isinstance(stop := policy.decide(rejection(kind), attempts, 1.0), RetryAfter):
            pass
    assert isinstance(stop, Stopped)
    assert stop.exit_code is code


def test_a_wait_that_the_endpoint_asks_for_is_kept_and_a_very_long_one_stops_the_job() -> None:
    (decision,) = decisions("rate", 1, wait_seconds=12.5)
    assert decision == RetryAfter(after_seconds=12.5)
    (decision,) = decisions("rate", 1, wait_seconds=3600.0)
    assert isinstance(decision, Stopped)
    assert decision.exit_code is Exit.TRY_LATER


@pytest.mark.parametrize("waits", [False, True])
def test_a_job_without_an_answer_for_the_time_that_is_set_is_stopped(*, waits: bool) -> None:
    policy = policy_with(answered=True, waits=waits)
    assert isinstance(policy.decide(rejection("overload"), Attempts(), HALF_AN_HOUR - 1), RetryAfter)
    decision = policy.decide(rejection("overload"), Attempts(), HALF_AN_HOUR + 1)
    assert isinstance(decision, Stopped)
    assert decision.exit_code is Exit.TRY_LATER


def test_the_wait_before_trying_again_doubles_and_is_bounded() -> None:
    waits = [
        decision.after_seconds for decision in decisions("server", ATTEMPTS - 1) if isinstance(decision, RetryAfter)
    ]
    assert waits == [2.0, 4.0, 8.0, 16.0, 30.0]


def test_an_endpoint_that_is_waited_for_may_be_down_at_first_and_may_ask_for_any_wait() -> None:
    policy, attempts = policy_with(waits=True), Attempts()
    assert all(isinstance(policy.decide(rejection("connect"), attempts, n * 15.0), RetryAfter) for n in range(100))
    assert policy.decide(rejection("rate", wait_seconds=1500.0), attempts, 1500.0) == RetryAfter(after_seconds=1500.0)


def test_a_resume_of_a_job_that_has_answered_is_not_stopped_by_texts_that_no_endpoint_takes() -> None:
    policy = RetryPolicy(0.0, rng=lambda: 0.5, is_proven=True)
    filtered = Rejection("row", "filtered", "not allowed", 400)
    assert all(isinstance(policy.decide(filtered, Attempts(), 1.0), Failure) for _ in range(500))
