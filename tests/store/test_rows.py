"""Rows that no store wrote, or that changed on the disk, are refused unread."""

import pickle
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import diskcache
import pytest
from stores import Bomb, get_all, marks, put_all, tamper

from pipeline.records import Stopped
from pipeline.store.errors import StoreDamaged
from pipeline.store.rows import Entry, cells_of_entry, checksum, entry_from_row
from pipeline.store.writer import Store


def test_a_key_that_is_no_text_any_more_is_damage(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    put_all(folder, [(f"{i:064x}", b"a", "ok") for i in range(3)])
    with closing(sqlite3.connect(folder / "cache.db", isolation_level=None)) as connection:
        connection.execute("UPDATE Cache SET key = CAST(x'41ff' AS TEXT) WHERE rowid = 2")
    with pytest.raises(StoreDamaged, match="Could not decode to UTF-8"):
        marks(folder)


def test_a_value_that_changed_on_the_disk_is_refused_where_sqlite_sees_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    put_all(folder, [(f"{i:064x}", b"a" * 20_000, "ok") for i in range(50)])
    whole = (folder / "cache.db").read_bytes()
    at = whole.index(b"a" * 4000, len(whole) // 2)
    (folder / "cache.db").write_bytes(whole[:at] + b"b" * 100 + whole[at + 100 :])
    with closing(sqlite3.connect(folder / "cache.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with pytest.raises(StoreDamaged, match=r"holds rows that are damaged or were not written by pipeline \(1 of 51\)"):
        Store(folder)
    with pytest.raises(StoreDamaged, match="is not what was written"):
        get_all(folder, list(marks(folder)))


def test_hostile_rows_are_neither_unpickled_nor_followed_to_a_file(tmp_path: Path) -> None:
    folder, outside, made = tmp_path / "store", tmp_path / "outside.txt", tmp_path / "made"
    outside.write_text("mine")
    put_all(folder, [(name, b"v", "ok") for name in ("good", "pickle", "file", "text")])
    bomb = pickle.dumps(Bomb(made))
    tamper(folder, "UPDATE Cache SET mode = 4, value = ? WHERE key = 'pickle'", bomb)
    tamper(folder, "UPDATE Cache SET mode = 2, filename = '../outside.txt', value = NULL WHERE key = 'file'")
    tamper(folder, "UPDATE Cache SET value = 'text' WHERE key = 'text'")
    for name in ("pickle", "file", "text"):
        with pytest.raises(
            Stopped, match=r"store.cache\.db holds rows that are damaged or were not written by pipeline"
        ):
            get_all(folder, ["good", name])
    with pytest.raises(StoreDamaged, match=r"holds rows that are damaged or were not written by pipeline \(3 of 5\)"):
        Store(folder)
    tamper(folder, "INSERT INTO Cache (key, raw, tag, value, mode) VALUES (?, 0, 'ok', x'00', 1)", bomb)
    with pytest.raises(Stopped, match="key or tag is not plain text"):
        marks(folder)
    assert outside.read_text() == "mine"
    assert not made.exists()


def test_a_plain_diskcache_reads_what_a_store_wrote(tmp_path: Path) -> None:
    rows = [(f"{i:064x}", f"value {i}".encode(), "ok") for i in range(600)]
    before = time.time()
    put_all(tmp_path / "store", rows)
    with diskcache.Cache(str(tmp_path / "store")) as plain:
        assert len(plain) == 601  # the store's identity is a row too
        assert {key: plain.get(key, tag=True) for key, _, _ in rows} == {key: (value, tag) for key, value, tag in rows}
        (earliest,) = plain._sql("SELECT min(store_time) FROM Cache").fetchone()
    assert before - 1 < earliest < time.time() + 1


def test_the_checksum_is_over_all_parts_of_an_entry() -> None:
    whole = checksum(b"key", b"tag", b"value")
    assert whole not in {
        checksum(b"kex", b"tag", b"value"),
        checksum(b"key", b"tax", b"value"),
        checksum(b"key", b"tag", b""),
    }
    assert checksum(b"ab", b"c", b"") != checksum(b"a", b"bc", b"")


def test_a_row_is_read_only_as_it_was_written() -> None:
    entry = Entry("key", "ok", b"value")
    key, tag, value, check = cells_of_entry(entry)
    row = [key, 1, tag, 1, None, value, check]
    assert entry_from_row(row) == entry
    for column, wrong in ((0, b"key"), (1, 0), (2, "failed"), (3, 4), (4, "../file"), (5, "value"), (6, check + 1)):
        with pytest.raises(TypeError):
            entry_from_row([*row[:column], wrong, *row[column + 1 :]])
