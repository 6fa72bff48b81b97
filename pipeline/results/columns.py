"""The output table: the columns that a run adds to each row, made from the outcomes in the store."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from ..answers import ParsedAnswer, column_dtype, column_shapes, typed_cells
from ..job import ADDED_COLUMNS, Job
from ..planning import Chain, Chains, Step, samples_per_row
from ..records import (
    TOKEN_COUNTS,
    Answer,
    BadJob,
    Failure,
    MessageParts,
    Outcome,
    Record,
    Request,
    Tally,
    Usage,
    message_parts,
)
from ..store import Reader, read_reported
from ..tables import Table, read_slices
from ..version import __version__
from .certainty import compared_properties, confidence, majority_vote

MOMENT = pl.Datetime("us", "UTC")
EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)

DTYPES: dict[str, pl.DataType] = {
    "text": pl.String(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "datetime": MOMENT,
    "list": pl.List(pl.String()),
}
FIXED = {column.name: DTYPES[column.kind] for column in ADDED_COLUMNS if column.when == "always"}
AT_TIMES = {column.name: DTYPES[column.kind] for column in ADDED_COLUMNS if column.when != "always"}
ROWS_AT_ONCE = 10_000
"""The most requests whose outcomes are read at once; with several samples for each row, fewer rows. Large outcomes are
read in smaller numbers (`Chains.parts`)."""

T = TypeVar("T")


def output_schema(job: Job, table: Table) -> pl.Schema:
    """The output's columns: all of the input, then the added ones. Raises BadJob if two have the same name."""
    added = {job.output.prefix + name: dtype for name, dtype in _dtypes(job).items()}
    clash = [name for name in added if name in table.schema]
    if clash:
        raise BadJob(
            f"The input already has columns with the names of added ones: {', '.join(clash)}.\n"
            f'Add to the job file:\n\n[output]\nprefix = "{_free_prefix(job, table)}"\n\n'
            "(or --set output.prefix=…). Nothing was sent."
        )
    return pl.Schema({**table.schema, **added})


def with_all_columns(job: Job, table: Table) -> Job:
    """The job with every added column in its output, under a prefix (`output.prefix`) that the input does not use."""
    prefix = max(table.schema, key=len, default="") + "."
    return _with_columns(job, [*job.added_columns, *job.reported_columns], prefix=prefix)


def with_reported_columns(job: Job, table: Table, reader: Reader) -> Job:
    """The job with those columns in its output, too, that stand in it only where an answer fills them.

    They give way to columns of the input that have their names. A job that lists its columns has those.
    """
    filled = set(read_reported(reader))
    taken = {name for name in job.reported_columns if job.output.prefix + name in table.schema}
    reported = [name for name in job.reported_columns if name in filled - taken]
    if job.output.columns is not None or not reported:
        return job
    return _with_columns(job, [*job.added_columns, *reported])


def _with_columns(job: Job, columns: list[str], **more: str) -> Job:
    return job.model_copy(update={"output": job.output.model_copy(update={"columns": columns, **more})})


def output_metadata(job: Job) -> dict[str, str]:
    """The metadata of a Parquet output: version and settings. Polars writes none into the other formats."""
    settings = json.dumps(job.without_secrets(), ensure_ascii=False)
    return {"pipeline.version": __version__, "pipeline.settings": settings}


class OutputTable:
    """The rows of the output in input order, with the outcomes that the store has, and their tally."""

    def __init__(
        self, job: Job, table: Table, keys: Path, reader: Reader, on_paid: Callable[[str, Step], None] | None = None
    ) -> None:
        """`on_paid` is called with the model and the step of each request that was paid for these rows."""
        self._on_paid = on_paid
        self._job, self._table, self._keys, self._reader = job, table, keys, reader
        self._chains, self._samples = Chains(job, reader), samples_per_row(keys)
        self._dtypes, self._shapes = _dtypes(job), column_shapes(job)
        self._label_property = None if job.answer.labels is None else job.answer.label_property
        self._compared = compared_properties(self._shapes, self._label_property)
        self.tally = Tally()
        """The rows given so far. A row equal to an earlier one counts as a row; its tokens and cost count once."""

    def frames(self, on_rows: Callable[[int], None] = lambda _rows: None) -> Iterator[pl.DataFrame]:
        """Slices of the output. Raises Stopped if the input changed.

        `on_rows` is called after each slice with its number of rows.
        """
        size, named = max(1, ROWS_AT_ONCE // self._samples), self._job.columns.model
        rows = self._table.slices(None, size)
        for frame, keys in zip(rows, read_slices(self._keys, size=size * self._samples), strict=True):
            at = 0
            for chains, are_first in self._parts(keys):
                part = frame.slice(at, len(chains) // self._samples)
                at += part.height
                yield part.hstack(self._added(chains, are_first, part[named].to_list() if named is not None else ()))
                del chains  # so that they are not in memory beside the next part
                on_rows(part.height)

    def added_columns(self) -> pl.DataFrame:
        """The added columns alone, of all rows at once: for a pilot, which is small."""
        size = max(1, ROWS_AT_ONCE // self._samples) * self._samples
        parts = (part for keys in read_slices(self._keys, size=size) for part in self._parts(keys))
        return pl.concat(self._added(chains, are_first) for chains, are_first in parts)

    @property
    def row_bytes(self) -> int:
        """About how many bytes the outcomes of a row have."""
        return self._reader.mean_bytes() * self._samples

    def _added(self, chains: list[Chain], are_first: list[bool], models: Sequence[str | None] = ()) -> pl.DataFrame:
        """The added columns of the rows of these chains, each of which is or is not the first of its equals.

        `models` are the models that the rows name themselves, if a column does.
        """
        rows, firsts = self._by_row(chains), self._by_row(are_first)
        votes = [majority_vote(samples, self._compared) for samples in rows]
        cells = self._cells([vote.step for vote in votes]) | {"agreement": [vote.agreement for vote in votes]}
        if "opinions" in self._dtypes:
            cells["opinions"] = [[_sample_text(chain, self._label_property) for chain in samples] for samples in rows]
        paid = [_paid_for(samples, first) for samples, first in zip(rows, firsts, strict=True)]
        cells["cost"] = [None if outcomes is None else _cost(outcomes) for outcomes in paid]
        cells["attempts"] = [
            None if outcomes is None else sum([each.attempts for each in outcomes]) for outcomes in paid
        ]
        used = [vote.step for vote, first in zip(votes, firsts, strict=True) if any(first)]
        self.tally += _tally(cells, paid, used)
        if self._on_paid is not None:
            self._report_paid(self._on_paid, rows, firsts, models)
        prefix = self._job.output.prefix
        return pl.DataFrame([_series(prefix + name, cells[name], dtype) for name, dtype in self._dtypes.items()])

    def _by_row(self, requests: list[T]) -> list[list[T]]:
        """Values of requests, grouped by row."""
        return [requests[at : at + self._samples] for at in range(0, len(requests), self._samples)]

    def _parts(self, keys: pl.DataFrame) -> Iterator[tuple[list[Chain], list[bool]]]:
        """The chain of each request of a slice, and whether it is the first of its equals, in parts of whole rows."""
        hexes, errors, firsts = (
            keys["key"].bin.encode("hex").to_list(),
            keys["error"].to_list(),
            keys["first"].to_list(),
        )
        places = [place for place, key in enumerate(hexes) if key is not None]
        found = self._chains.parts([Request(hexes[place], b"") for place in places], self._samples)
        at = followed = 0
        while at < len(hexes):
            chains = next(found, [])
            followed += len(chains)
            end = places[followed] if followed < len(places) else len(hexes)
            following = iter(chains)
            yield (
                [
                    next(following) if key is not None else _failed_chain(error)
                    for key, error in zip(hexes[at:end], errors[at:end], strict=True)
                ],
                firsts[at:end],
            )
            at = end
            del chains, following  # so that they are not in memory beside the next part

    def _cells(self, steps: list[Step | None]) -> dict[str, list[Any]]:
        """The columns that depend on the shown step of each row alone; a value that is not known is null."""
        outcomes = [None if step is None else step.outcome for step in steps]
        answers = [outcome if isinstance(outcome, Answer) else None for outcome in outcomes]
        usages = _field(answers, "usage")
        cells = {name: _field(usages, name) for name in TOKEN_COUNTS}
        cells |= {"tier": _texts(usages, "tier"), "served_by": _texts(answers, "served_by")}
        if not self._dtypes.keys().isdisjoint(MessageParts.__struct_fields__):
            parts = [None if answer is None else message_parts(answer) for answer in answers]
            cells |= {name: _field(parts, name) for name in MessageParts.__struct_fields__}
        cells |= {name: _field(answers, name) for name in ("finish_reason", "model")}
        cells |= {name: _field(outcomes, name) for name in ("latency_seconds", "asked_at")}
        cells["answer"] = _field(answers, "text")
        cells["status"] = ["pending" if step is None else step.status for step in steps]
        cells["error"] = [None if step is None else _error(step) for step in steps]
        cells["settings"] = _texts(outcomes, "settings")
        cells["repaired"] = [None if step is None else _repaired(step) for step in steps]
        if "confidence" in self._dtypes:
            cells["confidence"] = [None if step is None else self._confidence(step) for step in steps]
        if self._shapes:
            typed = [{} if step is None else self._typed(step.parsed) for step in steps]
            cells |= {name: [row.get(name) for row in typed] for name in self._shapes}
        return cells

    def _confidence(self, step: Step) -> float | None:
        return confidence(step.outcome, self._label(step.parsed)) if isinstance(step.outcome, Answer) else None

    def _label(self, parsed: ParsedAnswer | None) -> str | None:
        if parsed is None or self._label_property is None:
            return None
        label = parsed.values.get(self._label_property)
        return label if isinstance(label, str) else None

    def _typed(self, parsed: ParsedAnswer | None) -> dict[str, Any]:
        return {} if parsed is None or parsed.error is not None else typed_cells(parsed, self._job.answer, self._shapes)

    def _report_paid(
        self,
        on_paid: Callable[[str, Step], None],
        rows: list[list[Chain]],
        firsts: list[list[bool]],
        models: Sequence[str | None],
    ) -> None:
        for at, (samples, first) in enumerate(zip(rows, firsts, strict=True)):
            sent_to = [models[at] or self._job.models[0]] if models else self._job.models
            for number, chain in enumerate(samples):
                for step in chain.steps if first[number] else ():
                    on_paid(sent_to[number % len(sent_to)], step)


def _field(records: Sequence[Record | None], name: str) -> list[Any]:
    """One field of each record, as a column."""
    return [None if record is None else getattr(record, name) for record in records]


def _texts(records: Sequence[Record | None], name: str) -> list[str | None]:
    """One field of each record, as a column of texts; an empty one is null."""
    return [text or None for text in _field(records, name)]


def _series(name: str, cells: list[Any], dtype: pl.DataType) -> pl.Series:
    """A column of cells. Moments are converted as whole numbers, which takes polars a sixth of the time."""
    if dtype == MOMENT:
        numbers = [None if moment is None else (moment - EPOCH) // MICROSECOND for moment in cells]
        return pl.Series(name, numbers, dtype=pl.Int64).cast(MOMENT)
    return pl.Series(name, cells, dtype=dtype, strict=False)


def _error(step: Step) -> str | None:
    """Why there is no answer, or what is wrong with an invalid one."""
    if isinstance(step.outcome, Failure):
        return f"{step.outcome.kind}: {step.outcome.reason}"
    return f"invalid: {step.parsed.error}" if step.status == "invalid" and step.parsed is not None else None


def _paid_for(samples: list[Chain], firsts: list[bool]) -> list[Outcome] | None:
    """The outcomes that were paid for a row: none if it equals an earlier row. None if it has no outcome yet."""
    paid = [step.outcome for chain, first in zip(samples, firsts, strict=True) if first for step in chain.steps]
    return paid if paid or any(chain.steps for chain in samples) else None


def _cost(outcomes: list[Outcome]) -> float | None:
    """The sum of all costs in US dollars; None if one is unknown."""
    costs = [outcome.cost for outcome in outcomes if outcome.cost is not None]
    return math.fsum(costs) if len(costs) == len(outcomes) else None


def _tally(cells: dict[str, list[Any]], paid: list[list[Outcome] | None], used: list[Step | None]) -> Tally:
    """The tally of the rows of a slice: `paid` outcomes of each row, and the shown steps `used` whose tokens count."""
    usages = [step.outcome.usage for step in used if step is not None and isinstance(step.outcome, Answer)]
    columns = [[count for count in _field(usages, name) if count is not None] for name in TOKEN_COUNTS]
    return Tally(
        **Counter(cells["status"]),
        usage=Usage.of([sum(counts) if counts else None for counts in columns]),
        cost=math.fsum(cost or 0.0 for cost in cells["cost"]),
        unpriced=sum(cost is None and bool(outcomes) for cost, outcomes in zip(cells["cost"], paid, strict=True)),
        attempts=sum(attempts or 0 for attempts in cells["attempts"]),
    )


def _failed_chain(reason: str) -> Chain:
    """The chain of a row that no request can be made of: one failure that cost nothing."""
    chain = Chain(Request(key="", body=b""))
    chain.steps.append(Step(chain.next_request, Failure(kind="prompt", reason=reason, cost=0.0), "failed", None))
    chain.unanswered = None
    return chain


def _sample_text(chain: Chain, label_property: str | None) -> str | None:
    """A sample as text: its label, its JSON, or the whole answer if it is not valid; None without an answer."""
    step = chain.result
    if step is None or isinstance(step.outcome, Failure):
        return None
    if step.parsed is None or step.parsed.error is not None:
        return step.outcome.text
    value = step.parsed.values if label_property is None else step.parsed.values[label_property]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _repaired(step: Step) -> str | None:
    """How an answer was made valid; None if it was valid as it came, or is not."""
    if step.status != "ok" or step.parsed is None:
        return None
    if step.request.repair:
        return "asked again"
    taken_from = step.outcome.taken_from if isinstance(step.outcome, Answer) else ""
    return step.parsed.repair_kind or taken_from or None


def _dtypes(job: Job) -> dict[str, pl.DataType]:
    """The type of each added column that the job asks for, in order, by its name without prefix."""
    typed = {name: column_dtype(shape) for name, shape in column_shapes(job).items()}
    wanted = job.output.columns if job.output.columns is not None else job.added_columns
    return {name: typed[name] if name in typed else (FIXED | AT_TIMES)[name] for name in wanted}


def _free_prefix(job: Job, table: Table) -> str:
    prefix = "model_"
    while any(prefix + name in table.schema for name in job.added_columns):
        prefix = "_" + prefix
    return prefix
