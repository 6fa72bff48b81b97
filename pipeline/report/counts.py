"""Counts of values over a table that is read in slices: of texts, and of numbers with their percentiles.

Memory is bounded: counts of texts are given up when there are too many, numbers are rounded to three digits.
"""

import math
from typing import Any

import polars as pl


class Distribution:
    """How often each number occurs: exact for integers, rounded to three significant digits for others."""

    def __init__(self, counts: pl.DataFrame | None = None) -> None:
        """`counts`: columns `value` (ascending) and `rows`; empty by default."""
        self._counts = empty_counts(value=pl.Float64, rows=pl.Int64) if counts is None else counts

    def add(self, values: pl.Series) -> None:
        """Count more values; nulls are skipped."""
        exact = values.dtype.is_integer()
        values = values.drop_nulls().cast(pl.Float64)
        rounded = (values if exact else values.round_sig_figs(3)).alias("value").to_frame()
        new = rounded.group_by("value").agg(rows=pl.len().cast(pl.Int64))
        self._counts = add_counts(self._counts, new, ["value"]).sort("value")

    @property
    def rows(self) -> int:
        """Number of values."""
        return int(self._counts["rows"].sum())

    @property
    def different(self) -> int:
        """Number of different values."""
        return self._counts.height

    @property
    def mean(self) -> float | None:
        """None if there is no value."""
        return float((self._counts["value"] * self._counts["rows"]).sum()) / self.rows if self.rows else None

    @property
    def counts(self) -> list[tuple[float, int]]:
        """Each value with its number of occurrences, ascending by value."""
        return list(self._counts.iter_rows())

    def percentile(self, share: float) -> float | None:
        """The smallest value that at least this share (0 to 1) of all values does not exceed; None without values."""
        reached = self._counts.filter(pl.col("rows").cum_sum() >= share * self.rows)
        return float(reached["value"][0]) if reached.height else None

    def bars(self, most: int = 28) -> list[tuple[float, float, int]]:
        """Bars of a histogram, (from, to, rows), all of one round width; the last holds all above the 99th percentile.

        Empty if there are fewer than two different values.
        """
        low, high = self.percentile(0), self.percentile(0.99)
        if low is None or high is None or self.different < 2:
            return []
        width = round_width((high - low) / most or (self.counts[-1][0] - low) / most)
        if all(value.is_integer() for value in (low, high)):
            width = max(width, 1.0)
        first, last = int(low // width), max(int(high // width), int(low // width) + 1)
        place = (pl.col("value") // width).cast(pl.Int64).clip(first, last)
        found = dict(self._counts.group_by(place.alias("place")).agg(pl.col("rows").sum()).iter_rows())
        return [(at * width, (at + 1) * width, found.get(at, 0)) for at in range(first, last + 1)]


def round_width(width: float) -> float:
    """The next number that is 1, 2 or 5 times a power of ten."""
    power: float = 10.0 ** math.floor(math.log10(width))
    return next(times * power for times in (1, 2, 5, 10) if times * power >= width * 0.999)


def empty_counts(**schema: type[pl.DataType]) -> pl.DataFrame:
    """A frame without rows, to which `add_counts` adds."""
    return pl.DataFrame(schema=schema)


def add_counts(counts: pl.DataFrame, new: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """Add up all columns of both frames, grouped by `by`. The result has the columns and types of `counts`."""
    same = new.select(pl.col(name).cast(dtype) for name, dtype in counts.schema.items())
    return pl.concat([counts, same]).group_by(by).agg(pl.all().sum())


def count_values(counts: pl.DataFrame | None, values: pl.Series, most: int) -> pl.DataFrame | None:
    """Add a slice's values to counts with the columns `value` and `rows`; None once there are more than `most`."""
    if counts is None:
        return None
    new = values.alias("value").to_frame().group_by("value").agg(rows=pl.len().cast(pl.Int64))
    added = add_counts(counts, new, ["value"])
    return added if added.height <= most else None


def most_frequent(counts: pl.DataFrame) -> list[Any]:
    """The rows of a frame with a column `rows`, the most frequent first, then in the order of the other columns."""
    names = [name for name in counts.columns if name != "rows"]
    return list(counts.sort(["rows", *names], descending=[True, *[False] * len(names)]).iter_rows())
