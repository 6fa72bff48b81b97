"""A job's rows as text: prompt, answer and error of each. Only reads, so it works also while the job runs."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from ..planning import keys_path
from ..prompts import Prompts
from ..records import Status
from ..text import money, printable
from .columns import OutputTable, with_all_columns
from .open_job import open_job


def show_rows(
    name: str | Path, *, status: Status | None, row: int | None, most: int, reasoning: bool = False
) -> Iterator[str]:
    """The text of each selected row, up to `most`: those of one status, one row by its number (from 1), or the first.

    `reasoning`: with the model's visible thoughts, where it sent any.

    `name` is the path of the job's output or folder. If no row is selected, the only text says so. Raises BadJob as
    `open_job` does.
    """
    job, table, reader, *_ = open_job(name)
    prompts = Prompts(job, list(table.schema))
    # a row is shown with all its columns, also those that the output leaves out or that the input has by the same name
    whole = with_all_columns(job, table)
    prefix = whole.output.prefix
    shown = 0
    with contextlib.closing(reader):
        for number, cells in numbered_rows(OutputTable(whole, table, keys_path(job.folder), reader).frames()):
            if row in (None, number) and status in (None, cells[prefix + "status"]):
                added = {key.removeprefix(prefix): cells[key] for key in cells}
                typed = {name: added[name] for name in job.typed_columns if added[name] is not None}
                thoughts = added["reasoning"] if reasoning and "reasoning" not in job.typed_columns else None
                yield _row_text(number, prompts.shown(cells), typed, added, thoughts)
                shown += 1
            if number == row or shown == most:
                break
    if not shown:
        yield _nothing_text(table.rows, status, row)


def numbered_rows(frames: Iterable[pl.DataFrame]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each row of these frames as a dict, with its number from 1."""
    return enumerate((row for frame in frames for row in frame.iter_rows(named=True)), 1)


def _nothing_text(rows: int, status: Status | None, row: int | None) -> str:
    if not rows:
        return "The input has no rows."
    if row is None:
        return f"None of {rows:,} rows is {status}."
    return f"There is no row {row:,}: the table has {rows:,}." if row > rows else f"Row {row:,} is not {status}."


def _row_text(number: int, prompt: str, typed: dict[str, Any], cells: dict[str, Any], reasoning: str | None) -> str:
    """A row as text: a line of facts, its prompt, its reasoning, its typed values or raw answer, and its error."""
    facts = [f"row {number:,}", cells["status"]]
    if cells["total_tokens"] is not None:
        facts.append(f"{cells['total_tokens']:,} tokens")
    if cells["cost"]:
        facts.append(money(cells["cost"]))
    if cells["latency_seconds"] is not None:
        facts.append(f"{cells['latency_seconds']:.1f} s")
    lines = [" · ".join(facts), _indented(prompt)]
    if reasoning is not None:
        lines.append(_indented(reasoning, "  ~ "))
    if typed:
        lines.append(_indented(", ".join(f"{name}: {value}" for name, value in typed.items()), "  → "))
    elif cells["answer"] is not None:
        lines.append(_indented(cells["answer"], "  → "))
    if cells["error"] is not None:
        lines.append(_indented(cells["error"], "  ! "))
    return printable("\n".join(lines)) + "\n"


def _indented(text: str, first: str = "    ") -> str:
    return "\n".join((first if at == 0 else "    ") + line for at, line in enumerate(text.splitlines() or [""]))
