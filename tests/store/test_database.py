"""A store is made whole or not at all; one that is damaged, changed, gone or another job's is refused and left."""

import asyncio
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import diskcache
import pytest
from children import CHILD_SECONDS, child, on_network, pipe
from stores import JOURNAL_OF, Bomb, get_all, marks, mode, put_all, put_rows, tamper

from pipeline.folder.folder import make_job_folder
from pipeline.folder.lock import hold_lock
from pipeline.records import Exit, Stopped
from pipeline.store.database import BytesDisk, roll_back
from pipeline.store.errors import StoreDamaged, StoreHalfWritten
from pipeline.store.reader import Reader
from pipeline.store.sidecar import Sidecar
from pipeline.store.writer import Store


def test_a_kill_while_the_store_is_made_leaves_none_behind(tmp_path: Path) -> None:
    half_made = tmp_path / "store.new"
    half_made.mkdir()
    (half_made / "cache.db").touch()
    put_all(tmp_path / "store", [("k", b"v", "ok")])
    assert get_all(tmp_path / "store", ["k"]) == [b"v"]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["store"]


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


def test_rows_lost_with_a_write_ahead_log_are_missed_before_anything_is_asked(tmp_path: Path) -> None:
    live, copy = tmp_path / "live" / "store", tmp_path / "copy" / "store"
    copy.mkdir(parents=True)
    with closing(Store(live)) as store:
        asyncio.run(put_rows(store, 500))
        deadline = time.monotonic() + CHILD_SECONDS
        while Sidecar.read(live).rows < 501 and time.monotonic() < deadline:
            os.sched_yield()
        shutil.copy(live / "cache.db", copy)
        shutil.copy(live.with_name("store.json"), copy.parent)
    with pytest.raises(StoreDamaged, match=r"holds \d+ rows, but 501 were written: it lost its cache.db-wal|is empty"):
        Store(copy)


def test_a_store_that_is_gone_is_not_replaced_by_an_empty_one(tmp_path: Path) -> None:
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
        with pytest.raises(StoreDamaged, match="not a store of answers"):
            look(folder)


def as_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def as_hard_link(path: Path) -> None:
    path.with_name("elsewhere").hardlink_to(path)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", ["cache.db", "cache.db-wal", "cache.db-journal"])
@pytest.mark.parametrize("replace", [as_link, as_hard_link, as_folder])
def test_what_is_no_file_of_its_own_is_refused_and_what_lies_elsewhere_left(
    tmp_path: Path, name: str, replace: Callable[[Path], None]
) -> None:
    folder = tmp_path / "store"
    put_all(folder, [("k", b"v", "ok")])
    (folder / name).touch()
    replace(folder / name)
    before = b"" if replace is as_folder else (folder / "elsewhere").read_bytes()
    with pytest.raises(Stopped, match=r"is a link or a folder, where a store has a file"):
        Store(folder)
    assert replace is as_folder or (folder / "elsewhere").read_bytes() == before


def test_a_store_that_is_a_link_to_another_jobs_is_refused(tmp_path: Path) -> None:
    put_all(tmp_path / "others", [("k", b"v", "ok")])
    (tmp_path / "store").symlink_to(tmp_path / "others")
    with pytest.raises(Stopped, match="is a link"):
        Store(tmp_path / "store")


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
    with pytest.raises(Stopped, match="not a store of answers"):
        Store(folder)
    with pytest.raises(Stopped, match="not a store of answers"):
        marks(folder)


def test_settings_that_no_store_has_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    Store(folder).close()
    tamper(folder, "INSERT INTO Settings VALUES (?, ?)", "sqlite_writable_schema", 1)
    with pytest.raises(Stopped, match="sqlite_writable_schema"):
        Store(folder)


def test_a_folder_that_lost_its_database_gets_no_empty_one(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("mend", [roll_back, lambda folder: Store(folder).close()], ids=["a look", "the next run"])
def test_on_a_network_a_group_that_was_half_written_is_taken_back(tmp_path: Path, mend: Callable[[Path], None]) -> None:
    folder, network = tmp_path / "store", on_network(tmp_path, tmp_path / "mounts")
    with child(JOURNAL_OF, folder, "k", where=network) as process:
        process.wait(CHILD_SECONDS)
    with child(WRITE_HALF, folder) as process:
        assert pipe(process.stdout).readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    assert (folder / "cache.db-journal").stat().st_size > 0
    with pytest.raises(StoreHalfWritten, match="next run undoes what was half-written"):
        Reader(folder)
    mend(folder)
    assert marks(folder) == {"k": "ok"}
    assert get_all(folder, ["k"]) == [b"v"]


def test_a_key_that_changed_in_the_table_or_in_its_index_alone_is_damage(tmp_path: Path) -> None:
    keys = [f"{number:064x}" for number in range(60)]
    put_all(tmp_path / "store", [(key, b"v", "ok") for key in keys])
    database = tmp_path / "store" / "cache.db"
    content, key = database.read_bytes(), keys[30].encode()
    messages = []
    for place in (content.index(key), content.rindex(key)):
        database.write_bytes(content[:place] + b"f" + content[place + 1 :])
        with pytest.raises(StoreDamaged) as damage:
            Store(tmp_path / "store")
        messages.append(str(damage.value))
    assert sum("holds rows that are damaged" in message for message in messages) == 1
    assert sum("The index of" in message and "of 61 rows" in message for message in messages) == 1
