"""Texts and numbers as the page shows them: clipped by their size in bytes, and dollars without an exponent."""

import html
import math
from itertools import accumulate

from ..text import clip, money, one_line

LINE_CHARACTERS = 160
VALUE_BYTES = 300
"""Bytes of the page that one value may take: a label, a cell of a typed column, a fact."""


def clipped(text: str, most_bytes: int) -> str:
    """Keep a text's beginning and end so that they take at most this many bytes of HTML, escaped and in UTF-8.

    Between the two stands the number of characters left out.
    """
    if len(text) <= most_bytes // 6:  # no character takes more than six
        return text
    head = _fitting(text[:most_bytes], most_bytes * 2 // 3)
    tail = _fitting(text[: -most_bytes - 1 : -1], most_bytes // 3)
    left_out = len(text) - head - tail
    return text if left_out <= 0 else f"{text[:head]} […{left_out:,} characters…] {text[len(text) - tail :]}"


def _fitting(text: str, most_bytes: int) -> int:
    """The number of characters from the beginning that fit, once escaped."""
    sizes = accumulate(len(html.escape(character).encode("utf-8", "replace")) for character in text)
    return sum(1 for size in sizes if size <= most_bytes)


def first_line(text: str) -> str:
    """The beginning of a text on one line: for the head of a row that can be opened."""
    return clip(one_line(text), LINE_CHARACTERS)


def dollars(amount: float) -> str:
    """Format US dollars like `money`, but write small amounts in full: `$0.000072`."""
    return money(amount) if not 0 < amount < 0.0001 else f"${amount:.{1 - math.floor(math.log10(amount))}f}"


def price(amount: float) -> str:
    """Format a price with all its digits, at least two: `$0.10`, `$0.025`."""
    whole, digits = f"{amount:,.6f}".split(".")
    return f"${whole}.{digits.rstrip('0'):0<2}"


def number(value: float | None) -> str:
    """Format a number to three digits, large ones as integers: `12,340`, `0.42`, `3.1`; None as `none`."""
    if value is None:
        return "none"
    if abs(value) >= 100 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.3g}"


def percent(share: float) -> str:
    """Format a share of 1 as a percentage: `66.7 %`."""
    return f"{100 * share:.1f} %"
