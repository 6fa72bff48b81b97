"""A table is read in slices, and stops the job if it changes meanwhile."""

import os
from pathlib import Path

import polars as pl
import pytest
from tables_support import opened, whole, write, written

from pipeline.records import Exit, Stopped
from pipeline.tables.table import Table, read_slices


def numbers(folder: Path, rows: int) -> Table:
    return opened(
        write(pl.DataFrame({"n": range(rows), "t": map(str, range(rows))}), folder / "n.parquet", 100), folder
    )


def test_slices_hold_each_row_once_in_order(folder: Path) -> None:
    table = numbers(folder, 1_001)
    assert [frame.height for frame in table.slices(size=250)] == [250, 250, 250, 250, 1]
    assert pl.concat(table.slices(["n"], 250))["n"].to_list() == list(range(1_001))
    assert [frame.shape for frame in table.slices([], 600)] == [(600, 1), (401, 1)]


def test_a_head_is_the_first_rows(folder: Path) -> None:
    table = numbers(folder, 100)
    assert whole(table.head(3))["n"].to_list() == [0, 1, 2]
    assert (table.head(3).rows, table.head(101).rows, table.head(0).rows) == (3, 100, 0)


def test_a_sample_is_drawn_by_chance_and_the_same_for_its_seed(folder: Path) -> None:
    table = numbers(folder, 1_000)
    drawn = pl.concat(table.sample(50, seed=1).slices(size=20))
    rows = drawn["n"].to_list()
    assert rows == sorted(set(rows))
    assert len(rows) == 50
    assert drawn["t"].to_list() == [str(row) for row in rows]
    assert whole(table.sample(50, seed=1)).equals(drawn)
    assert not whole(table.sample(50, seed=2)).equals(drawn)
    assert [frame.height for frame in table.sample(50, seed=1).slices(["t"], 20)] == [20, 20, 10]
    assert whole(table.sample(2_000, seed=1)).equals(whole(table))
    assert whole(table.sample(50, seed=1).head(5)).equals(drawn.head(5))
    assert set(whole(table.sample(50, seed=1).sample(9, seed=3))["n"]) < set(rows)


@pytest.mark.parametrize("how", ["rewritten", "replaced", "touched", "removed"])
def test_a_parquet_that_changes_while_it_is_read_stops_the_job(folder: Path, how: str) -> None:
    table = numbers(folder, 100)
    frames = table.slices(size=40)
    next(frames)
    content = table.path.read_bytes()
    if how == "rewritten":
        table.path.write_bytes(content[:-9])
    elif how == "replaced":
        written(folder / "new", content).replace(table.path)
    elif how == "touched":
        os.utime(table.path, ns=(1, 1))
    else:
        table.path.unlink()
    with pytest.raises(Stopped, match="while the job was reading it") as stop:
        next(frames)
    assert stop.value.exit_code is Exit.NEEDS_PERSON


def test_a_change_after_the_last_slice_is_noticed(folder: Path) -> None:
    table = numbers(folder, 10)
    frames = table.slices()
    next(frames)
    os.utime(table.path, ns=(1, 1))
    with pytest.raises(Stopped, match="was changed"):
        next(frames)


def test_our_own_parquet_is_read_in_slices(folder: Path) -> None:
    table = numbers(folder, 10)
    assert [frame["n"].to_list() for frame in read_slices(table.path, ["n"], 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert pl.concat(read_slices(table.path)).equals(whole(table))
