"""Texts and numbers are shown in the space that the page has for them."""

import re

import pytest

from pipeline.report.text import LINE_CHARACTERS, clipped, dollars, first_line, number, percent, price


@pytest.mark.parametrize(
    "text", ["", "short", "<" * 400, "字" * 5_000, "a" * 50 + "\N{PARTY POPPER}" * 5_000 + "z" * 50]
)
def test_a_long_text_keeps_its_beginning_and_its_end(text: str) -> None:
    found = clipped(text, 600)
    if found != text:
        head, left_out, tail = re.split(r" \[…([\d,]+) characters…\] ", found)
        assert len(head) + len(tail) + int(left_out.replace(",", "")) == len(text)
        assert text.startswith(head)
        assert text.endswith(tail)
        assert 300 < len((head + tail).replace("<", "&lt;").encode()) <= 600
    else:
        assert len(text) <= 5


def test_numbers_and_dollars_are_short_and_have_no_exponent() -> None:
    assert [number(value) for value in (None, 12_340.4, 3.0, 3.14159, 0.4249)] == [
        "none",
        "12,340",
        "3",
        "3.14",
        "0.425",
    ]
    assert [dollars(value) for value in (0.0, 0.000072, 0.0042, 2.066)] == ["$0.00", "$0.000072", "$0.0042", "$2.07"]
    assert [price(value) for value in (0.1, 0.025, 1_200.0)] == ["$0.10", "$0.025", "$1,200.00"]
    assert percent(2 / 3) == "66.7 %"


def test_the_head_of_a_row_is_one_short_line() -> None:
    assert first_line("a\n  b\tc") == "a b c"
    assert first_line("x" * 500) == "x" * (LINE_CHARACTERS - 1) + "…"
