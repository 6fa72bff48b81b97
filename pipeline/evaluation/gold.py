"""The input's column of right answers (gold): it must exist, and hold nothing but possible answers."""

from pathlib import Path

import polars as pl

from ..records import BadJob
from ..results import OpenJob
from ..text import did_you_mean, near_name, one_line
from .answers import AnswerColumn
from .metrics import as_values, folded, is_right

VALUES_SHOWN_MAX = 10


def check_gold_column(gold: str, opened: OpenJob) -> None:
    """Raise BadJob if the input has no column `gold`, or if its cells cannot be compared with answers."""
    if gold not in opened.table.schema:
        raise BadJob(f"--gold {gold}: the input has no such column{did_you_mean(gold, opened.table.schema)}")
    if (dtype := opened.table.schema[gold]) in (pl.Struct, pl.Binary, pl.Object, pl.Array):
        raise BadJob(f"--gold {gold}: its cells are {dtype}. Gold is a text, a number or a list of labels.")


def with_gold(facts: pl.DataFrame, column: AnswerColumn) -> pl.DataFrame:
    """Add two columns to a slice of facts that has the input's `gold_cell`.

    `gold`: the cell as a value of the column's kind. `right`: whether the answer equals it; null where either is null.
    """
    facts = facts.with_columns(gold=as_values(facts["gold_cell"], column.kind, column.known))
    return facts.with_columns(right=is_right(facts["gold"], facts["answer"], column.kind))


def impossible_gold(facts: pl.DataFrame, column: AnswerColumn) -> pl.DataFrame:
    """Find gold that cannot be an answer: a frame of `value` and `row`."""
    if column.kind == "numbers":
        cells = facts.select("row", "gold", value=pl.col("gold_cell").cast(pl.String))
        return cells.filter(pl.col("gold").is_null() & (pl.col("value").str.strip_chars() != "")).select("value", "row")
    values = facts.select(value="gold", row="row")
    values = values.explode("value") if column.kind == "lists" else values
    known = pl.col("value").is_in(column.known) if column.known else pl.lit(value=True)
    return values.filter(pl.col("value").is_not_null() & ~known)


def refuse_impossible_gold(impossible: pl.DataFrame, column: AnswerColumn, gold: str, job: str | Path) -> None:
    """Raise BadJob if `impossible_gold` found any: a misspelled label would make every figure wrong."""
    if impossible.is_empty():
        return
    found = impossible.group_by("value").agg(rows=pl.len(), first=pl.col("row").head(4))
    found = found.sort("rows", pl.col("first").list.first(), descending=[True, False])
    possible = f"one of {', '.join(column.known[:20])}" if column.known else "a number"
    lines = [f"--gold {gold}: these values cannot be answers, because {column.name} is {one_line(possible)}:"]
    spelled = {folded(label): label for label in column.known}
    for value, rows, first in found.head(VALUES_SHOWN_MAX).iter_rows():
        near = near_name(folded(value), spelled)
        numbers = ", ".join(f"{row:,}" for row in first) + (", …" if rows > len(first) else "")
        hint = f"; did you mean {spelled[near]!r}?" if near is not None else ""
        lines.append(f"  {one_line(value)!r} in {rows:,} {'rows' if rows > 1 else 'row'} ({numbers}){hint}")
    if found.height > VALUES_SHOWN_MAX:
        lines.append(f"  and {found.height - VALUES_SHOWN_MAX:,} other values")
    lines += [
        "Nothing was scored, since every figure would be wrong. Correct that column of the input, or empty the cells",
        f"that hold no gold. Then type `pipeline resume {job}` (no answered row is asked again), and score again.",
    ]
    raise BadJob("\n".join(lines))
