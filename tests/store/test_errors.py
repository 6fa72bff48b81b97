"""An error of the store names the store, what is safe, and what to do."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import diskcache
import pytest
from stores import put_all

from pipeline.records import Stopped
from pipeline.store.database import connect
from pipeline.store.errors import (
    StoreDamaged,
    StoreHalfWritten,
    cannot_write,
    how_to_restore,
    is_lack_of_shared_memory,
    reporting_errors,
)
from pipeline.store.writer import Store


def sqlite_error(code: int) -> sqlite3.OperationalError:
    """An error as SQLite raises it, for those that no test can bring about."""
    error = sqlite3.OperationalError("in SQLite's words")
    error.sqlite_errorcode = code  # type: ignore[misc] # read-only to type checkers alone
    return error


def test_a_database_held_by_another_program_stops_the_job_in_words(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with closing(Store(folder)) as store, closing(sqlite3.connect(folder / "cache.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Stopped, match=r"database is locked.*Another program holds the file"):
            asyncio.run(store.put("k", b"v", "ok"))
        other.execute("ROLLBACK")


def test_a_place_that_cannot_hold_a_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Stopped, match=r"file.store.*content was not changed.*permissions of the folder"):
        Store(tmp_path / "file" / "store")


def test_a_missing_file_is_no_damage_and_has_a_remedy(tmp_path: Path) -> None:
    with (
        pytest.raises(
            Stopped, match=r"(?s)cache\.db cannot be opened or read.*not changed.*same command again"
        ) as told,
        reporting_errors(tmp_path),
    ):
        connect(tmp_path, "ro")
    assert type(told.value) is Stopped


def test_a_folder_that_may_only_be_read_is_named_as_such(tmp_path: Path) -> None:
    put_all(tmp_path / "store", [("k", b"v", "ok")])
    with (
        closing(connect(tmp_path / "store", "ro")) as connection,
        pytest.raises(Stopped, match="You may not write in the folder, which even reading needs"),
        reporting_errors(tmp_path / "store"),
    ):
        connection.execute("DELETE FROM Cache")


def test_a_file_that_is_no_database_is_damage_with_the_way_to_restore_it(tmp_path: Path) -> None:
    (tmp_path / "cache.db").write_bytes(b"garbage" * 1000)
    with pytest.raises(StoreDamaged) as told, reporting_errors(tmp_path):
        connect(tmp_path, "ro").execute("SELECT 1 FROM sqlite_master")
    assert how_to_restore(tmp_path) in str(told.value)
    assert f"Put back a copy of the whole folder {tmp_path}" in str(told.value)
    assert f"or delete {tmp_path.parent} to start over and pay for every answer again" in str(told.value)


def test_a_row_of_another_kind_is_damage(tmp_path: Path) -> None:
    with pytest.raises(StoreDamaged, match=r"not written by pipeline \(a pickle\)"), reporting_errors(tmp_path):
        raise TypeError("a pickle")


def test_what_a_killed_process_left_half_written_is_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(StoreHalfWritten, match="Every answer shown as done is safe"), reporting_errors(tmp_path):
        raise sqlite_error(sqlite3.SQLITE_READONLY_ROLLBACK)


def test_other_errors_pass_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), reporting_errors(tmp_path):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (sqlite3.SQLITE_FULL, "The disk is full: free some space ("),
        (sqlite3.SQLITE_IOERR_WRITE, "over its quota or failing"),
        (sqlite3.SQLITE_BUSY_RECOVERY, "--job-dir"),
        (sqlite3.SQLITE_MISMATCH, "Check the disk and the permissions of the folder ("),
    ],
)
def test_a_failed_write_says_what_is_safe_how_much_is_free_and_what_to_do(
    tmp_path: Path, code: int, remedy: str
) -> None:
    message = cannot_write(tmp_path, sqlite_error(code))
    assert "Every answer shown as done is safe on disk" in message
    assert "in SQLite's words" in message
    assert remedy in message
    assert "MB free), then type the same command again." in message


def test_the_first_error_decides_where_others_followed_it(tmp_path: Path) -> None:
    rollback = sqlite_error(sqlite3.SQLITE_ERROR)
    rollback.__context__ = sqlite_error(sqlite3.SQLITE_FULL)
    timeout = diskcache.Timeout()
    timeout.__context__ = rollback
    assert "The disk is full" in cannot_write(tmp_path, timeout)


def test_a_lack_of_shared_memory_is_known_through_the_error_raised_over_it() -> None:
    stop = Stopped("in our words")
    assert not is_lack_of_shared_memory(stop)
    stop.__context__ = sqlite_error(sqlite3.SQLITE_IOERR_SHMMAP)
    assert is_lack_of_shared_memory(stop)
    assert not is_lack_of_shared_memory(sqlite_error(sqlite3.SQLITE_IOERR_WRITE))
