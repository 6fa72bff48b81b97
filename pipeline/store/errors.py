"""Errors of the store: what SQLite's errors mean for a job, and what a person can do about them."""

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import diskcache
from diskcache.core import DBNAME

from ..records import Stopped

DAMAGE_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
"""SQLite's primary result codes for a file whose content is wrong."""
NO_SHARED_MEMORY_CODES = {
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMLOCK,
    sqlite3.SQLITE_IOERR_SHMMAP,
}
"""SQLite's extended result codes on a file system without the shared memory that a write-ahead log needs."""
REMEDIES = {
    sqlite3.SQLITE_FULL: "The disk is full: free some space",
    sqlite3.SQLITE_IOERR: (
        "The disk may be full, over its quota or failing: look at `df` and the system's log, and repair it"
    ),
    sqlite3.SQLITE_BUSY: (
        "Another program holds the file: close it; on a network file system without locks, name a folder on a local "
        "disk (--job-dir)"
    ),
    sqlite3.SQLITE_READONLY: "You may not write in the folder, which even reading needs: check its permissions",
    sqlite3.SQLITE_CANTOPEN: "The file cannot be opened: check the permissions of its folder",
}
"""What a person can do, by SQLite's primary result code."""
OTHER_REMEDY = "Check the disk and the permissions of the folder"


class StoreDamaged(Stopped):
    """The store is not as it was written. It was left unchanged; `salvage` may still read part of it."""


class StoreHalfWritten(Stopped):
    """A killed process left half of a transaction. Call `roll_back` under the job's lock, then read again."""


@contextlib.contextmanager
def reporting_errors(folder: Path) -> Iterator[None]:
    """Turn an error in opening or reading the store in `folder` into a Stopped that names it and the remedy.

    Raises StoreDamaged for damage, StoreHalfWritten for a transaction that a killed process left, Stopped for the rest.
    """
    try:
        yield
    except TypeError as error:
        raise StoreDamaged(
            f"{folder / DBNAME} holds rows that are damaged or were not written by pipeline ({error}). "
            f"{how_to_restore(folder)}"
        ) from error
    except (sqlite3.Error, diskcache.Timeout, OSError) as error:
        cause = _first_sqlite_error(error)
        what = f"The store {folder / DBNAME} cannot be opened or read: {cause}."
        if getattr(cause, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY_ROLLBACK:
            raise StoreHalfWritten(
                f"{what} A process was killed while it was writing. Every answer shown as done is safe; the job's next "
                "run undoes what was half-written."
            ) from error
        if _primary_code(cause) in DAMAGE_CODES:
            raise StoreDamaged(f"{what} {how_to_restore(folder)}") from error
        raise Stopped(
            f"{what} Its content was not changed. {_remedy(cause)}, then type the same command again."
        ) from error


def how_to_restore(folder: Path) -> str:
    """The end of every message about a damaged store: it is unchanged, and how to get a whole one."""
    return (
        f"It was left as it is. Put back a copy of the whole folder {folder} ({DBNAME} together with {DBNAME}-wal), "
        f"or delete {folder.parent} to start over and pay for every answer again."
    )


def cannot_write(folder: Path, error: Exception) -> str:
    """The message for a failed write: the cause, what is safe, and the remedy with the free space of the disk."""
    cause = _first_sqlite_error(error)
    remedy = _remedy(cause)
    with contextlib.suppress(OSError):
        remedy += f" ({shutil.disk_usage(folder).free / 1e6:,.0f} MB free)"
    return (
        f"The store {folder / DBNAME} cannot be written: {cause}. Every answer shown as done is safe on disk; requests "
        f"in flight were not stored and will be sent again. {remedy}, then type the same command again."
    )


def is_lack_of_shared_memory(error: BaseException) -> bool:
    """Whether the error comes from a file system without the shared memory that a write-ahead log needs."""
    return getattr(_first_sqlite_error(error), "sqlite_errorcode", 0) in NO_SHARED_MEMORY_CODES


def _remedy(cause: BaseException) -> str:
    return REMEDIES.get(_primary_code(cause), OTHER_REMEDY)


def _first_sqlite_error(error: BaseException) -> BaseException:
    """Find the first of chained errors: diskcache raises its Timeout, and a failed ROLLBACK its own, after SQLite's."""
    cause = error
    while error.__context__ is not None:
        error = error.__context__
        if isinstance(error, sqlite3.Error):
            cause = error
    return cause


def _primary_code(cause: BaseException) -> int:
    """SQLite's primary result code; 0 if the error is not SQLite's."""
    if isinstance(cause, sqlite3.OperationalError) and not hasattr(cause, "sqlite_errorcode"):
        return sqlite3.SQLITE_CORRUPT  # Python's own error for a text that is not UTF-8 has no code
    return getattr(cause, "sqlite_errorcode", 0) & 0xFF
