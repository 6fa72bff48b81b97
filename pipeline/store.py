"""Every outcome under its request's key, on disk before it counts; and the lock of the job folder."""

import asyncio
import concurrent.futures
import contextlib
import json
import os
import shutil
import sqlite3
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from pathlib import Path
from typing import NoReturn

import diskcache
import filelock
from diskcache.core import DBNAME, DEFAULT_SETTINGS, METADATA, MODE_RAW

from .folders import PRIVATE, file_mode, make_inside, open_inside, share
from .records import BadJob, Exit, Process, Record, Stopped, one_line

GROUP_ROWS = 256
"""The most outcomes that one transaction holds."""
NOTE_SECONDS = 1.0
"""How long a note may wait for an outcome to travel with."""
LOOKUP_ROWS = 500
"""The most keys that are looked up in one statement."""
CHUNK_ROWS = 25_000
"""The most keys that `Reader.marks` gives at once."""

NOTE_TAG = "note"
NOTE_PREFIX = "note:"

# Given at every open: the settings are stored, and a stored one would win over a default.
SETTINGS = {
    "timeout": 5,
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

DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
REMEDIES = {
    sqlite3.SQLITE_FULL: "The disk is full: free some space",
    sqlite3.SQLITE_IOERR: "The disk may be full, over its quota or failing: see `df` and the system's log, mend it",
    sqlite3.SQLITE_BUSY: "Another program holds the file: close it",
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
        if type(key) is not str or raw != 1:
            raise TypeError("a row's key is not plain text")
        return key

    def store(self, value: object, read: object, key: object = None) -> tuple[int, int, None, bytes]:
        """Give size (of a file: 0), mode, file name (None) and value as the database holds them."""
        del key
        if type(value) is not bytes or read:
            raise TypeError(f"a value is bytes, not {type(value).__name__}")
        return 0, MODE_RAW, None, value

    def fetch(self, mode: object, filename: object, value: object, read: object) -> bytes:
        """Give the value of a row."""
        if mode != MODE_RAW or filename is not None or type(value) is not bytes or read:
            raise TypeError("a row's value is not plain bytes")
        return value

    def filename(self, *_: object) -> NoReturn:
        """Refuse: no value has a file of its own."""
        raise TypeError("a store has no files beside its database")

    def remove(self, file_path: object) -> None:
        """Do nothing: no row owns a file, whatever it says."""


class Entry(Record, frozen=True):
    """One outcome as it is filed."""

    key: str
    tag: str
    """The outcome's mark, which `Reader.marks` gives without reading the value."""
    value: bytes


class Store:
    """The outcomes of a job: one thread, one writing connection, group commits.

    `folder` is the folder of the database alone, made (0700, its files 0600) if it is not there; hold the job's lock
    around it. All outcomes that gather while one group is committed are the next group, up to 256, so a lone one
    waits for nobody and a crowd shares its fsync. What was acknowledged survives SIGKILL, and power loss where
    the disk honours fsync.

    Raises Stopped, with the remedy, if the database is empty, damaged or not a store (it is never begun anew), or if
    the file system cannot give what durability needs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._change = threading.Condition()
        self._waiting: deque[tuple[Entry | None, asyncio.Future[None]]] = deque()
        """What is to be filed, None for the notes alone, and who waits for it."""
        self._notes: dict[str, bytes] = {}
        self._closing = False
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

    async def put(self, key: str, value: bytes, tag: str) -> None:
        """File `value` under `key`, over what was there; returns once the COMMIT that holds it has succeeded.

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
            self._change.notify()
        await written

    def note(self, name: str, value: bytes) -> None:
        """Keep `value` under `name`; the latest wins. Returns at once; written with the next group, or in a second.

        So a ledger that is noted before a `put` is awaited is on disk with the outcome or before it. Usable from
        any thread. Raises Stopped if the store is closed or can no longer be written.
        """
        if type(name) is not str or type(value) is not bytes:
            raise TypeError("a note is bytes under a name in str")
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
            disk_cache.close()
        if broken:
            self._break(broken)

    def _commit_until_closed(self, disk_cache: diskcache.Cache) -> None:
        while True:
            with self._change:
                while not self._waiting and not self._closing:
                    if not self._change.wait(NOTE_SECONDS if self._notes else None):
                        break
                group = list(islice(self._waiting, GROUP_ROWS))  # they stay queued until they are safe
                notes, self._notes = self._notes, {}
                last = self._closing and len(group) == len(self._waiting)
            if group or notes:
                _write(disk_cache, [entry for entry, _ in group if entry is not None], notes)
            with self._change:
                for _ in group:
                    self._waiting.popleft()
            _tell([written for _, written in group])
            if last:
                return

    def _break(self, reason: str) -> None:
        with self._change:
            lost, self._waiting = list(self._waiting), deque()
            self._broken, self._untold = reason, not lost
        _tell([written for _, written in lost], reason)


class Reader:
    """A read-only look at a store, from any process, in short reads, while another writes.

    Opens SQLite with mode=ro and never diskcache, so it cannot disturb the writer. One thread at a time.

    Raises FileNotFoundError if there is no store in `folder` yet; here and in every read Stopped, naming the store,
    if the database is empty, damaged, not a store, or holds rows that no Store writes (they are neither unpickled
    nor followed to a file).
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / DBNAME).exists():
            raise FileNotFoundError(f"{folder} holds no answers yet")
        self.folder = folder
        self._disk = BytesDisk(str(folder))
        self._connection = _connect(folder)

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Give the value of each key, in the order asked; None where there is none."""
        found = {}
        with _telling(self.folder):
            for start in range(0, len(keys), LOOKUP_ROWS):
                wanted = keys[start : start + LOOKUP_ROWS]
                for key, mode, filename, value in self._connection.execute(_lookup(len(wanted)), wanted):
                    found[key] = self._disk.fetch(mode, filename, value, read=False)
        return [found.get(key) for key in keys]

    def marks(self) -> Iterator[list[tuple[str, str]]]:
        """Give (key, tag) of every outcome, oldest first, in chunks of up to 25,000.

        No transaction stays open between chunks: what is stored meanwhile may still come, and nothing comes twice.
        """
        sql = "SELECT rowid, key, raw, tag FROM Cache WHERE rowid > ? AND tag IS NOT ? ORDER BY rowid LIMIT ?"
        last = 0
        while True:
            with _telling(self.folder):
                rows = self._connection.execute(sql, (last, NOTE_TAG, CHUNK_ROWS)).fetchall()
                chunk = [(self._disk.get(key, raw), self._disk.get(tag, raw)) for _, key, raw, tag in rows]
            if not chunk:
                return
            last = rows[-1][0]
            yield chunk

    def stored_since(self, moment: datetime) -> list[str]:
        """Give the keys of all outcomes that were stored at or after a moment, or stored anew."""
        sql = "SELECT key, raw FROM Cache WHERE store_time >= ? AND tag IS NOT ?"
        with _telling(self.folder):
            rows = self._connection.execute(sql, (moment.timestamp(), NOTE_TAG)).fetchall()
            return [self._disk.get(key, raw) for key, raw in rows]

    def note(self, name: str) -> bytes | None:
        """Give the latest note of that name; None if there is none."""
        return self.get_many([NOTE_PREFIX + name])[0]

    def close(self) -> None:
        """Let go of the database; any number of times."""
        self._connection.close()


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the job folder: one process at a time.

    A lock of the operating system on `folder/lock`, so a dead process's is free by itself; who holds it is told in
    `folder/lock.json`. Raises Stopped (exit code 5) at once if it is held, naming the holder, and BadJob if
    the folder cannot be locked.
    """
    lock = filelock.FileLock(folder / "lock", mode=file_mode(folder), blocking=False, thread_local=False)
    try:
        lock.acquire()
        _tell_holder(folder / "lock.json")
    except filelock.Timeout:
        raise Stopped(_held(folder), Exit.LOCKED) from None
    except OSError as error:
        lock.release()
        remedy = "See to your rights in it" if isinstance(error, PermissionError) else "Keep it on a local disk"
        raise BadJob(f"{folder} cannot be locked: {error}. {remedy} (--job-dir). Nothing was sent.") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # a name left behind harms nobody, a lock left behind would
            (folder / "lock.json").unlink()
        lock.release()


def make_folder(folder: Path, *, shared: bool = False) -> None:
    """Make the job folder, mode 0700, with a .gitignore of `*`. One that exists is left as it is (if empty: filled).

    `shared`: it, and all that is in it, are its group's too. Raises BadJob if it cannot be made so, or is a file.
    """
    try:
        made = not folder.exists()
        folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        if shared:
            share(folder)
        # Not in a folder that holds something else: there it would hide a person's own files from git.
        if made or not any(folder.iterdir()):
            with os.fdopen(open_inside(folder / ".gitignore", os.O_WRONLY), "w", encoding="utf-8") as file:
                file.write("*\n")
            _sync(folder)
            _sync(folder.parent)
    except OSError as error:
        raise BadJob(f"The job folder {folder} cannot be made: {error}. Name another with --job-dir.") from error


def _open(folder: Path) -> diskcache.Cache:
    """Open a store for writing, checked; make it if there is none. Raises Stopped."""
    with _telling(folder):
        if not os.path.lexists(folder / DBNAME):
            _create(folder)
        _check(folder)
        disk_cache = _open_cache(folder)
        took = [_pragma(disk_cache, name) for name in ("journal_mode", "synchronous")]
        if took != ["wal", 2]:
            disk_cache.close()
            raise Stopped(
                f"The file system under {folder} cannot keep a durable store (journal_mode, synchronous = {took}). "
                "Nothing was asked. Put the job folder on a local disk with --job-dir."
            )
    return disk_cache


def _create(folder: Path) -> None:
    """Make an empty store beside its place and move it there whole, so that a half-made one is never found."""
    if folder.exists() and any(folder.iterdir()):
        raise Stopped(f"{folder} holds files but no {DBNAME}, which had the answers. {_restore(folder)}")
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    folder.parent.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    make_inside(fresh)
    # SQLite gives the files beside a database the database's mode.
    os.close(open_inside(fresh / DBNAME, os.O_EXCL | os.O_WRONLY))
    _open_cache(fresh).close()
    _sync(fresh)
    fresh.rename(folder)
    _sync(folder.parent)


def _open_cache(folder: Path) -> diskcache.Cache:
    disk_cache = diskcache.Cache.__new__(diskcache.Cache)
    try:
        # Begun by hand: its connection must be closed when its own beginning fails half-way.
        disk_cache.__init__(str(folder), disk=BytesDisk, **SETTINGS)
    except BaseException:
        disk_cache.close()
        raise
    return disk_cache


def _pragma(disk_cache: diskcache.Cache, name: str) -> object:
    return disk_cache._sql(f"PRAGMA {name}").fetchone()[0]  # noqa: SLF001 - no public way to ask its connection


def _check(folder: Path) -> None:
    """Raise Stopped unless the database is whole and a store: diskcache would begin anew in an empty one."""
    with contextlib.closing(_connect(folder)) as connection:
        faults = [fault for (fault,) in connection.execute("PRAGMA quick_check(3)")]
        if faults != ["ok"]:
            said = " ".join("; ".join(faults).split())  # SQLite's own lines, as one
            raise Stopped(f"{folder / DBNAME} is damaged ({said}). {_restore(folder)}")
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables != {"Cache", "Settings"}:
            raise Stopped(f"{folder / DBNAME} is a database, but not of answers. {_restore(folder)}")
        # diskcache makes attributes and pragmas of all settings that it finds.
        strange = {key for (key,) in connection.execute("SELECT key FROM Settings")} - {*DEFAULT_SETTINGS, *METADATA}
        if strange:
            raise Stopped(f"{folder / DBNAME} has settings that no store has: {strange}. {_restore(folder)}")


def _connect(folder: Path) -> sqlite3.Connection:
    """Open the database for reading alone. Raises Stopped if it is empty or cannot be opened."""
    database = folder / DBNAME
    with _telling(folder):
        # Asked of the directory: to open and close the file would drop the locks that SQLite has on it in this process.
        if database.stat().st_size == 0:
            raise Stopped(f"{database} is empty (0 bytes), though it should hold the answers. {_restore(folder)}")
        uri = database.absolute().as_uri() + "?mode=ro"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        except BaseException:
            connection.close()
            raise
    return connection


@contextlib.contextmanager
def _telling(folder: Path) -> Iterator[None]:
    """Turn what goes wrong in opening and reading into a Stopped that names the store."""
    try:
        yield
    except TypeError as error:
        raise Stopped(f"{folder / DBNAME} holds rows that no store writes: {error}. {_restore(folder)}") from error
    except (sqlite3.Error, diskcache.Timeout, OSError) as error:
        cause = _cause(error)
        what = f"The store {folder / DBNAME} cannot be opened or read: {cause}."
        if _code(cause) in DAMAGED:
            raise Stopped(f"{what} {_restore(folder)}") from error
        remedy = REMEDIES.get(_code(cause), REMEDY)
        raise Stopped(f"{what} What it holds was not touched. {remedy}, then type the same command again.") from error


def _restore(folder: Path) -> str:
    return (
        f"It was left as it is. Put back a copy of the whole folder {folder} "
        f"({DBNAME} together with {DBNAME}-wal), or delete the folder to begin anew and pay for every answer again."
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
    return getattr(cause, "sqlite_errorcode", 0) & 0xFF


def _write(disk_cache: diskcache.Cache, entries: Sequence[Entry], notes: dict[str, bytes]) -> None:
    """Commit all of them in one transaction, or none."""
    rows = [(entry.key, entry.tag, entry.value) for entry in entries]
    rows += [(NOTE_PREFIX + name, NOTE_TAG, value) for name, value in notes.items()]
    with disk_cache.transact():
        for start in range(0, len(rows), GROUP_ROWS):
            part = rows[start : start + GROUP_ROWS]
            values = [cell for row in part for cell in row]
            disk_cache._sql(_upsert(len(part)), values)  # noqa: SLF001 - see _upsert


@cache
def _upsert(rows: int) -> str:
    """Give the SQL that writes so many rows as diskcache would, from three values for each: key, tag, value.

    One statement for a group, where `Cache.set` takes two or three a row: each gives up the interpreter's lock, and
    beside a busy event loop gets it back only 5 ms later.
    """
    now = "(julianday('now') - 2440587.5) * 86400.0"  # seconds since 1970, as in time.time()
    values = ", ".join([f"(?, ?, ?, 1, {MODE_RAW}, {now})"] * rows)
    return (
        f"INSERT INTO Cache (key, tag, value, raw, mode, store_time) VALUES {values}"  # noqa: S608 - placeholders alone
        " ON CONFLICT (key, raw) DO UPDATE SET tag = excluded.tag, value = excluded.value, mode = excluded.mode,"
        " store_time = excluded.store_time, expire_time = NULL, size = 0, filename = NULL"
    )


@cache
def _lookup(keys: int) -> str:
    """Give the SQL that looks up so many keys."""
    marks = ", ".join("?" * keys)
    return f"SELECT key, mode, filename, value FROM Cache WHERE raw = 1 AND key IN ({marks})"  # noqa: S608 - as above


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


def _tell_holder(path: Path) -> None:
    """Write who holds the lock, whole or not at all."""
    who = Process.this()
    since = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
    holder = {"user": who.user, "host": who.host, "pid": who.pid, "since": since}
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(open_inside(draft, os.O_EXCL | os.O_WRONLY), "w", encoding="utf-8") as file:
        json.dump(holder, file)
    draft.replace(path)


def _held(folder: Path) -> str:
    """Say who holds the folder, as far as is known."""
    who = "Another process"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads((folder / "lock.json").read_bytes())
        who = one_line(f"{told['user']}@{told['host']} (process {told['pid']}, since {told['since']})")
    return (
        f"{who} holds {folder}: one process at a time may work on a job. Nothing was asked and nothing was changed. "
        "Wait for it, or end it gently with `kill -INT` and the number of the process."
    )


def _sync(folder: Path) -> None:
    """Make the names in a folder durable; Windows does so by itself and cannot open a folder."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
