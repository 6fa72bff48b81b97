"""The answers of a job, prepared for evaluation: which column is evaluated, and its rows with status, tokens and cost.

Both scoring and comparing read a job through this file. Nothing is asked.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import polars as pl

from ..planning import keys_path
from ..records import USABLE, BadJob
from ..results import OpenJob, OutputTable, open_job, output_schema, with_all_columns
from ..text import did_you_mean
from .metrics import as_values
from .records import Bill, Kind

CERTAINTY_COLUMNS = ("confidence", "agreement")
"""Added columns that hold how certain an answer is, from 0 to 1; the first one that a job has is used."""


class AnswerColumn(NamedTuple):
    """The column of answers that is evaluated."""

    name: str
    """Without the output's prefix."""
    kind: Kind
    known: tuple[str, ...]
    """All values that an answer may have; empty if the job does not restrict them."""


@contextlib.contextmanager
def opened_job(name: str | Path) -> Iterator[OpenJob]:
    """Open a job and close its reader at the end of the block. Raises BadJob as `open_job` does."""
    opened = open_job(name)
    with contextlib.closing(opened.reader):
        yield opened


def answer_column(opened: OpenJob, wanted: str | None) -> AnswerColumn:
    """Find the column to evaluate: `wanted`, with or without prefix, else the label, the only typed column or the text.

    Raises BadJob if there is no such column, if several could be meant, or if it holds objects.
    """
    job, typed = opened.job, opened.job.typed_columns
    names = [*typed, "answer"]
    if wanted is None and len(typed) > 1:
        raise BadJob(f"The answers have the columns {', '.join(typed)}. Choose one of them: --answer {names[0]}")
    name = names[0] if wanted is None else wanted if wanted in names else wanted.removeprefix(job.output.prefix)
    if name not in names:
        raise BadJob(f"--answer {wanted}: the answers have no such column{did_you_mean(name, names)}")
    whole = with_all_columns(job, opened.table)
    dtype = output_schema(whole, opened.table)[whole.output.prefix + name]
    schema = typed.get(name, {})
    inner = dtype.inner if isinstance(dtype, pl.List) else dtype
    if isinstance(inner, pl.Struct) or inner == pl.List:
        raise BadJob(f"--answer {name}: it holds objects. Only texts, numbers and lists of labels can be evaluated.")
    is_list = dtype == pl.List or schema.get("type") == "array"
    if job.answer.labels is not None and name == job.answer.name:
        known = list(job.answer.labels)
    elif isinstance(inner, pl.Enum):
        known = inner.categories.to_list()
    else:
        known = ["true", "false"] if dtype == pl.Boolean else _texts_of_enum(schema.get("items"))
    return AnswerColumn(name, "lists" if is_list else "numbers" if dtype.is_numeric() else "labels", tuple(known))


def _texts_of_enum(schema: object) -> list[str]:
    values = schema.get("enum") if isinstance(schema, dict) else None
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []


def row_slices(
    opened: OpenJob, column: AnswerColumn, extra: Mapping[str, str | None]
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Read a job's rows in slices, in the input's order; each slice is the pair (output, facts).

    `output` has all columns of the input and all added ones, those under a prefix that no column of the input has.
    `facts` has a fixed set of columns: `row` (from 1), `status`, `answer` (as values of the column's kind; null if
    there is no usable one), `text` (the answer's text), `certainty` (0 to 1, or null), `tokens` and `cost` (0 in a
    duplicate of an earlier row), and for each item (name, column) of `extra` a copy of that column, null for None.

    Raises BadJob if a column in `extra` does not exist.
    """
    job, table = with_all_columns(opened.job, opened.table), opened.table
    prefix = job.output.prefix
    certainty = certainty_column(opened)
    tokens = pl.coalesce(
        prefix + "total_tokens", pl.col(prefix + "prompt_tokens") + pl.col(prefix + "completion_tokens")
    )
    taken = {
        "status": pl.col(prefix + "status"),
        "text": pl.col(prefix + "answer"),
        "certainty": pl.col(prefix + certainty).cast(pl.Float64) if certainty else pl.lit(None, dtype=pl.Float64),
        "tokens": pl.when(pl.col(prefix + "attempts") == 0).then(0).otherwise(tokens),
        "cost": pl.col(prefix + "cost"),
        **{name: _copied(opened, copied, prefix) for name, copied in extra.items()},
    }
    row = 1
    for frame in OutputTable(job, table, keys_path(job.folder), opened.reader).frames():
        facts = frame.select(row=pl.int_range(row, row + frame.height, dtype=pl.UInt32), **taken)
        answer = as_values(frame[prefix + column.name], column.kind)
        yield frame, facts.with_columns(answer=pl.when(pl.col("status").is_in(USABLE)).then(answer))
        row += frame.height


def certainty_column(opened: OpenJob) -> str | None:
    """Name the added column that holds how certain an answer is; None if the job has none."""
    job = with_all_columns(opened.job, opened.table)
    schema = output_schema(job, opened.table)
    return next(
        (name for name in CERTAINTY_COLUMNS if schema.get(job.output.prefix + name, pl.Null()).is_numeric()), None
    )


def _copied(opened: OpenJob, name: str | None, prefix: str) -> pl.Expr:
    """A column of the input, or an added one without its prefix."""
    if name is None:
        return pl.lit(None, dtype=pl.String)
    if name in opened.table.schema:
        return pl.col(name)
    added = (*opened.job.added_columns, *opened.job.reported_columns)
    if name not in added:
        raise BadJob(f"--by {name}: there is no such column{did_you_mean(name, [*opened.table.schema, *added])}")
    return pl.col(prefix + name)


def bill_of(facts: pl.DataFrame) -> Bill:
    """Add up what was spent on the rows that were asked. The tokens of failed attempts are not known."""
    asked = facts.filter(pl.col("status") != "pending")
    tokens, cost = asked["tokens"], asked["cost"]
    return Bill(
        tokens=int(tokens.sum()) if tokens.count() else None,
        cost=float(cost.sum()) if cost.count() == len(cost) else None,
    )
