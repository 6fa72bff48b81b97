"""What was acknowledged outlives kills and full disks, what no store wrote is refused, and one process holds a job."""

import asyncio
import json
import os
import pickle
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

import diskcache
import pytest

from pipeline.records import BadJob, Exit, Stopped
from pipeline.store import GROUP_ROWS, BytesDisk, Reader, Store, hold, make_folder

SEED = 20261122
CHILD_SECONDS = 60

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
    whole = all(value == key.encode() * 500 for key, value in zip(keys, values))
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

HOLD_UNTIL_TOLD = """
import sys
from pathlib import Path
from pipeline.store import hold

with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""

TRY_TO_HOLD = """
import sys
from pathlib import Path
from pipeline.records import Stopped
from pipeline.store import hold

try:
    with hold(Path(sys.argv[1])):
        pass
except Stopped as stop:
    print(stop)
    sys.exit(stop.exit_code)
"""


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@contextmanager
def child(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-W", "error", "-c", script, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def pipe(end: IO[str] | None) -> IO[str]:
    assert end is not None
    return end


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
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


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
            sys.executable, "-c", READ_WHAT_IS_NAMED, str(folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE
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
    with pytest.raises(Stopped, match="no such table"):
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
    put_all(folder, [("file", b"new", "ok")])
    assert get_all(folder, ["good", "file"]) == [b"v", b"new"]
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
        make_folder(job)
        with hold(job), closing(Store(job / "store")) as store:
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
    make_folder(tmp_path / "deep" / "new")
    assert (tmp_path / "deep" / "new" / ".gitignore").read_text() == "*\n"
    make_folder(tmp_path / "deep" / "new")
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o755)
    (mine / "code.py").touch()
    make_folder(mine)
    assert [path.name for path in mine.iterdir()] == ["code.py"]
    assert mode(mine) == 0o755
    with pytest.raises(BadJob, match="--job-dir"):
        make_folder(mine / "code.py")


def test_a_second_holder_is_told_who_holds_the_job_and_exits_5(tmp_path: Path) -> None:
    with hold(tmp_path), child(TRY_TO_HOLD, tmp_path) as process:
        output, _ = process.communicate(timeout=CHILD_SECONDS)
        assert process.returncode == 5
        assert f"process {os.getpid()}, since 20" in output
        assert "end it gently" in output
        with pytest.raises(Stopped) as refused, hold(tmp_path):
            pass
        assert refused.value.exit_code == Exit.LOCKED
    with child(TRY_TO_HOLD, tmp_path) as process:
        assert process.wait(CHILD_SECONDS) == 0


def test_the_lock_is_named_even_if_its_note_is_foreign_hostile_or_gone(tmp_path: Path) -> None:
    with hold(tmp_path):
        note = tmp_path / "lock.json"
        note.write_text(json.dumps({"user": "ann", "host": "node7\x1b[2J", "pid": 4, "since": "2026-11-22 03:10"}))
        with pytest.raises(Stopped, match=r"ann@node7 \(process 4, since 2026-11-22 03:10\) holds"), hold(tmp_path):
            pass
        for content in ("", "[]", "{}", "null"):
            note.write_text(content)
            with pytest.raises(Stopped, match="Another process holds"), hold(tmp_path):
                pass
        note.unlink()
        with pytest.raises(Stopped, match="Another process holds"), hold(tmp_path):
            pass
    with hold(tmp_path):
        pass


def test_a_killed_holder_leaves_the_job_free(tmp_path: Path) -> None:
    with child(HOLD_UNTIL_TOLD, tmp_path) as process:
        assert pipe(process.stdout).readline() == "held\n"
        with pytest.raises(Stopped, match=f"process {process.pid}"), hold(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait(CHILD_SECONDS)
        with hold(tmp_path):
            assert json.loads((tmp_path / "lock.json").read_bytes())["pid"] == os.getpid()


def test_a_folder_that_cannot_be_locked_is_a_bad_job(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(BadJob, match="cannot be locked"), hold(tmp_path):
        pass


def test_an_error_inside_frees_the_lock_and_passes_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="from within"), hold(tmp_path):
        raise OSError("from within")
    with hold(tmp_path):
        pass
