"""Failures that wait for an answer: a model that no row should name is told from an address that is wrong."""

import pytest

from pipeline.execution.live.open_request import OpenRequest
from pipeline.execution.live.unconfirmed import Unconfirmed
from pipeline.records import Failure, Request, Stopped


class Source:
    """A run's requests, as far as the failures ask for them."""

    def __init__(self, *, in_flight: int = 0, has_answers: bool = False, is_over: bool = True) -> None:
        self.in_flight, self.has_answers, self._is_over = in_flight, has_answers, is_over

    def draw(self, _model: str) -> Request | None:
        return None

    def is_over(self, _model: str) -> bool:
        return self._is_over

    def wake_all(self) -> None: ...


def failures(source: Source, named_by: str | None = "which") -> Unconfirmed:
    made = Unconfirmed(source, "m", named_by)
    made.add(OpenRequest(Request("a" * 64, b"")), Failure(kind="not_found", reason="the model 'm'"))
    return made


def test_failures_are_taken_once() -> None:
    made = failures(Source())
    assert len(made) == 1
    assert [failure.kind for _, failure in made.take()] == ["not_found"]
    assert not made.take()


@pytest.mark.parametrize("source", [Source(in_flight=1), Source(is_over=False)])
def test_a_model_is_in_doubt_as_long_as_another_may_answer(source: Source) -> None:
    assert failures(source).is_model_in_doubt()


def test_it_is_not_once_another_has_answered_or_if_rows_name_none() -> None:
    assert not failures(Source(has_answers=True)).is_model_in_doubt()
    assert not failures(Source(), None).is_model_in_doubt()
    assert not Unconfirmed(Source(), "m", "which").is_model_in_doubt()


def test_if_no_other_can_answer_the_job_stops_and_names_both() -> None:
    with pytest.raises(Stopped, match=r"the model 'm'\n.*base_url"):
        failures(Source()).is_model_in_doubt()


def rejected(kind: str, at: float | None) -> tuple[OpenRequest, Failure]:
    item = OpenRequest(Request("b" * 64, b""))
    item.rejected_at = at
    return item, Failure(kind=kind, reason="No.")


@pytest.mark.parametrize("kind", ["auth", "forbidden", "not_found"])
def test_a_rejection_for_the_key_is_the_rows_own_once_a_later_request_was_answered(kind: str) -> None:
    made, row = Unconfirmed(Source(), "m", None), rejected(kind, 10.0)
    made.add(*row)
    assert made.take(9.0) == []
    assert made.has_key_in_doubt
    assert made.take(11.0) == [row]
    assert not made.is_key_in_doubt(*rejected(kind, 10.5))
    assert made.is_key_in_doubt(*rejected(kind, 11.5))


@pytest.mark.parametrize("row", [rejected("not_found", None), rejected("bad_request", None), rejected("server", 10.0)])
def test_any_answer_confirms_a_failure_for_another_reason(row: tuple[OpenRequest, Failure]) -> None:
    made = Unconfirmed(Source(), "m", None)
    made.add(*row)
    assert not made.has_key_in_doubt
    assert made.take(9.0) == [row]
