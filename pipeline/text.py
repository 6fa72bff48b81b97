"""Text for people and for JSON: clean, clipped, as numbers, near names, strict and canonical JSON; and long texts."""

import difflib
import functools
import json
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import msgspec

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

TERMINAL_SEQUENCE = re.compile(r"\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]|\x1b\][^\x07\x1b]{0,2000}(?:\x07|\x1b\\)")
"""A whole CSI or OSC sequence: it moves the cursor, sets a colour, or sets a window's title or a link."""
UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u070f\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff"
    r"\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    r"\U000e0001-\U000e007f]"
)
"""Control characters, direction marks and invisible characters. Kept are line ends, tabs, the soft hyphen, and the
joiners that Persian, Hindi and many emoji are written with."""

canonical_json = msgspec.json.Encoder(order="deterministic").encode
"""Encode with sorted keys and no spaces: the same value always gives the same bytes, so that they can be hashed."""
compact_json = msgspec.json.Encoder().encode
"""Encode with the keys in their own order and no spaces: how request bodies are written."""

BODY_BYTES_AT_ONCE = 256 * 1024
"""A reply's body of up to this size is worked on at once; see `in_thread_if`."""

T = TypeVar("T")


def printable(text: str, instead: str = "\ufffd") -> str:
    """Replace whatever could control a terminal or reorder its lines: for text from a server, a row or a file name."""
    return UNPRINTABLE.sub(instead, TERMINAL_SEQUENCE.sub(instead, text))


def one_line(text: str) -> str:
    """Remove the same characters and join all lines with single spaces: for names and for a server's words."""
    # words that a line end or a carriage return separated stay separated
    return " ".join(printable(" ".join(text.split()), instead="").split())


def clip(text: str, characters: int) -> str:
    """Cut a text to at most this many characters; one that was cut ends in "…"."""
    return text if len(text) <= characters else text[: characters - 1] + "…"


NEAR_CHARACTERS_MAX = 200
"""Longer names are not compared: it takes time by the product of their lengths."""


def near_name(name: str, names: Iterable[str]) -> str | None:
    """The name that was probably meant, or None if none is close."""
    if len(name) > NEAR_CHARACTERS_MAX:
        return None
    short = [each for each in names if len(each) <= NEAR_CHARACTERS_MAX]
    return next(iter(difflib.get_close_matches(name, short, 1)), None)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """End a sentence about a name that does not exist: with the near one, or with the first twenty that exist."""
    known = list(names)
    near = near_name(name, known)
    if near is not None:
        return f"; did you mean {near!r}?"
    return f"; it has {', '.join(known[:20])}{', …' if len(known) > 20 else ''}."


def money(dollars: float) -> str:
    """`$0.0042`, `$2.07`, `$1,234`: US dollars with as many digits as matter."""
    if 0 < dollars < 0.01:
        return f"${dollars:.2g}" if dollars >= 0.0001 else f"${dollars:.1e}"
    return f"${dollars:,.2f}" if dollars < 1000 else f"${dollars:,.0f}"


def duration(seconds: float) -> str:
    """`45 s`, `25 min`, `7 h 30 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes} min" if minutes else f"{hours:,} h"


def short_count(number: float) -> str:
    """`812`, `41k`, `0.9M`: a number short enough for a progress bar."""
    if number < 1000:
        return f"{number:.0f}"
    return f"{number / 1000:.0f}k" if number < 500_000 else f"{number / 1e6:.1f}M"


def strict_json(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """Decode JSON as the standard has it. Raises ValueError also for NaN, Infinity and half of a surrogate pair."""
    value = json.loads(text, parse_constant=_refuse_constant)
    if "\\u" in text:
        refuse_lone_surrogates(value)
    return value


def refuse_lone_surrogates(value: object) -> None:
    """Raise UnicodeEncodeError (a ValueError) if a string in a JSON value holds half of a surrogate pair."""
    json.dumps(value, ensure_ascii=False).encode()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


async def in_thread_if(is_long: bool, function: Callable[..., T], *arguments: object) -> T:  # noqa: FBT001 - it is the name's last word
    """Call a pure function of a text: in a thread if the text is long, so that the event loop goes on meanwhile.

    One call after the other, so that the memory for them does not grow with their number.
    """
    if not is_long:
        return function(*arguments)
    import asyncio  # noqa: PLC0415 - `pipeline --help` does without it

    return await asyncio.get_running_loop().run_in_executor(_one_thread(), function, *arguments)


@functools.cache
def _one_thread() -> "ThreadPoolExecutor":
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - `pipeline --help` does without it

    return ThreadPoolExecutor(1, "long-text")
