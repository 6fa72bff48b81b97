"""A run, from end to end: plan, ask what is unanswered, write the table."""

import asyncio
import contextlib
import math
import time
from collections.abc import Sequence

import msgspec

from ..costs import PILOT_COLUMNS, summarize_pilot
from ..execution import executor
from ..folder import record_end
from ..job import Job
from ..planning import Chains, keys_path, pending_requests, tally_statuses
from ..records import BadJob, Exit, Stopped, Summary, Tally
from ..results import OutputTable, output_metadata, output_schema, with_reported_columns
from ..tables import write_table
from .control import obeying_orders
from .local_server import served
from .prepare import Confirm, PreparedRun, prepare_run
from .signals import signal_handlers_kept, stop_on_signals
from .texts import pilot_text, rest_text, summary_text


def run(job: Job, *, confirm: Confirm | None = None, command: Sequence[str] | None = None) -> Summary:
    """Ask what is not answered yet, and write the output.

    `confirm` is asked before a changed setting buys answers again; without it BadJob is raised then, unless
    `this_run.assume_yes`. `command`: the command line's words, kept in the history for `resume`. Raises BadJob if the
    job cannot begin, and Stopped if another process holds it or its folder cannot be read or written. Once requests
    are sent, how the run ended is in the Summary's `exit_code` and `message`.
    """
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        raise BadJob("An event loop runs here already, as in a notebook: use `await arun(job)` instead of `run(job)`.")
    with signal_handlers_kept(), prepare_run(job, confirm, command) as ready:
        # only the asking has an event loop: while rows are planned and written, Ctrl-C works at once
        return finish(ready, asyncio.run(ask(ready)))


async def arun(job: Job, *, confirm: Confirm | None = None, command: Sequence[str] | None = None) -> Summary:
    """`run`, for where an event loop runs already: a notebook."""
    with signal_handlers_kept(), prepare_run(job, confirm, command) as ready:
        return finish(ready, await ask(ready))


async def ask(ready: PreparedRun) -> Stopped | None:
    """Ask all that the plan has to ask; returns what stopped it, if anything did."""
    if not ready.plan.to_ask:
        return None
    job, context = ready.job, ready.context
    chains = Chains(job, ready.reader)
    requests = pending_requests(ready.table, ready.prompts, ready.plan, keys_path(job.folder), chains)
    try:
        with served(job) as reachable, stop_on_signals(context, job.limits.max_runtime, ready.began):
            context.begin(ready.plan.to_ask, reachable.limits, ready.progress)
            async with obeying_orders(job.folder, context, shared=job.output.shared):
                await executor(job)(reachable, requests, context)
    except Stopped as stop:
        return stop
    finally:
        ready.progress.end()
    return None


def finish(ready: PreparedRun, stop: Stopped | None) -> Summary:
    """Write the output if the run came to its end, note how it went, and return the summary.

    `stop`: what stopped the asking, if anything did. The output is written after a complete run and at a limit that
    the user set; otherwise the earlier output stays.
    """
    job, ledger, asked = ready.job, ready.context.ledger, ready.context.asked
    notes_lost = None
    try:
        ready.store.close()
    except Stopped as unwritten:  # a person is needed, but every outcome is on disk, and so the output can be written
        notes_lost = unwritten
    rows = tally_statuses(job, job.folder, ready.reader)
    if stop is None:
        stop = unbalanced(
            ("rows have an outcome", rows.rows - rows.pending, ready.table.rows),
            ("requests were recorded", asked.rows, ready.plan.to_ask),
        )
    wrote = stop is None or stop.exit_code is Exit.AT_LIMIT
    if wrote:
        try:
            marked, rows = rows, _write_output(ready)
            stop = stop or unbalanced(
                ("rows were written", rows.rows, ready.table.rows),
                ("rows were written without an outcome", rows.pending, marked.pending),
                ("US dollars for these rows", rows.cost, min(rows.cost, ledger.cost)),
            )
        except Stopped as unwritten:
            stop, wrote = unwritten, False
    stop = stop or notes_lost
    summary = Summary(
        exit_code=stop.exit_code if stop else Exit.INCOMPLETE if rows.unanswered else Exit.DONE,
        message=str(stop) if stop else "",
        output=str(job.output_path),
        rows=rows,
        run=asked,
        spent=ledger.cost,
        elsewhere=max(0.0, ledger.cost - rows.cost) if wrote else 0.0,
        seconds=time.monotonic() - ready.began,
        wrote=wrote,
        served=ready.context.served.counts,
    )
    summary = _record_end(ready, summary)
    rest = ready.input_rows - ready.table.rows
    if wrote and rest and ledger.answers:
        ready.progress.say(_pilot_text(ready, rest) if job.this_run.sample else rest_text(job, ready.context, rest))
    ready.progress.note(summary_text(job, summary))
    return summary


def _write_output(ready: PreparedRun) -> Tally:
    """Write the output's rows; returns their tally. Raises Stopped if it cannot be written."""
    job, wide = ready.job, with_reported_columns(ready.job, ready.table, ready.reader)
    output = OutputTable(wide, ready.table, keys_path(job.folder), ready.reader)
    with ready.progress.counting("writing", ready.table.rows) as seen:
        facts, row_bytes = output_metadata(job), output.row_bytes
        schema = output_schema(wide, ready.table)
        write_table(output.frames(seen), schema, job.output_path, facts, row_bytes=row_bytes)
    return output.tally


def _record_end(ready: PreparedRun, summary: Summary) -> Summary:
    """Write the end into the history; returns the summary, with what went wrong in doing so."""
    try:
        record_end(ready.job.folder, summary)
    except Stopped as unwritten:
        code = summary.exit_code if summary.message else unwritten.exit_code
        message = f"{summary.message}\n{unwritten}".lstrip()
        return msgspec.structs.replace(summary, exit_code=code, message=message)
    return summary


def _pilot_text(ready: PreparedRun, rest: int) -> str:
    # without a prefix, whatever columns the output has; and without the answers, which may be large
    plain = ready.job.output.model_copy(update={"columns": PILOT_COLUMNS, "prefix": ""})
    job = ready.job.model_copy(update={"output": plain})
    added = OutputTable(job, ready.table, keys_path(job.folder), ready.reader).added_columns()
    pilot = summarize_pilot(job, ready.context.learned_by_model(), added, rest)
    return pilot_text(pilot, rest, ready.command)


def unbalanced(*accounts: tuple[str, float, float]) -> Stopped | None:
    """Compare accounts, each with its description, the number found and the number due; returns the stop, if any."""
    wrong = [f"{found:,} {what}, {due:,} should" for what, found, due in accounts if not math.isclose(found, due)]
    if not wrong:
        return None
    return Stopped(
        f"the accounts do not balance: {'; '.join(wrong)}. Every answer is kept, but do not trust the table.\n"
        "This is a fault of the program: please report it, with log.txt and history.jsonl of the job folder."
    )
