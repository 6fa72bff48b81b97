"""A job looked at from any terminal: it is read, never asked, and may run meanwhile."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from ..planning import keys_path
from ..progress import Progress
from ..prompts import Prompts
from ..records import Status, Tally
from ..tables import PLAIN, SpreadsheetOptions, check_output, check_row_count, write_table
from ..text import money, printable
from .columns import OutputTable, output_metadata, output_schema, with_all_columns
from .open_job import open_job


def show_rows(name: str | Path, *, status: Status | None, row: int | None, most: int) -> Iterator[str]:
    """Prompts, answers and errors of a job's rows as text: those of one status, one row (from 1), or the first."""
    job, table, reader, *_ = open_job(name)
    prompts = Prompts(job, list(table.schema))
    # what is shown may not be among the columns that the output wants, or go by the name of one of the input
    whole = with_all_columns(job, table)
    prefix = whole.output.prefix
    shown = 0
    with contextlib.closing(reader):
        for number, cells in numbered_rows(OutputTable(whole, table, keys_path(job.folder), reader).frames()):
            if row in (None, number) and status in (None, cells[prefix + "status"]):
                added = {key.removeprefix(prefix): cells[key] for key in cells}
                typed = {name: added[name] for name in job.typed_columns if added[name] is not None}
                yield _told(number, prompts.shown(cells), typed, added)
                shown += 1
            if number == row or shown == most:
                break
    if not shown:
        yield _nothing(table.rows, status, row)


def export_table(name: str | Path, output: Path | None, dress: SpreadsheetOptions = PLAIN) -> tuple[Path, Tally]:
    """Write the table as far as it is known, in order and atomically; returns where, and its rows by status."""
    job, table, reader, inputs, _ = open_job(name)
    path = output or job.output_path
    check_output(path, inputs, dress)
    check_row_count(path, table.rows)
    cells = OutputTable(job, table, keys_path(job.folder), reader)
    with contextlib.closing(reader), Progress().counting("writing", table.rows) as seen:
        write_table(cells.frames(seen), output_schema(job, table), path, output_metadata(job), dress=dress)
    return path, cells.tally


def _nothing(rows: int, status: Status | None, row: int | None) -> str:
    if not rows:
        return "The input has no rows."
    if row is None:
        return f"None of {rows:,} rows is {status}."
    return f"No such row: there are {rows:,}." if row > rows else f"Row {row:,} is not {status}."


def numbered_rows(frames: Iterable[pl.DataFrame]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each row with its number, from 1."""
    return enumerate((row for frame in frames for row in frame.iter_rows(named=True)), 1)


def _told(number: int, prompt: str, typed: dict[str, Any], cells: dict[str, Any]) -> str:
    facts = [f"row {number:,}", cells["status"]]
    if cells["total_tokens"] is not None:
        facts.append(f"{cells['total_tokens']:,} tokens")
    if cells["cost"]:
        facts.append(money(cells["cost"]))
    if cells["latency_seconds"] is not None:
        facts.append(f"{cells['latency_seconds']:.1f} s")
    lines = [" · ".join(facts), _indented(prompt)]
    if typed:
        lines.append(_indented(", ".join(f"{name}: {value}" for name, value in typed.items()), "  → "))
    elif cells["answer"] is not None:
        lines.append(_indented(cells["answer"], "  → "))
    if cells["error"] is not None:
        lines.append(_indented(cells["error"], "  ! "))
    return printable("\n".join(lines)) + "\n"


def _indented(text: str, first: str = "    ") -> str:
    return "\n".join((first if at == 0 else "    ") + line for at, line in enumerate(text.splitlines() or [""]))
