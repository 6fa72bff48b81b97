"""A table on disk, read in slices: always one Parquet file, which must not change while it is read."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl
import polars.selectors as cs
from polars.exceptions import PanicException, PolarsError

from ..records import Stopped
from .errors import brief
from .source import Stamp, stamp_of

SLICE_ROWS = 25_000
"""Rows in a slice, where the caller does not ask for another size."""

HOW_TO_GO_ON = (
    "All stored answers are kept. When the file no longer changes, run the same command again: it reads the input anew."
)
"""End of the messages about an input that changed during a run."""


@dataclass(frozen=True)
class Table:
    """An opened input: its rows can be read in slices, in order, as often as needed. Made by `open_table`."""

    path: Path
    """The Parquet file that is read: the input itself if that is one Parquet file, else its snapshot."""
    schema: pl.Schema
    rows: int
    """Number of rows of this table. After `head` or `sample` they are fewer than the file's."""
    content_hash: str
    """64 hexadecimal digits: sha256 over the input files' bytes, in order."""
    stamp: Stamp = field(repr=False)
    """The file's stamp when it was opened."""
    chosen: pl.Series | None = field(default=None, repr=False, compare=False)
    """Row numbers of a sample, ascending, from 0; None if all rows belong to the table."""

    def head(self, rows: int) -> "Table":
        """The table's first `rows` rows; the whole table if it has fewer."""
        return replace(self, rows=min(rows, self.rows))

    def sample(self, rows: int, seed: int) -> "Table":
        """Draw `rows` rows at random, kept in the input's order. The same seed draws the same rows.

        The whole table if it has fewer rows.
        """
        drawn = random.Random(seed).sample(range(self.rows), min(rows, self.rows))  # noqa: S311 - not a secret
        places = pl.Series(sorted(drawn), dtype=pl.UInt32)
        return replace(self, rows=len(places), chosen=places if self.chosen is None else self.chosen.gather(places))

    def slices(self, columns: Sequence[str] | None = None, size: int = SLICE_ROWS) -> Iterator[pl.DataFrame]:
        """Read the table as frames of `size` rows (the last may have fewer), with these columns, or all for None.

        If `columns` is empty, the first column is read nevertheless: a frame without columns would have no rows.
        Raises Stopped if the file has changed since it was opened, which is checked after each slice and at the end.
        """
        wanted = list(self.schema)[:1] if columns is not None and not columns else columns
        for start in range(0, self.rows, size):
            try:
                frame = self._read(start, min(size, self.rows - start), wanted)
            except (PolarsError, PanicException, OSError) as error:
                self._check_unchanged()
                raise Stopped(f"{self.path} can no longer be read: {brief(error)}.\n{HOW_TO_GO_ON}") from error
            self._check_unchanged()
            yield frame
        self._check_unchanged()

    def _read(self, start: int, rows: int, columns: Sequence[str] | None) -> pl.DataFrame:
        if self.chosen is None:
            return select_columns(scan_parquet(self.path).slice(start, rows), columns).collect()
        places = self.chosen.slice(start, rows)
        first, last = places[0], places[-1]
        number = unused_name(self.schema)
        numbered = scan_parquet(self.path).slice(first, last - first + 1).with_row_index(number, first)
        picked = numbered.filter(pl.col(number).is_in(places.implode())).drop(number)
        return select_columns(picked, columns).collect()

    def _check_unchanged(self) -> None:
        try:
            now = stamp_of(self.path)
        except OSError as error:
            raise Stopped(f"{self.path} was removed while the job was reading it.\n{HOW_TO_GO_ON}") from error
        if now != self.stamp:
            raise Stopped(f"{self.path} was changed while the job was reading it.\n{HOW_TO_GO_ON}")


def read_slices(path: Path, columns: Sequence[str] | None = None, size: int = SLICE_ROWS) -> Iterator[pl.DataFrame]:
    """Read one of the program's own Parquet files, which nobody changes, as frames of `size` rows."""
    for start in range(0, count_rows(scan_parquet(path)), size):
        yield select_columns(scan_parquet(path).slice(start, size), columns).collect()


def read_parquet_metadata(path: Path) -> dict[str, str]:
    """The key-value metadata of a Parquet file."""
    return pl.read_parquet_metadata(path)


def scan_parquet(path: Path) -> pl.LazyFrame:
    """Scan exactly this file: its name is no pattern, and its folders' names are no columns."""
    return pl.scan_parquet(path, glob=False, hive_partitioning=False)


def count_rows(frame: pl.LazyFrame) -> int:
    """Count the rows of a frame."""
    return int(frame.select(pl.len()).collect().item())


def select_columns(frame: pl.LazyFrame, columns: Sequence[str] | None) -> pl.LazyFrame:
    """Select columns by their exact names, or all for None. `select` would take a name like `^a.*$` for a pattern."""
    return frame if columns is None else frame.select(cs.by_name(*columns))


def unused_name(schema: pl.Schema) -> str:
    """A name that no column has: longer than all of theirs."""
    return "_" + max(schema, key=len, default="")
