"""Every status of a row has one meaning."""

from pipeline.records import ANSWERED, FOLLOWED_UP, RETRYABLE, STATUSES, TEMPORARY, UNUSABLE, USABLE


def test_every_row_that_ended_has_a_usable_answer_or_none() -> None:
    assert sorted([*USABLE, *UNUSABLE, "pending"]) == sorted(STATUSES)


def test_what_may_be_retried_or_followed_up_has_ended() -> None:
    assert set(FOLLOWED_UP) < set(RETRYABLE) == set(STATUSES) - {"ok", "pending"}
    assert set(ANSWERED) == set(STATUSES) - {"failed", "pending"}


def test_the_mark_of_a_temporary_failure_is_no_status() -> None:
    assert TEMPORARY not in STATUSES
