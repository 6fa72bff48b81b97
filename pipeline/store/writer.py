"""Every outcome under its request's key, on disk before it counts."""

import asyncio
import concurrent.futures
import contextlib
import math
import os
import re
import shutil
import sqlite3
import stat
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import diskcache
from diskcache.core import DBNAME, DEFAULT_SETTINGS, METADATA, MODE_RAW

from ..files import PRIVATE, make_private_folder, open_private, sync
from ..records import Record, Stopped
from .mounts import is_shared_with_hosts
from .sidecar import Sidecar, sidecar_path

GROUP_ROWS = 256
"""The most outcomes that one transaction holds."""
GROUP_SECONDS = 0.02
"""Between two groups at least: to begin one takes the interpreter from the event loop, and more than writing a row."""
NOTE_SECONDS = 1.0
"""How long a note may wait for an outcome to travel with."""
LOOKUP_ROWS = 2_000
"""The most keys that are looked up in one statement."""
CHUNK_ROWS = 25_000
"""The most keys that `Reader.marks` gives at once."""
FRESH_ROWS = 5_000
"""Of a store that is made anew, so many are written in one transaction."""
FRESH_CACHE_KB = 256 * 1024
"""SQLite's memory meanwhile: keys come in no order, and each has its place in the index."""
WATERMARK_SECONDS = 1.0
"""How far the watermark may be behind what is committed."""
BUSY_SECONDS = 30
"""How long a reader and, with a rollback journal, the writer wait for each other."""
JOURNAL_SECONDS = 2.0
"""How long a journal must look like a dead writer's to be one."""

NOTE_TAG = "note"
NOTE_PREFIX = "note:"
IDENTITY = "identity"
"""The note that tells a store from every other."""

# Given at every open: the settings are stored, and a stored one would win over a default.
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

# All that diskcache makes: nothing that fits could run anything else.
SCHEMA = re.compile(
    r"CREATE TABLE (Cache|Settings) \([\w ,]*\)|CREATE (UNIQUE )?INDEX \w+ ON Cache ?\([\w ,]*\)|"
    r"CREATE TRIGGER \w+ AFTER (INSERT|UPDATE|DELETE) ON Cache FOR EACH ROW BEGIN"
    r' UPDATE Settings SET value = [\w +.-]* WHERE key = "(count|size)"; END'
)
ROW = "key, raw, tag, mode, filename, value, access_count"

DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
NO_SHARED_MEMORY = {
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMLOCK,
    sqlite3.SQLITE_IOERR_SHMMAP,
}
REMEDIES = {
    sqlite3.SQLITE_FULL: "The disk is full: free some space",
    sqlite3.SQLITE_IOERR: "The disk may be full, over its quota or failing: see `df` and the system's log, mend it",
    sqlite3.SQLITE_BUSY: (
        "Another program holds the file: close it; on a network file system without locks, name a folder on a local "
        "disk (--job-dir)"
    ),
    sqlite3.SQLITE_READONLY: "The folder may not be written to, which is needed even for reading: see to your rights",
    sqlite3.SQLITE_CANTOPEN: "The file cannot be opened: see to your rights in the folder",
}
REMEDY = "See to the disk and to your rights in the folder"


class BytesDisk(diskcache.Disk):  # type: ignore[misc] # diskcache is untyped
    """Text keys and byte values, inline in the database. Whatever else a row claims to hold is refused unread.

    So nothing is ever pickled or unpickled (CVE-2025-69872), and no row can name a file to be read or deleted.
    Raises TypeError for every other key, value or mode.
    """

    def put(self, key: object) -> tuple[str, bool]:
        """Give the key as the database holds it, and True: it is not pickled."""
        if type(key) is not str:
            raise TypeError(f"a key is a str, not {type(key).__name__}")
        return key, True

    def get(self, key: object, raw: object) -> str:
        """Give the key of a row."""
        return _text(key, raw)

    def store(self, value: object, read: object, key: object = None) -> tuple[int, int, None, bytes]:
        """Give size (of a file: 0), mode, file name (None) and value as the database holds them."""
        del key
        if type(value) is not bytes or read:
            raise TypeError(f"a value is bytes, not {type(value).__name__}")
        return 0, MODE_RAW, None, value

    def fetch(self, mode: object, filename: object, value: object, read: object) -> bytes:
        """Give the value of a row."""
        if read:
            raise TypeError("a row's value is not a file")
        return _bytes(mode, filename, value)

    def filename(self, *_: object) -> NoReturn:
        """Refuse: no value has a file of its own."""
        raise TypeError("a store has no files beside its database")

    def remove(self, file_path: object) -> None:
        """Do nothing: no row owns a file, whatever it says."""


class StoreDamaged(Stopped):
    """The store is not what was written, and was left as it is; what can still be read of it may be salvaged."""


class StoreHalfWritten(Stopped):
    """A killed process left a group half-written: `take_back` it under the job's lock, then read."""


class Entry(Record, frozen=True):
    """One outcome as it is filed."""

    key: str
    tag: str
    """The outcome's mark, which `Reader.marks` gives without reading the value."""
    value: bytes


class Store:
    """The outcomes of a job: one thread, one writing connection, group commits.

    `folder` is the folder of the database alone, made (0700, its files 0600) if it is not there; hold the job's lock
    around it. All outcomes that gather in 20 ms are one group, up to 256, so a lone one waits for nobody and a crowd
    shares its fsync; one that is urgent ends the gathering. What was acknowledged survives SIGKILL, and power loss
    where the disk honours fsync. On a network file system it goes through a rollback journal in place of a write-ahead
    log, which other hosts could not read.

    Beside the folder, `FOLDER.json` tells how many rows were committed a second ago and the latest notes: so a store
    that is gone, or lost rows with its write-ahead log, is not taken for one that never had them.

    Raises Damaged, with the remedy, if the database is empty, damaged, not a store or not the one that was here (it is
    never begun anew); Stopped if the file system cannot give what durability needs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._change = threading.Condition()
        self._waiting: deque[tuple[Entry | None, asyncio.Future[None]]] = deque()
        """What is to be filed, None for the notes alone, and who waits for it."""
        self._notes: dict[str, bytes | Callable[[], bytes]] = {}
        self._closing = self._is_urgent = False
        self._broken = ""
        self._untold = False
        opened: concurrent.futures.Future[None] = concurrent.futures.Future()
        # A daemon, so that a program that dies without `close` is not held up by a thread that waits for work.
        self._thread = threading.Thread(target=self._work, args=(opened,), name="store", daemon=True)
        self._thread.start()
        try:
            opened.result()
        except BaseException:
            self.close()
            raise

    async def put(self, key: str, value: bytes, tag: str, *, is_urgent: bool = False) -> None:
        """File `value` under `key`, over what was there; returns once the COMMIT that holds it has succeeded.

        `is_urgent`: nothing more will come to its group, so that it waits for nothing.
        If the caller is cancelled meanwhile, the value is stored all the same. Raises Stopped if the store cannot be
        written (then and ever after) or is closed, TypeError or ValueError for what it does not take.
        """
        if type(key) is not str or type(value) is not bytes or type(tag) is not str:
            raise TypeError("a store takes a key and a tag in str and a value in bytes")
        if key.startswith(NOTE_PREFIX) or tag == NOTE_TAG:
            raise ValueError(f"{key!r}, {tag!r}: notes are left with `note`")
        written = asyncio.get_running_loop().create_future()
        with self._change:
            self._refuse_if_over()
            self._waiting.append((Entry(key, tag, value), written))
            self._is_urgent |= is_urgent
            if is_urgent or len(self._waiting) in (1, GROUP_ROWS):  # between them the writer need not be woken
                self._change.notify()
        await written

    def note(self, name: str, value: bytes | Callable[[], bytes]) -> None:
        """Keep `value` under `name`; the latest wins. Returns at once; written with the next group, or in a second.

        So a ledger that is noted before a `put` is awaited is on disk with the outcome or before it. What changes with
        every row is given as what makes its bytes, which is called once for each group, in the store's thread, and must
        not raise. Usable from any thread. Raises Stopped if the store is closed or can no longer be written.
        """
        if type(name) is not str or not (type(value) is bytes or callable(value)):
            raise TypeError("a note is bytes, or what makes them, under a name in str")
        with self._change:
            self._refuse_if_over()
            if not self._notes:  # only the first wakes the writer, or a stream of notes would put its second off
                self._change.notify()
            self._notes[name] = value

    async def flush(self) -> None:
        """Return once all that was noted is on disk. Raises Stopped as `put` does."""
        written = asyncio.get_running_loop().create_future()
        with self._change:
            self._refuse_if_over()
            self._waiting.append((None, written))
            self._is_urgent = True
            self._change.notify()
        await written

    def close(self) -> None:
        """Commit what is queued, then close. Usable from any thread, any number of times.

        Raises Stopped, once, if notes were lost to an error that no caller has been told of.
        """
        with self._change:
            self._closing = True
            self._change.notify()
        self._thread.join()
        if self._untold:
            self._refuse_if_over()

    def _refuse_if_over(self) -> None:
        if self._broken:
            self._untold = False
            raise Stopped(self._broken)
        if self._closing:
            raise Stopped(f"The store {self.folder} is closed already; what came after was not stored.")

    def _work(self, opened: concurrent.futures.Future[None]) -> None:
        try:
            disk_cache = _open(self.folder)
        except BaseException as error:  # noqa: BLE001 - all of it is raised in the thread that opens the store
            opened.set_exception(error)
            return
        opened.set_result(None)
        broken = ""
        try:
            self._commit_until_closed(disk_cache)
        except Exception as error:  # noqa: BLE001 - whatever ends this thread, nobody may wait for it for ever
            broken = _unwritable(self.folder, error)
        finally:
            # Not left to the last to close, which may be a reader: then the answers would stay in the log alone.
            with contextlib.suppress(sqlite3.Error):
                disk_cache._sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()  # noqa: SLF001 - as for any pragma
            disk_cache.close()
        if broken:
            self._break(broken)

    def _commit_until_closed(self, disk_cache: diskcache.Cache) -> None:
        marked, written = time.monotonic(), -math.inf
        behind = False
        while True:
            with self._change:
                while not self._waiting and not self._closing:
                    if not self._change.wait(NOTE_SECONDS if self._notes or behind else None):
                        break
                self._change.wait_for(self._is_group_due, max(0.0, written + GROUP_SECONDS - time.monotonic()))
                group = list(islice(self._waiting, GROUP_ROWS))  # they stay queued until they are safe
                self._is_urgent = self._is_urgent and len(group) < len(self._waiting)
                notes = {name: note() if callable(note) else note for name, note in self._notes.items()}
                self._notes = {}
                last = self._closing and len(group) == len(self._waiting)
            if group or notes:
                _write(disk_cache, [entry for entry, _ in group if entry is not None], notes)
                written, behind = time.monotonic(), True
            with self._change:
                for _ in group:
                    self._waiting.popleft()
            _tell([written for _, written in group])
            if behind and (last or time.monotonic() - marked >= WATERMARK_SECONDS):
                _put_watermark(self.folder, disk_cache)
                marked, behind = time.monotonic(), False
            if last:
                return

    def _is_group_due(self) -> bool:
        return self._closing or self._is_urgent or len(self._waiting) >= GROUP_ROWS

    def _break(self, reason: str) -> None:
        with self._change:
            lost, self._waiting = list(self._waiting), deque()
            self._broken, self._untold = reason, not lost
        _tell([written for _, written in lost], reason)


class Reader:
    """A read-only look at a store, from any process, in short reads, while another writes.

    Opens SQLite with mode=ro and never diskcache, so it cannot disturb the writer. One thread at a time. On a file
    system whose locks other hosts do not see, a read from another host may fail while the job runs; it harms nothing.

    Raises FileNotFoundError if there is no store in `folder` yet; here and in every read Stopped, naming the store:
    HalfWritten if a killed process left it so; Damaged if the database is empty, damaged, not a store, or holds rows
    that no Store writes (they are neither unpickled nor followed to a file).
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / DBNAME).exists():
            raise FileNotFoundError(f"{folder} holds no answers yet")
        self.folder = folder
        self._connection = _open_whole(folder)

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Give the value of each key, in the order asked; None where there is none."""
        found = {}
        with _telling(self.folder):
            for start in range(0, len(keys), LOOKUP_ROWS):
                wanted = keys[start : start + LOOKUP_ROWS]
                for row in _rows(self._connection, _lookup(len(wanted)), wanted):
                    entry = entry_from_row(row)
                    found[entry.key] = entry.value
        return [found.get(key) for key in keys]

    def marks(self) -> Iterator[list[tuple[str, str]]]:
        """Give (key, tag) of every outcome, oldest first, in chunks of up to 25,000.

        No transaction stays open between chunks: what is stored meanwhile may still come, and nothing comes twice.
        """
        sql = "SELECT rowid, key, raw, tag FROM Cache WHERE rowid > ? AND tag IS NOT ? ORDER BY rowid LIMIT ?"
        last = 0
        while True:
            with _telling(self.folder):
                rows = _rows(self._connection, sql, (last, NOTE_TAG, CHUNK_ROWS))
                chunk = [(_text(key, raw), _text(tag, raw)) for _, key, raw, tag in rows]
            if not chunk:
                return
            last = rows[-1][0]
            yield chunk

    def stored_since(self, moment: datetime) -> list[tuple[str, str]]:
        """Give (key, tag) of all outcomes that were stored at or after a moment, or stored anew."""
        sql = "SELECT key, raw, tag FROM Cache WHERE store_time >= ? AND tag IS NOT ?"
        with _telling(self.folder):
            rows = _rows(self._connection, sql, (moment.timestamp(), NOTE_TAG))
            return [(_text(key, raw), _text(tag, raw)) for key, raw, tag in rows]

    def count_since(self, moment: datetime) -> int:
        """Count the outcomes that were stored at or after a moment, or stored anew."""
        sql = "SELECT count(*) FROM Cache WHERE store_time >= ? AND tag IS NOT ?"
        with _telling(self.folder):
            return int(_rows(self._connection, sql, (moment.timestamp(), NOTE_TAG))[0][0])

    def last_stored(self) -> datetime | None:
        """Give when the latest outcome was stored, in UTC; None if there is none."""
        sql = "SELECT store_time FROM Cache WHERE tag IS NOT ? ORDER BY store_time DESC LIMIT 1"
        with _telling(self.folder):
            rows = _rows(self._connection, sql, (NOTE_TAG,))
        return datetime.fromtimestamp(rows[0][0], UTC) if rows else None

    def note(self, name: str) -> bytes | None:
        """Give the latest note of that name; None if there is none."""
        return self.get_many([NOTE_PREFIX + name])[0]

    def close(self) -> None:
        """Let go of the database; any number of times."""
        self._connection.close()


def roll_back(folder: Path) -> None:
    """Undo what a killed process left half-written: no part of it was acknowledged. Hold the job's lock around it."""
    with _telling(folder), contextlib.closing(open_database(folder, "rw")) as connection:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()


def rebuild(folder: Path, entries: Iterable[Entry], notes: Mapping[str, bytes]) -> Path:
    """Make a store of these, put it in the place of the one in `folder`, and give where that stands now.

    Nothing is removed. Raises Stopped if it cannot be done; then the old one stands where it stood.
    """
    aside = folder.with_name(f"{folder.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    with _telling(folder):
        fresh = _make(folder, entries, notes)
        if os.path.lexists(folder):
            folder.rename(aside)
        fresh.rename(folder)
        sync(folder.parent)
        sidecar_path(folder).unlink(missing_ok=True)
    return aside


def entry_from_row(row: Sequence[object]) -> Entry:
    """A row, its columns as in ROW, as it was written. Raises TypeError if it was not written by a Store, or changed.

    Nothing in it is unpickled, nor followed to a file.
    """
    key, raw, tag, mode, filename, value, checksum = row
    key, tag, value = _text(key, raw), _text(tag, raw), _bytes(mode, filename, value)
    if checksum != _checksum(key.encode(), tag.encode(), value):
        raise TypeError(f"the value of {key!r} is not what was written")
    return Entry(key, tag, value)


def _text(cell: object, raw: object) -> str:
    if type(cell) is not str or raw != 1:
        raise TypeError("a row's key is not plain text")
    return cell


def _bytes(mode: object, filename: object, value: object) -> bytes:
    if mode != MODE_RAW or filename is not None or type(value) is not bytes:
        raise TypeError("a row's value is not plain bytes")
    return value


def _checksum(key: bytes, tag: bytes, value: bytes) -> int:
    """Of what belongs together: SQLite itself would not notice a page of values that changed."""
    return int(zlib.crc32(value, zlib.crc32(key + b"\0" + tag + b"\0")))


def _open(folder: Path) -> diskcache.Cache:
    """Open a store for writing, checked; make it if there is none. Raises Stopped."""
    with _telling(folder):
        if not os.path.lexists(folder / DBNAME):
            _create(folder)
        _refuse_links(folder)
        journal = folder / f"{DBNAME}-journal"
        if journal.exists() and journal.stat().st_size:
            roll_back(folder)
        try:
            _check(folder)
        except Stopped as stop:
            if getattr(_cause(stop), "sqlite_errorcode", 0) not in NO_SHARED_MEMORY:
                raise
            _leave_wal(folder)  # copied from where it could be read
            _check(folder)
        disk_cache = _open_cache(folder)
        _put_watermark(folder, disk_cache)
    return disk_cache


def _create(folder: Path) -> None:
    """Make an empty store. Raises Damaged if there was one."""
    if rows := Sidecar.of(folder).rows:
        moved = "".join(
            f" One that was moved aside: {path}." for path in folder.parent.glob(f"{folder.name}.damaged-*")
        )
        raise StoreDamaged(
            f"{folder / DBNAME} is gone, though {rows:,} rows were written to it.{moved} {_restore(folder)}"
        )
    if folder.exists() and any(folder.iterdir()):
        raise StoreDamaged(f"{folder} holds files but no {DBNAME}, which had the answers. {_restore(folder)}")
    _make(folder, [], {}).rename(folder)
    sync(folder.parent)


def _make(folder: Path, entries: Iterable[Entry], notes: Mapping[str, bytes]) -> Path:
    """Make a store of these beside its place, to be moved there whole, so that a half-made one is never found."""
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    folder.parent.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    make_private_folder(fresh)
    # SQLite gives the files beside a database the database's mode.
    os.close(open_private(fresh / DBNAME, os.O_EXCL | os.O_WRONLY))
    disk_cache = _open_cache(fresh)
    try:
        sql, journal = disk_cache._sql, _pragma(disk_cache, "journal_mode")  # noqa: SLF001 - see _pragma
        # what a crash leaves of it is thrown away: it needs no journal, and is synced once it is whole
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{FRESH_CACHE_KB}"):
            sql(f"PRAGMA {setting}")
        rows = iter(entries)
        while part := list(islice(rows, FRESH_ROWS)):
            _write(disk_cache, part, {})
        for setting in (f"journal_mode = {journal}", "synchronous = FULL"):
            sql(f"PRAGMA {setting}")
        _write(disk_cache, [], {**notes, IDENTITY: os.urandom(8).hex().encode()})
    finally:
        disk_cache.close()
    sync(fresh)
    return fresh


def _open_cache(folder: Path) -> diskcache.Cache:
    """Open with the journal that suits the file system. Raises Stopped if none is as durable as it must be."""
    if not is_shared_with_hosts(folder):
        try:
            return _open_with(folder, "wal")
        except (sqlite3.OperationalError, Stopped):  # no name tells that it will not do here
            _leave_wal(folder)
    return _open_with(folder, "truncate")


def _leave_wal(folder: Path) -> None:
    """Back to a rollback journal without shared memory, of which an exclusive lock is in no need."""
    with contextlib.closing(open_database(folder, "rw")) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = TRUNCATE")
        with contextlib.suppress(sqlite3.OperationalError):  # there is no table yet
            # diskcache obeys what it finds there before what it is told
            connection.execute("UPDATE Settings SET value = 'truncate' WHERE key = 'sqlite_journal_mode'")


def _open_with(folder: Path, journal: str) -> diskcache.Cache:
    """Truncating a journal, unlike deleting it, is on disk when COMMIT returns (sqlite.org/pragma.html, EXTRA)."""
    settings = SETTINGS | {"sqlite_journal_mode": journal, "timeout": 5 if journal == "wal" else BUSY_SECONDS}
    disk_cache = diskcache.Cache.__new__(diskcache.Cache)
    try:
        # Begun by hand: its connection must be closed when its own beginning fails half-way.
        disk_cache.__init__(str(folder), disk=BytesDisk, **settings)
        took = [_pragma(disk_cache, name) for name in ("journal_mode", "synchronous")]
    except BaseException:
        disk_cache.close()
        raise
    if took != [journal, 2]:
        disk_cache.close()
        raise Stopped(
            f"The file system under {folder} cannot keep a durable store (journal_mode, synchronous = {took}). "
            "Nothing was asked. Put the job folder on a local disk with --job-dir."
        )
    return disk_cache


def _pragma(disk_cache: diskcache.Cache, name: str) -> object:
    return disk_cache._sql(f"PRAGMA {name}").fetchone()[0]  # noqa: SLF001 - no public way to ask its connection


def _put_watermark(folder: Path, disk_cache: diskcache.Cache) -> None:
    sql = disk_cache._sql  # noqa: SLF001 - as above
    rows = sql("SELECT value FROM Settings WHERE key = 'count'").fetchone()[0]
    query = f"SELECT {ROW} FROM Cache WHERE raw = 1 AND key >= ? AND key < ?"  # noqa: S608 - constants
    noted = [entry_from_row(row) for row in sql(query, _NOTES)]
    notes = {entry.key.removeprefix(NOTE_PREFIX): entry.value for entry in noted}
    Sidecar(notes.pop(IDENTITY, b"").decode(), rows, notes).put(folder)


def _refuse_links(folder: Path) -> None:
    """Raise Stopped if a file of the store is anything else: SQLite would write where a link points."""
    for path in folder.glob(f"{DBNAME}*"):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise Stopped(f"{path} is a link or a folder, where the store has a file. {_restore(folder)}")


def _check(folder: Path) -> None:
    """Raise Damaged unless the database is whole, a store, and the one that was here: never is one begun anew."""
    with contextlib.closing(_open_whole(folder)) as connection:
        faults = [fault for (fault,) in connection.execute("PRAGMA quick_check(3)")]
        if faults != ["ok"]:
            said = " ".join("; ".join(faults).split())  # SQLite's own lines, as one
            raise StoreDamaged(f"{folder / DBNAME} is damaged ({said}). {_restore(folder)}")
        # diskcache makes attributes and pragmas of all settings that it finds.
        strange = {key for (key,) in connection.execute("SELECT key FROM Settings")} - {*DEFAULT_SETTINGS, *METADATA}
        if strange:
            raise StoreDamaged(f"{folder / DBNAME} has settings that no store has: {strange}. {_restore(folder)}")
        connection.create_function("checksum", 3, _checksum, deterministic=True)
        rows, strange_rows = connection.execute(_COUNT).fetchone()
        if strange_rows:
            raise StoreDamaged(
                f"{folder / DBNAME} holds {strange_rows:,} rows that no store writes. {_restore(folder)}"
            )
        mark = Sidecar.of(folder)
        if rows < mark.rows:
            raise StoreDamaged(
                f"{folder / DBNAME} holds {rows:,} rows, where {mark.rows:,} were written: it lost its "
                f"{DBNAME}-wal, or is an older copy. {_restore(folder)}"
            )
        identity = connection.execute(_lookup(1), (NOTE_PREFIX + IDENTITY,)).fetchone()
        if mark.rows and (identity is None or entry_from_row(identity).value.decode() != mark.identity):
            raise StoreDamaged(f"{folder / DBNAME} is the store of another job. {_restore(folder)}")


def _open_whole(folder: Path) -> sqlite3.Connection:
    """Open the database for reading alone. Raises Stopped if it is empty, not a store or cannot be opened."""
    database = folder / DBNAME
    with _telling(folder):
        # Asked of the directory: to open and close the file would drop the locks that SQLite has on it in this process.
        if database.stat().st_size == 0:
            raise StoreDamaged(f"{database} is empty (0 bytes), though it should hold the answers. {_restore(folder)}")
        connection = open_database(folder, "ro")
        try:
            made = _rows(connection, "SELECT type, name, sql FROM sqlite_master")
        except BaseException:
            connection.close()
            raise
        tables = {name for kind, name, _ in made if kind == "table"}
        strange = [name for _, name, sql in made if sql is not None and SCHEMA.fullmatch(sql) is None]
        if tables != {"Cache", "Settings"} or strange:
            connection.close()
            raise StoreDamaged(f"{database} is a database, but not of answers ({strange}). {_restore(folder)}")
    return connection


def open_database(folder: Path, mode: str) -> sqlite3.Connection:
    """Open the database as it is, unchecked, `mode` "ro" or "rw"; never makes one. Raises sqlite3.Error."""
    uri = f"{(folder / DBNAME).absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS)
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _rows(connection: sqlite3.Connection, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    """All rows at once, so that a writer waits no longer than that.

    A reader that comes just as a writer begins may take its journal for a dead one's, so it looks again for a while.
    """
    until = time.monotonic() + JOURNAL_SECONDS
    while True:
        try:
            return connection.execute(sql, values).fetchall()
        except sqlite3.OperationalError as error:
            passing = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY_ROLLBACK
            if not passing or time.monotonic() > until:
                raise
            time.sleep(0.01)


@contextlib.contextmanager
def _telling(folder: Path) -> Iterator[None]:
    """Turn what goes wrong in opening and reading into a Stopped that names the store."""
    try:
        yield
    except TypeError as error:
        raise StoreDamaged(f"{folder / DBNAME} holds rows that no store writes: {error}. {_restore(folder)}") from error
    except (sqlite3.Error, diskcache.Timeout, OSError) as error:
        cause = _cause(error)
        what = f"The store {folder / DBNAME} cannot be opened or read: {cause}."
        if getattr(cause, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY_ROLLBACK:
            raise StoreHalfWritten(
                f"{what} A process was killed as it wrote: the job's next run takes that back."
            ) from error
        if _code(cause) in DAMAGED:
            raise StoreDamaged(f"{what} {_restore(folder)}") from error
        remedy = REMEDIES.get(_code(cause), REMEDY)
        raise Stopped(f"{what} What it holds was not touched. {remedy}, then type the same command again.") from error


def _restore(folder: Path) -> str:
    return (
        f"It was left as it is. Put back a copy of the whole folder {folder} ({DBNAME} together with {DBNAME}-wal), "
        f"or delete {folder.parent} to begin anew and pay for every answer again."
    )


def _unwritable(folder: Path, error: Exception) -> str:
    cause = _cause(error)
    remedy = REMEDIES.get(_code(cause), REMEDY)
    with contextlib.suppress(OSError):
        remedy += f" ({shutil.disk_usage(folder).free / 1e6:,.0f} MB free)"
    return (
        f"The store {folder / DBNAME} cannot be written: {cause}. Every answer shown as done is safe on disk; what was "
        f"in flight was not stored and will be asked again. {remedy}, then type the same command again."
    )


def _cause(error: BaseException) -> BaseException:
    """Find SQLite's first word: diskcache raises its own Timeout over it, or a ROLLBACK that failed too."""
    cause = error
    while error.__context__ is not None:
        error = error.__context__
        if isinstance(error, sqlite3.Error):
            cause = error
    return cause


def _code(cause: BaseException) -> int:
    """Give SQLite's primary result code; 0 for what is not SQLite's."""
    if isinstance(cause, sqlite3.OperationalError) and not hasattr(cause, "sqlite_errorcode"):
        return sqlite3.SQLITE_CORRUPT  # Python's own complaint, of a text that is no UTF-8
    return getattr(cause, "sqlite_errorcode", 0) & 0xFF


def _write(disk_cache: diskcache.Cache, entries: Sequence[Entry], notes: Mapping[str, bytes]) -> None:
    """Commit all of them in one transaction, or none."""
    rows = [*entries, *(Entry(NOTE_PREFIX + name, NOTE_TAG, value) for name, value in notes.items())]
    with disk_cache.transact():
        for start in range(0, len(rows), GROUP_ROWS):
            part = rows[start : start + GROUP_ROWS]
            values = [cell for row in part for cell in _cells(row)]
            disk_cache._sql(_upsert(len(part)), values)  # noqa: SLF001 - see _upsert


def _cells(entry: Entry) -> tuple[str, str, bytes, int]:
    checksum = _checksum(entry.key.encode(), entry.tag.encode(), entry.value)
    return entry.key, entry.tag, entry.value, checksum


@cache
def _upsert(rows: int) -> str:
    """Give the SQL that writes so many rows as diskcache would, from four values for each: key, tag, value, checksum.

    One statement for a group, where `Cache.set` takes two or three a row: each gives up the interpreter's lock, and
    beside a busy event loop gets it back only 5 ms later. The checksum stands where other policies of eviction count.
    """
    now = "(julianday('now') - 2440587.5) * 86400.0"  # seconds since 1970, as in time.time()
    values = ", ".join([f"(?, ?, ?, ?, 1, {MODE_RAW}, {now})"] * rows)
    return (
        f"INSERT INTO Cache (key, tag, value, access_count, raw, mode, store_time) VALUES {values}"  # noqa: S608 - placeholders alone
        " ON CONFLICT (key, raw) DO UPDATE SET tag = excluded.tag, value = excluded.value, mode = excluded.mode,"
        " access_count = excluded.access_count, store_time = excluded.store_time, expire_time = NULL, size = 0,"
        " filename = NULL"
    )


@cache
def _lookup(keys: int) -> str:
    """Give the SQL that looks up so many keys."""
    marks = ", ".join("?" * keys)
    return f"SELECT {ROW} FROM Cache WHERE raw = 1 AND key IN ({marks})"  # noqa: S608 - as above


_NOTES = (NOTE_PREFIX, NOTE_PREFIX[:-1] + chr(ord(NOTE_PREFIX[-1]) + 1))
"""The keys of all notes lie between these."""
_COUNT = f"""
    SELECT count(*), count(*) - count(CASE WHEN
        raw IS 1 AND mode IS {MODE_RAW} AND filename IS NULL
        AND typeof(key) = 'text' AND typeof(tag) = 'text' AND typeof(value) = 'blob'
        AND access_count IS checksum(CAST(key AS BLOB), CAST(tag AS BLOB), value)
    THEN 1 END) FROM Cache
"""  # noqa: S608 - a constant
"""How many rows there are, and how many no Store wrote."""


def _tell(written: Iterable[asyncio.Future[None]], broken: str = "") -> None:
    """Wake those who wait, all of one event loop at once: with a Stopped if it says why."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for future in written:
        by_loop.setdefault(future.get_loop(), []).append(future)
    for loop, futures in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits there any more
            loop.call_soon_threadsafe(_settle, futures, broken)


def _settle(futures: Iterable[asyncio.Future[None]], broken: str) -> None:
    for future in futures:
        if future.done():  # its caller was cancelled
            continue
        if broken:
            future.set_exception(Stopped(broken))
        else:
            future.set_result(None)
