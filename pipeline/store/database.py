"""The database of a store: diskcache over SQLite, set up to be durable, and checked before it is used."""

import contextlib
import os
import re
import shutil
import sqlite3
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import diskcache
from diskcache.core import DBNAME, DEFAULT_SETTINGS, METADATA, MODE_RAW

from ..files import PRIVATE, make_private_folder, open_private, sync
from ..records import Stopped
from .errors import StoreDamaged, how_to_restore, is_lack_of_shared_memory, reporting_errors
from .mounts import is_shared_with_hosts
from .outcomes import OutcomeCount, refuse_newer_format
from .rows import (
    COLUMNS,
    COUNT_LOST,
    COUNT_ROWS,
    FORMAT_NOTE,
    IDENTITY,
    NOTE_KEYS,
    NOTE_PREFIX,
    NOTE_TAG,
    Entry,
    bytes_of,
    cells_of_entry,
    entry_from_row,
    lookup_sql,
    text_of,
    upsert_sql,
)
from .sidecar import Sidecar, sidecar_path

STATEMENT_ROWS = 256
"""The most rows that one INSERT writes."""
NEW_STORE_ROWS = 5_000
"""Rows in one transaction while a new store is filled."""
NEW_STORE_CACHE_KB = 256 * 1024
"""SQLite's page cache while a new store is filled: keys come in no order, so every page of the index is needed."""
BUSY_SECONDS = 30
"""How long a reader, and the writer with a rollback journal, waits for the other's lock."""
JOURNAL_SECONDS = 2.0
"""How long a rollback journal must look abandoned before its writer counts as dead."""

SETTINGS = {
    "eviction_policy": "none",
    "cull_limit": 0,
    "size_limit": 2**62,
    "sqlite_synchronous": 2,
    "sqlite_auto_vacuum": 0,
    "sqlite_mmap_size": 0,
    "disk_min_file_size": 2**62,
    "statistics": 0,
    "tag_index": 0,
}
"""diskcache's settings: never evict, never write files beside the database, fsync every commit.

They are given at every opening, since diskcache prefers settings that it finds in the file over its defaults.
"""

SCHEMA = re.compile(
    r"CREATE TABLE (Cache|Settings) \([\w ,]*\)|CREATE (UNIQUE )?INDEX \w+ ON Cache ?\([\w ,]*\)|"
    r"CREATE TRIGGER \w+ AFTER (INSERT|UPDATE|DELETE) ON Cache FOR EACH ROW BEGIN"
    r' UPDATE Settings SET value = [\w +.-]* WHERE key = "(count|size)"; END'
)
"""Every statement of diskcache's schema matches this. SQL that matches can run no other code."""


class BytesDisk(diskcache.Disk):  # type: ignore[misc] # diskcache is untyped
    """diskcache's codec, reduced to text keys and byte values inside the database.

    Nothing is pickled or unpickled (CVE-2025-69872), and a row cannot name a file to be read or deleted.
    Raises TypeError for any other key, value or mode.
    """

    def put(self, key: object) -> tuple[str, bool]:
        """Encode a key: itself, and True for "not pickled"."""
        if type(key) is not str:
            raise TypeError(f"a key is a str, not {type(key).__name__}")
        return key, True

    def get(self, key: object, raw: object) -> str:
        """Decode the key of a row."""
        return text_of(key, raw)

    def store(self, value: object, read: object, key: object = None) -> tuple[int, int, None, bytes]:
        """Encode a value: size of its file (0), mode, file name (None), and the value itself."""
        del key
        if type(value) is not bytes or read:
            raise TypeError(f"a value is bytes, not {type(value).__name__}")
        return 0, MODE_RAW, None, value

    def fetch(self, mode: object, filename: object, value: object, read: object) -> bytes:
        """Decode the value of a row."""
        if read:
            raise TypeError("a row's value is not a file")
        return bytes_of(mode, filename, value)

    def filename(self, *_: object) -> NoReturn:
        """Refuse to name a file: values are never in files."""
        raise TypeError("a store has no files beside its database")

    def remove(self, file_path: object) -> None:
        """Do nothing: a file that a row names was not made by a store."""


class Found(NamedTuple):
    """What was found in a store when it was opened to be written."""

    sidecar: Sidecar = Sidecar()
    """Its sidecar, as it was before it was written anew."""
    cost: float = 0.0
    """What its outcomes cost together in US dollars."""


def open_to_write(folder: Path) -> tuple[diskcache.Cache, Found]:
    """Open the store in `folder`, checked, for its one writer; make it if there never was one.

    Undoes what a killed process left half-written. Raises StoreDamaged if the store is damaged, gone or another job's;
    NewerVersion if it holds what this version does not understand; Stopped if it cannot be opened.
    """
    with reporting_errors(folder):
        if not os.path.lexists(folder / DBNAME):
            _create(folder)
        _refuse_links(folder)
        journal = folder / f"{DBNAME}-journal"
        if journal.exists() and journal.stat().st_size:
            roll_back(folder)
        try:
            found = _check(folder)
        except Stopped as stop:
            if not is_lack_of_shared_memory(stop):
                raise
            _leave_wal(folder)  # the folder was copied from a file system that has shared memory
            found = _check(folder)
        disk_cache = _open_cache(folder)
        write_sidecar(folder, disk_cache)
    return disk_cache, found


def open_to_read(folder: Path) -> sqlite3.Connection:
    """Open the store in `folder` read-only, its schema and format checked. Raises StoreDamaged or Stopped."""
    database = folder / DBNAME
    with reporting_errors(folder):
        # Not asked of the open file: closing it would drop the locks that SQLite has on it in this process.
        if database.stat().st_size == 0:
            raise StoreDamaged(
                f"{database} is empty (0 bytes), though it should hold the answers. {how_to_restore(folder)}"
            )
        connection = connect(folder, "ro")
        try:
            schema = fetch_all(connection, "SELECT type, name, sql FROM sqlite_master")
        except BaseException:
            connection.close()
            raise
        tables = {name for kind, name, _ in schema if kind == "table"}
        unknown = [name for _, name, sql in schema if sql is not None and SCHEMA.fullmatch(sql) is None]
        if tables != {"Cache", "Settings"} or unknown:
            connection.close()
            raise StoreDamaged(
                f"{database} is an SQLite database, but not a store of answers (unexpected: {unknown}). "
                f"{how_to_restore(folder)}"
            )
        try:
            found = fetch_all(connection, lookup_sql(1), (NOTE_PREFIX + FORMAT_NOTE,))
            refuse_newer_format(folder, entry_from_row(found[0]).value if found else None)
        except BaseException:
            connection.close()
            raise
    return connection


def connect(folder: Path, mode: str) -> sqlite3.Connection:
    """Connect to an existing database, unchecked; `mode` is "ro" or "rw". Raises sqlite3.Error."""
    uri = f"{(folder / DBNAME).absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS)
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def fetch_all(connection: sqlite3.Connection, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    """Run a query and fetch all its rows at once, so that the writer waits no longer than that. Raises sqlite3.Error.

    A reader that comes just as a writer begins may take its journal for a dead writer's, so the query is repeated for
    up to JOURNAL_SECONDS.
    """
    until = time.monotonic() + JOURNAL_SECONDS
    while True:
        try:
            return connection.execute(sql, values).fetchall()
        except sqlite3.OperationalError as error:
            may_pass = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY_ROLLBACK
            if not may_pass or time.monotonic() > until:
                raise
            time.sleep(0.01)


def write(disk_cache: diskcache.Cache, entries: Sequence[Entry], notes: Mapping[str, bytes]) -> None:
    """Commit all entries and notes in one transaction, or none of them. They are on disk when this returns."""
    rows = [*entries, *(Entry(NOTE_PREFIX + name, NOTE_TAG, value) for name, value in notes.items())]
    with disk_cache.transact():
        for start in range(0, len(rows), STATEMENT_ROWS):
            part = rows[start : start + STATEMENT_ROWS]
            cells = [cell for entry in part for cell in cells_of_entry(entry)]
            disk_cache._sql(upsert_sql(len(part)), cells)  # noqa: SLF001 - see upsert_sql


def write_sidecar(folder: Path, disk_cache: diskcache.Cache) -> None:
    """Write the sidecar of what is committed now."""
    sql = disk_cache._sql  # noqa: SLF001 - see pragma
    rows = sql("SELECT value FROM Settings WHERE key = 'count'").fetchone()[0]
    query = f"SELECT {COLUMNS} FROM Cache WHERE raw = 1 AND key >= ? AND key < ?"  # noqa: S608 - a constant
    entries = [entry_from_row(row) for row in sql(query, NOTE_KEYS)]
    notes = {entry.key.removeprefix(NOTE_PREFIX): entry.value for entry in entries}
    Sidecar(notes.pop(IDENTITY, b"").decode(), rows, notes).write(folder)


def pragma(disk_cache: diskcache.Cache, name: str) -> object:
    """Run a pragma and return the first value of its answer. Raises sqlite3.Error."""
    return disk_cache._sql(f"PRAGMA {name}").fetchone()[0]  # noqa: SLF001 - no public way to its connection


def roll_back(folder: Path) -> None:
    """Undo a transaction that a killed process left half-written; nothing of it was acknowledged.

    Hold the job's lock around it. Raises Stopped if the store cannot be opened.
    """
    with reporting_errors(folder), contextlib.closing(connect(folder, "rw")) as connection:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()


def rebuild(folder: Path, entries: Iterable[Entry], notes: Mapping[str, bytes]) -> Path:
    """Replace the store in `folder` by a new one of these entries and notes; return where the old one is kept.

    Nothing is deleted. Raises Stopped if it cannot be done; then the old store is in its place.
    """
    name = f"{folder.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    # two in one second, or in one that a clock set back brought again
    names = (f"{name}-{number}" if number else name for number in count())
    aside = next(path for each in names if not os.path.lexists(path := folder.with_name(each)))
    with reporting_errors(folder):
        new = _make(folder, entries, notes)
        if os.path.lexists(folder):
            folder.rename(aside)
        new.rename(folder)
        sync(folder.parent)
        sidecar_path(folder).unlink(missing_ok=True)
    return aside


def _create(folder: Path) -> None:
    """Make an empty store. Raises StoreDamaged if there was one before."""
    if rows := Sidecar.read(folder).rows:
        aside = "".join(f" One was moved aside: {path}." for path in folder.parent.glob(f"{folder.name}.damaged-*"))
        raise StoreDamaged(
            f"{folder / DBNAME} is gone, though {rows:,} rows were written to it.{aside} {how_to_restore(folder)}"
        )
    if folder.exists() and any(folder.iterdir()):
        raise StoreDamaged(f"{folder} holds files but no {DBNAME}, which had the answers. {how_to_restore(folder)}")
    _make(folder, [], {}).rename(folder)
    sync(folder.parent)


def _make(folder: Path, entries: Iterable[Entry], notes: Mapping[str, bytes]) -> Path:
    """Make a store of these beside `folder` and return its path; renaming it makes it appear whole or not at all."""
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    folder.parent.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    make_private_folder(new)
    # SQLite gives the files beside a database the database's mode.
    os.close(open_private(new / DBNAME, os.O_EXCL | os.O_WRONLY))
    disk_cache = _open_cache(new)
    try:
        sql, journal = disk_cache._sql, pragma(disk_cache, "journal_mode")  # noqa: SLF001 - see pragma
        # What a crash leaves of it is thrown away, so it needs no journal, and one sync when it is whole.
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{NEW_STORE_CACHE_KB}"):
            sql(f"PRAGMA {setting}")
        rest = iter(entries)
        while part := list(islice(rest, NEW_STORE_ROWS)):
            write(disk_cache, part, {})
        for setting in (f"journal_mode = {journal}", "synchronous = FULL"):
            sql(f"PRAGMA {setting}")
        write(disk_cache, [], {**notes, IDENTITY: os.urandom(8).hex().encode()})
    finally:
        disk_cache.close()
    sync(new)
    return new


def _open_cache(folder: Path) -> diskcache.Cache:
    """Open with the journal that suits the file system. Raises Stopped if none is durable there."""
    if not is_shared_with_hosts(folder):
        try:
            return _open_with(folder, "wal")
        except (sqlite3.OperationalError, Stopped):  # some local file systems cannot do it; trying is the only test
            _leave_wal(folder)
    return _open_with(folder, "truncate")


def _leave_wal(folder: Path) -> None:
    """Return to a rollback journal where there is no shared memory: under an exclusive lock SQLite needs none."""
    with contextlib.closing(connect(folder, "rw")) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = TRUNCATE")
        with contextlib.suppress(sqlite3.OperationalError):  # there is no table yet
            # diskcache applies the setting that it finds in the file before the one that it is given.
            connection.execute("UPDATE Settings SET value = 'truncate' WHERE key = 'sqlite_journal_mode'")


def _open_with(folder: Path, journal: str) -> diskcache.Cache:
    """Open with this journal mode, "wal" or "truncate". Raises Stopped if the file system refuses it.

    A truncated journal, unlike a deleted one, is on disk when COMMIT returns (sqlite.org/pragma.html, synchronous).
    """
    settings = SETTINGS | {"sqlite_journal_mode": journal, "timeout": 5 if journal == "wal" else BUSY_SECONDS}
    disk_cache = diskcache.Cache.__new__(diskcache.Cache)
    try:
        # In two steps, so that its connection can be closed if __init__ fails half-way.
        disk_cache.__init__(str(folder), disk=BytesDisk, **settings)
        modes = [pragma(disk_cache, name) for name in ("journal_mode", "synchronous")]
    except BaseException:
        disk_cache.close()
        raise
    if modes != [journal, 2]:
        disk_cache.close()
        raise Stopped(
            f"The file system under {folder} cannot keep a durable store (journal_mode, synchronous = {modes}). "
            "Nothing was sent. Put the job folder on a local disk with --job-dir."
        )
    return disk_cache


def _refuse_links(folder: Path) -> None:
    """Raise Stopped if the store, or a file of it, is a link: SQLite would write into what somebody else chose."""
    if folder.is_symlink():
        raise Stopped(f"{folder} is a link. Link the whole job folder instead. {how_to_restore(folder)}")
    for path in folder.glob(f"{DBNAME}*"):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise Stopped(f"{path} is a link or a folder, where a store has a file. {how_to_restore(folder)}")


def _check(folder: Path) -> Found:
    """Raise StoreDamaged unless the database is whole, a store, and the one that its sidecar describes.

    Raises NewerVersion if it holds what this version does not understand.
    """
    database = folder / DBNAME
    with contextlib.closing(open_to_read(folder)) as connection:
        faults = [fault for (fault,) in connection.execute("PRAGMA quick_check(3)")]
        if faults != ["ok"]:
            lines = " ".join("; ".join(faults).split())
            raise StoreDamaged(f"{database} is damaged ({lines}). {how_to_restore(folder)}")
        # diskcache makes attributes and pragmas of all settings that it finds.
        unknown = {key for (key,) in connection.execute("SELECT key FROM Settings")} - {*DEFAULT_SETTINGS, *METADATA}
        if unknown:
            raise StoreDamaged(f"{database} has settings that no store has: {unknown}. {how_to_restore(folder)}")
        outcomes = OutcomeCount(folder)
        connection.create_function("is_whole", 4, outcomes.is_whole)
        rows, bad_rows = connection.execute(COUNT_ROWS).fetchone()
        if outcomes.newer is not None:
            raise outcomes.newer
        if bad_rows:
            raise StoreDamaged(
                f"{database} holds rows that are damaged or were not written by pipeline ({bad_rows:,} of {rows:,}). "
                f"{how_to_restore(folder)}"
            )
        if lost := connection.execute(COUNT_LOST).fetchone()[0]:
            raise StoreDamaged(f"The index of {database} misses {lost:,} of {rows:,} rows. {how_to_restore(folder)}")
        sidecar = Sidecar.read(folder)
        if rows < sidecar.rows:
            raise StoreDamaged(
                f"{database} holds {rows:,} rows, but {sidecar.rows:,} were written: it lost its {DBNAME}-wal, or is "
                f"an older copy. {how_to_restore(folder)}"
            )
        identity = connection.execute(lookup_sql(1), (NOTE_PREFIX + IDENTITY,)).fetchone()
        if sidecar.rows and (identity is None or entry_from_row(identity).value.decode() != sidecar.identity):
            raise StoreDamaged(f"{database} is the store of another job. {how_to_restore(folder)}")
    return Found(sidecar, outcomes.cost)
