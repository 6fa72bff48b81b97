"""Text for people is clean, short and in units; JSON is strict, and the same value gives the same bytes."""

import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.text import (
    canonical_json,
    clip,
    compact_json,
    did_you_mean,
    duration,
    money,
    near_name,
    one_line,
    printable,
    refuse_lone_surrogates,
    short_count,
    strict_json,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, with a tab\tand a\nline end", "plain, with a tab\tand a\nline end"),
        ("\x1b[2J\x1b[31mred\x1b[0m", "\ufffd\ufffdred\ufffd"),
        ("\x1b]0;title\x07bell\x07", "\ufffdbell\ufffd"),
        ("right\u202eleft\u2066", "right\ufffdleft\ufffd"),
        ("می\u200cخواهم, soft\u00adhyphen, 👩\u200d👧", "می\u200cخواهم, soft\u00adhyphen, 👩\u200d👧"),
        ("zero\u200bwidth\ufeff", "zero\ufffdwidth\ufffd"),
    ],
)
def test_what_could_move_a_cursor_or_turn_a_line_is_replaced_and_scripts_are_kept(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(printable(text)) == shown


@given(st.text())
def test_one_line_is_one_line_without_control_characters_whatever_comes(text: str) -> None:
    line = one_line(text)
    assert line == printable(line, instead="")
    assert not set("\n\r\t\x1b") & set(line)
    assert line == line.strip()


def test_words_that_a_carriage_return_parted_stay_parted() -> None:
    assert one_line("first\rsecond\r\n  third\n") == "first second third"


@given(st.text(max_size=30), st.integers(1, 20))
def test_a_clipped_text_is_no_longer_than_asked_and_says_that_it_was_cut(text: str, most: int) -> None:
    cut = clip(text, most)
    assert len(cut) <= most
    assert (cut == text) if len(text) <= most else cut == text[: most - 1] + "…"


def test_a_near_name_is_found_and_without_one_the_first_twenty_are_listed() -> None:
    names = ["review", "rating", "id"]
    assert near_name("reveiw", names) == "review"
    assert near_name("zzz", names) is None
    assert did_you_mean("reveiw", names) == "; did you mean 'review'?"
    assert did_you_mean("zzz", names) == "; it has review, rating, id."
    many = [f"c{number}" for number in range(30)]
    assert did_you_mean("zzz", many) == f"; it has {', '.join(many[:20])}, …."


@pytest.mark.parametrize(
    ("dollars", "text"),
    [
        (0, "$0.00"),
        (2.07, "$2.07"),
        (0.0042, "$0.0042"),
        (0.01, "$0.01"),
        (0.000012, "$1.2e-05"),
        (999.99, "$999.99"),
        (1234.5, "$1,234"),
        (1_000_000, "$1,000,000"),
    ],
)
def test_money_has_as_many_digits_as_matter(dollars: float, text: str) -> None:
    assert money(dollars) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (45.4, "45 s"), (1500, "25 min"), (5999, "100 min"), (27_000, "7 h 30 min"), (28_800, "8 h")],
)
def test_durations_are_in_seconds_minutes_or_hours(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (812, "812"), (41_300, "41k"), (499_999, "500k"), (900_000, "0.9M"), (2e9, "2000.0M")],
)
def test_counts_fit_a_bar(number: float, text: str) -> None:
    assert short_count(number) == text


@pytest.mark.parametrize("text", ['{"a": NaN}', "[Infinity]", '"\\ud800"', "[1", ""])
def test_json_that_the_standard_does_not_have_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|surrogates|Expecting"):
        strict_json(text)


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), st.lists, max_leaves=5))
def test_json_of_the_standard_is_read_as_it_was_written(value: object) -> None:
    refuse_lone_surrogates(value)
    assert strict_json(json.dumps(value)) == value


def test_canonical_json_does_not_depend_on_the_order_of_keys_and_compact_json_keeps_it() -> None:
    one, other = {"b": 1, "a": {"d": 2, "c": "ü"}}, {"a": {"c": "ü", "d": 2}, "b": 1}
    assert canonical_json(one) == canonical_json(other) == '{"a":{"c":"ü","d":2},"b":1}'.encode()
    assert compact_json(one) == '{"b":1,"a":{"d":2,"c":"ü"}}'.encode()


def test_a_very_long_name_is_near_to_none() -> None:
    assert near_name("x" * 100_000, ["x" * 100_001]) is None
    assert near_name("promt", ["prompt", "promt" * 100_000]) == "prompt"


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
