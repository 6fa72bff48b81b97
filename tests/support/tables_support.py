"""Tables written to files and read back: what the tests of `tables` share."""

import datetime as dt
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from pipeline.records import BadJob
from pipeline.tables.open import open_table
from pipeline.tables.table import Table
from pipeline.tables.write import NO_OPTIONS, SpreadsheetOptions, write_table

CITIES = pl.DataFrame({"city": ["Oslo", "Bern", None, "日本 😀"], "n": ["00123", "", "2", 'a,"b"\r\nc']})


RICH = pl.DataFrame(
    {
        "list": [[1, None], None, []],
        "array": pl.Series([[1, 2], None, [3, 4]], dtype=pl.Array(pl.Int8, 2)),
        "struct": [{"day": dt.date(2026, 1, 2), "at": dt.datetime(2026, 1, 2, 3, 4)}, None, {"day": None, "at": None}],  # noqa: DTZ001 - a time without a zone is what is tested
        "bytes": [b"\xff\x00", None, b""],
        "nested_bytes": [[b"x"], None, []],
        "odd": [{"d": Decimal("1.10"), "f": float("nan"), "t": dt.timedelta(days=1, seconds=3)}, None, None],
        "span": [dt.timedelta(days=1, seconds=3), None, None],
        "kind": pl.Series(["a", None, "b"], dtype=pl.Enum(["a", "b"])),
        "zoned": pl.Series([dt.datetime(2026, 1, 2, tzinfo=dt.UTC), None, None]),
        "none": [None, None, None],
    }
)


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def opened(path: Path, folder: Path) -> Table:
    return open_table([str(path)], folder)


def whole(table: Table) -> pl.DataFrame:
    return pl.concat([table.schema.to_frame(), *table.slices()])


def read(path: Path, content: bytes | str) -> pl.DataFrame:
    folder = path.parent / "job"
    folder.mkdir(exist_ok=True)
    return whole(opened(written(path, content), folder))


def refusal_of(path: Path, content: bytes | str | None = None) -> str:
    folder = path.parent / "job"
    folder.mkdir(exist_ok=True)
    if content is not None:
        written(path, content)
    with pytest.raises(BadJob) as refused:
        opened(path, folder)
    assert not list(folder.iterdir()), "a bad input leaves nothing behind"
    return str(refused.value)


def write(frame: pl.DataFrame, path: Path, at_once: int = 2, options: SpreadsheetOptions = NO_OPTIONS) -> Path:
    write_table(frame.iter_slices(at_once), frame.schema, path, {}, options=options)
    return path


def in_a_process(code: str, *arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    line = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(line, input=stdin, capture_output=True, check=True, timeout=120)
