"""Stores for tests: to fill, read and tamper with them, and scripts of processes that write and read them."""

import asyncio
import os
import sqlite3
import stat
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from pipeline.store.reader import Reader
from pipeline.store.writer import Store

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


class Bomb:
    """An object that makes a folder when it is unpickled."""

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


async def put_rows(store: Store, rows: int) -> None:
    await asyncio.gather(*(store.put(f"{i:064x}", bytes(1000), "ok") for i in range(rows)))


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
