"""The outcomes of requests: their status, and their way to disk and back."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import Answer, Failure, Outcome, Usage

COUNTS = st.none() | st.integers(0, 10**9)
USAGES = st.builds(Usage, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
TIMES = st.none() | st.datetimes(timezones=st.just(UTC))
SECONDS = st.none() | st.floats(0, 1e6)
TEXTS = st.text()
MAYBE_TEXTS = st.none() | TEXTS
SETTLED = {"attempts": st.integers(0, 99), "asked_at": TIMES, "latency_seconds": SECONDS, "cost": SECONDS}
ANSWERS = st.builds(
    Answer, text=TEXTS, finish_reason=MAYBE_TEXTS, model=MAYBE_TEXTS, usage=USAGES, refusal=MAYBE_TEXTS, **SETTLED
)
FAILURES = st.builds(Failure, kind=TEXTS, reason=TEXTS, lasting=st.booleans(), **SETTLED)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Answer(text="x"), "ok"),
        (Answer(text="x", finish_reason="stop"), "ok"),
        (Answer(text="x", finish_reason="length"), "truncated"),
        (Answer(text="", finish_reason="content_filter"), "filtered"),
        (Answer(text="", finish_reason="stop", refusal="I will not."), "refused"),
        (Answer(text="", finish_reason="length", refusal="I will not."), "refused"),
        (Failure(kind="filtered", reason="policy"), "filtered"),
        (Failure(kind="timeout", reason="slow", lasting=False), "failed"),
    ],
)
def test_the_status_of_an_outcome(answer: Outcome, status: str) -> None:
    assert answer.status == status


@given(ANSWERS | FAILURES)
def test_an_outcome_survives_its_way_through_json(outcome: Outcome) -> None:
    stored = msgspec.json.Encoder().encode(outcome)
    assert msgspec.json.Decoder(Outcome).decode(stored) == outcome


def test_what_is_at_its_default_is_not_stored() -> None:
    assert msgspec.json.decode(msgspec.json.encode(Answer(text="hi"))) == {"type": "answer", "text": "hi"}
    failure = Failure(kind="rate", reason="busy", attempts=3, asked_at=datetime(2026, 11, 22, tzinfo=UTC))
    assert msgspec.json.decode(msgspec.json.encode(failure)) == {
        "type": "failure",
        "kind": "rate",
        "reason": "busy",
        "attempts": 3,
        "asked_at": "2026-11-22T00:00:00Z",
    }
