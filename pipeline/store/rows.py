"""Rows of the database: entries as diskcache's table holds them, the SQL that writes and finds them, their checks."""

import zlib
from collections.abc import Sequence
from functools import cache

from diskcache.core import MODE_RAW

from ..records import Record

NOTE_TAG = "note"
"""The tag of every note; no outcome has it."""
NOTE_PREFIX = "note:"
"""The beginning of every note's key; no outcome's key begins so."""
NOTE_KEYS = (NOTE_PREFIX, NOTE_PREFIX[:-1] + chr(ord(NOTE_PREFIX[-1]) + 1))
"""The range of the keys of all notes: from the first, up to and without the second."""
IDENTITY = "identity"
"""The name of the note with the store's random id, which distinguishes it from the store of every other job."""
FORMAT_NOTE = "format"
"""The name of the note with the number of the store's format (`outcomes.FORMAT`)."""

COLUMNS = "key, raw, tag, mode, filename, value, access_count"
"""The columns of a row in the order that `entry_from_row` takes; `access_count` holds the checksum."""
COUNT_ROWS = f"""
    SELECT count(*), count(*) - count(CASE WHEN
        raw IS 1 AND mode IS {MODE_RAW} AND filename IS NULL
        AND typeof(key) = 'text' AND typeof(tag) = 'text' AND typeof(value) = 'blob'
        AND is_whole(access_count, CAST(key AS BLOB), CAST(tag AS BLOB), value)
    THEN 1 END) FROM Cache
"""  # noqa: S608 - a constant
"""SQL that counts all rows, and those that are not as a Store wrote them.

It needs an SQL function `is_whole` that compares a checksum with that of the three parts of an entry.
"""
COUNT_LOST = """
    SELECT count(*) FROM Cache WHERE NOT EXISTS (
        SELECT 1 FROM Cache AS found INDEXED BY Cache_key_raw WHERE found.key = Cache.key AND found.raw = Cache.raw
        AND found.rowid = Cache.rowid
    )
"""
"""SQL that counts the rows that a look-up of their key would not find, as the index is damaged."""


class Entry(Record, frozen=True):
    """An outcome or a note, as it is stored."""

    key: str
    tag: str
    """A short label that can be read without the value: an outcome's status, or NOTE_TAG."""
    value: bytes


def entry_from_row(row: Sequence[object]) -> Entry:
    """Read a row with the columns COLUMNS. Raises TypeError if it is not as a Store wrote it.

    Nothing in it is unpickled, and no file that it names is opened.
    """
    key, raw, tag, mode, filename, value, stored_checksum = row
    key, tag, value = text_of(key, raw), text_of(tag, raw), bytes_of(mode, filename, value)
    if stored_checksum != checksum(key.encode(), tag.encode(), value):
        raise TypeError(f"the value of {key!r} is not what was written")
    return Entry(key, tag, value)


def cells_of_entry(entry: Entry) -> tuple[str, str, bytes, int]:
    """The four values that `upsert_sql` takes for a row: key, tag, value, checksum."""
    return entry.key, entry.tag, entry.value, checksum(entry.key.encode(), entry.tag.encode(), entry.value)


def text_of(cell: object, raw: object) -> str:
    """A row's key or tag. Raises TypeError if it is not text, or if diskcache's column `raw` says it is pickled."""
    if type(cell) is not str or raw != 1:
        raise TypeError("a row's key or tag is not plain text")
    return cell


def bytes_of(mode: object, filename: object, value: object) -> bytes:
    """A row's value. Raises TypeError if it is not bytes, or if the row says it is pickled or in a file."""
    if mode != MODE_RAW or filename is not None or type(value) is not bytes:
        raise TypeError("a row's value is not plain bytes")
    return value


def checksum(key: bytes, tag: bytes, value: bytes) -> int:
    """CRC-32 over all parts of an entry: SQLite has no checksums, and does not notice a value changed on disk."""
    return int(zlib.crc32(value, zlib.crc32(key + b"\0" + tag + b"\0")))


@cache
def upsert_sql(rows: int) -> str:
    """SQL that writes this number of rows as diskcache would, replacing rows of the same key.

    It is one statement for a group, where `Cache.set` takes two or three a row: each statement releases the
    interpreter's lock and, beside a busy event loop, gets it back only 5 ms later. The checksum is kept in
    `access_count`, which only other eviction policies use.
    """
    now = "(julianday('now') - 2440587.5) * 86400.0"  # seconds since 1970, as time.time() gives them
    values = ", ".join([f"(?, ?, ?, ?, 1, {MODE_RAW}, {now})"] * rows)
    return (
        f"INSERT INTO Cache (key, tag, value, access_count, raw, mode, store_time) VALUES {values}"  # noqa: S608 - only placeholders
        " ON CONFLICT (key, raw) DO UPDATE SET tag = excluded.tag, value = excluded.value, mode = excluded.mode,"
        " access_count = excluded.access_count, store_time = excluded.store_time, expire_time = NULL, size = 0,"
        " filename = NULL"
    )


@cache
def lookup_sql(keys: int) -> str:
    """SQL that finds the rows of this number of keys."""
    placeholders = ", ".join("?" * keys)
    return f"SELECT {COLUMNS} FROM Cache WHERE raw = 1 AND key IN ({placeholders})"  # noqa: S608 - only placeholders


@cache
def lookup_small_sql(keys: int, most_bytes: int) -> str:
    """SQL that finds the rows of this number of keys; a value of more than `most_bytes` is replaced by its size.

    SQLite knows the size of a value without reading it.
    """
    size_or_value = f"CASE WHEN length(value) > {most_bytes} THEN length(value) ELSE value END"
    return lookup_sql(keys).replace(COLUMNS, COLUMNS.replace("value", size_or_value), 1)
