"""What a section is, and the values that need a check of their own: durations, names of variables, prices, words."""

import os
import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ..records import BadJob

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


class Section(BaseModel):
    """One table of the job file. Unknown keys and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def duration_seconds(text: str) -> float:
    """Seconds in a duration such as `8h`, `7h30m` or `90s`. Raises ValueError for any other text."""
    match = DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is not a duration; write it as 8h, 7h30m or 90s")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def without_duplicates(words: list[str] | None) -> list[str] | None:
    """The words as they are. Raises ValueError if one is listed twice."""
    twice = sorted({word for word in words or () if (words or []).count(word) > 1})
    if twice:
        raise ValueError(f"listed twice: {', '.join(twice)}")
    return words


def _check_duration(text: str) -> str:
    duration_seconds(text)
    return text


def _check_variable_name(text: str) -> str:
    if text and not VARIABLE.fullmatch(text):
        # the value is not quoted: it may be the key itself
        raise ValueError(
            "this is not the name of an environment variable; put the key into a variable, and the variable's name here"
        )
    return text


def _check_patience(text: str) -> str:
    return text if text == "never" else _check_duration(text)


Duration = Annotated[str, AfterValidator(_check_duration)]
Patience = Annotated[str, AfterValidator(_check_patience)]
"""A duration, or `never`."""
VariableName = Annotated[str, AfterValidator(_check_variable_name)]
Price = Annotated[float, Field(ge=0)]


def variable_value(name: str) -> str:
    """The value of an environment variable without outer spaces; empty if it is not set."""
    return os.environ.get(name, "").strip()


def variable_not_set(name: str, what: str, setting: str) -> BadJob:
    """The complaint that the variable which a setting names is not set; `what` it should hold."""
    # only a name in capitals is repeated: anything else may be the key itself, put here by mistake
    return BadJob(
        f"The environment variable with {what} is not set ({setting}).\n"
        f"Nothing was sent. Set it and run the same command again:  export {name if name.isupper() else 'NAME'}=…"
    )
