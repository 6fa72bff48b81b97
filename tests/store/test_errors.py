"""An error of the store names the store, what is safe, and what to do."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.records import Stopped
from pipeline.store.writer import Store


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
