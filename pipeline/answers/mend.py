"""Mend broken JSON with json-repair, in a bounded number of steps."""

import json
from typing import Any, Self

from ..text import refuse_lone_surrogates

CHARACTERS_MAX = 20_000
"""Longer broken JSON is not mended."""
BRACKETS_MAX = 300
"""Broken JSON with more brackets is not mended."""
STEPS_MIN, STEPS_PER_CHARACTER = 50_000, 10
"""How often json-repair may look at a character of a text: this number for any text, or for each character if more.

Usual broken JSON takes two to five steps for each character; some texts take the square of their length. A limit on
steps gives the same result each time; a limit on seconds would not.
"""
CUT_CHARACTERS_PER_STEP = 100
"""Cutting this many characters from a text counts as one step."""


class _TooManyStepsError(Exception):
    """A text takes too many steps to mend."""


class _CountedText(str):
    """A text that counts how often it is looked at, together with the texts that are cut from it."""

    __slots__ = ("_left",)
    _left: list[int]
    """The number of steps that are left."""

    def __new__(cls, text: str, left: list[int]) -> Self:
        made = super().__new__(cls, text)
        made._left = left
        return made

    def __getitem__(self, at: Any) -> str:  # noqa: ANN401 - a number or a slice
        found = super().__getitem__(at)
        self._left[0] -= 1 + len(found) // CUT_CHARACTERS_PER_STEP
        if self._left[0] < 0:
            raise _TooManyStepsError
        return type(self)(found, self._left) if isinstance(at, slice) else found

    def __add__(self, other: str) -> str:
        return type(self)(super().__add__(other), self._left)


def mended_object(text: str) -> dict[str, Any] | None:
    """The object in broken JSON, from its first brace on.

    None if there is none, if it cannot be mended, or if that would take more steps than STEPS_PER_CHARACTER.
    """
    broken = text[text.find("{") :] if "{" in text else ""
    if not broken or len(broken) > CHARACTERS_MAX or broken.count("{") + broken.count("[") > BRACKETS_MAX:
        return None
    import json_repair  # noqa: PLC0415 - most runs never need it

    counted = _CountedText(broken, [max(STEPS_MIN, STEPS_PER_CHARACTER * len(broken))])
    try:
        value = json_repair.loads(counted, skip_json_loads=True)
        refuse_lone_surrogates(value)
        value = json.loads(json.dumps(value))  # with plain texts in place of counted ones
    except (_TooManyStepsError, ValueError, RecursionError, IndexError):
        return None
    return value if isinstance(value, dict) and value else None
