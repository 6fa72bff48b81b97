"""Reading a store from any process while another writes it: values by key, the tags of all outcomes, notes."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from diskcache.core import DBNAME

from .database import fetch_all, open_to_read
from .errors import reporting_errors
from .outcomes import refuse_unknown_mark
from .rows import NOTE_PREFIX, NOTE_TAG, entry_from_row, lookup_sql, text_of

LOOKUP_KEYS = 2_000
"""The most keys in one SQL statement."""
CHUNK_ROWS = 25_000
"""The most keys that `Reader.marks` yields at once."""


class Reader:
    """A read-only view of a store, usable in any process while another writes. One thread at a time.

    It opens SQLite with mode=ro, without diskcache, and holds no transaction between reads, so it cannot disturb the
    writer. Where other hosts do not see each other's file locks, a read from another host may fail while the job runs;
    that harms nothing.

    Raises FileNotFoundError if there is no store in `folder` yet. The constructor and every read raise Stopped with the
    store's name and the remedy: StoreHalfWritten if a killed process left half a transaction; StoreDamaged if the
    database is empty, damaged, not a store, or holds rows that no Store wrote (nothing in them is unpickled, no file
    that they name is opened); NewerVersion if it holds what this version does not understand.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / DBNAME).exists():
            raise FileNotFoundError(f"{folder} holds no answers yet")
        self.folder = folder
        self._connection = open_to_read(folder)

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the value of each key, in the order of `keys`; None for a key that is not stored."""
        found = {}
        with reporting_errors(self.folder):
            for start in range(0, len(keys), LOOKUP_KEYS):
                part = keys[start : start + LOOKUP_KEYS]
                for row in fetch_all(self._connection, lookup_sql(len(part)), part):
                    entry = entry_from_row(row)
                    if entry.tag != NOTE_TAG:
                        refuse_unknown_mark(self.folder, entry.tag)
                    found[entry.key] = entry.value
        return [found.get(key) for key in keys]

    def marks(self) -> Iterator[list[tuple[str, str]]]:
        """Yield (key, tag) of every outcome, oldest first, in lists of up to 25,000.

        No transaction stays open between the lists: outcomes stored meanwhile may be included, and none comes twice.
        """
        sql = "SELECT rowid, key, raw, tag FROM Cache WHERE rowid > ? AND tag IS NOT ? ORDER BY rowid LIMIT ?"
        last = 0
        while True:
            with reporting_errors(self.folder):
                rows = fetch_all(self._connection, sql, (last, NOTE_TAG, CHUNK_ROWS))
                chunk = [(text_of(key, raw), text_of(tag, raw)) for _, key, raw, tag in rows]
            for mark in {mark for _, mark in chunk}:
                refuse_unknown_mark(self.folder, mark)
            if not chunk:
                return
            last = rows[-1][0]
            yield chunk

    def stored_since(self, moment: datetime) -> list[tuple[str, str]]:
        """Return (key, tag) of all outcomes that were stored, or stored again, at or after a moment."""
        sql = "SELECT key, raw, tag FROM Cache WHERE store_time >= ? AND tag IS NOT ?"
        with reporting_errors(self.folder):
            rows = fetch_all(self._connection, sql, (moment.timestamp(), NOTE_TAG))
            return [(text_of(key, raw), text_of(tag, raw)) for key, raw, tag in rows]

    def count_since(self, moment: datetime) -> int:
        """Return the number of outcomes that were stored, or stored again, at or after a moment."""
        sql = "SELECT count(*) FROM Cache WHERE store_time >= ? AND tag IS NOT ?"
        with reporting_errors(self.folder):
            return int(fetch_all(self._connection, sql, (moment.timestamp(), NOTE_TAG))[0][0])

    def last_stored(self) -> datetime | None:
        """Return when the latest outcome was stored (UTC); None if there is none."""
        sql = "SELECT store_time FROM Cache WHERE tag IS NOT ? ORDER BY store_time DESC LIMIT 1"
        with reporting_errors(self.folder):
            rows = fetch_all(self._connection, sql, (NOTE_TAG,))
        return datetime.fromtimestamp(rows[0][0], UTC) if rows else None

    def note(self, name: str) -> bytes | None:
        """Return the latest note of this name; None if there is none."""
        return self.get_many([NOTE_PREFIX + name])[0]

    def close(self) -> None:
        """Close the database. May be called more than once."""
        self._connection.close()
