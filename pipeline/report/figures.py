"""What a table of answers adds up to: counts, distributions, a course over time; in slices and bounded memory."""

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import polars as pl

from ..records import Record

GRAIN_MS = 250
"""The finest step of a course over time; it doubles as often as there are more than…"""
STEPS_MOST = 2_000
VALUES_MOST = 1_000
"""Of a column with more different texts than this, or pairs of gold and answer than its tenfold, none are counted."""
EXAMPLES = 3
EXAMPLE_CHARACTERS = 400

ASKED = pl.col("attempts") > 0
"""Rows that were asked themselves, and do not repeat what an equal one was answered."""
OUTPUT_TOKENS = pl.max_horizontal("completion_tokens", pl.col("total_tokens") - pl.col("prompt_tokens"))
"""As `Usage.billed_output_tokens`."""
NICE_SECONDS = (0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)


class Spread:
    """How often which value came: exact for whole numbers, seconds to three digits."""

    def __init__(self, counts: pl.DataFrame | None = None) -> None:
        self._counts = _empty(value=pl.Float64, rows=pl.Int64) if counts is None else counts

    def add(self, values: pl.Series) -> None:
        """Count more values; null is none."""
        exact = values.dtype.is_integer()
        values = values.drop_nulls().cast(pl.Float64)
        rounded = (values if exact else values.round_sig_figs(3)).alias("value").to_frame()
        new = rounded.group_by("value").agg(rows=pl.len().cast(pl.Int64))
        self._counts = _merged(self._counts, new, ["value"]).sort("value")

    @property
    def rows(self) -> int:
        """How many values there are."""
        return int(self._counts["rows"].sum())

    @property
    def different(self) -> int:
        """How many of them differ."""
        return self._counts.height

    @property
    def mean(self) -> float | None:
        """None where there is no value."""
        return float((self._counts["value"] * self._counts["rows"]).sum()) / self.rows if self.rows else None

    @property
    def counts(self) -> list[tuple[float, int]]:
        """Each value with how often it came, ascending."""
        return list(self._counts.iter_rows())

    def percentile(self, share: float) -> float | None:
        """The smallest value that so great a share of all does not exceed; None where there is no value."""
        reached = self._counts.filter(pl.col("rows").cum_sum() >= share * self.rows)
        return float(reached["value"][0]) if reached.height else None

    def bars(self, most: int = 28) -> list[tuple[float, float, int]]:
        """(from, to, rows) of bars of one nice width; the last one holds all from the 99th percentile on.

        Empty where a picture would tell nothing.
        """
        low, high = self.percentile(0), self.percentile(0.99)
        if low is None or high is None or self.different < 2:
            return []
        width = nice((high - low) / most or (self.counts[-1][0] - low) / most)
        if all(value.is_integer() for value in (low, high)):
            width = max(width, 1.0)
        first, last = int(low // width), max(int(high // width), int(low // width) + 1)
        place = (pl.col("value") // width).cast(pl.Int64).clip(first, last)
        found = dict(self._counts.group_by(place.alias("place")).agg(pl.col("rows").sum()).iter_rows())
        return [(at * width, (at + 1) * width, found.get(at, 0)) for at in range(first, last + 1)]


class Point(Record, frozen=True):
    """What was answered in one step of the course."""

    begins: float
    """Seconds since the first answer was asked for, long pauses left out."""
    ends: float
    rows_per_second: float
    prompt_tokens_per_second: float
    output_tokens_per_second: float
    median_seconds: float | None
    """Latency; None where nothing was answered."""
    slow_seconds: float | None
    """The latency that 5 % exceed."""


class Course(Record, frozen=True):
    """How the asking went over time."""

    began: datetime
    points: list[Point]
    pauses: list[float]
    """Where, in seconds as in `points`, a long pause was left out."""
    seconds: float
    """From the first to the last, without the pauses."""


class Timeline:
    """When rows were answered, and how fast, in steps that grow with the time they cover."""

    def __init__(self) -> None:
        self._step_ms = GRAIN_MS
        self._cells = _empty(
            step=pl.Int64, latency=pl.Float64, rows=pl.Int64, prompt_tokens=pl.Int64, output_tokens=pl.Int64
        )

    def add(self, frame: pl.DataFrame) -> None:
        """Take in the rows that were asked, with their latency."""
        ended = pl.col("asked_at").dt.epoch("ms") + (pl.col("latency_seconds") * 1000).cast(pl.Int64)
        rows = frame.filter(ASKED & pl.col("asked_at").is_not_null() & pl.col("latency_seconds").is_not_null())
        new = rows.group_by(step=ended // self._step_ms, latency=pl.col("latency_seconds").round_sig_figs(2)).agg(
            rows=pl.len().cast(pl.Int64),
            prompt_tokens=pl.col("prompt_tokens").sum(),
            output_tokens=OUTPUT_TOKENS.sum(),
        )
        self._cells = _merged(self._cells, new, ["step", "latency"])
        while self._cells["step"].n_unique() > STEPS_MOST:
            self._step_ms *= 2
            halved = self._cells.with_columns(pl.col("step") // 2)
            self._cells = halved.group_by(["step", "latency"]).agg(pl.all().sum())

    def course(self, most: int = 60) -> Course | None:
        """In `most` points at most, fewer for few rows; None where nothing was asked."""
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
        width = next((nice for nice in NICE_SECONDS if nice >= max(seconds / most, step_seconds)), seconds / most)
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
    """Between which steps nothing came for so long that a picture would be mostly empty."""
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
        latency = Spread(cells.group_by(value="latency").agg(pl.col("rows").sum()).sort("value"))
        rows, prompts, outputs = (int(cells[name].sum()) for name in ("rows", "prompt_tokens", "output_tokens"))
        taken = ends - begins
        yield Point(
            begins,
            ends,
            rows / taken,
            prompts / taken,
            outputs / taken,
            latency.percentile(0.5),
            latency.percentile(0.95),
        )


class ByStatus(Record, frozen=True):
    """Rows of one status; tokens and money of those that were asked themselves."""

    rows: int
    prompt_tokens: int
    output_tokens: int
    cost: float


class Example(Record, frozen=True):
    """One row's error."""

    row: int
    text: str


class Errors(Record, frozen=True):
    """Rows without an answer for one kind of reason."""

    kind: str
    rows: int
    examples: list[Example]


class Figures:
    """The sums over a table's answers. `add` takes slices in order; all else may be read at any time."""

    def __init__(self, typed: Mapping[str, pl.DataType], judged: str | None = None) -> None:
        """`typed`: the answer's own columns; `judged`: which of them is held against gold, if there is any."""
        self.rows = 0
        self.repeats = 0
        """Rows that repeat an earlier one's answer."""
        self.timeline = Timeline()
        self.latency, self.prompt_tokens, self.output_tokens = Spread(), Spread(), Spread()
        self.numbers = {name: Spread() for name, dtype in typed.items() if dtype.is_numeric()}
        self._texts: dict[str, pl.DataFrame | None] = {
            name: _empty(value=pl.String, rows=pl.Int64) for name in typed if name not in self.numbers
        }
        self._judged = judged
        self._pairs: pl.DataFrame | None = _empty(gold=pl.String, answer=pl.String, rows=pl.Int64)
        self._by_status = _empty(
            status=pl.String, rows=pl.Int64, prompt_tokens=pl.Int64, output_tokens=pl.Int64, cost=pl.Float64
        )
        self.uncounted = dict.fromkeys(("prompt_tokens", "completion_tokens"), 0)
        """Answers of which the endpoint did not say the count."""
        self._errors = _empty(kind=pl.String, rows=pl.Int64)
        self._examples = _empty(kind=pl.String, row=pl.Int64, text=pl.String)

    def add(self, frame: pl.DataFrame, gold: pl.Series | None = None) -> None:
        """Take in the next rows of the output, its added columns alone, and what stands against them as gold."""
        asked = frame.filter(ASKED)
        answered = asked.filter(pl.col("answer").is_not_null())
        self.repeats += frame.filter(~ASKED & pl.col("answer").is_not_null()).height
        self._add_by_status(frame)
        self.timeline.add(frame)
        self.latency.add(asked["latency_seconds"])
        self.prompt_tokens.add(asked["prompt_tokens"])
        self.output_tokens.add(asked.select(OUTPUT_TOKENS.alias("value"))["value"])
        for name in self.uncounted:
            self.uncounted[name] += answered[name].null_count()
        self._add_errors(frame)
        for name, spread in self.numbers.items():
            spread.add(frame[name])
        for name, counts in self._texts.items():
            self._texts[name] = _counted(counts, frame.select(value=pl.col(name).cast(pl.String)), VALUES_MOST)
        if self._judged is not None and gold is not None:
            pairs = frame.select(
                gold=gold.cast(pl.String).str.strip_chars(), answer=pl.col(self._judged).cast(pl.String)
            ).filter(pl.col("gold").is_not_null() & (pl.col("gold") != ""))
            self._pairs = _counted(self._pairs, pairs, 10 * VALUES_MOST)
        self.rows += frame.height

    def _add_by_status(self, frame: pl.DataFrame) -> None:
        new = frame.group_by("status").agg(
            rows=pl.len().cast(pl.Int64),
            prompt_tokens=pl.col("prompt_tokens").filter(ASKED).sum(),
            output_tokens=OUTPUT_TOKENS.filter(ASKED).sum(),
            cost=pl.col("cost").sum(),
        )
        self._by_status = _merged(self._by_status, new, ["status"])

    def _add_errors(self, frame: pl.DataFrame) -> None:
        parts = pl.col("error").str.splitn(": ", 2)
        told = (
            frame.select("error")
            .with_row_index("row", self.rows + 1)
            .filter(pl.col("error").is_not_null())
            .select(
                kind=parts.struct[0],
                row=pl.col("row").cast(pl.Int64),
                text=parts.struct[1].fill_null("").str.slice(0, EXAMPLE_CHARACTERS),
            )
        )
        self._errors = _merged(self._errors, told.group_by("kind").agg(rows=pl.len().cast(pl.Int64)), ["kind"])
        different = pl.concat([self._examples, told]).unique(["kind", "text"], keep="first", maintain_order=True)
        self._examples = different.group_by("kind", maintain_order=True).head(EXAMPLES)

    @property
    def by_status(self) -> dict[str, ByStatus]:
        """The statuses that occur."""
        return {status: ByStatus(*sums) for status, *sums in self._by_status.iter_rows()}

    @property
    def errors(self) -> list[Errors]:
        """The commonest first."""
        found: dict[str, list[Example]] = {}
        for kind, row, text in self._examples.iter_rows():
            found.setdefault(kind, []).append(Example(row, text))
        kinds = self._errors.sort(["rows", "kind"], descending=[True, False])
        return [Errors(kind, rows, found.get(kind, [])) for kind, rows in kinds.iter_rows()]

    @property
    def texts(self) -> dict[str, list[tuple[str, int]] | None]:
        """For each column of texts, its values with their rows, the commonest first; None if they are too many."""
        return {
            name: None if counts is None else _listed(counts.drop_nulls("value"))
            for name, counts in self._texts.items()
        }

    @property
    def pairs(self) -> list[tuple[str, str | None, int]] | None:
        """(gold, answer, rows), the commonest first; None if they are too many to be labels."""
        return None if self._pairs is None else _listed(self._pairs)


def nice(width: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power: float = 10.0 ** math.floor(math.log10(width))
    return next(times * power for times in (1, 2, 5, 10) if times * power >= width * 0.999)


def _empty(**schema: type[pl.DataType]) -> pl.DataFrame:
    return pl.DataFrame(schema=schema)


def _merged(held: pl.DataFrame, new: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """The sums of both."""
    same = new.select(pl.col(name).cast(dtype) for name, dtype in held.schema.items())
    return pl.concat([held, same]).group_by(by).agg(pl.all().sum())


def _counted(held: pl.DataFrame | None, rows: pl.DataFrame, most: int) -> pl.DataFrame | None:
    """How often which values stand together; None once there are more than `most`."""
    if held is None:
        return None
    merged = _merged(held, rows.group_by(pl.all()).agg(rows=pl.len().cast(pl.Int64)), rows.columns)
    return merged if merged.height <= most else None


def _listed(counts: pl.DataFrame) -> list[Any]:
    names = [name for name in counts.columns if name != "rows"]
    return list(counts.sort(["rows", *names], descending=[True, *[False] * len(names)]).iter_rows())
