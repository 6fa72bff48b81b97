"""`pipeline estimate`: what a run would ask, use and cost, and how long it would take. Nothing is sent or kept."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from ..answers import contract_of
from ..costs import Budget, Forecast, ForecastInputs, PriceList, UsageRange, make_forecast, usage_range
from ..execution import lane_id
from ..job import Job
from ..planning import Plan, headline, make_plan, select_rows
from ..progress import Progress
from ..prompts import Prompts
from ..records import Answer, Record, Tally
from ..results import output_schema
from ..store import Reader, Store, read_learned_limits, read_ledger, read_outcome
from ..tables import check_row_count, open_table
from ..text import duration, money, one_line, short_count
from .local_server import name_by_weights
from .retirements import retirement_notes

ANSWERS_READ = 1_000
"""How many of the job folder's answers are read to see how long answers are."""


class JobEstimate(Record, frozen=True):
    """What a run would ask, and what that would cost."""

    plan: Plan
    expected: Forecast
    between: UsageRange
    ledger: Tally
    """The ledger of the job folder; empty if there is none yet."""
    notes: tuple[str, ...] = ()
    """What is to be said of models that have ended or end soon."""


def estimate_job(job: Job) -> JobEstimate:
    """Plan a job as `run` would, in a temporary folder. Raises BadJob as `run` does.

    With an output, the answers in its job folder count; the folder is read, never locked or written.
    """
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as open_things:
        folder = Path(name)
        if job.output_file is None:
            job = job.model_copy(update={"output_file": folder / "none.csv"})
        filed = name_by_weights(job)
        reader = open_things.enter_context(contextlib.closing(_reader(job, folder)))
        progress = Progress(quiet=job.this_run.verbosity < 0)
        with progress.counting("reading the input"):
            table = select_rows(job.this_run, open_table(job.inputs, folder))
        check_row_count(job.output_path, table.rows)
        output_schema(job, table)
        contract_of(job)
        ledger, found = read_ledger(reader), read_learned_limits(reader)
        lanes = [found.get(lane_id(filed.endpoint, model)) for model in filed.models]
        prices = PriceList(filed)
        Budget(filed, prices, ledger.cost)
        with progress.counting("planning", table.rows) as seen:
            plan = make_plan(filed, table, Prompts(filed, list(table.schema)), reader, folder, seen)
        known = ForecastInputs(prices, ledger, [None if lane is None else lane.aged for lane in lanes])
        asked = plan.request_bytes, plan.to_ask
        between = usage_range(known, *asked, _answers(reader), max(filed.output_caps.values(), default=None))
        notes = retirement_notes(filed, table, datetime.now(UTC).date())
        return JobEstimate(plan, make_forecast(filed, known, *asked), between, ledger, tuple(notes))


def _reader(job: Job, folder: Path) -> Reader:
    """Open the job folder's store, or an empty one if there is no such folder yet."""
    try:
        return Reader(job.folder / "store")
    except FileNotFoundError:
        Store(folder / "store").close()
        return Reader(folder / "store")


def _answers(reader: Reader) -> Iterator[Answer]:
    """Up to ANSWERS_READ of the job folder's answers."""
    keys = next(reader.marks(), [])
    for stored in reader.values([key for key, _ in keys[:ANSWERS_READ]]):
        outcome = read_outcome(stored) if stored is not None else None
        if isinstance(outcome, Answer):
            yield outcome


def estimate_text(job: Job, found: JobEstimate) -> Iterator[str]:
    """The estimate in a few lines: requests, tokens, money, time."""
    plan, between, expected = found.plan, found.between, found.expected
    yield headline(job, plan)
    facts = [f"{plan.to_ask:,} to ask", f"{plan.answered:,} answered before"]
    facts += [f"{plan.duplicates:,} equal to others"] if plan.duplicates else []
    facts += (
        [f"{plan.rows_without_request:,} cannot be asked ({one_line(plan.first_row_error)})"]
        if plan.rows_without_request
        else []
    )
    yield f"  requests  {', '.join(facts)}"
    if not plan.to_ask:
        return
    parts = [
        f"{what} {_between(low or 0, high or 0, short_count)}"
        for what, low, high in (
            ("prompt", between.low.prompt_tokens, between.high.prompt_tokens),
            ("answers", between.low.completion_tokens, between.high.completion_tokens),
        )
    ]
    basis = f"by {found.ledger.answers:,} answers so far" if found.ledger.answers else "a guess before the first answer"
    yield f"  tokens    {', '.join(parts)} ({basis})"
    yield f"  money     {_money(job, found)}"
    if expected.seconds is None:
        yield "  time      not known before the first answers: run a pilot (pipeline run … --sample 50)"
    else:
        yield f"  time      about {duration(expected.seconds)}, at the limits that are set or were learned"
    yield from found.notes


def _money(job: Job, found: JobEstimate) -> str:
    low, high, likely = found.between.low_price, found.between.high_price, found.expected.price
    if low is None or high is None or likely is None:
        return "price unknown; [prices] in the job file sets one"
    if not high:
        return "free"
    between = _between(low, high, money)
    text = f"about {money(likely)}" + (f" ({between})" if between != money(likely) else "")
    cap = job.limits.max_cost
    if cap is None:
        return text
    left = cap - found.ledger.cost - found.ledger.held
    return f"{text}; cap {money(cap)}" + (f", of which {money(max(0.0, left))} is left" if left < high else "")


def _between(low: float, high: float, text: Callable[[float], str]) -> str:
    return text(low) if text(low) == text(high) else f"{text(low)} to {text(high)}"
