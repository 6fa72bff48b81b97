"""Reading a store from any process while another writes it: values by key, the tags of all outcomes, notes."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path

from diskcache.core import DBNAME

from .database import fetch_all, open_to_read
from .errors import reporting_errors
from .outcomes import refuse_unknown_mark
from .rows import COLUMNS, NOTE_PREFIX, NOTE_TAG, entry_from_row, lookup_small_sql, lookup_sql, text_of

LOOKUP_KEYS = 2_000
"""The most keys in one SQL statement."""
PART_BYTES = 32 * 1024 * 1024
"""The most bytes of values that `Reader.get_first` reads at once, unless one alone has more."""
SMALL_BYTES = PART_BYTES // LOOKUP_KEYS
"""Values up to this size are read with their keys: those of one statement always have room."""
VALUE = COLUMNS.split(", ").index("value")
"""The place of the value among the columns of a row."""
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
        return list(self.values(keys))

    def values(self, keys: Sequence[str]) -> Iterator[bytes | None]:
        """Yield the value of each key, as `get_many` gives them, but hold only those of `get_first` at a time."""
        at = 0
        while at < len(keys):
            found = self.get_first(keys[at:])
            at += len(found)
            yield from found

    def get_first(self, keys: Sequence[str], at_least: int = 1) -> list[bytes | None]:
        """Return the values of the first keys, in order, as many as have PART_BYTES together; None for an unknown key.

        The values of `at_least` keys are returned, whatever their size.
        """
        values: list[bytes | None] = []
        room = PART_BYTES
        for start in range(0, len(keys), LOOKUP_KEYS):
            asked = taken = keys[start : start + LOOKUP_KEYS]
            with reporting_errors(self.folder):
                found, large = self._look_up(asked)
                size = sum(map(len, filter(None, map(found.get, asked))))
                if large or size > room:
                    ends = list(accumulate(large.get(key) or len(found.get(key, b"")) for key in asked))
                    taken, size = asked[: max(bisect_right(ends, room), at_least - len(values))], ends[-1]
                    if wanted := [*(large.keys() & taken)]:
                        found |= self._entries(fetch_all(self._connection, lookup_sql(len(wanted)), wanted))
            values += map(found.get, taken)
            room -= size
            if len(values) >= at_least and (len(taken) < len(asked) or room <= 0):
                break
        return values

    def stored(self, keys: Sequence[str]) -> set[str]:
        """Return those of the keys that have a value."""
        found: set[str] = set()
        with reporting_errors(self.folder):
            for start in range(0, len(keys), LOOKUP_KEYS):
                found.update(*self._look_up(keys[start : start + LOOKUP_KEYS], most_bytes=0))
        return found

    def _look_up(self, keys: Sequence[str], most_bytes: int = SMALL_BYTES) -> tuple[dict[str, bytes], dict[str, int]]:
        """The values of up to `most_bytes` by their keys, and the sizes of the larger ones by theirs."""
        rows = fetch_all(self._connection, lookup_small_sql(len(keys), most_bytes), keys)
        large = {}
        if any(type(row[VALUE]) is int for row in rows):
            large = {self._marked(row): row[VALUE] for row in rows if type(row[VALUE]) is int}
            rows = [row for row in rows if type(row[VALUE]) is not int]
        return self._entries(rows), large

    def _marked(self, row: Sequence[object]) -> str:
        """The key of a row whose mark is known to this version."""
        key, raw, tag, *_ = row
        if tag != NOTE_TAG:
            refuse_unknown_mark(self.folder, text_of(tag, raw))
        return text_of(key, raw)

    def _entries(self, rows: Iterable[Sequence[object]]) -> dict[str, bytes]:
        """The value of each row by its key."""
        found = {}
        for row in rows:
            entry = entry_from_row(row)
            if entry.tag != NOTE_TAG:
                refuse_unknown_mark(self.folder, entry.tag)
            found[entry.key] = entry.value
        return found

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

    def mean_bytes(self) -> int:
        """Return about how many bytes an outcome takes in the file."""
        sql = "SELECT (SELECT page_count * page_size FROM pragma_page_count, pragma_page_size), value FROM Settings"
        with reporting_errors(self.folder):
            size, rows = fetch_all(self._connection, f"{sql} WHERE key = 'count'")[0]
        return int(size) // max(1, int(rows))

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
