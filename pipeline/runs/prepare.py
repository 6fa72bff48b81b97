"""A run made ready: its folder locked, its rows planned, the plan shown and agreed to. Nothing is sent here."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..costs import make_forecast
from ..execution import LocalContext
from ..files import make_private_folder, sync
from ..folder import job_folder, last_start, read_earlier, record_end, record_start
from ..job import Job
from ..planning import Plan, keys_hash, keys_path, make_plan, select_rows
from ..progress import Progress
from ..prompts import Prompts
from ..records import BadJob, Exit, Stopped, Summary, Tally
from ..results import output_schema
from ..store import Reader, Store, open_store, read_learned_limits, read_open_batches, settle_ledger
from ..tables import Table, check_output, check_row_count, open_table, remove_leftovers, remove_old_snapshots
from ..text import money
from .control import remove_orders
from .local_server import name_by_weights
from .retirements import retirement_notes
from .texts import forecast_inputs, plan_line

Confirm = Callable[[str], bool]
"""Asks a person a question; True if they agree."""

CONFIRMED_ANSWERS = 1_000
CONFIRMED_SHARE = 0.1
"""A changed setting is confirmed if it buys more answers again than CONFIRMED_ANSWERS, or than this share of those
stored."""


@dataclass(frozen=True)
class PreparedRun:
    """A run that is ready to ask: planned, agreed to, its folder locked."""

    job: Job
    """The job as its answers are filed (`name_by_weights`)."""
    table: Table
    input_rows: int
    """Rows of the whole input; a pilot's `table` has fewer."""
    prompts: Prompts
    plan: Plan
    context: LocalContext
    store: Store
    reader: Reader
    progress: Progress
    command: Sequence[str] | None
    """The command line's words after `pipeline`; None from Python."""
    began: float
    """When the run began, in monotonic seconds."""


@contextlib.contextmanager
def prepare_run(job: Job, confirm: Confirm | None, command: Sequence[str] | None) -> Iterator[PreparedRun]:
    """Lock the job folder, read the input, plan, and have the plan agreed to; everything is closed when the block ends.

    Raises BadJob if the job cannot begin, and Stopped if another process holds the lock.
    """
    began = time.monotonic()
    check_output(job.output_path, job.inputs, own_folder=job.folder)
    job.endpoint.key(is_new_run=True)
    job.endpoint.all_headers()
    with job_folder(job.folder, shared=job.output.shared), contextlib.ExitStack() as open_things:
        remove_leftovers(job.folder, job.output_path)
        remove_orders(job.folder)
        progress = Progress(job.folder / "log.txt", quiet=job.this_run.verbosity < 0)
        open_things.callback(progress.close)
        filed = name_by_weights(job)
        with progress.counting("reading the input"):
            whole = open_table(job.inputs, job.folder)
        table = select_rows(job.this_run, whole)
        check_row_count(job.output_path, table.rows)
        output_schema(job, table)
        prompts = Prompts(filed, list(table.schema))
        store = open_store(job.folder, lambda what: _is_agreed(job, what, confirm, progress))
        open_things.callback(store.close)
        reader = Reader(job.folder / "store")
        open_things.callback(reader.close)
        ledger, loss = settle_ledger(job.folder, store, reader)
        if loss:
            progress.say(loss)
        context = LocalContext(filed, store, ledger, read_learned_limits(reader), reader=reader)
        _refuse_open_batches(job, context)
        draft = open_things.enter_context(_draft_folder(job.folder))
        with progress.counting("planning", table.rows) as seen:
            plan = make_plan(filed, table, prompts, reader, draft, seen)
        notes = retirement_notes(job, table, datetime.now(UTC).date()) if plan.to_ask else []
        progress.say("\n".join([plan_line(job, plan, context), *notes]))
        earlier = read_earlier(job.folder)
        if plan.stored and not earlier.is_own and not earlier.shares:
            progress.say("The answers in this job folder are not known to be yours. They are used as they are.")
        _confirm_change(filed, plan, context, confirm)
        context.earlier = reader if plan.asked_again else None
        # the last run's plan and history line are replaced only now that this run is agreed to
        start = record_start(filed, command, whole.content_hash, whole.path, keys_hash(keys_path(draft)))
        context.retry_id = start.retry_id
        keys_path(draft).replace(keys_path(job.folder))
        sync(job.folder)  # before the first request leaves: without these two, no answer could be shown
        remove_old_snapshots(job.folder, whole)
        ready = PreparedRun(filed, table, whole.rows, prompts, plan, context, store, reader, progress, command, began)
        try:
            yield ready
        except (BadJob, Stopped) as end:  # before `finish` could write a summary
            record_end(job.folder, _early_summary(ready, end))
            raise


def _is_agreed(job: Job, question: str, confirm: Confirm | None, progress: Progress) -> bool:
    """Ask a person, and return whether they agree. With `--yes`, print the question and return True."""
    if job.this_run.assume_yes:
        progress.say(f"{question} Yes, by --yes.")
        return True
    return confirm is not None and confirm(question)


def _early_summary(ready: PreparedRun, end: BadJob | Stopped) -> Summary:
    """The summary of a run that ended before its output could be written."""
    return Summary(
        exit_code=end.exit_code if isinstance(end, Stopped) else Exit.USAGE,
        message=str(end),
        output=str(ready.job.output_path),
        rows=Tally(pending=ready.table.rows),
        run=ready.context.asked,
        spent=ready.context.ledger.cost,
        seconds=time.monotonic() - ready.began,
        wrote=False,
    )


@contextlib.contextmanager
def _draft_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder for a plan that is not agreed to yet; a killed run's is removed first."""
    draft = folder / "plan.new"
    shutil.rmtree(draft, ignore_errors=True)
    make_private_folder(draft)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _refuse_open_batches(job: Job, context: LocalContext) -> None:
    """Raise BadJob if requests are with the provider in batches and would be asked, and paid, another way as well."""
    if job.run.how == "batch" or not (files := read_open_batches(context.read_note).sheets):
        return
    requests = sum(file.requests for file in files)
    raise BadJob(
        f"{requests:,} requests of this job are with the provider in batches, and would be paid for twice.\n"
        'Fetch them first, with run.how = "batch" (and --no-wait, to look once). To have the rest answered live,\n'
        "cancel the batches at the provider, then fetch the answers that they have. Nothing was sent."
    )


def _confirm_change(job: Job, plan: Plan, context: LocalContext, confirm: Confirm | None) -> None:
    """If a changed setting buys many answers again, show it with its price. Raises BadJob unless that is agreed to."""
    # a pilot of the new settings must not make them the old ones
    before = last_start(job.folder, pilots=False)
    if before is None or job.this_run.assume_yes:
        return
    changed = before.changed_settings(job.seen_by_model(), job.endpoint.secrets)
    bought_again = min(plan.unused, plan.to_ask)
    if not changed or bought_again <= min(CONFIRMED_ANSWERS, CONFIRMED_SHARE * plan.stored):
        return
    price = make_forecast(job, forecast_inputs(context), plan.request_bytes, plan.to_ask).price
    cost = "at an unknown price" if price is None else f"about {money(price)}"
    usable = f"{plan.stored - plan.unused:,} of {plan.stored:,} stored answers can be used"
    what = "rows" if plan.samples_per_row == 1 else "samples"
    question = f"{', '.join(changed)} changed since {before.at:%d %b %H:%M}: {usable}."
    if confirm is None:
        raise BadJob(f"{question}\nTo ask {plan.to_ask:,} {what} again, {cost}, add --yes. Nothing was sent.")
    if not confirm(f"{question} Ask {plan.to_ask:,} {what} again, {cost}?"):
        raise BadJob(
            "Not started: nothing was sent. The stored answers are kept; with the earlier settings they are used again."
        )
