"""A row's outcome becomes its cells: the columns that a run adds to the table."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from . import __version__
from .desk import judged, read_outcome
from .job import Job
from .records import BadJob, Failure, Outcome, Status, Tally, Usage
from .schema import Held, contract_of
from .store import Reader
from .tables import Table, read_slices

FIXED: dict[str, pl.DataType] = {
    "answer": pl.String(),
    "status": pl.String(),
    "error": pl.String(),
    "finish_reason": pl.String(),
    "model": pl.String(),
    "prompt_tokens": pl.Int64(),
    "completion_tokens": pl.Int64(),
    "reasoning_tokens": pl.Int64(),
    "cached_tokens": pl.Int64(),
    "total_tokens": pl.Int64(),
    "cost": pl.Float64(),
    "latency_seconds": pl.Float64(),
    "attempts": pl.Int64(),
    "asked_at": pl.Datetime("us", "UTC"),
}
TYPES: dict[str, pl.DataType] = {
    "string": pl.String(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "boolean": pl.Boolean(),
}
ROWS_AT_ONCE = 10_000


def output_schema(job: Job, table: Table) -> pl.Schema:
    """The output's columns: all of the input, then those added. Raises BadJob if a name would stand twice."""
    added = {job.output.prefix + name: dtype for name, dtype in _dtypes(job).items()}
    clash = [name for name in added if name in table.schema]
    if clash:
        raise BadJob(
            f"The input has columns of the names that are to be added: {', '.join(clash)}.\n"
            f'Add to the job file:\n\n[output]\nprefix = "{_free_prefix(job, table)}"\n\n'
            "(or --set output.prefix=…). Nothing was sent."
        )
    return pl.Schema({**table.schema, **added})


def metadata_of(job: Job) -> dict[str, str]:
    """What a Parquet output says of how it was made; polars writes none into the other formats."""
    settings = json.dumps(job.without_secrets(), ensure_ascii=False)
    return {"pipeline.version": __version__, "pipeline.settings": settings}


class Cells:
    """The output's rows, in the input's order, as far as their outcomes are known; and the tally of them."""

    def __init__(self, job: Job, table: Table, keys: Path, reader: Reader) -> None:
        self._job, self._table, self._keys, self._reader = job, table, keys, reader
        self._contract = contract_of(job)
        self._dtypes = _dtypes(job)
        self.tally = Tally()
        """Of the rows given out so far. Those equal to an earlier one count as rows, not in tokens and cost."""

    def frames(self, seen: Callable[[int], None] = lambda _rows: None) -> Iterator[pl.DataFrame]:
        """Slices of the output; `seen` is told how many further rows were made. Raises Stopped if the input changed."""
        rows = self._table.slices(None, ROWS_AT_ONCE)
        for frame, keys in zip(rows, read_slices(self._keys, size=ROWS_AT_ONCE), strict=True):
            yield frame.hstack(self._added(keys))
            seen(frame.height)

    def added(self) -> pl.DataFrame:
        """The added columns alone, of all rows at once: of a pilot, which is small."""
        return pl.concat(self._added(keys) for keys in read_slices(self._keys, size=ROWS_AT_ONCE))

    def _added(self, keys: pl.DataFrame) -> pl.DataFrame:
        hexes = keys["key"].bin.encode("hex").to_list()
        stored = iter(self._reader.get_many([key for key in hexes if key is not None]))
        cells: dict[str, list[Any]] = {name: [] for name in self._dtypes}
        for key, error, first in zip(hexes, keys["error"], keys["first"], strict=True):
            found = Failure(kind="prompt", reason=error, cost=0.0) if key is None else _decode(next(stored))
            row = self._row(found, first=first)
            for name, column in cells.items():
                column.append(row.get(name))
        prefix = self._job.output.prefix
        return pl.DataFrame(
            [pl.Series(prefix + name, cells[name], dtype=dtype, strict=False) for name, dtype in self._dtypes.items()]
        )

    def _row(self, outcome: Outcome | None, *, first: bool) -> dict[str, Any]:
        """The cells of one row by column name; what is not there is null."""
        if outcome is None:
            self.tally += Tally(pending=1)
            return {"status": "pending"}
        status, held = judged(outcome, self._contract)
        row: dict[str, Any] = {
            "status": status,
            "cost": outcome.cost if first else 0.0,
            "latency_seconds": outcome.latency_seconds,
            "attempts": outcome.attempts if first else 0,
            "asked_at": outcome.asked_at,
        }
        usage = Usage()
        if isinstance(outcome, Failure):
            row["error"] = f"{outcome.kind}: {outcome.reason}"
        else:
            usage = outcome.usage
            row |= {"answer": outcome.text, "finish_reason": outcome.finish_reason, "model": outcome.model}
            row |= {name: getattr(usage, name) for name in usage.__struct_fields__}
            row |= self._typed(held, status)
        counted = Tally().plus(status)
        if first:
            counted += Tally(
                usage=usage, cost=row["cost"] or 0.0, unpriced=int(row["cost"] is None), attempts=row["attempts"]
            )
        self.tally += counted
        return row

    def _typed(self, held: Held | None, status: Status) -> dict[str, Any]:
        if held is None:
            return {}
        if held.error is not None:
            return {"error": f"invalid: {held.error}"} if status == "invalid" else {}
        if self._job.answer.labels is not None:
            return {self._job.answer.name: held.values["label"]}
        return {name: _cell(held.values.get(name), self._dtypes.get(name)) for name in self._job.typed_columns}


def _decode(stored: bytes | None) -> Outcome | None:
    return None if stored is None else read_outcome(stored)


def _cell(value: object, dtype: pl.DataType | None) -> object:
    """A value as its column holds it: what has no plain type is JSON text."""
    if value is None or dtype != pl.String or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _dtypes(job: Job) -> dict[str, pl.DataType]:
    """The type of each added column that the job asks for, without prefix, in order."""
    typed = {name: _dtype(schema) for name, schema in job.typed_columns.items()}
    wanted = job.output.columns if job.output.columns is not None else job.added_columns
    return {name: typed[name] if name in typed else FIXED[name] for name in wanted}


def _dtype(schema: object) -> pl.DataType:
    """The type of a property's column; every column may hold null, so a schema that admits it changes nothing."""
    if not isinstance(schema, dict):
        return pl.String()
    values = schema.get("enum")
    words = [value for value in values if value is not None] if isinstance(values, list) else []
    if words and all(isinstance(word, str) for word in words):
        return pl.Enum(list(dict.fromkeys(words)))
    kinds = schema.get("type")
    named = [kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if kind != "null"]
    return TYPES.get(named[0], pl.String()) if len(named) == 1 and isinstance(named[0], str) else pl.String()


def _free_prefix(job: Job, table: Table) -> str:
    prefix = "model_"
    while any(prefix + name in table.schema for name in job.added_columns):
        prefix = "_" + prefix
    return prefix
