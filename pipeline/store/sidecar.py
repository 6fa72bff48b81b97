"""The sidecar of a store: what was known of it a second ago, in `FOLDER.json` beside its folder.

A database cannot show that it is an older copy, belongs to another job, or lost the rows of its write-ahead log; and a
folder that is gone cannot show that it held anything. The sidecar can. It is written after the commits that it counts,
so it never claims more than the database holds.
"""

import contextlib
import json
from pathlib import Path
from typing import Self

import msgspec

from ..files import read_private, write_whole
from ..records import Record


class Sidecar(Record, frozen=True):
    """What was known of a store when its sidecar was written last; all empty if nothing is known."""

    identity: str = ""
    """The store's random id."""
    rows: int = 0
    """Number of rows committed, notes included; 0 if nothing is known."""
    notes: dict[str, bytes] = msgspec.field(default_factory=dict)
    """The notes by name, without the one that holds the id."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the sidecar of the store in `folder`; an empty one if it is missing or cannot be understood."""
        with contextlib.suppress(OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
            fields = json.loads(read_private(sidecar_path(folder), -1))
            notes = {str(name): text.encode("utf-8", "surrogateescape") for name, text in fields["notes"].items()}
            return cls(str(fields["identity"]), int(fields["rows"]), notes)
        return cls()

    def write(self, folder: Path) -> None:
        """Write the sidecar of the store in `folder`. If that fails, the older one stays, which is true as well."""
        notes = {name: value.decode("utf-8", "surrogateescape") for name, value in self.notes.items()}
        text = json.dumps({"identity": self.identity, "rows": self.rows, "notes": notes})
        with contextlib.suppress(OSError):
            write_whole(sidecar_path(folder), text.encode("ascii"), private=True)


def sidecar_path(folder: Path) -> Path:
    """The file of the sidecar of the store in `folder`."""
    return folder.with_name(folder.name + ".json")
