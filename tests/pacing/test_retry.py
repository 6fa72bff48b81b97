"""Whether to try again: one row's refusals, and what all of them say of the job."""

import pytest

from pipeline.endpoint.rejections import KINDS
from pipeline.pacing.retry import ALIKE, ALIKE_BY_TEXT, ATTEMPTS, BLAMELESS_TRIES, Attempts, RetryAfter, RetryPolicy
from pipeline.records import Exit, Failure, Rejection, Stopped


def refusal(kind: str, *, status: int = 0, wait_seconds: float | None = None) -> Rejection:
    known = KINDS[kind]
    return Rejection(known.verdict, kind, "its words", status, known.pressure, wait_seconds)


HALF_AN_HOUR = 1800.0


def patience(*, answered: bool = False, waits: bool = False) -> RetryPolicy:
    made = RetryPolicy(0.0, rng=lambda: 0.5, give_up_after_seconds=HALF_AN_HOUR, waits=waits)
    if answered:
        made.answered(0.0)
    return made


def decisions(kind: str, times: int, *, answered: bool = True, alive: bool = True, **more: float) -> list[object]:
    """What one row is told, refused so many times, while other rows are answered in between (`alive`)."""
    course, tries, told = patience(answered=answered), Attempts(), []
    for _ in range(times):
        told.append(course.decide(refusal(kind, **more), tries, 1.0))  # type: ignore[arg-type]
        if alive:
            course.answered(1.0)
    return told


@pytest.mark.parametrize("kind", ["server", "overload", "timeout", "cut", "protocol", "garbled", "broken", "connect"])
def test_a_row_that_fails_for_passing_reasons_is_tried_six_times_and_asked_again_by_the_next_run(kind: str) -> None:
    *again, last = decisions(kind, ATTEMPTS)
    assert all(isinstance(told, RetryAfter) for told in again)
    assert isinstance(last, Failure)
    assert not last.lasting


@pytest.mark.parametrize(("kind", "attempts"), [("empty", 3), ("no_choices", 4)])
def test_an_odd_answer_is_asked_again_a_few_times_and_then_is_the_rows(kind: str, attempts: int) -> None:
    *again, last = decisions(kind, attempts)
    assert all(isinstance(told, RetryAfter) for told in again)
    assert isinstance(last, Failure)
    assert last.lasting


def test_a_429_costs_the_row_no_attempt() -> None:
    assert all(isinstance(told, RetryAfter) for told in decisions("rate", 500))


@pytest.mark.parametrize("kind", ["overload", "connect"])
def test_while_nobody_is_answered_an_overload_costs_the_row_no_attempt(kind: str) -> None:
    told = decisions(kind, 50, alive=False)
    assert all(isinstance(decision, RetryAfter) for decision in told)


@pytest.mark.parametrize("kind", ["overload", "connect", "timeout"])
def test_a_last_row_that_always_brings_the_endpoint_down_fails_in_the_end(kind: str) -> None:
    course, tries = patience(answered=True), Attempts()
    for _ in range(BLAMELESS_TRIES + ATTEMPTS):
        tries.sent += 1
        told = course.decide(refusal(kind), tries, 1.0)
        if isinstance(told, Failure):
            break
    assert isinstance(told, Failure)
    assert not told.lasting


@pytest.mark.parametrize("kind", ["too_long", "filtered", "too_large", "bad_request"])
def test_a_row_that_can_never_succeed_fails_at_once(kind: str) -> None:
    (told,) = decisions(kind, 1)
    assert isinstance(told, Failure)
    assert told.lasting


@pytest.mark.parametrize("kind", ["tls", "url", "billing", "daily"])
def test_what_no_row_can_get_past_stops_the_job_at_once(kind: str) -> None:
    (told,) = decisions(kind, 1)
    assert isinstance(told, Stopped)
    assert "its words" in str(told)


def test_a_refused_key_stops_at_once_or_after_two_in_a_row_once_something_succeeded() -> None:
    assert isinstance(decisions("auth", 1, answered=False)[0], Stopped)
    told = decisions("auth", 2, alive=False)
    assert isinstance(told[0], RetryAfter)
    assert isinstance(told[1], Stopped)
    assert all(isinstance(decision, RetryAfter) for decision in decisions("auth", 5, alive=True))


def test_an_unknown_model_stops_at_once_or_after_three_tries_once_something_succeeded() -> None:
    assert isinstance(decisions("not_found", 1, answered=False)[0], Stopped)
    told = decisions("not_found", 4, alive=False)
    assert [type(decision) for decision in told] == [RetryAfter, RetryAfter, RetryAfter, Stopped]


def test_an_endpoint_that_was_never_reached_stops_the_job_after_three_tries_to_be_tried_later() -> None:
    told = decisions("connect", 3, answered=False, alive=False)
    assert [type(decision) for decision in told] == [RetryAfter, RetryAfter, Stopped]
    assert isinstance(told[2], Stopped)
    assert told[2].exit_code is Exit.TRY_LATER


def test_a_web_page_first_of_all_means_a_wrong_address_and_later_a_passing_fault() -> None:
    assert isinstance(decisions("html", 1, answered=False)[0], Stopped)
    assert isinstance(decisions("html", 1)[0], RetryAfter)


def test_a_used_up_quota_is_believed_after_three_in_a_row_over_thirty_seconds() -> None:
    course, tries = patience(answered=True), Attempts()
    assert isinstance(course.decide(refusal("quota"), tries, 0.0), RetryAfter)
    assert isinstance(course.decide(refusal("quota"), tries, 10.0), RetryAfter)
    assert isinstance(course.decide(refusal("quota"), tries, 20.0), RetryAfter)
    assert isinstance(course.decide(refusal("quota"), tries, 30.0), Stopped)


def test_two_timeouts_and_an_empty_answer_do_not_fail_a_row_for_good() -> None:
    course, tries = patience(answered=True), Attempts()
    for kind in ("timeout", "timeout", "empty"):
        assert isinstance(course.decide(refusal(kind), tries, 1.0), RetryAfter)


def test_the_first_five_rows_refused_alike_stop_the_job() -> None:
    course = patience()
    told = [course.decide(refusal("bad_request", status=400 + 22 * (n % 2)), Attempts(), 1.0) for n in range(ALIKE)]
    assert [type(decision) for decision in told] == [Failure] * (ALIKE - 1) + [Stopped]


@pytest.mark.parametrize("kind", ["too_long", "filtered"])
def test_first_rows_that_fail_by_their_text_are_given_longer_before_they_stop_the_job(kind: str) -> None:
    course = patience()
    told = [course.decide(refusal(kind, status=400), Attempts(), 1.0) for _ in range(ALIKE_BY_TEXT)]
    assert [type(decision) for decision in told] == [Failure] * (ALIKE_BY_TEXT - 1) + [Stopped]
    assert "leave them out" in str(told[-1])


@pytest.mark.parametrize(("kind", "code"), [("empty", Exit.NEEDS_PERSON), ("server", Exit.TRY_LATER)])
def test_first_rows_whose_attempts_all_run_out_stop_the_job_before_it_pays_for_every_row(kind: str, code: Exit) -> None:
    course, stop = patience(), None
    for _ in range(ALIKE):
        tries = Attempts()
        while isinstance(stop := course.decide(refusal(kind), tries, 1.0), RetryAfter):
            pass
    assert isinstance(stop, Stopped)
    assert stop.exit_code is code


def test_a_wait_that_the_endpoint_asks_for_is_kept_and_a_very_long_one_stops_the_job() -> None:
    (told,) = decisions("rate", 1, wait_seconds=12.5)
    assert told == RetryAfter(after_seconds=12.5)
    (told,) = decisions("rate", 1, wait_seconds=3600.0)
    assert isinstance(told, Stopped)
    assert told.exit_code is Exit.TRY_LATER


@pytest.mark.parametrize("waits", [False, True])
def test_so_long_without_an_answer_as_is_set_is_an_outage(*, waits: bool) -> None:
    course = patience(answered=True, waits=waits)
    assert isinstance(course.decide(refusal("overload"), Attempts(), HALF_AN_HOUR - 1), RetryAfter)
    told = course.decide(refusal("overload"), Attempts(), HALF_AN_HOUR + 1)
    assert isinstance(told, Stopped)
    assert told.exit_code is Exit.TRY_LATER


def test_the_wait_before_trying_again_doubles_and_is_bounded() -> None:
    waits = [told.after_seconds for told in decisions("server", ATTEMPTS - 1) if isinstance(told, RetryAfter)]
    assert waits == [2.0, 4.0, 8.0, 16.0, 30.0]


def test_an_endpoint_that_is_waited_for_may_be_down_at_first_and_may_ask_for_any_wait() -> None:
    course, tries = patience(waits=True), Attempts()
    assert all(isinstance(course.decide(refusal("connect"), tries, n * 15.0), RetryAfter) for n in range(100))
    assert course.decide(refusal("rate", wait_seconds=1500.0), tries, 1500.0) == RetryAfter(after_seconds=1500.0)
