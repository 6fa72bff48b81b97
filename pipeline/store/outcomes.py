"""Outcomes as they are stored: their marks, what they cost, and their JSON decoded.

What a newer version wrote and this one would read wrongly is refused. That is a mark or a kind of outcome that is not
known here, and a store of a higher FORMAT. Fields that are not known are passed over: a later version that adds one
which changes what the others mean gives such outcomes a mark of their own, or raises FORMAT.
"""

from pathlib import Path
from typing import Literal

import msgspec

from ..records import STATUSES, TEMPORARY, Answer, Failure, NewerVersion, Outcome, Stopped
from .rows import NOTE_TAG, checksum

FORMAT = 1
"""The format of the stores that this version writes and reads. A store whose note `format` names no other has this one;
a version that raises the number notes it before the first outcome that others would read wrongly."""

MARKS = frozenset({*STATUSES, TEMPORARY} - {"pending"})
"""The marks that outcomes have in the store: their status when they were stored, or TEMPORARY."""

KINDS = ("answer", "failure")
KNOWN_NAMES = frozenset({"type", *Answer.__struct_fields__, *Failure.__struct_fields__})


UNREADABLE = (ValueError, RecursionError)
"""What decoding raises: msgspec's error, and Python's for bytes that are not UTF-8 or are nested too deeply."""


class _Head(msgspec.Struct):
    """What is read of every outcome when a store is opened to be written."""

    type: Literal["answer", "failure"]
    cost: float | None = None


_outcome_decoder: msgspec.json.Decoder[Outcome] = msgspec.json.Decoder(Outcome)
_head_decoder = msgspec.json.Decoder(_Head)


def read_outcome(stored: bytes) -> Outcome:
    """Decode an outcome. Raises NewerVersion if a newer version wrote it, Stopped if it is damaged."""
    try:
        return _outcome_decoder.decode(stored)
    except UNREADABLE as error:
        if _is_newer(stored):
            raise NewerVersion(f"An answer in the store ({error})") from error
        raise damaged("an answer", error) from error


def cost_of(stored: bytes) -> float:
    """Read the cost of an outcome in US dollars; attempts of unknown cost are left out.

    A damaged outcome gives 0: `read_outcome` reports it. Raises NewerVersion as `read_outcome` does.
    """
    try:
        return _head_decoder.decode(stored).cost or 0.0
    except UNREADABLE as error:
        if _is_newer(stored):
            raise NewerVersion(f"An answer in the store ({error})") from error
        return 0.0


def refuse_unknown_mark(folder: Path, mark: str) -> None:
    """Raise NewerVersion for a mark that no outcome of this version has."""
    if mark not in MARKS:
        raise NewerVersion(f"The store {folder} (an answer in it is marked {mark[:40]!r})")


def refuse_newer_format(folder: Path, note: bytes | None) -> None:
    """Raise NewerVersion if the note `format` of the store in `folder` names a format that this version cannot read."""
    if note is not None and note != b"%d" % FORMAT:
        raise NewerVersion(f"The store {folder} (its format is {note[:40].decode('ascii', 'replace')})")


class OutcomeCount:
    """What is found out about all outcomes while every row of a store is checked."""

    def __init__(self, folder: Path) -> None:
        self.cost = 0.0
        """What they cost together in US dollars (`cost_of`)."""
        self.newer: NewerVersion | None = None
        """Why this version cannot read one of them; None if it can read all."""
        self._folder = folder

    def is_whole(self, stored_checksum: int, key: bytes, tag: bytes, value: bytes) -> bool:
        """Count a row whose parts are as they were written; False for any other."""
        if stored_checksum != checksum(key, tag, value):
            return False
        if tag != NOTE_TAG.encode():
            try:
                refuse_unknown_mark(self._folder, tag.decode("utf-8", "replace"))
                self.cost += cost_of(value)
            except NewerVersion as error:
                self.newer = error
        return True


OTHER_COPY = "Put back a copy of the whole job folder, or name another with --job-dir and pay for the answers again."
"""What to do about something in the store that cannot be made anew."""


def damaged(what: str, error: Exception, remedy: str = OTHER_COPY) -> Stopped:
    """The stop for something in the store that is not as any version wrote it."""
    return Stopped(f"In the store, {what} is damaged: {error}. Nothing was changed. {remedy}")


def json_object(stored: bytes) -> dict[str, object]:
    """The JSON object that these bytes are; empty if they are none."""
    try:
        found = msgspec.json.decode(stored)
    except UNREADABLE:
        return {}
    return found if isinstance(found, dict) else {}


def _is_newer(stored: bytes) -> bool:
    """Whether a newer version wrote an outcome that cannot be decoded: it is whole JSON of an unknown kind or name."""
    found = json_object(stored)
    return found.get("type", "answer") not in KINDS or not found.keys() <= KNOWN_NAMES
