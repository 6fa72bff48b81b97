"""Texts and numbers are shown in the space that the page has for them."""

import re

import pytest

from pipeline.report.text import clipped


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
