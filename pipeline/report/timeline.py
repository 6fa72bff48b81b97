"""Throughput, tokens and latency over the time of a job, with long pauses left out, in bounded memory."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise

import polars as pl

from ..records import Record
from .counts import Distribution, add_counts, empty_counts

FIRST_STEP_MS = 250
"""Length of a step at first, in milliseconds. It doubles whenever there are more than STEPS_MAX steps."""
STEPS_MAX = 2_000

WAS_ASKED = pl.col("attempts") > 0
"""Rows for which requests were sent, in contrast to duplicates, which repeat an earlier row's answer."""
OUTPUT_TOKENS = pl.max_horizontal("completion_tokens", pl.col("total_tokens") - pl.col("prompt_tokens"))
"""The same as `Usage.billed_output_tokens`, as an expression over columns."""
ROUND_SECONDS = (0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
"""Lengths that a point of the course may have; a longer one is not rounded."""


class Point(Record, frozen=True):
    """The answers that ended within one interval of the course."""

    begins: float
    """Seconds since the first answer of the job, without long pauses."""
    ends: float
    rows_per_second: float
    prompt_tokens_per_second: float
    output_tokens_per_second: float
    median_seconds: float | None
    """Median latency; None if no answer ended here."""
    slow_seconds: float | None
    """95th percentile of the latency."""


class Course(Record, frozen=True):
    """A job over time."""

    began: datetime
    points: list[Point]
    pauses: list[float]
    """Where a long pause was left out, in seconds as in `points`."""
    seconds: float
    """Duration from the first answer to the last, without the pauses."""


class Timeline:
    """Counts of answers by the time when they ended. `add` takes slices of the output in any order."""

    def __init__(self) -> None:
        self._step_ms = FIRST_STEP_MS
        self._cells = empty_counts(
            step=pl.Int64, latency=pl.Float64, rows=pl.Int64, prompt_tokens=pl.Int64, output_tokens=pl.Int64
        )

    def add(self, frame: pl.DataFrame) -> None:
        """Count the rows that were asked; `frame` has the output's added columns."""
        ended = pl.col("asked_at").dt.epoch("ms") + (pl.col("latency_seconds") * 1000).cast(pl.Int64)
        rows = frame.filter(WAS_ASKED & pl.col("asked_at").is_not_null() & pl.col("latency_seconds").is_not_null())
        new = rows.group_by(step=ended // self._step_ms, latency=pl.col("latency_seconds").round_sig_figs(2)).agg(
            rows=pl.len().cast(pl.Int64),
            prompt_tokens=pl.col("prompt_tokens").sum(),
            output_tokens=OUTPUT_TOKENS.sum(),
        )
        self._cells = add_counts(self._cells, new, ["step", "latency"])
        while self._cells["step"].n_unique() > STEPS_MAX:
            self._step_ms *= 2
            halved = self._cells.with_columns(pl.col("step") // 2)
            self._cells = halved.group_by(["step", "latency"]).agg(pl.all().sum())

    def course(self, most: int = 60) -> Course | None:
        """Divide the time into at most `most` points, fewer for few rows; None if nothing was asked."""
        steps = self._cells["step"].unique().sort().to_list()
        if not steps:
            return None
        step_seconds = self._step_ms / 1000
        most = min(most, max(6, int(self._cells["rows"].sum()) // 5))
        cuts = _pauses(steps)
        left_out = {before: after - before - 1 for before, after in cuts}
        seconds = (steps[-1] - steps[0] + 1 - sum(left_out.values())) * step_seconds
        places, skipped = {}, 0
        for step in steps:
            places[step] = (step - steps[0] - skipped) * step_seconds
            skipped += left_out.get(step, 0)
        width = next((each for each in ROUND_SECONDS if each >= max(seconds / most, step_seconds)), seconds / most)
        placed = self._cells.with_columns(
            point=(pl.col("step").replace_strict(places, return_dtype=pl.Float64) // width)
            .cast(pl.Int64)
            .clip(0, max(0, round(seconds / width) - 1))  # what is left over at the end joins the last point
        )
        return Course(
            began=datetime.fromtimestamp(steps[0] * step_seconds, tz=UTC),
            points=list(_points(placed, width, seconds)),
            pauses=[places[before] + step_seconds for before, _ in cuts],
            seconds=seconds,
        )


def _pauses(steps: list[int]) -> list[tuple[int, int]]:
    """Find gaps between steps that are so long that a chart would be mostly empty: (step before, step after)."""
    gaps = sorted(after - before for before, after in pairwise(steps))
    if not gaps:
        return []
    long = max(len(steps) / 4, 20 * gaps[len(gaps) // 2])
    return [(before, after) for before, after in pairwise(steps) if after - before > long]


def _points(placed: pl.DataFrame, width: float, seconds: float) -> Iterator[Point]:
    found = {place: cells for (place,), cells in placed.partition_by("point", as_dict=True).items()}
    last = max(found)
    for place in range(last + 1):
        begins, ends = place * width, (place + 1) * width if place < last else seconds
        cells = found.get(place)
        if cells is None:
            yield Point(begins, ends, 0.0, 0.0, 0.0, None, None)
            continue
        latency = Distribution(cells.group_by(value="latency").agg(pl.col("rows").sum()).sort("value"))
        rows, prompts, outputs = (int(cells[name].sum()) for name in ("rows", "prompt_tokens", "output_tokens"))
        length = ends - begins
        yield Point(
            begins,
            ends,
            rows / length,
            prompts / length,
            outputs / length,
            latency.percentile(0.5),
            latency.percentile(0.95),
        )
