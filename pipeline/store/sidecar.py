"""How much a store is known to hold, written down beside it, in `FOLDER.json`.

A store cannot tell by itself that it is an older copy, another job's, or has lost the rows of its write-ahead log; nor
a folder that is gone that it had held anything. A watermark is never ahead of what is committed.
"""

import contextlib
import json
from pathlib import Path
from typing import Self

import msgspec

from ..files import write_whole
from ..records import Record


class Sidecar(Record, frozen=True):
    """What was known of a store a second before it was last written."""

    identity: str = ""
    """What tells the store from every other."""
    rows: int = 0
    """How many rows it held, notes among them; 0 if nothing is known."""
    notes: dict[str, bytes] = msgspec.field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> Self:
        """What was written down of the store in this folder; nothing where that is gone or makes no sense."""
        with contextlib.suppress(OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
            told = json.loads(sidecar_path(folder).read_bytes())
            notes = {str(name): text.encode("utf-8", "surrogateescape") for name, text in told["notes"].items()}
            return cls(str(told["identity"]), int(told["rows"]), notes)
        return cls()

    def put(self, folder: Path) -> None:
        """Write it down, whole or not at all. If it cannot be, the older one holds as well."""
        notes = {name: value.decode("utf-8", "surrogateescape") for name, value in self.notes.items()}
        told = json.dumps({"identity": self.identity, "rows": self.rows, "notes": notes})
        with contextlib.suppress(OSError):
            write_whole(sidecar_path(folder), told.encode("ascii"), private=True)


def sidecar_path(folder: Path) -> Path:
    """Where it is written down."""
    return folder.with_name(folder.name + ".json")
