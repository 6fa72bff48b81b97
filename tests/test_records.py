"""The nouns: counts that are unknown stay unknown, tallies add up, and what is stored comes back as it was."""

import sys
import unicodedata
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import STATUSES, Answer, Exit, Failure, Outcome, Rejection, Request, Tally, Usage
from pipeline.text import one_line, printable

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
WHOLE = st.integers(0, 10**6)
TALLIES = st.builds(Tally, *[WHOLE] * len(STATUSES), usage=USAGES, cost=WHOLE.map(float), attempts=WHOLE)


def test_a_count_unknown_on_both_sides_stays_unknown() -> None:
    assert Usage(1, None, 3) + Usage(10, None, None, 4) == Usage(11, None, 3, 4, None)
    assert Usage() + Usage() == Usage()


@given(USAGES, USAGES, USAGES)
def test_usage_adds_in_any_order_and_nothing_changes_nothing(a: Usage, b: Usage, c: Usage) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Usage() == a


@pytest.mark.parametrize(
    ("usage", "billed"),
    [
        (Usage(prompt_tokens=5, completion_tokens=36, total_tokens=1007), 1002),  # reasoning that only the total shows
        (Usage(prompt_tokens=5, completion_tokens=36, total_tokens=41), 36),
        (Usage(prompt_tokens=5, completion_tokens=36), 36),
        (Usage(completion_tokens=36, total_tokens=1007), 36),
        (Usage(prompt_tokens=5, total_tokens=12), 7),
        (Usage(prompt_tokens=50, completion_tokens=36, total_tokens=41), 36),  # a total that cannot be true
        (Usage(prompt_tokens=5), None),
        (Usage(), None),
    ],
)
def test_hidden_reasoning_is_billed_as_output(usage: Usage, billed: int | None) -> None:
    assert usage.billed_output_tokens == billed


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


@given(TALLIES)
def test_a_tally_survives_its_way_through_json_with_all_its_numbers(tally: Tally) -> None:
    stored = msgspec.json.encode(tally)
    assert msgspec.json.decode(stored, type=Tally) == tally
    assert set(msgspec.json.decode(stored)) == set(Tally.__struct_fields__)


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


@pytest.mark.parametrize("noun", [Usage(1), Tally(), Request("k", b"{}"), Rejection("retry", "rate", "busy")])
def test_the_nouns_are_frozen_and_equal_by_value(noun: msgspec.Struct) -> None:
    assert noun == msgspec.structs.replace(noun)
    with pytest.raises(AttributeError):
        setattr(noun, noun.__struct_fields__[0], None)


def test_the_exit_codes_are_those_that_are_promised() -> None:
    assert {code.name: code.value for code in Exit} == {
        "DONE": 0,
        "NEEDS_PERSON": 1,
        "USAGE": 2,
        "INCOMPLETE": 3,
        "AT_LIMIT": 4,
        "LOCKED": 5,
        "TRY_LATER": 75,
        "SIGHUP": 129,
        "SIGINT": 130,
        "SIGTERM": 143,
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\nof two lines", "plain\ttext\nof two lines"),
        ("好 \U0001f642 naïve Donau\u00addampf", "好 \U0001f642 naïve Donau\u00addampf"),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u06dd",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u06dd",
        ),
        ("\U0001f469\u200d\U0001f52c", "\U0001f469\u200d\U0001f52c"),
        ("\x1b[2Jgone", "�gone"),
        ("\x1b[1;31mred\x1b[0m", "�red�"),
        ("\x1b]0;title\x07", "�"),
        ("\x1b]8;;https://evil.invalid\x1b\\link\x1b]8;;\x1b\\", "�link�"),
        ("\x1b]0;without end", "�]0;without end"),
        ("\x1bc reset, \x1b(0 lines", "�c reset, �(0 lines"),
        ("over\rwritten", "over�written"),
        ("back\x08space\x7f", "back�space�"),
        ("\x9b31mred", "�31mred"),
        ("\u202eright to left\u202c", "�right to left�"),
        ("\u2066isolated\u2069", "�isolated�"),
        ("half \ud800", "half �"),
        ("hid\U000e0041den\u200b", "hid�den�"),
        ("\x00", "�"),
    ],
)
def test_what_could_move_the_cursor_or_turn_a_line_is_replaced(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_of_all_characters_those_that_are_not_seen_are_replaced_but_for_the_harmless() -> None:
    unseen = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs")]
    harmless = {letter for letter in unseen if printable(letter) == letter}
    assert harmless - {*"\n\t\u00ad\u200c\u200d"} == {*"\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u0890\u0891\u08e2"}


def test_one_line_is_one_line_whatever_it_holds() -> None:
    assert one_line(" m\n\x1b[2JDone:\r\n 5 ok\u2028\u202e ") == "m Done: 5 ok"
    assert one_line("\x1b]0;a\nb\x07c") == "c"
