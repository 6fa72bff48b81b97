"""A row's outcome becomes its cells: the columns that a run adds to the table."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import polars as pl

from ..answers import ParsedAnswer, Shape, column_dtype, column_shapes, typed_cells
from ..job import ADDED_COLUMNS, Job
from ..planning import STATUS_RANK, Chain, Chains, Step, samples_per_row
from ..records import Answer, BadJob, Failure, Outcome, Record, Request, Tally, Usage
from ..store import Reader
from ..tables import Table, read_slices
from ..version import __version__

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

T = TypeVar("T")


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


def with_all_columns(job: Job, table: Table) -> Job:
    """The job whose cells are all there, by names (`output.prefix`) that no column of the input has."""
    prefix = max(table.schema, key=len, default="") + "."
    return job.model_copy(update={"output": job.output.model_copy(update={"columns": None, "prefix": prefix})})


def output_metadata(job: Job) -> dict[str, str]:
    """What a Parquet output says of how it was made; polars writes none into the other formats."""
    settings = json.dumps(job.without_secrets(), ensure_ascii=False)
    return {"pipeline.version": __version__, "pipeline.settings": settings}


class OutputTable:
    """The output's rows, in the input's order, as far as their outcomes are known; and the tally of them."""

    def __init__(
        self, job: Job, table: Table, keys: Path, reader: Reader, paid: Callable[[str, Step], None] | None = None
    ) -> None:
        """`paid` is told of each request that was paid for these rows, with the model that it was asked of."""
        self._paid = paid
        self._job, self._table, self._keys = job, table, keys
        self._chains, self._opinions = Chains(job, reader), samples_per_row(keys)
        self._dtypes, self._shapes = _dtypes(job), column_shapes(job)
        self._comparable = comparable(job, self._shapes)
        self.tally = Tally()
        """Of the rows given out so far. Those equal to an earlier one count as rows, not in tokens and cost."""

    def frames(self, seen: Callable[[int], None] = lambda _rows: None) -> Iterator[pl.DataFrame]:
        """Slices of the output; `seen` is told how many further rows were made. Raises Stopped if the input changed."""
        size = max(1, ROWS_AT_ONCE // self._opinions)
        rows = self._table.slices(None, size)
        for frame, keys in zip(rows, read_slices(self._keys, size=size * self._opinions), strict=True):
            named = self._job.columns.model
            yield frame.hstack(self._added(keys, frame[named].to_list() if named is not None else ()))
            seen(frame.height)

    def added_columns(self) -> pl.DataFrame:
        """The added columns alone, of all rows at once: of a pilot, which is small."""
        size = max(1, ROWS_AT_ONCE // self._opinions) * self._opinions
        return pl.concat(self._added(keys) for keys in read_slices(self._keys, size=size))

    def _added(self, keys: pl.DataFrame, models: Sequence[str | None] = ()) -> pl.DataFrame:
        """`models`: each row's own, if a column names them."""
        rows, firsts = self._by_row(self._walked(keys)), self._by_row(keys["first"].to_list())
        chosen = [choose(opinions, self._comparable) for opinions in rows]
        cells = self._shown([each.step for each in chosen]) | {"agreement": [each.agreement for each in chosen]}
        if "opinions" in self._dtypes:
            cells["opinions"] = [[_said(chain, self._job) for chain in opinions] for opinions in rows]
        paid = [_paid_for(opinions, own) for opinions, own in zip(rows, firsts, strict=True)]
        cells["cost"] = [None if outcomes is None else _cost(outcomes) for outcomes in paid]
        cells["attempts"] = [
            None if outcomes is None else sum([each.attempts for each in outcomes]) for outcomes in paid
        ]
        used = [each.step for each, own in zip(chosen, firsts, strict=True) if any(own)]
        self.tally += _tally(cells, paid, used)
        if self._paid is not None:
            self._tell(self._paid, rows, firsts, models)
        prefix = self._job.output.prefix
        return pl.DataFrame([_series(prefix + name, cells[name], dtype) for name, dtype in self._dtypes.items()])

    def _by_row(self, opinions: list[T]) -> list[list[T]]:
        return [opinions[at : at + self._opinions] for at in range(0, len(opinions), self._opinions)]

    def _walked(self, keys: pl.DataFrame) -> list[Chain]:
        """The walk of each opinion."""
        hexes = keys["key"].bin.encode("hex").to_list()
        chains = iter(self._chains.follow([Request(key, b"") for key in hexes if key is not None]))
        return [
            next(chains) if key is not None else _unaskable(error)
            for key, error in zip(hexes, keys["error"], strict=True)
        ]

    def _shown(self, shown: list[Step | None]) -> dict[str, list[Any]]:
        """The columns that tell of the outcomes that are shown, column by column; what is not there is null."""
        outcomes = [None if step is None else step.outcome for step in shown]
        answers = [outcome if isinstance(outcome, Answer) else None for outcome in outcomes]
        usages = _each(answers, "usage")
        cells = {name: _each(usages, name) for name in Usage.__struct_fields__}
        cells |= {name: _each(answers, name) for name in ("finish_reason", "model")}
        cells |= {name: _each(outcomes, name) for name in ("latency_seconds", "asked_at")}
        cells["answer"] = _each(answers, "text")
        cells["status"] = ["pending" if step is None else step.status for step in shown]
        cells["error"] = [None if step is None else _error(step) for step in shown]
        cells["settings"] = [settings or None for settings in _each(outcomes, "settings")]
        cells["repaired"] = [None if step is None else _repaired(step) for step in shown]
        if "confidence" in self._dtypes:
            cells["confidence"] = [None if step is None else self._confidence(step) for step in shown]
        if self._shapes:
            typed = [{} if step is None else self._typed(step.parsed) for step in shown]
            cells |= {name: [row.get(name) for row in typed] for name in self._shapes}
        return cells

    def _confidence(self, step: Step) -> float | None:
        return confidence(step.outcome, self._label(step.parsed)) if isinstance(step.outcome, Answer) else None

    def _label(self, held: ParsedAnswer | None) -> str | None:
        if held is None or self._job.answer.labels is None:
            return None
        label = held.values.get(self._job.answer.label_property)
        return label if isinstance(label, str) else None

    def _typed(self, held: ParsedAnswer | None) -> dict[str, Any]:
        return {} if held is None or held.error is not None else typed_cells(held, self._job, self._shapes)

    def _tell(
        self,
        paid: Callable[[str, Step], None],
        rows: list[list[Chain]],
        firsts: list[list[bool]],
        models: Sequence[str | None],
    ) -> None:
        for at, (opinions, own) in enumerate(zip(rows, firsts, strict=True)):
            asked_of = [models[at] or self._job.models[0]] if models else self._job.models
            for number, chain in enumerate(opinions):
                for step in chain.steps if own[number] else ():
                    paid(asked_of[number % len(asked_of)], step)


def _each(records: Sequence[Record | None], name: str) -> list[Any]:
    """One field of each, as a column."""
    return [None if record is None else getattr(record, name) for record in records]


def _series(name: str, cells: list[Any], dtype: pl.DataType) -> pl.Series:
    """The cells as polars has them; moments by way of whole numbers, a sixth of the time that polars takes for them."""
    if dtype == MOMENT:
        numbers = [None if moment is None else (moment - EPOCH) // MICROSECOND for moment in cells]
        return pl.Series(name, numbers, dtype=pl.Int64).cast(MOMENT)
    return pl.Series(name, cells, dtype=dtype, strict=False)


def _error(step: Step) -> str | None:
    """Why there is no answer, or none that fits."""
    if isinstance(step.outcome, Failure):
        return f"{step.outcome.kind}: {step.outcome.reason}"
    return f"invalid: {step.parsed.error}" if step.status == "invalid" and step.parsed is not None else None


def _paid_for(opinions: list[Chain], firsts: list[bool]) -> list[Outcome] | None:
    """All that was paid for a row, nothing if it equals an earlier one; None if it has no outcome yet."""
    paid = [step.outcome for chain, first in zip(opinions, firsts, strict=True) if first for step in chain.steps]
    return paid if paid or any(chain.steps for chain in opinions) else None


def _cost(outcomes: list[Outcome]) -> float | None:
    """US dollars in all; None if one is unknown."""
    costs = [outcome.cost for outcome in outcomes if outcome.cost is not None]
    return math.fsum(costs) if len(costs) == len(outcomes) else None


def _tally(cells: dict[str, list[Any]], paid: list[list[Outcome] | None], used: list[Step | None]) -> Tally:
    """Of the rows of these cells. `paid`: what was paid for each; `used`: what is shown of those whose tokens count."""
    usages = [step.outcome.usage for step in used if step is not None and isinstance(step.outcome, Answer)]
    columns = [[count for count in _each(usages, name) if count is not None] for name in Usage.__struct_fields__]
    return Tally(
        **Counter(cells["status"]),
        usage=Usage(*[sum(counts) if counts else None for counts in columns]),
        cost=math.fsum(cost or 0.0 for cost in cells["cost"]),
        unpriced=sum(cost is None and bool(outcomes) for cost, outcomes in zip(cells["cost"], paid, strict=True)),
        attempts=sum(attempts or 0 for attempts in cells["attempts"]),
    )


def _unaskable(reason: str) -> Chain:
    """The walk of a row that no request can be made of."""
    chain = Chain(Request(key="", body=b""))
    chain.steps.append(Step(chain.next_request, Failure(kind="prompt", reason=reason, cost=0.0), "failed", None))
    chain.unanswered = None
    return chain


class Chosen(NamedTuple):
    """Which of a row's opinions is shown, None while one of them is pending, and how many agree with it."""

    step: Step | None
    agreement: float | None = None
    """Share of the answers that fit which hold the same in all that can be compared; None where nothing can."""


PENDING = Chosen(None)


def choose(opinions: Sequence[Chain], names: Sequence[str]) -> Chosen:
    """Of the opinions that stand best, the one that most agree with; the earliest, if several are as good.

    `names`: the properties that are compared; without any it is the whole text.
    """
    shown = [step for chain in opinions if (step := chain.result) is not None]
    if len(shown) < len(opinions):
        return PENDING
    if len(shown) == 1:
        return Chosen(shown[0], 1.0 if names and shown[0].status == "ok" else None)
    best = min(STATUS_RANK[step.status] for step in shown)
    candidates = [step for step in shown if STATUS_RANK[step.status] == best]
    held = [_compared(step, names) for step in candidates]
    votes = Counter(held)
    at = max(range(len(candidates)), key=lambda number: (votes[held[number]], -number))
    agreement = votes[held[at]] / len(held) if names and candidates[at].status == "ok" else None
    return Chosen(candidates[at], agreement)


def comparable(job: Job, shapes: dict[str, Shape]) -> list[str]:
    """The properties by which two answers are compared."""
    if job.answer.labels is not None:
        return [job.answer.label_property]
    return [name for name, shape in shapes.items() if (shape.items or shape).kind in ("word", "integer", "boolean")]


def _compared(step: Step, names: Sequence[str]) -> str:
    """What an answer holds in these, as text; without any, the text itself."""
    if step.parsed is None or step.parsed.error is not None or not names:
        return step.outcome.text if isinstance(step.outcome, Answer) else ""
    values = [step.parsed.values.get(name) for name in names]
    return json.dumps([sorted(value, key=json.dumps) if isinstance(value, list) else value for value in values])


def _said(chain: Chain, job: Job) -> str | None:
    """One opinion as text: its label, or its JSON, or all that was said; None for none."""
    step = chain.result
    if step is None or isinstance(step.outcome, Failure):
        return None
    if step.parsed is None or step.parsed.error is not None:
        return step.outcome.text
    value = step.parsed.values[job.answer.label_property] if job.answer.labels is not None else step.parsed.values
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def confidence(answer: Answer, label: str | None) -> float | None:
    """How likely the model found its label, 0 to 1; of other answers the mean of all tokens. None if it is not told."""
    logprobs = [logprob for _, logprob in answer.logprobs]
    if not logprobs:
        return None
    if label is None:
        return math.exp(sum(logprobs) / len(logprobs))
    # where it stands last, if it can within quotes: before it may come its property, or a thought
    told, text = json.dumps(label, ensure_ascii=False), "".join(token for token, _ in answer.logprobs)
    start = text.rfind(told) + 1 or text.rfind(told[1:-1])
    if start < 0:
        return None
    end, ends = start + len(told) - 2, accumulate(len(token) for token, _ in answer.logprobs)
    spans = (
        (after - len(token), after, logprob) for (token, logprob), after in zip(answer.logprobs, ends, strict=True)
    )
    return math.exp(sum(logprob for before, after, logprob in spans if before < end and after > start))


def _repaired(step: Step) -> str | None:
    """How an answer that fits came to fit, if not by itself."""
    if step.status != "ok" or step.parsed is None:
        return None
    return "asked again" if step.request.repair else step.parsed.repair_kind or None


def _dtypes(job: Job) -> dict[str, pl.DataType]:
    """The type of each added column that the job asks for, without prefix, in order."""
    typed = {name: column_dtype(shape) for name, shape in column_shapes(job).items()}
    wanted = job.output.columns if job.output.columns is not None else job.added_columns
    return {name: typed[name] if name in typed else (FIXED | AT_TIMES)[name] for name in wanted}


def _free_prefix(job: Job, table: Table) -> str:
    prefix = "model_"
    while any(prefix + name in table.schema for name in job.added_columns):
        prefix = "_" + prefix
    return prefix
