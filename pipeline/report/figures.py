"""The sums and distributions that the page shows: rows by status, errors, tokens, latency, the answer's values."""

from collections.abc import Mapping

import polars as pl

from ..records import Record
from ..tables import as_text
from .counts import Distribution, add_counts, count_values, empty_counts, most_frequent
from .timeline import OUTPUT_TOKENS, WAS_ASKED, Timeline

VALUES_MAX = 1_000
"""A column of texts with more different values than this is free text: its values are not counted."""
EXAMPLES_MAX = 3
EXAMPLE_CHARACTERS = 400


class StatusSums(Record, frozen=True):
    """The rows of one status. Tokens are those of the shown answers, without duplicates of an earlier row."""

    rows: int
    prompt_tokens: int
    output_tokens: int
    cost: float
    """US dollars, failed attempts included."""


class ErrorExample(Record, frozen=True):
    """The error of one row."""

    row: int
    text: str


class ErrorKind(Record, frozen=True):
    """The rows without a usable answer for one kind of reason."""

    kind: str
    rows: int
    examples: list[ErrorExample]


class Figures:
    """Sums over the output's added columns. `add` takes slices in the table's order; the sums can be read any time."""

    def __init__(self, columns: Mapping[str, pl.DataType]) -> None:
        """`columns`: the columns whose values are counted, such as those of the answer, without the output's prefix."""
        self.rows = 0
        self.duplicates = 0
        """Number of rows that are equal to an earlier one and repeat its answer."""
        self.timeline = Timeline()
        self.latency, self.prompt_tokens, self.output_tokens = Distribution(), Distribution(), Distribution()
        self.numbers = {name: Distribution() for name, dtype in columns.items() if dtype.is_numeric()}
        self._texts: dict[str, pl.DataFrame | None] = {
            name: empty_counts(value=pl.String, rows=pl.Int64) for name in columns if name not in self.numbers
        }
        self._by_status = empty_counts(
            status=pl.String, rows=pl.Int64, prompt_tokens=pl.Int64, output_tokens=pl.Int64, cost=pl.Float64
        )
        self.unreported = dict.fromkeys(("prompt_tokens", "completion_tokens"), 0)
        """Number of answers for which the endpoint did not report this count."""
        self._errors = empty_counts(kind=pl.String, rows=pl.Int64)
        self._examples = empty_counts(kind=pl.String, row=pl.Int64, text=pl.String)

    def add(self, frame: pl.DataFrame) -> None:
        """Take the next rows: the output's added columns, without prefix."""
        asked = frame.filter(WAS_ASKED)
        answered = asked.filter(pl.col("answer").is_not_null())
        self.duplicates += frame.filter(~WAS_ASKED & pl.col("answer").is_not_null()).height
        self._add_by_status(frame)
        self.timeline.add(frame)
        self.latency.add(asked["latency_seconds"])
        self.prompt_tokens.add(asked["prompt_tokens"])
        self.output_tokens.add(asked.select(OUTPUT_TOKENS.alias("value"))["value"])
        for name in self.unreported:
            self.unreported[name] += answered[name].null_count()
        self._add_errors(frame)
        for name, numbers in self.numbers.items():
            numbers.add(frame[name])
        for name, counts in self._texts.items():
            values = as_text(frame.select(name))[name].cast(pl.String)
            self._texts[name] = count_values(counts, values, VALUES_MAX)
        self.rows += frame.height

    def _add_by_status(self, frame: pl.DataFrame) -> None:
        new = frame.group_by("status").agg(
            rows=pl.len().cast(pl.Int64),
            prompt_tokens=pl.col("prompt_tokens").filter(WAS_ASKED).sum(),
            output_tokens=OUTPUT_TOKENS.filter(WAS_ASKED).sum(),
            cost=pl.col("cost").sum(),
        )
        self._by_status = add_counts(self._by_status, new, ["status"])

    def _add_errors(self, frame: pl.DataFrame) -> None:
        parts = pl.col("error").str.splitn(": ", 2)
        errors = (
            frame.select("error")
            .with_row_index("row", self.rows + 1)
            .filter(pl.col("error").is_not_null())
            .select(
                kind=parts.struct[0],
                row=pl.col("row").cast(pl.Int64),
                text=parts.struct[1].fill_null("").str.slice(0, EXAMPLE_CHARACTERS),
            )
        )
        self._errors = add_counts(self._errors, errors.group_by("kind").agg(rows=pl.len().cast(pl.Int64)), ["kind"])
        different = pl.concat([self._examples, errors]).unique(["kind", "text"], keep="first", maintain_order=True)
        self._examples = different.group_by("kind", maintain_order=True).head(EXAMPLES_MAX)

    @property
    def by_status(self) -> dict[str, StatusSums]:
        """The sums for each status that occurs."""
        return {status: StatusSums(*sums) for status, *sums in self._by_status.iter_rows()}

    @property
    def errors(self) -> list[ErrorKind]:
        """The kinds of errors, the most frequent first."""
        found: dict[str, list[ErrorExample]] = {}
        for kind, row, text in self._examples.iter_rows():
            found.setdefault(kind, []).append(ErrorExample(row, text))
        kinds = self._errors.sort(["rows", "kind"], descending=[True, False])
        return [ErrorKind(kind, rows, found.get(kind, [])) for kind, rows in kinds.iter_rows()]

    @property
    def texts(self) -> dict[str, list[tuple[str, int]] | None]:
        """For each column of texts its values and their rows, the most frequent first; None for free text."""
        return {
            name: None if counts is None else most_frequent(counts.drop_nulls("value"))
            for name, counts in self._texts.items()
        }
