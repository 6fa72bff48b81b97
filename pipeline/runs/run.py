"""A run, from end to end: plan, ask what is unknown, write."""

import asyncio
import contextlib
import math
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Never

import msgspec
import polars as pl

from ..costs import ForecastInputs, Interval, PilotResult, make_forecast, summarize_pilot
from ..endpoint import find_gguf, serve
from ..execution import DRAIN_SECONDS, LocalContext, executor
from ..files import make_private_folder
from ..folder import job_folder, last_start, record_end, record_start
from ..job import Job, default_job_folder, duration_seconds
from ..planning import (
    Chains,
    Plan,
    headline,
    keys_hash,
    keys_path,
    make_plan,
    pending_requests,
    select_rows,
    tally_statuses,
)
from ..progress import Progress
from ..prompts import Prompts
from ..records import STATUSES, BadJob, Exit, Stopped, Summary, Tally
from ..results import OutputTable, output_metadata, output_schema
from ..store import Reader, Store, open_store, read_learned_limits, read_ledger, read_open_batches
from ..tables import (
    Table,
    check_output,
    check_row_count,
    open_table,
    remove_leftovers,
    remove_old_snapshots,
    write_table,
)
from ..text import duration, money
from .control import obeying_orders, remove_orders
from .local_weights import name_by_weights

ELSEWHERE_SHARE = 0.001
"""So much of the spend, for what is not in the table, is worth a word."""

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""The signals that stop a run; each ends it with 128 and its number, as a shell has it."""

Confirm = Callable[[str], bool]

GUARDED_ANSWERS = 1_000
GUARDED_SHARE = 0.1
"""More stored answers than either, unused because a setting changed: the price is told before it is paid."""


def run(job: Job, *, confirm: Confirm | None = None, command: Sequence[str] | None = None) -> Summary:
    """Ask what is not yet known, and write the output.

    `confirm` is asked before a changed setting buys everything again; without it BadJob is raised, unless the job's
    `this_run.assume_yes`. `command` is kept in the history, for `resume`. Raises BadJob if the job cannot begin, and
    Stopped if another process holds it or its folder cannot be read or written; once rows are asked, how it ended is
    told by the Summary's `exit_code`.
    """
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        raise BadJob("An event loop runs here already, as in a notebook: use `await arun(job)` instead of `run(job)`.")
    with _handlers_kept(), prepare_run(job, confirm, command) as ready:
        # only the asking has an event loop: while rows are planned and written, Ctrl-C works at once
        return finish(ready, asyncio.run(ask(ready)))


async def arun(job: Job, *, confirm: Confirm | None = None, command: Sequence[str] | None = None) -> Summary:
    """`run`, for where an event loop runs already: a notebook."""
    with _handlers_kept(), prepare_run(job, confirm, command) as ready:
        return finish(ready, await ask(ready))


@dataclass(frozen=True)
class PreparedRun:
    """A job that is ready to be asked: planned, agreed to, its folder locked."""

    job: Job
    """As its answers are filed (`named_by_weights`)."""
    table: Table
    rows_in_all: int
    """Of the input; more than the table's in a pilot."""
    schema: pl.Schema
    """Of the output."""
    prompts: Prompts
    plan: Plan
    context: LocalContext
    store: Store
    reader: Reader
    progress: Progress
    command: Sequence[str] | None
    began: float


@contextlib.contextmanager
def prepare_run(job: Job, confirm: Confirm | None, command: Sequence[str] | None) -> Iterator[PreparedRun]:
    """Lock, read, plan, and have it agreed to. Raises BadJob, or Stopped if the lock is taken."""
    began = time.monotonic()
    check_output(job.output_path, job.inputs)
    job.endpoint.key()
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
        schema = output_schema(job, table)
        prompts = Prompts(filed, list(table.schema))
        store = open_store(job.folder, lambda what: job.this_run.assume_yes or (confirm is not None and confirm(what)))
        open_things.callback(store.close)
        reader = Reader(job.folder / "store")
        open_things.callback(reader.close)
        context = LocalContext(filed, store, read_ledger(reader), read_learned_limits(reader), reader=reader)
        refuse_to_pay_twice(job, context)
        draft = open_things.enter_context(drafts(job.folder))
        with progress.counting("planning", table.rows) as seen:
            plan = make_plan(filed, table, prompts, reader, draft, seen)
        progress.say(plan_line(job, plan, context))
        guard(filed, plan, context, confirm)
        context.earlier = reader if plan.asked_again else None
        # what is known of the last run is replaced only now that this one is agreed to
        record_start(filed, command, whole.content_hash, whole.path, keys_hash(keys_path(draft)))
        keys_path(draft).replace(keys_path(job.folder))
        remove_old_snapshots(job.folder, whole)
        ready = PreparedRun(
            filed, table, whole.rows, schema, prompts, plan, context, store, reader, progress, command, began
        )
        try:
            yield ready
        except (BadJob, Stopped) as end:  # before the books were closed, which is told there
            record_end(job.folder, _cut_short(ready, end))
            raise


def _cut_short(ready: PreparedRun, end: BadJob | Stopped) -> Summary:
    """How a run ended that could not even close its books."""
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
def drafts(folder: Path) -> Iterator[Path]:
    """A folder for a plan that is not agreed to yet; what a killed run left in it is removed."""
    draft = folder / "plan.new"
    shutil.rmtree(draft, ignore_errors=True)
    make_private_folder(draft)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def plan_line(job: Job, plan: Plan, context: LocalContext) -> str:
    """`80,000 rows → api.openai.com, gpt-x · 75,000 answered before, 4,415 to ask · about $2.10, 25 min, cap $5.00`."""
    facts = [f"{plan.answered:,} answered before"] if plan.answered else []
    if plan.reused:
        facts.append(f"{plan.reused:,} of them to an earlier [answer] that still fit")
    facts.append(f"{plan.to_ask:,} to ask")
    if plan.duplicates:
        facts.append(f"{plan.duplicates:,} equal to others")
    if plan.rows_without_request:
        facts.append(f"{plan.rows_without_request:,} cannot be asked ({plan.first_row_error})")
    _, price, seconds = make_forecast(job, forecast_inputs(context), plan.request_bytes, plan.to_ask)
    guesses = []
    if plan.to_ask:
        guesses.append("price unknown" if price is None else f"about {money(price)}" if price else "free")
    if plan.to_ask and seconds is not None:
        guesses.append(duration(seconds))
    if job.limits.max_cost is not None:
        guesses.append(f"cap {money(job.limits.max_cost)}")
    parts = [headline(job, plan), ", ".join(facts), ", ".join(guesses)]
    return " · ".join(part for part in parts if part)


def guard(job: Job, plan: Plan, context: LocalContext, confirm: Confirm | None) -> None:
    """Before a changed setting buys answers again, name it and its price. Raises BadJob unless that is agreed to."""
    # a pilot of the new settings must not make them the old ones
    before = last_start(job.folder, pilots=False)
    if before is None or job.this_run.assume_yes:
        return
    now = job.seen_by_model()
    changed = [name for name in now if now[name] != before.seen_by_model.get(name)]
    bought_again = min(plan.unused, plan.to_ask)
    if not changed or bought_again <= min(GUARDED_ANSWERS, GUARDED_SHARE * plan.stored):
        return
    price = make_forecast(job, forecast_inputs(context), plan.request_bytes, plan.to_ask).price
    cost = "at an unknown price" if price is None else f"about {money(price)}"
    fit = f"{plan.stored - plan.unused:,} of {plan.stored:,} answers fit"
    asked = "rows" if plan.samples_per_row == 1 else "opinions"
    what = f"{', '.join(changed)} changed since {before.at:%d %b %H:%M}: {fit}."
    if confirm is None:
        raise BadJob(f"{what}\nTo ask {plan.to_ask:,} {asked} again, {cost}, add --yes. Nothing was sent.")
    if not confirm(f"{what} Ask {plan.to_ask:,} {asked} again, {cost}?"):
        raise BadJob("Nothing was sent. The answers are kept; with the settings as they were they are found again.")


async def ask(ready: PreparedRun) -> Stopped | None:
    """Ask all that the plan has to ask; returns what stopped it, if anything did."""
    if not ready.plan.to_ask:
        return None
    keys, chains = keys_path(ready.job.folder), Chains(ready.job, ready.reader)
    requests = pending_requests(ready.table, ready.prompts, ready.plan, keys, chains)
    try:
        with served(ready.job) as reachable, interruptible(ready):
            ready.context.begin(ready.plan.to_ask, reachable.limits, ready.progress)
            async with obeying_orders(ready.job.folder, ready.context):
                await executor(ready.job)(reachable, requests, ready.context)
    except Stopped as stop:
        return stop
    finally:
        ready.progress.end()
    return None


def refuse_to_pay_twice(job: Job, context: LocalContext) -> None:
    """Raise BadJob if requests are with the provider in batches, and would be asked another way as well."""
    if job.run.how == "batch" or not (sheets := read_open_batches(context.read_note).sheets):
        return
    requests = sum(sheet.requests for sheet in sheets)
    raise BadJob(
        f"{requests:,} requests of this job are with the provider in batches, and would be paid for twice.\n"
        'Fetch them first, with run.how = "batch" (and --no-wait, to look once). To have the rest answered live,\n'
        "cancel the batches at the provider, then fetch what they have. Nothing was sent."
    )


@contextlib.contextmanager
def served(job: Job) -> Iterator[Job]:
    """The job with an address that can be asked: a model on this machine is served meanwhile."""
    if not job.endpoint.is_local:
        yield job
        return
    with serve(find_gguf(job.endpoint.base_url, job.home), job.limits.width, job.folder / "model.log") as server:
        update = {"base_url": server.base_url, "api_key_env": "", "api_key_default": server.api_key}
        limits = job.limits.model_copy(update={"concurrency": job.limits.width})  # the server has as many slots
        yield job.model_copy(update={"endpoint": job.endpoint.model_copy(update=update), "limits": limits})


@contextlib.contextmanager
def interruptible(ready: PreparedRun) -> Iterator[None]:
    """Signals and `max_runtime` stop the sending; what is in flight may land. A second signal waits for nothing."""
    context, loop, limit = ready.context, asyncio.get_running_loop(), ready.job.limits.max_runtime

    def on_signal(number: signal.Signals) -> None:
        if context.stopping is not None:
            context.abort_drain()
            return
        drain = f"up to {DRAIN_SECONDS:.0f} s for what is in flight (again: stop at once)"
        ready.progress.say(f"{number.name}: nothing more is sent; waiting {drain}.")
        context.stop(Stopped(f"Stopped by {number.name}.", Exit(128 + number)))

    before = {number: signal.getsignal(number) for number in STOPPING if not _meant_to_outlive(number)}
    with contextlib.suppress(ValueError, NotImplementedError, RuntimeError):  # another thread than main: no signals
        for number in before:
            loop.add_signal_handler(number, on_signal, number)
    if limit is not None:
        over = Stopped(f"limits.max_runtime of {limit} is over.", Exit.AT_LIMIT)
        left = duration_seconds(limit) - (time.monotonic() - ready.began)
        timer = loop.call_later(max(0.0, left), context.stop, over)
    try:
        yield
    finally:
        if limit is not None:
            timer.cancel()
        closing = context.stopping is not None and context.stopping.exit_code > 128
        with contextlib.suppress(ValueError, NotImplementedError, RuntimeError):
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                # one more Ctrl-C must not keep the books from being closed (`_handlers_kept` puts all back after it)
                signal.signal(number, signal.SIG_IGN if closing else handler)


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """What the signals did before a run, they do after it."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    try:
        yield
    finally:
        with contextlib.suppress(
            ValueError, TypeError
        ):  # another thread than main, or none of Python's: none was changed
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def signals_raised() -> Iterator[Callable[[], None]]:
    """While rows are planned or written, a signal that stops is a Stopped, raised where it strikes: all is tidied up.

    Gives what is called once the run is over: more signals are then ignored, so that how it ended can be said.

    SIGINT stops even where it was inherited as ignored, as by what a script starts with `&`: how else would one stop it
    gently? SIGHUP does not where it is ignored: that is what nohup is for. For the main thread of a program alone.
    """

    def stop(number: int, _frame: object) -> Never:
        raise Stopped(
            f"{signal.Signals(number).name} came. Every answer so far is kept; the same line goes on from here.",
            Exit(128 + number),
        )

    before = {number: signal.signal(number, stop) for number in STOPPING if not _meant_to_outlive(number)}

    def ignore_more() -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)

    try:
        yield ignore_more
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _meant_to_outlive(number: signal.Signals) -> bool:
    return number.name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN


def finish(ready: PreparedRun, stop: Stopped | None) -> Summary:
    """Write the output where the run came to its end, close the books, and say how it went."""
    job, folder = ready.job, ready.job.folder
    notes_lost = None
    try:
        ready.store.close()
    except Stopped as unwritten:  # a person is needed, but every outcome is on disk, and so the output can be
        notes_lost = unwritten
    rows = tally_statuses(job, folder, ready.reader)
    ledger, asked = ready.context.ledger, ready.context.asked
    if stop is None:
        stop = unbalanced(
            ("rows have an outcome", rows.rows - rows.pending, ready.table.rows),
            ("requests were recorded", asked.rows, ready.plan.to_ask),
        )
    wrote = stop is None or stop.exit_code is Exit.AT_LIMIT
    if wrote:
        cells = OutputTable(job, ready.table, keys_path(folder), ready.reader)
        try:
            with ready.progress.counting("writing", ready.table.rows) as seen:
                write_table(cells.frames(seen), ready.schema, job.output_path, output_metadata(job))
            marked, rows = rows, cells.tally
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
    )
    try:
        record_end(folder, summary)
    except Stopped as unwritten:
        message = f"{summary.message}\n{unwritten}".lstrip()
        summary = msgspec.structs.replace(
            summary, exit_code=stop.exit_code if stop else unwritten.exit_code, message=message
        )
    rest = ready.rows_in_all - ready.table.rows
    if wrote and rest and ledger.answers:
        ready.progress.say(_told_by_pilot(ready, rest) if job.this_run.sample else rest_text(job, ready.context, rest))
    ready.progress.note(summary_text(job, summary))
    return summary


def _told_by_pilot(ready: PreparedRun, rest: int) -> str:
    # all added columns, whatever the output wants, and whatever the input's are called
    plain = ready.job.output.model_copy(update={"columns": None, "prefix": ""})
    job = ready.job.model_copy(update={"output": plain})
    cells = OutputTable(job, ready.table, keys_path(job.folder), ready.reader)
    return pilot_text(
        summarize_pilot(job, ready.context.learned_by_model(), cells.added_columns(), rest), rest, ready.command
    )


def unbalanced(*books: tuple[str, float, float]) -> Stopped | None:
    """The stop of a run whose books do not balance, if any: each says what was counted, what it came to, and is due."""
    wrong = [f"{there:,} {what}, {due:,} should" for what, there, due in books if not math.isclose(there, due)]
    if not wrong:
        return None
    return Stopped(
        f"the books do not balance: {'; '.join(wrong)}. Every answer is kept, but do not trust the table.\n"
        "This is a fault of the program: please report it, with log.txt and history.jsonl of the job folder."
    )


def forecast_inputs(context: LocalContext) -> ForecastInputs:
    """What a run knows by now, to tell from what further requests will cost and take."""
    return ForecastInputs(context.prices, context.ledger, context.learned_by_model())


def rest_text(job: Job, context: LocalContext, rows: int) -> str:
    """After a pilot: what the rows that it left out would cost and take."""
    requests = rows * job.samples_per_row
    request_bytes = round(requests * context.ledger.request_bytes / context.ledger.answers)
    _, price, seconds = make_forecast(job, forecast_inputs(context), request_bytes, requests)
    cost = "cost nothing" if price == 0 else "cost an unknown price" if price is None else f"cost about {money(price)}"
    time_left = f" and take about {duration(seconds)}" if seconds is not None else ""
    return f"The other {rows:,} rows would {cost}{time_left}: the same line without --sample or --limit asks them."


def pilot_text(pilot: PilotResult, rest: int, command: Sequence[str] | None) -> str:
    """After a sample: how good its answers are, how long, what the rest would cost and take, and the line for it."""
    lines = [f"Of {pilot.rows:,} rows by chance {pilot.valid:,} have a valid answer ({pilot.valid / pilot.rows:.0%})."]
    for what, found in (("a prompt", pilot.prompt_tokens), ("an answer", pilot.output_tokens)):
        if found:
            low, middle, high = found
            lines.append(f"  tokens of {what:<10} {middle:,.0f} in the middle, 8 of 10 from {low:,.0f} to {high:,.0f}")
    cost = "an unknown price" if pilot.cost is None else _interval(pilot.cost, money)
    took = "" if pilot.seconds is None else f", {_interval(pilot.seconds, duration)}"
    lines.append(f"  the other {rest:,} rows  {cost}{took} (9 times of 10)")
    if command is not None:
        lines.append(f"  Ask them: pipeline {shlex.join(_without_sample(command))}")
    return "\n".join(lines)


def _interval(interval: Interval, text: Callable[[float], str]) -> str:
    low, high = text(interval.low), text(interval.high)
    return ("free" if not interval.high else f"about {low}") if low == high else f"{low} to {high}"


def _without_sample(command: Sequence[str]) -> Iterator[str]:
    words = iter(command)
    for word in words:
        if word == "--sample":
            next(words, None)
        elif not word.startswith("--sample="):
            yield word


def summary_text(job: Job, summary: Summary) -> str:
    """How it went, what is safe, and what to type next."""
    counts = ", ".join(f"{getattr(summary.rows, name):,} {name}" for name in STATUSES if getattr(summary.rows, name))
    books = f"{counts or '0 rows'} = {summary.rows.rows:,}."
    spent = f"{money(summary.run.cost)} this run, {money(summary.spent)} in all."
    if summary.run.unpriced:
        spent = f"{summary.run.unpriced:,} requests at an unknown price ([prices] sets one), else {spent}"
    elif summary.elsewhere > ELSEWHERE_SHARE * summary.spent:
        spent = spent.removesuffix(".") + f", {money(summary.elsewhere)} of it for what is not in this table."
    if summary.run.maybe_paid:
        spent += f" {summary.run.maybe_paid:,} attempts broke off and may be billed."
    wrote = f"Wrote {summary.output}." if summary.wrote else f"{summary.output} is left as it was."
    beside = job.folder == default_job_folder(job.output_path)
    job_name = shlex.quote(str(job.output_path if beside else job.folder))
    if not summary.message:
        text = f"Done in {duration(summary.seconds)}: {books} {spent} {wrote}"
        odd = [name for name in ("failed", "invalid", "truncated") if getattr(summary.rows, name)]
        strange = [*odd, *(name for name in ("refused", "filtered") if getattr(summary.rows, name))]
        if strange:
            text += f"\n  Look: pipeline show {job_name} --status {strange[0]}"
        if odd:
            text += f"   Retry: pipeline resume {job_name} --retry {','.join(odd)}"
        return text
    text = f"Stopped after {duration(summary.seconds)}: {summary.message}\n{books} {spent} {wrote}"
    text += f"\nEvery answer so far is kept in {job.folder}.\n  Go on: pipeline resume {job_name}"
    return text if summary.wrote else f"{text}   The table so far: pipeline export {job_name} -o OTHER"
