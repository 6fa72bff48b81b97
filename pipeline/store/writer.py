"""Writing a store: one thread with the only writing connection commits groups of outcomes and notes."""

import asyncio
import concurrent.futures
import contextlib
import math
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import diskcache

from ..records import Stopped
from .database import STATEMENT_ROWS, Found, open_to_write, pragma, write, write_sidecar
from .errors import cannot_write
from .rows import NOTE_PREFIX, NOTE_TAG, Entry

GROUP_ROWS = STATEMENT_ROWS
"""The most outcomes in one transaction: as many as one statement writes."""
GROUP_SECONDS = 0.02
"""The least time between two transactions: beginning one takes the interpreter from the event loop, for longer than
writing a row does."""
NOTE_SECONDS = 1.0
"""How long a note may wait for an outcome to be committed with."""
SIDECAR_SECONDS = 1.0
"""How old the sidecar may be while outcomes are committed."""


class Store:
    """The outcomes of a job under their requests' keys, written by one thread in group commits.

    `folder` holds the database and nothing else; it is made (mode 0700, its files 0600) if it is missing. Hold the
    job's lock while a Store is open.

    All outcomes that arrive within 20 ms are one group, up to 256: a single one is committed at once, many share an
    fsync, and an urgent one ends the wait. What was acknowledged survives SIGKILL, and power loss where the disk
    honours fsync. On a network file system SQLite uses a rollback journal instead of a write-ahead log, which other
    hosts could not read.

    The sidecar, `FOLDER.json` beside the folder, holds the number of rows and the notes as they were up to a second
    ago. So a store that is gone, or lost rows with its write-ahead log, is not taken for one that never held them.

    Raises StoreDamaged, with the remedy, if the database is empty, damaged, not a store, or not the one that was here:
    it is never replaced by an empty one. Raises NewerVersion if it holds what this version does not understand, Stopped
    if the file system cannot give what durability needs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._change = threading.Condition()
        """Guards all that follows; notified when the thread has something to do."""
        self._waiting: deque[tuple[Entry | None, asyncio.Future[None]]] = deque()
        """Entries to be committed (None: only the notes), each with the future of its caller."""
        self._notes: dict[str, bytes | Callable[[], bytes]] = {}
        self._closing = self._is_urgent = False
        self._error = ""
        """Why the store can no longer be written."""
        self._is_error_unreported = False
        self.found = Found()
        """What was found in the store when it was opened."""
        opened: concurrent.futures.Future[None] = concurrent.futures.Future()
        # A daemon, so that a program that dies without `close` does not hang on a thread that waits for work.
        self._thread = threading.Thread(target=self._work, args=(opened,), name="store", daemon=True)
        self._thread.start()
        try:
            opened.result()
        except BaseException:
            self.close()
            raise

    async def put(self, key: str, value: bytes, tag: str, *, is_urgent: bool = False) -> None:
        """Store `value` under `key`, replacing what was there; return when it is committed to disk.

        `is_urgent`: commit now, since nothing more will come to share the commit. If the caller is cancelled, the value
        is stored all the same. Raises Stopped if the store is closed or cannot be written (and again at every later
        call), TypeError for a wrong type, ValueError for a key or tag of a note.
        """
        if type(key) is not str or type(value) is not bytes or type(tag) is not str:
            raise TypeError("a store takes a key and a tag in str and a value in bytes")
        if key.startswith(NOTE_PREFIX) or tag == NOTE_TAG:
            raise ValueError(f"{key!r}, {tag!r}: notes are stored with `note`")
        committed = asyncio.get_running_loop().create_future()
        with self._change:
            self._raise_if_closed()
            self._waiting.append((Entry(key, tag, value), committed))
            self._is_urgent |= is_urgent
            if is_urgent or len(self._waiting) in (
                1,
                GROUP_ROWS,
            ):  # the first wakes the thread, a full group ends its wait
                self._change.notify()
        await committed

    def note(self, name: str, value: bytes | Callable[[], bytes]) -> None:
        """Store `value` under `name`, replacing the earlier note; return at once.

        It is committed with the next group, or within a second. A ledger that is noted before a `put` is awaited is
        therefore on disk with that outcome or before it. For a note that changes with every row, pass a function that
        makes its bytes: it is called once for each group, in the store's thread, and must not raise. Usable from any
        thread. Raises Stopped if the store is closed or cannot be written.
        """
        if type(name) is not str or not (type(value) is bytes or callable(value)):
            raise TypeError("a note is bytes, or a function that makes them, under a name in str")
        with self._change:
            self._raise_if_closed()
            if not self._notes:  # only the first wakes the thread: each wake-up restarts its wait of NOTE_SECONDS
                self._change.notify()
            self._notes[name] = value

    async def flush(self) -> None:
        """Return when all notes so far are on disk. Raises Stopped as `put` does."""
        committed = asyncio.get_running_loop().create_future()
        with self._change:
            self._raise_if_closed()
            self._waiting.append((None, committed))
            self._is_urgent = True
            self._change.notify()
        await committed

    def close(self) -> None:
        """Commit what is queued, then close. Usable from any thread, and more than once.

        Raises Stopped, once, if notes were lost to an error that no caller has heard of yet.
        """
        with self._change:
            self._closing = True
            self._change.notify()
        self._thread.join()
        if self._is_error_unreported:
            self._raise_if_closed()

    def _raise_if_closed(self) -> None:
        if self._error:
            self._is_error_unreported = False
            raise Stopped(self._error)
        if self._closing:
            raise Stopped(f"The store {self.folder} is closed already; what came after was not stored.")

    def _work(self, opened: concurrent.futures.Future[None]) -> None:
        """Be the store's thread: open, commit until closed, close."""
        try:
            disk_cache, self.found = open_to_write(self.folder)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that opens the store
            opened.set_exception(error)
            return
        opened.set_result(None)
        error_message = ""
        try:
            self._commit_until_closed(disk_cache)
        except Exception as error:  # noqa: BLE001 - whatever ends this thread, no caller may wait for ever
            error_message = cannot_write(self.folder, error)
        finally:
            # SQLite does this when the last connection closes, which may be a reader's: until then the database file
            # alone would not hold all answers.
            with contextlib.suppress(sqlite3.Error):
                pragma(disk_cache, "wal_checkpoint(TRUNCATE)")
            disk_cache.close()
        if error_message:
            self._fail(error_message)

    def _commit_until_closed(self, disk_cache: diskcache.Cache) -> None:
        sidecar_at, committed_at = time.monotonic(), -math.inf
        is_sidecar_old = False
        while True:
            with self._change:
                while not self._waiting and not self._closing:
                    if not self._change.wait(NOTE_SECONDS if self._notes or is_sidecar_old else None):
                        break
                self._change.wait_for(self._is_group_due, max(0.0, committed_at + GROUP_SECONDS - time.monotonic()))
                group = list(islice(self._waiting, GROUP_ROWS))  # they stay queued until they are on disk
                self._is_urgent = self._is_urgent and len(group) < len(self._waiting)
                notes = {name: note() if callable(note) else note for name, note in self._notes.items()}
                self._notes = {}
                is_last = self._closing and len(group) == len(self._waiting)
            if group or notes:
                write(disk_cache, [entry for entry, _ in group if entry is not None], notes)
                committed_at, is_sidecar_old = time.monotonic(), True
            with self._change:
                for _ in group:
                    self._waiting.popleft()
            _wake(committed for _, committed in group)
            if is_sidecar_old and (is_last or time.monotonic() - sidecar_at >= SIDECAR_SECONDS):
                write_sidecar(self.folder, disk_cache)
                sidecar_at, is_sidecar_old = time.monotonic(), False
            if is_last:
                return

    def _is_group_due(self) -> bool:
        return self._closing or self._is_urgent or len(self._waiting) >= GROUP_ROWS

    def _fail(self, message: str) -> None:
        """Raise Stopped in every caller that waits, and in all that come later."""
        with self._change:
            lost, self._waiting = list(self._waiting), deque()
            self._error, self._is_error_unreported = message, not lost
        _wake((committed for _, committed in lost), message)


def _wake(futures: Iterable[asyncio.Future[None]], error: str = "") -> None:
    """Settle futures from another thread, those of one event loop together; with `error`, as Stopped."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for future in futures:
        by_loop.setdefault(future.get_loop(), []).append(future)
    for loop, futures_of_loop in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits in it any more
            loop.call_soon_threadsafe(_settle, futures_of_loop, error)


def _settle(futures: Iterable[asyncio.Future[None]], error: str) -> None:
    for future in futures:
        if future.done():  # its caller was cancelled
            continue
        if error:
            future.set_exception(Stopped(error))
        else:
            future.set_result(None)
