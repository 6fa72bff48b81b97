"""What was acknowledged survives kills and full disks; groups share an fsync, and no caller waits for nothing."""

import asyncio
import json
import random
import shutil
import signal
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from children import CHILD_SECONDS, child, on_network, pipe
from stores import PUT_FOR_EVER, SEED, get_all, marks, put_all, read_note

from pipeline.records import Exit, Stopped
from pipeline.store.database import roll_back
from pipeline.store.errors import StoreHalfWritten
from pipeline.store.reader import Reader
from pipeline.store.writer import GROUP_ROWS, Store

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


def test_what_was_acknowledged_is_stored_after_sigkill_at_any_moment(tmp_path: Path) -> None:
    folder, chance, acknowledged = tmp_path / "store", random.Random(SEED), []
    for life in range(6):
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


def test_any_bytes_come_back_as_they_went_in(tmp_path: Path) -> None:
    values = [b"", b"\r\n\n\r", b"\0a\0", bytes(range(256)), random.Random(SEED).randbytes(5_000_000), "é漢😀".encode()]
    put_all(tmp_path / "store", [(f"key-{i}", value, "ok") for i, value in enumerate(values)])
    assert get_all(tmp_path / "store", [f"key-{i}" for i in range(len(values))]) == values
    assert not [path for path in (tmp_path / "store").iterdir() if not path.name.startswith("cache.db")]


def test_the_latest_value_of_a_key_wins_and_the_key_stays_one(tmp_path: Path) -> None:
    put_all(tmp_path / "store", [("k", b"first", "unsettled"), ("other", b"", "ok"), ("k", b"second", "ok")])
    put_all(tmp_path / "store", [("k", b"third", "failed")])
    assert get_all(tmp_path / "store", ["k"]) == [b"third"]
    assert marks(tmp_path / "store") == {"k": "failed", "other": "ok"}


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

    monkeypatch.setattr("pipeline.store.writer.GROUP_SECONDS", 3600)
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


def test_a_note_lost_to_an_error_is_reported_at_close_once(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store = Store(folder)
    with closing(sqlite3.connect(folder / "cache.db")) as other, other:
        other.execute("DROP TABLE Cache")
    store.note("ledger", b"1")
    with pytest.raises(Stopped, match="cannot be written"):
        store.close()
    store.close()


def test_on_a_network_a_kill_at_any_moment_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    folder, chance, acknowledged = tmp_path / "store", random.Random(SEED), []
    network = on_network(tmp_path, tmp_path / "mounts")
    for life in range(6):
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
