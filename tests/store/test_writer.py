"""What was acknowledged outlives kills and full disks, what no store wrote is refused, and one process holds a job."""

import asyncio
import json
import os
import pickle
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import diskcache
import pytest
from children import CHILD_SECONDS, child, on_network, pipe

from pipeline.folder.folder import make_job_folder
from pipeline.folder.lock import hold_lock
from pipeline.records import BadJob, Exit, Stopped
from pipeline.store.sidecar import Sidecar
from pipeline.store.writer import GROUP_ROWS, BytesDisk, Reader, Store, StoreDamaged, StoreHalfWritten, roll_back

SEED = 20261122

PUT_FOR_EVER = """
import asyncio, os, sys
from pathlib import Path
from pipeline.store import Store

async def put(store, numbers):
    for number in numbers:
        key = f"{sys.argv[2]}-{number}"
        await store.put(key, key.encode() * 100, "ok")
        store.note("ledger", b"%d" % number)
        os.write(1, key.encode() + b"\\n")

async def main():
    store, numbers = Store(Path(sys.argv[1])), iter(range(10**9))
    await asyncio.gather(*(put(store, numbers) for _ in range(32)))

asyncio.run(main())
"""

READ_WHAT_IS_NAMED = """
import json, sys
from pathlib import Path
from pipeline.store import Reader

reader = Reader(Path(sys.argv[1]))
for line in sys.stdin:
    keys = json.loads(line)
    values = reader.get_many(keys)
    marked = {key for chunk in reader.marks() for key, _ in chunk}
    whole = all(value == key.encode() * int(sys.argv[2]) for key, value in zip(keys, values))
    print(whole and marked >= set(keys), flush=True)
reader.close()
"""

PUT_UNTIL_THE_DISK_IS_FULL = """
import asyncio, json, resource, sys, time
from pathlib import Path
from pipeline.records import Stopped
from pipeline.store import Store

async def put(store, numbers, acknowledged, stops):
    try:
        for number in numbers:
            await store.put(f"row-{number}", b"x" * 2000, "ok")
            acknowledged.append(f"row-{number}")
    except Stopped as stop:
        stops.append([str(stop), stop.exit_code])

async def main():
    store, acknowledged, stops = Store(Path(sys.argv[1])), [], []
    await store.put("early", b"before the limit", "ok")
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
    numbers = iter(range(10**6))
    await asyncio.gather(*(put(store, numbers, acknowledged, stops) for _ in range(64)))
    store._thread.join(5)
    later = []
    await put(store, iter([-1]), acknowledged, later)
    try:
        store.note("ledger", b"1")
    except Stopped:
        later.append("note")
    before = time.process_time()
    alive = store._thread.is_alive()
    store.close()
    store.close()
    print(json.dumps([acknowledged, stops, later, alive, time.process_time() - before]))

asyncio.run(main())
"""


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def put_all(folder: Path, rows: Iterable[tuple[str, bytes, str]]) -> None:
    async def put() -> None:
        await asyncio.gather(*(store.put(*row) for row in rows))

    with closing(Store(folder)) as store:
        asyncio.run(put())


def get_all(folder: Path, keys: list[str]) -> list[bytes | None]:
    with closing(Reader(folder)) as reader:
        return reader.get_many(keys)


def marks(folder: Path) -> dict[str, str]:
    with closing(Reader(folder)) as reader:
        return {key: tag for chunk in reader.marks() for key, tag in chunk}


def read_note(folder: Path, name: str) -> bytes | None:
    with closing(Reader(folder)) as reader:
        return reader.note(name)


def tamper(folder: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / "cache.db")) as connection, connection:
        connection.execute(sql, values)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_was_acknowledged_is_stored_after_sigkill_at_any_moment(tmp_path: Path) -> None:
    folder, chance, acknowledged = tmp_path / "store", random.Random(SEED), []
    for life in range(10):
        with child(PUT_FOR_EVER, folder, life) as process:
            output = pipe(process.stdout)
            acknowledged += [output.readline().strip() for _ in range(chance.randint(1, 3000))]
            process.send_signal(signal.SIGKILL)
            acknowledged += output.read().split()
        if life % 2:  # what a killed writer left is whole to a reader, before and after a writer has mended it
            Store(folder).close()
        stored = marks(folder)
        assert stored.keys() >= set(acknowledged)
        keys = list(stored)
        assert all(value == key.encode() * 100 for key, value in zip(keys, get_all(folder, keys), strict=True))


def test_a_kill_while_the_store_is_made_leaves_none_behind(tmp_path: Path) -> None:
    half_made = tmp_path / "store.new"
    half_made.mkdir()
    (half_made / "cache.db").touch()
    put_all(tmp_path / "store", [("k", b"v", "ok")])
    assert get_all(tmp_path / "store", ["k"]) == [b"v"]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["store"]


def test_any_bytes_come_back_as_they_went_in(tmp_path: Path) -> None:
    values = [b"", b"\r\n\n\r", b"\0a\0", bytes(range(256)), random.Random(SEED).randbytes(5_000_000), "é漢😀".encode()]
    put_all(tmp_path / "store", [(f"key-{i}", value, "ok") for i, value in enumerate(values)])
    assert get_all(tmp_path / "store", [f"key-{i}" for i in range(len(values))]) == values
    assert not [path for path in (tmp_path / "store").iterdir() if not path.name.startswith("cache.db")]


def test_get_many_answers_in_the_order_asked_with_none_for_the_unknown(tmp_path: Path) -> None:
    put_all(tmp_path / "store", [(str(i), b"%d" % i, "ok") for i in range(1200)])
    asked = [*(str(i) for i in reversed(range(1200))), "unknown", "7", "7", "7\0"]
    expected = [*(b"%d" % i for i in reversed(range(1200))), None, b"7", b"7", None]
    assert get_all(tmp_path / "store", asked) == expected
    assert get_all(tmp_path / "store", []) == []


def test_the_latest_value_of_a_key_wins_and_the_key_stays_one(tmp_path: Path) -> None:
    put_all(tmp_path / "store", [("k", b"first", "unsettled"), ("other", b"", "ok"), ("k", b"second", "ok")])
    put_all(tmp_path / "store", [("k", b"third", "failed")])
    assert get_all(tmp_path / "store", ["k"]) == [b"third"]
    assert marks(tmp_path / "store") == {"k": "failed", "other": "ok"}


def test_many_thousands_are_kept_even_where_a_plain_cache_left_its_limits(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    Store(folder).close()
    with diskcache.Cache(str(folder), size_limit=100_000, sqlite_synchronous=0, disk_min_file_size=1):
        pass  # its settings stay in the file: evict beyond 100 kB, do not wait for the disk
    rows = [(f"{i:064x}", bytes(1000), "ok" if i % 3 else "failed") for i in range(30_000)]
    put_all(folder, rows)
    with closing(Reader(folder)) as reader:
        chunks = list(reader.marks())
    assert [len(chunk) for chunk in chunks] == [25_000, 5_000]
    assert dict(pair for chunk in chunks for pair in chunk) == {key: tag for key, _, tag in rows}


def test_marks_may_be_read_in_part_while_more_is_stored(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    put_all(folder, [(f"a{i}", b"", "ok") for i in range(25_001)])
    with closing(Reader(folder)) as reader:
        chunks = reader.marks()
        first = next(chunks)
        put_all(folder, [("late", b"", "ok"), ("a0", b"again", "failed")])
        rest = [key for chunk in chunks for key, _ in chunk]
    assert len(first) == 25_000
    assert rest == ["a25000", "late"]


def test_a_reader_in_another_process_sees_each_row_once_it_is_acknowledged(tmp_path: Path) -> None:
    folder = tmp_path / "store"

    async def write(store: Store) -> list[str]:
        reader = await asyncio.create_subprocess_exec(
            sys.executable, "-c", READ_WHAT_IS_NAMED, str(folder), "500", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

        async def put(lane: int) -> None:
            for number in range(150):
                await store.put(f"{lane}-{number}", f"{lane}-{number}".encode() * 500, "ok")
                acknowledged.append(f"{lane}-{number}")

        acknowledged: list[str] = []
        said = []
        assert reader.stdin is not None
        assert reader.stdout is not None
        puts = asyncio.gather(*(put(lane) for lane in range(32)))
        while not puts.done():
            reader.stdin.write(json.dumps(acknowledged[-300:]).encode() + b"\n")
            said.append((await reader.stdout.readline()).decode().strip())
        await puts
        reader.stdin.close()
        assert await reader.wait() == 0
        return said

    with closing(Store(folder)) as store:
        said = asyncio.run(asyncio.wait_for(write(store), CHILD_SECONDS))
    assert set(said) == {"True"}


def test_a_lone_row_waits_for_no_other(tmp_path: Path) -> None:
    async def put_one_by_one(store: Store) -> float:
        began = time.perf_counter()
        for number in range(100):
            await store.put(str(number), b"", "ok")
        return time.perf_counter() - began

    with closing(Store(tmp_path / "store")) as store:
        assert asyncio.run(put_one_by_one(store)) < 5  # as fast as the disk: 50 ms each would be all of it


def test_an_urgent_row_ends_the_wait_of_all_that_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def put_three(store: Store) -> None:
        await store.put("first", b"", "ok")  # nothing was written just before it, so that it waits for nobody
        gathering = asyncio.create_task(store.put("second", b"", "ok"))
        await asyncio.sleep(0)
        await store.put("third", b"", "ok", is_urgent=True)
        await gathering

    monkeypatch.setattr("pipeline.store.GROUP_SECONDS", 3600)
    with closing(Store(tmp_path / "store")) as store:
        asyncio.run(asyncio.wait_for(put_three(store), CHILD_SECONDS))


def test_puts_do_not_starve_beside_a_busy_loop(tmp_path: Path) -> None:
    busy = True

    def work() -> None:
        while busy:
            sum(range(200))

    async def put(store: Store) -> float:
        began = time.perf_counter()
        await asyncio.gather(*(store.put(str(number), bytes(1000), "ok") for number in range(2048)))
        return time.perf_counter() - began

    other = threading.Thread(target=work)
    with closing(Store(tmp_path / "store")) as store:
        other.start()
        try:
            took = asyncio.run(put(store))
        finally:
            busy = False
            other.join()
    assert took < 8  # with a statement or two a row it is half a minute


def test_a_cancelled_caller_neither_stops_nor_loses_its_row(tmp_path: Path) -> None:
    async def cancel_half(store: Store) -> list[object]:
        tasks = [asyncio.create_task(store.put(str(number), b"v", "ok")) for number in range(600)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    with closing(Store(tmp_path / "store")) as store:
        results = asyncio.run(cancel_half(store))
    assert results[1::2] == [None] * 300
    assert len(marks(tmp_path / "store")) == 600


def test_close_commits_what_is_queued_also_of_a_loop_that_is_gone(tmp_path: Path) -> None:
    async def leave(store: Store) -> None:
        for number in range(3 * GROUP_ROWS):
            task = asyncio.create_task(store.put(str(number), b"v", "ok"))
            tasks.add(task)
        await asyncio.sleep(0)

    tasks: set[asyncio.Task[None]] = set()
    store = Store(tmp_path / "store")
    asyncio.run(leave(store))
    store.close()
    store.close()
    assert len(marks(tmp_path / "store")) == 3 * GROUP_ROWS


def test_a_closed_store_is_whole_without_its_log_even_while_a_reader_is_open(tmp_path: Path) -> None:
    folder, copy = tmp_path / "store", tmp_path / "copy"
    copy.mkdir()
    Store(folder).close()
    with closing(Reader(folder)) as reader:
        put_all(folder, [(str(number), b"v", "ok") for number in range(500)])
        assert len(reader.get_many(["7"])) == 1
        shutil.copy(folder / "cache.db", copy)
    assert len(marks(copy)) == 500


def test_a_closed_store_takes_nothing_more(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.close()
    with pytest.raises(Stopped, match="closed already"):
        asyncio.run(store.put("k", b"v", "ok"))
    with pytest.raises(Stopped, match="closed already"):
        store.note("ledger", b"1")


def test_what_is_not_text_and_bytes_is_refused_and_harms_nobody_else(tmp_path: Path) -> None:
    async def put(store: Store) -> list[object]:
        results = await asyncio.gather(
            store.put("good", b"v", "ok"),
            store.put(1, b"v", "ok"),  # type: ignore[arg-type] # that is what is tested
            store.put("text", "v", "ok"),  # type: ignore[arg-type] # likewise
            store.put("note:ledger", b"v", "ok"),
            store.put("k", b"v", "note"),
            return_exceptions=True,
        )
        return list(results)

    with closing(Store(tmp_path / "store")) as store:
        good, *bad = asyncio.run(put(store))
        with pytest.raises(TypeError):
            store.note("ledger", 1.5)  # type: ignore[arg-type] # likewise
    assert good is None
    assert [type(error) for error in bad] == [TypeError, TypeError, ValueError, ValueError]
    assert marks(tmp_path / "store") == {"good": "ok"}


def test_notes_travel_with_the_next_group_and_are_no_outcomes(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with closing(Store(folder)) as store:
        store.note("ledger", b"old")
        store.note("ledger", b"new")
        store.note("limits", b"60")
        asyncio.run(store.put("k", b"v", "ok"))
        assert (read_note(folder, "ledger"), read_note(folder, "limits"), read_note(folder, "none")) == (
            b"new",
            b"60",
            None,
        )
        assert marks(folder) == {"k": "ok"}


def test_a_note_that_changes_with_every_row_is_made_as_it_is_written_and_not_before(tmp_path: Path) -> None:
    rows, made = 0, []

    def note() -> bytes:
        made.append(rows)
        return b"%d" % rows

    with closing(Store(tmp_path / "store")) as store:
        for _ in range(1_000):
            rows += 1
            store.note("ledger", note)
        asyncio.run(store.put("k", b"v", "ok"))
        assert read_note(tmp_path / "store", "ledger") == b"1000"
    assert len(made) < 10


def test_a_note_alone_is_written_within_seconds_and_at_close(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with closing(Store(folder)) as store, closing(Reader(folder)) as reader:
        deadline, number = time.monotonic() + 20, 0
        while reader.note("ledger") is None and time.monotonic() < deadline:
            number += 1
            store.note("ledger", b"%d" % number)  # a stream of notes does not put the writing off
        assert reader.note("ledger") is not None
        store.note("ledger", b"last")
    assert read_note(folder, "ledger") == b"last"


def test_more_notes_than_a_group_are_all_written(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "store")) as store:
        for number in range(GROUP_ROWS + 50):
            store.note(str(number), b"%d" % number)
    with closing(Reader(tmp_path / "store")) as reader:
        assert all(reader.note(str(number)) == b"%d" % number for number in range(GROUP_ROWS + 50))
        assert list(reader.marks()) == []


def test_a_full_disk_stops_every_put_and_loses_nothing_acknowledged(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with child(PUT_UNTIL_THE_DISK_IS_FULL, folder) as process:
        output, _ = process.communicate(timeout=CHILD_SECONDS)
    acknowledged, stops, later, alive, cpu_seconds = json.loads(output)
    assert len(stops) == 64
    assert {code for _, code in stops} == {Exit.NEEDS_PERSON}
    assert "safe on disk" in stops[0][0]
    assert "type the same command again" in stops[0][0]
    assert later == [stops[0], "note"]
    assert not alive
    assert cpu_seconds < 1
    assert len(acknowledged) > 100
    assert None not in get_all(folder, ["early", *acknowledged])
    put_all(folder, [("after", b"v", "ok")])
    assert None not in get_all(folder, ["early", "after", *acknowledged])


def test_a_database_held_by_another_program_stops_the_job_in_words(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with closing(Store(folder)) as store, closing(sqlite3.connect(folder / "cache.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Stopped, match=r"database is locked.*Another program holds the file"):
            asyncio.run(store.put("k", b"v", "ok"))
        other.execute("ROLLBACK")


def test_a_note_lost_to_an_error_is_told_at_close_once(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store = Store(folder)
    with closing(sqlite3.connect(folder / "cache.db")) as other, other:
        other.execute("DROP TABLE Cache")
    store.note("ledger", b"1")
    with pytest.raises(Stopped, match="cannot be written"):
        store.close()
    store.close()


@pytest.mark.parametrize("content", [b"", b"\0", b"garbage\n" * 5000, b"SQLite format 3\0" + bytes(4080)])
def test_what_is_no_database_is_refused_with_the_remedy_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "store"
    put_all(folder, [("k", b"v", "ok")])
    (folder / "cache.db").write_bytes(content)
    for look in (Store, marks):
        with pytest.raises(Stopped, match=r"Put back a copy of the whole folder .*store") as refused:
            look(folder)
        assert refused.value.exit_code == Exit.NEEDS_PERSON
    assert (folder / "cache.db").read_bytes() == content


def test_an_empty_database_is_called_empty(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "cache.db").touch()
    for look in (Store, Reader):
        with pytest.raises(Stopped, match=r"is empty \(0 bytes\), though it should hold the answers"):
            look(folder)


def test_damage_within_the_database_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    put_all(folder, [(f"{i:064x}", bytes(1000), "ok") for i in range(2000)])
    with (folder / "cache.db").open("r+b") as file:
        file.seek(200 * 4096)
        file.write(b"\xff" * 4 * 4096)
    with pytest.raises(Stopped, match=r"is damaged \(.*Put back a copy"):
        Store(folder)


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
    with pytest.raises(StoreDamaged, match="holds 1 rows that no store writes"):
        Store(folder)
    with pytest.raises(StoreDamaged, match="is not what was written"):
        get_all(folder, list(marks(folder)))


def test_rows_lost_with_a_write_ahead_log_are_missed_before_anything_is_asked(tmp_path: Path) -> None:
    live, copy = tmp_path / "live" / "store", tmp_path / "copy" / "store"
    copy.mkdir(parents=True)
    with closing(Store(live)) as store:
        asyncio.run(put_rows(store, 500))
        deadline = time.monotonic() + CHILD_SECONDS
        while Sidecar.of(live).rows < 501 and time.monotonic() < deadline:
            os.sched_yield()
        shutil.copy(live / "cache.db", copy)
        shutil.copy(live.with_name("store.json"), copy.parent)
    with pytest.raises(
        StoreDamaged, match=r"holds \d+ rows, where 501 were written: it lost its cache.db-wal|is empty"
    ):
        Store(copy)


async def put_rows(store: Store, rows: int) -> None:
    await asyncio.gather(*(store.put(f"{i:064x}", bytes(1000), "ok") for i in range(rows)))


def test_a_store_that_is_gone_is_not_begun_anew(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    put_all(folder, [("k", b"v", "ok")])
    shutil.rmtree(folder)
    for _ in range(2):
        with pytest.raises(StoreDamaged, match="is gone, though 2 rows were written to it"):
            Store(folder)
    assert not folder.exists()


def test_the_store_of_another_job_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours" / "store", tmp_path / "theirs" / "store"
    for folder in (ours, theirs):
        put_all(folder, [("k", b"v", "ok"), (folder.parent.name, b"v", "ok")])
    shutil.copy(theirs / "cache.db", ours)
    with pytest.raises(StoreDamaged, match="is the store of another job"):
        Store(ours)


def test_the_write_ahead_log_of_another_store_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours" / "store", tmp_path / "theirs" / "store"
    put_all(ours, [(f"{i:064x}", bytes(1000), "ok") for i in range(50)])
    with closing(Store(theirs)) as store:
        asyncio.run(put_rows(store, 200))
        shutil.copy(theirs / "cache.db-wal", ours)
    before = (ours / "cache.db").read_bytes()
    with pytest.raises(StoreDamaged):
        Store(ours)
    assert (ours / "cache.db").read_bytes() == before


@pytest.mark.parametrize("content", [b"garbage" * 5000, b""])
def test_garbage_beside_a_whole_database_costs_no_row(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "store"
    rows = [(f"{i:064x}", bytes(1000), "ok") for i in range(50)]
    put_all(folder, rows)
    for suffix in ("-shm", "-wal", "-journal"):
        (folder / f"cache.db{suffix}").write_bytes(content)
    put_all(folder, [("late", b"v", "ok")])
    assert marks(folder) == {key: "ok" for key, _, _ in [*rows, ("late", b"", "")]}


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TRIGGER extra AFTER INSERT ON Cache FOR EACH ROW BEGIN DELETE FROM Cache; END",
        "CREATE TRIGGER extra AFTER INSERT ON Cache FOR EACH ROW BEGIN UPDATE Settings SET value = 0; END",
        "CREATE VIEW extra AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT * FROM n",
        "CREATE INDEX extra ON Cache (hex(value))",
        "CREATE TABLE extra (name TEXT)",
        "CREATE VIRTUAL TABLE extra USING fts5(name)",
    ],
)
def test_a_schema_that_would_run_more_than_a_stores_is_refused_to_every_reader(tmp_path: Path, sql: str) -> None:
    folder = tmp_path / "store"
    put_all(folder, [("k", b"v", "ok")])
    tamper(folder, sql)
    for look in (Store, Reader):
        with pytest.raises(StoreDamaged, match="not of answers"):
            look(folder)


def as_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", ["cache.db", "cache.db-wal", "cache.db-journal"])
@pytest.mark.parametrize("replace", [as_link, as_folder])
def test_what_is_no_file_of_its_own_is_refused_and_what_lies_elsewhere_left(
    tmp_path: Path, name: str, replace: Callable[[Path], None]
) -> None:
    folder = tmp_path / "store"
    put_all(folder, [("k", b"v", "ok")])
    (folder / name).touch()
    replace(folder / name)
    before = (folder / "elsewhere").read_bytes() if replace is as_link else b""
    with pytest.raises(Stopped, match=r"is a link or a folder, where the store has a file"):
        Store(folder)
    assert replace is as_folder or (folder / "elsewhere").read_bytes() == before


@pytest.mark.parametrize("kept", [0.001, 0.3, 0.5, 0.97])
def test_a_truncated_database_is_refused_and_left_as_it_is(tmp_path: Path, kept: float) -> None:
    folder = tmp_path / "store"
    put_all(folder, [(f"{i:064x}", bytes(1000), "ok") for i in range(2000)])
    whole = (folder / "cache.db").read_bytes()
    part = whole[: int(len(whole) * kept)]
    (folder / "cache.db").write_bytes(part)
    with pytest.raises(Stopped, match="pay for every answer again"):
        Store(folder)
    assert (folder / "cache.db").read_bytes() == part


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    with closing(sqlite3.connect(folder / "cache.db")) as connection:
        connection.execute("CREATE TABLE photos (name TEXT)")
    with pytest.raises(Stopped, match="not of answers"):
        Store(folder)
    with pytest.raises(Stopped, match="not of answers"):
        marks(folder)


def test_settings_that_no_store_has_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    Store(folder).close()
    tamper(folder, "INSERT INTO Settings VALUES (?, ?)", "sqlite_writable_schema", 1)
    with pytest.raises(Stopped, match="sqlite_writable_schema"):
        Store(folder)


def test_a_folder_that_lost_its_database_is_not_begun_anew(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "cache.db-wal").write_bytes(b"frames")
    with pytest.raises(Stopped, match=r"no cache\.db"):
        Store(folder)
    with pytest.raises(FileNotFoundError, match="no answers yet"):
        Reader(folder)
    (folder / "cache.db-wal").unlink()
    put_all(folder, [("k", b"v", "ok")])  # an empty folder is a new one
    assert marks(folder) == {"k": "ok"}


def test_a_place_that_cannot_hold_a_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Stopped, match=r"file.store.*was not touched.*your rights"):
        Store(tmp_path / "file" / "store")


def test_hostile_rows_are_neither_unpickled_nor_followed_to_a_file(tmp_path: Path) -> None:
    folder, outside, made = tmp_path / "store", tmp_path / "outside.txt", tmp_path / "made"
    outside.write_text("mine")
    put_all(folder, [(name, b"v", "ok") for name in ("good", "pickle", "file", "text")])
    bomb = pickle.dumps(Bomb(made))
    tamper(folder, "UPDATE Cache SET mode = 4, value = ? WHERE key = 'pickle'", bomb)
    tamper(folder, "UPDATE Cache SET mode = 2, filename = '../outside.txt', value = NULL WHERE key = 'file'")
    tamper(folder, "UPDATE Cache SET value = 'text' WHERE key = 'text'")
    for name in ("pickle", "file", "text"):
        with pytest.raises(Stopped, match=r"store.cache\.db holds rows that no store writes"):
            get_all(folder, ["good", name])
    with pytest.raises(StoreDamaged, match="holds 3 rows that no store writes"):
        Store(folder)
    tamper(folder, "INSERT INTO Cache (key, raw, tag, value, mode) VALUES (?, 0, 'ok', x'00', 1)", bomb)
    with pytest.raises(Stopped, match="key is not plain text"):
        marks(folder)
    assert outside.read_text() == "mine"
    assert not made.exists()


def test_diskcache_itself_takes_and_gives_nothing_but_bytes(tmp_path: Path) -> None:
    folder, outside, made = tmp_path / "store", tmp_path / "outside.txt", tmp_path / "made"
    outside.write_text("mine")
    with diskcache.Cache(str(folder), disk=BytesDisk) as disk_cache:
        disk_cache.set("k", b"v")
        disk_cache.set("hostile", b"v")
        assert list(disk_cache) == ["k", "hostile"]
        for key, value in ((1, b"v"), (b"k", b"v"), ("k", "text"), ("k", 1.5), ("k", None), ("k", {})):
            with pytest.raises(TypeError):
                disk_cache.set(key, value)
        with pytest.raises(TypeError), outside.open("rb") as file:
            disk_cache.set("k", file, read=True)
        with pytest.raises(TypeError):
            disk_cache.disk.filename()
        tamper(folder, "UPDATE Cache SET mode = 4, value = ? WHERE key = 'hostile'", pickle.dumps(Bomb(made)))
        with pytest.raises(TypeError):
            disk_cache.get("hostile")
        tamper(folder, "UPDATE Cache SET mode = 2, filename = '../outside.txt' WHERE key = 'hostile'")
        with pytest.raises(TypeError):
            disk_cache.get("hostile")
        disk_cache.delete("hostile")
        tamper(folder, "INSERT INTO Cache (key, raw) VALUES (?, 0)", pickle.dumps(Bomb(made)))
        with pytest.raises(TypeError):
            list(disk_cache)
    assert outside.read_text() == "mine"
    assert not made.exists()


def test_nobody_else_may_read_what_is_stored(tmp_path: Path) -> None:
    job = tmp_path / "out.csv.job"
    mask = os.umask(0o022)
    try:
        make_job_folder(job)
        with hold_lock(job), closing(Store(job / "store")) as store:
            asyncio.run(store.put("k", b"v", "ok"))
            found = {path.name: mode(path) for path in [job, *job.rglob("*")]}
        with closing(Reader(job / "store")) as reader:  # a look at a closed store leaves files too
            assert reader.get_many(["k"]) == [b"v"]
            found |= {f"read {path.name}": mode(path) for path in (job / "store").iterdir()}
    finally:
        os.umask(mask)
    files = {"lock", "lock.json", "cache.db", "cache.db-wal", "cache.db-shm"}
    assert {name: found[name] for name in files} == dict.fromkeys(files, 0o600)
    assert {value for name, value in found.items() if name.startswith("read ")} == {0o600}
    assert (found["out.csv.job"], found["store"]) == (0o700, 0o700)


def test_the_job_folder_ignores_itself_and_an_old_one_is_left_as_it_is(tmp_path: Path) -> None:
    make_job_folder(tmp_path / "deep" / "new")
    assert (tmp_path / "deep" / "new" / ".gitignore").read_text() == "*\n"
    make_job_folder(tmp_path / "deep" / "new")
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o755)
    (mine / "code.py").touch()
    make_job_folder(mine)
    assert [path.name for path in mine.iterdir()] == ["code.py"]
    assert mode(mine) == 0o755
    with pytest.raises(BadJob, match="--job-dir"):
        make_job_folder(mine / "code.py")


# ---- on a network file system: a rollback journal, which other hosts can read

JOURNAL_OF = """
import asyncio, sqlite3, sys
from contextlib import closing
from pathlib import Path
from pipeline.store import Reader, Store

folder = Path(sys.argv[1])
with closing(Store(folder)) as store:
    asyncio.run(store.put(sys.argv[2], b"v", "ok"))
    with closing(Reader(folder)) as reader:
        assert reader.get_many([sys.argv[2]]) == [b"v"]
with closing(sqlite3.connect(folder / "cache.db")) as connection:
    print(*connection.execute("PRAGMA journal_mode").fetchone())
"""

# As on FUSE with direct_io: files cannot be shared as memory.
NO_SHARED_MEMORY = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/mman.h>
#include <sys/types.h>
void *mmap64(void *at, size_t size, int protection, int flags, int file, off_t offset) {
  void *(*real)(void *, size_t, int, int, int, off_t) = dlsym(RTLD_NEXT, "mmap64");
  if ((flags & MAP_SHARED) && file >= 0) { errno = ENODEV; return MAP_FAILED; }
  return real(at, size, protection, flags, file, offset);
}
void *mmap(void *at, size_t size, int protection, int flags, int file, off_t offset) {
  return mmap64(at, size, protection, flags, file, offset);
}
"""


# More than SQLite holds in memory, so some of it is in the file already.
WRITE_HALF = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1] + "/cache.db", isolation_level=None)
assert connection.execute("PRAGMA journal_mode = truncate").fetchone() == ("truncate",)
connection.execute("PRAGMA cache_size = 5")
connection.execute("BEGIN IMMEDIATE")
for number in range(200):
    connection.execute("INSERT INTO Cache (key, value) VALUES (?, zeroblob(5000))", [number])
connection.execute("UPDATE Cache SET tag = 'half'")
print("half", flush=True)
sys.stdin.read()
"""


def test_a_store_that_moves_between_disk_and_network_changes_its_journal_and_keeps_its_rows(tmp_path: Path) -> None:
    folder, network = tmp_path / "store", on_network(tmp_path, tmp_path / "mounts")
    said = []
    for key, where in (("a", network), ("b", []), ("c", network), ("d", [])):
        with child(JOURNAL_OF, folder, key, where=where) as process:
            said.append(process.communicate(timeout=CHILD_SECONDS)[0].strip())
    # a truncated journal leaves no trace in the file, unlike a write-ahead log
    assert said == ["delete", "wal", "delete", "wal"]
    assert marks(folder).keys() == {"a", "b", "c", "d"}


def test_where_files_cannot_be_shared_as_memory_the_journal_is_rolled_back_too(tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("this system has no C compiler")
    (tmp_path / "mmap.c").write_text(NO_SHARED_MEMORY)
    library = tmp_path / "mmap.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "mmap.c", "-ldl"], check=True)
    put_all(tmp_path / "copied", [("old", b"v", "ok")])
    for name in ("copied", "new"):
        with child(JOURNAL_OF, tmp_path / name, "k", where=["env", f"LD_PRELOAD={library}"]) as process:
            assert process.communicate(timeout=CHILD_SECONDS)[0].strip() == "delete"
    assert marks(tmp_path / "copied") == {"old": "ok", "k": "ok"}
    assert marks(tmp_path / "new") == {"k": "ok"}


def test_on_a_network_readers_that_never_rest_neither_miss_a_row_nor_stop_the_writer(tmp_path: Path) -> None:
    folder, network = tmp_path / "store", on_network(tmp_path, tmp_path / "mounts")
    with child(PUT_FOR_EVER, folder, 0, where=network) as writer:
        output, acknowledged, looks = pipe(writer.stdout), [], 0
        acknowledged.append(output.readline().strip())
        with child(READ_WHAT_IS_NAMED, folder, 100) as first, child(READ_WHAT_IS_NAMED, folder, 100) as second:
            while len(acknowledged) < 2000:
                acknowledged += [output.readline().strip() for _ in range(40)]
                for reader in (first, second):
                    pipe(reader.stdin).write(json.dumps(acknowledged[-300:]) + "\n")
                    pipe(reader.stdin).flush()
                for reader in (first, second):
                    assert pipe(reader.stdout).readline() == "True\n"
                    looks += 1
            assert writer.poll() is None
    assert looks >= 100


def test_on_a_network_a_kill_at_any_moment_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    folder, chance, acknowledged = tmp_path / "store", random.Random(SEED), []
    network = on_network(tmp_path, tmp_path / "mounts")
    for life in range(12):
        with child(PUT_FOR_EVER, folder, life, where=network) as process:
            output = pipe(process.stdout)
            acknowledged += [output.readline().strip() for _ in range(chance.randint(1, 400))]
            process.send_signal(signal.SIGKILL)
            acknowledged += output.read().split()
        try:
            stored = marks(folder)
        except StoreHalfWritten:
            roll_back(folder)
            stored = marks(folder)
        assert stored.keys() >= set(acknowledged)
    keys = list(stored)
    assert all(value == key.encode() * 100 for key, value in zip(keys, get_all(folder, keys), strict=True))


@pytest.mark.parametrize("mend", [roll_back, lambda folder: Store(folder).close()], ids=["a look", "the next run"])
def test_on_a_network_a_group_that_was_half_written_is_taken_back(tmp_path: Path, mend: Callable[[Path], None]) -> None:
    folder, network = tmp_path / "store", on_network(tmp_path, tmp_path / "mounts")
    with child(JOURNAL_OF, folder, "k", where=network) as process:
        process.wait(CHILD_SECONDS)
    with child(WRITE_HALF, folder) as process:
        assert pipe(process.stdout).readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    assert (folder / "cache.db-journal").stat().st_size > 0
    with pytest.raises(StoreHalfWritten, match="next run takes that back"):
        Reader(folder)
    mend(folder)
    assert marks(folder) == {"k": "ok"}
    assert get_all(folder, ["k"]) == [b"v"]
