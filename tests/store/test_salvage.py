"""Every readable row of a damaged store is kept, and what was spent stays known; nothing is done without agreement."""

import asyncio
import os
import pickle
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.folder import history
from pipeline.records import Exit, Stopped, Summary, Tally
from pipeline.store.errors import StoreDamaged
from pipeline.store.notes import LEDGER, read_ledger
from pipeline.store.reader import Reader
from pipeline.store.salvage import open_store, readable_entries
from pipeline.store.sidecar import Sidecar, sidecar_path
from pipeline.store.writer import Store

ROWS = 1500
PAGE = 4096
SPENT = Tally(ok=ROWS, cost=2.5, attempts=ROWS)


def value(key: str) -> bytes:
    return key.encode() * 12 + b"\0" * (int(key[-2:], 16) * 40)  # some spill over into pages of their own


def key(number: int) -> str:
    return f"{number:064x}"


def a_store(job_folder: Path) -> Path:
    folder = job_folder / "store"

    async def put(store: Store) -> None:
        store.note(LEDGER, msgspec.json.encode(SPENT))
        await asyncio.gather(*(store.put(key(n), value(key(n)), "ok") for n in range(ROWS)))

    with closing(Store(folder)) as store:
        asyncio.run(put(store))
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    job_folder = tmp_path_factory.mktemp("whole")
    a_store(job_folder)
    return job_folder


@pytest.fixture
def job_folder(tmp_path: Path, whole: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "job"))


def stored(folder: Path) -> dict[str, bytes | None]:
    with closing(Reader(folder)) as reader:
        keys = [key for chunk in reader.marks() for key, _ in chunk]
        return dict(zip(keys, reader.get_many(keys), strict=True))


def spent(folder: Path) -> float:
    with closing(Reader(folder)) as reader:
        return read_ledger(reader).cost


def overwrite(database: Path, offset: int, content: bytes) -> None:
    with database.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def bad_pages(database: Path, chance: random.Random, pages: int) -> None:
    """Garbage over pages by chance, but for the first few, where the trees have their roots."""
    last = database.stat().st_size // PAGE - 1
    for _ in range(pages):
        overwrite(database, chance.randint(20, last) * PAGE, chance.randbytes(PAGE))


def bad_end(database: Path, chance: random.Random) -> None:
    size = database.stat().st_size
    overwrite(database, size - 40 * PAGE, chance.randbytes(40 * PAGE))


def cut_at(share: float) -> Callable[[Path, random.Random], None]:
    return lambda database, _: os.truncate(database, int(database.stat().st_size * share))


@pytest.mark.parametrize(
    ("damage", "at_least"),
    [
        (lambda database, chance: bad_pages(database, chance, 1), ROWS - 400),
        (lambda database, chance: bad_pages(database, chance, 25), ROWS // 2),
        (bad_end, ROWS // 2),
        (cut_at(0.999), ROWS // 2),
        (cut_at(0.9), ROWS // 2),
    ],
    ids=["a page", "25 pages", "the end", "cut by a little", "cut by a tenth"],
)
@pytest.mark.parametrize("seed", range(3))
def test_all_that_can_be_read_goes_on_as_it_was_and_the_damaged_store_is_kept(
    job_folder: Path, damage: Callable[[Path, random.Random], None], at_least: int, seed: int
) -> None:
    folder, asked = job_folder / "store", []
    damage(folder / "cache.db", random.Random(seed))
    damaged = (folder / "cache.db").read_bytes()
    with pytest.raises(Stopped, match=r"(?s)Or continue with what can still be read.*add --yes") as refused:
        open_store(job_folder, lambda _: False)
    assert refused.value.exit_code == Exit.NEEDS_PERSON
    assert (folder / "cache.db").read_bytes() == damaged
    assert not list(job_folder.glob("store.*-*"))

    def agree(question: str) -> bool:
        asked.append(question)
        return True

    open_store(job_folder, agree).close()
    found = stored(folder)
    assert all(found[name] == value(name) for name in found)
    assert len(found) >= at_least
    assert f"{len(found):,} of {ROWS:,} or more answers" in asked[0]
    assert spent(folder) == SPENT.cost
    (aside,) = job_folder.glob("store.damaged-*")
    assert (aside / "cache.db").read_bytes() == damaged
    open_store(job_folder, lambda _: pytest.fail("a salvaged store is whole")).close()
    assert Sidecar.read(folder).rows == len(found) + 2


@pytest.mark.parametrize("content", [b"", b"garbage" * 9000, b"SQLite format 3\0" + bytes(4080)])
def test_a_store_with_nothing_readable_is_refused_even_if_agreed(job_folder: Path, content: bytes) -> None:
    database = job_folder / "store" / "cache.db"
    database.write_bytes(content)
    with pytest.raises(StoreDamaged, match=rf"delete {job_folder} to start over and pay for every answer again"):
        open_store(job_folder, lambda _: True)
    assert database.read_bytes() == content
    assert not list(job_folder.glob("store.*-*"))


def test_a_garbage_head_is_refused(job_folder: Path) -> None:
    overwrite(job_folder / "store" / "cache.db", 0, b"\xff" * PAGE)
    with pytest.raises(StoreDamaged):
        open_store(job_folder, lambda _: True)


def test_hostile_rows_are_left_behind_unread(job_folder: Path) -> None:
    folder, outside, made = job_folder / "store", job_folder / "outside.txt", job_folder / "made"
    outside.write_text("mine")
    with closing(sqlite3.connect(folder / "cache.db")) as connection, connection:
        bomb = pickle.dumps(os.mkdir)
        connection.execute("UPDATE Cache SET mode = 4, value = ? WHERE key = ?", (bomb, key(0)))
        connection.execute("UPDATE Cache SET mode = 2, filename = '../outside.txt' WHERE key = ?", (key(1),))
        connection.execute("UPDATE Cache SET value = 'text' WHERE key = ?", (key(2),))
        connection.execute("UPDATE Cache SET key = CAST(x'ff' AS TEXT) WHERE key = ?", (key(3),))
        connection.execute("UPDATE Cache SET value = ? WHERE key = ?", (value(key(5)), key(4)))
        connection.execute("INSERT INTO Cache (rowid, key, raw, value) VALUES (?, 'far', 1, x'00')", (2**62,))
    open_store(job_folder, lambda _: True).close()
    assert stored(folder).keys() == {key(number) for number in range(5, ROWS)}
    assert outside.read_text() == "mine"
    assert not made.exists()


def test_a_schema_that_computes_is_not_even_read(job_folder: Path) -> None:
    folder = job_folder / "store"
    with closing(sqlite3.connect(folder / "cache.db")) as connection, connection:
        connection.execute("ALTER TABLE Cache RENAME TO Old")
        connection.execute(
            "CREATE VIEW Cache AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT * FROM n"
        )
    assert list(readable_entries(folder)) == []
    with pytest.raises(StoreDamaged, match="not a store of answers"):
        open_store(job_folder, lambda _: True)


def test_rows_lost_with_a_write_ahead_log_are_asked_again_only_if_agreed_and_what_they_cost_stays_spent(
    job_folder: Path,
) -> None:
    folder = job_folder / "store"
    before = Sidecar.read(folder)
    more = Tally(ok=ROWS + 400, cost=3.5, attempts=ROWS + 400)
    Sidecar(before.identity, before.rows + 400, {LEDGER: msgspec.json.encode(more)}).write(folder)
    with pytest.raises(
        Stopped, match=f"{ROWS:,} of {ROWS + 400:,} or more answers. The others are asked, and paid for, again"
    ):
        open_store(job_folder, lambda _: False)
    open_store(job_folder, lambda _: True).close()
    assert len(stored(folder)) == ROWS
    assert spent(folder) == more.cost


def ended(job_folder: Path, cost: float) -> None:
    known: dict[str, Any] = {"message": "", "output": "", "rows": SPENT, "run": SPENT, "seconds": 1.0, "wrote": True}
    history.record_end(job_folder, Summary(exit_code=Exit.DONE, spent=cost, **known))


def test_what_was_spent_is_taken_from_the_history_where_nothing_else_knows(job_folder: Path) -> None:
    folder = job_folder / "store"
    ended(job_folder, 7.5)
    ended(job_folder, 1.5)
    sidecar_path(folder).unlink()
    with closing(sqlite3.connect(folder / "cache.db")) as connection, connection:
        connection.execute("UPDATE Cache SET value = x'00' WHERE key = 'note:ledger'")
    open_store(job_folder, lambda _: True).close()
    assert spent(folder) == 7.5
    assert len(stored(folder)) == ROWS


def test_a_whole_store_is_opened_without_a_question(tmp_path: Path) -> None:
    open_store(tmp_path, lambda _: pytest.fail("nothing is damaged")).close()
    open_store(tmp_path, lambda _: pytest.fail("nothing is damaged")).close()
