"""A job looked at from any terminal: it is read, never asked, and may run meanwhile."""

import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from . import history
from .columns import Cells, output_schema
from .job import Job
from .plan import chosen_rows, keys_path
from .progress import money, printable
from .prompts import Prompts, Unaskable
from .records import BadJob, Failure, Status, Tally
from .store import Reader
from .tables import Table, check_output, open_table, write_table


def preview(job: Job, rows: int) -> Iterator[str]:
    """The bodies of the first requests, as they would be sent, or why a row cannot be asked."""
    with tempfile.TemporaryDirectory() as folder:
        table = open_table(job.inputs, Path(folder)).head(rows)
        output_schema(job, table)
        prompts = Prompts(job, list(table.schema))
        for number, row in _rows(table.slices(prompts.columns)):
            request = prompts.request(row)
            yield f"row {number} → {job.endpoint.host}"
            if isinstance(request, Failure):
                yield f"cannot be asked: {printable(request.reason)}"
            else:
                yield printable(json.dumps(msgspec.json.decode(request.body), ensure_ascii=False, indent=2))
        if not table.rows:
            yield "The input has no rows."


def show(name: str | Path, *, status: Status | None, row: int | None, most: int) -> Iterator[str]:
    """Prompts, answers and errors of a job's rows as text: those of one status, one row (from 1), or the first."""
    job, table, reader = _opened(history.folder_of(name))
    prompts = Prompts(job, list(table.schema))
    prefix = job.output.prefix
    # the columns that are shown may not be among those that the output wants
    whole = job.model_copy(update={"output": job.output.model_copy(update={"columns": None})})
    shown = 0
    for number, cells in _rows(Cells(whole, table, keys_path(job.folder), reader).frames()):
        if row in (None, number) and status in (None, cells[prefix + "status"]):
            yield _told(number, _prompt(prompts, cells), {key.removeprefix(prefix): cells[key] for key in cells})
            shown += 1
            if shown == most:
                return
    if not shown:
        yield f"No such row: there are {table.rows:,}." if row else f"None of {table.rows:,} rows is {status}."


def export(name: str | Path, output: Path | None) -> tuple[Path, Tally]:
    """Write the table as far as it is known, in order and atomically; returns where, and its rows by status."""
    job, table, reader = _opened(history.folder_of(name))
    path = output or job.output_path
    check_output(path, [str(table.path)])
    cells = Cells(job, table, keys_path(job.folder), reader)
    write_table(cells.frames(), output_schema(job, table), path, {})
    return path, cells.tally


def _opened(folder: Path) -> tuple[Job, Table, Reader]:
    began = history.last(folder)
    if began is None:
        raise BadJob(f"{folder}: nothing was ever run here.")
    job = history.job_of(folder, began)
    table = open_table(job.inputs, folder)
    if folder not in table.path.parents and table.content_hash != began.input_hash:
        raise BadJob(f"{table.path} has changed since it was last run: run it again, then look.")
    return job, chosen_rows(job, table), Reader(folder / "store")


def _rows(frames: Iterable[pl.DataFrame]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each row with its number, from 1."""
    return enumerate((row for frame in frames for row in frame.iter_rows(named=True)), 1)


def _prompt(prompts: Prompts, cells: dict[str, Any]) -> str:
    try:
        messages = prompts.messages(cells)
    except Unaskable as error:
        return f"({error})"
    content = messages[-1].get("content")
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _told(number: int, prompt: str, cells: dict[str, Any]) -> str:
    facts = [f"row {number:,}", cells["status"]]
    if cells["total_tokens"] is not None:
        facts.append(f"{cells['total_tokens']:,} tokens")
    if cells["cost"]:
        facts.append(money(cells["cost"]))
    if cells["latency_seconds"] is not None:
        facts.append(f"{cells['latency_seconds']:.1f} s")
    lines = [" · ".join(facts), _indented(prompt)]
    if cells["answer"] is not None:
        lines.append(_indented(cells["answer"], "  → "))
    if cells["error"] is not None:
        lines.append(_indented(cells["error"], "  ! "))
    return printable("\n".join(lines)) + "\n"


def _indented(text: str, first: str = "    ") -> str:
    return "\n".join((first if at == 0 else "    ") + line for at, line in enumerate(text.splitlines() or [""]))
