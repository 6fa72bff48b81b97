"""The status of a job, running or not, as a record (`status --json`) and as text.

It is read from the job folder alone, from any process: nothing is sent, locked or written.
"""

import contextlib
import shlex
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec
import polars as pl

from ..folder import Holder, RunEnd, RunStart, find_job_folder, job_of_start, lock_holder, read_history
from ..job import default_job_folder
from ..planning import Chain, Chains, keys_and_errors, keys_hash, keys_path, row_statuses
from ..progress import learned_text
from ..records import (
    STATUSES,
    UNUSABLE,
    BadJob,
    Exit,
    Failure,
    LearnedLimits,
    NewerVersion,
    Process,
    Record,
    Request,
    Stopped,
)
from ..store import Reader, RunStatus, latest_learned_limits, read_ledger, read_open_batches, read_run_status
from ..text import clip, duration, money, one_line, short_count

State = Literal["preparing", "running", "stopping", "finished", "stopped", "dead", "unknown"]

RATE_SECONDS = 60
"""The time over which the present rate is measured."""
ERRORS_SHOWN = 5
"""The number of kinds of error that are listed."""
LINE_CHARACTERS = 100
"""The longest error message that a line of text repeats; longer ones are clipped."""


class ErrorCount(Record, frozen=True, omit_defaults=False):
    """One kind of error: the number of rows that have it, and the first of them."""

    kind: str
    rows: int
    row: int
    """The number of the first row with this error, from 1."""
    message: str
    """The error of that row."""


class Batch(Record, frozen=True, omit_defaults=False):
    """One open batch at the provider."""

    id: str
    requests: int
    done: int
    """Requests that the provider reported as finished."""
    made: datetime | None


class JobStatus(Record, frozen=True, omit_defaults=False):
    """The status of a job, as `status --json` prints it. Times are UTC; a value that is not known is null."""

    state: State
    """preparing: reads and plans its input · running · stopping: waits for the requests in flight · finished ·
    stopped: ended early, see `message` · dead: its process was killed · unknown: it runs, or was killed, on a host or
    in a container that cannot be checked from here."""
    folder: str
    output: str | None = None
    by: Process | None = None
    """The `user`, `host` and `pid` of the present or the last run."""
    since: datetime | None = None
    """When that run started."""
    ended: datetime | None = None
    exit_code: int | None = None
    message: str = ""
    """Why the run stopped, or why its answers cannot be read now."""
    rows: dict[str, int] | None = None
    """Number of rows of the table by status."""
    to_ask: int | None = None
    """Number of requests that the run set out to settle."""
    asked: int | None = None
    """Number of those that are settled."""
    rows_per_second: float | None = None
    """Over the last minute."""
    rows_per_second_overall: float | None = None
    """Over the whole run."""
    seconds_left: float | None = None
    last_stored: datetime | None = None
    """When the latest outcome was stored."""
    prompt_tokens: int = 0
    """Prompt tokens over the life of the job folder."""
    output_tokens: int = 0
    """Output tokens over the life of the job folder, hidden reasoning included."""
    spent: float = 0.0
    """US dollars spent over the life of the job folder."""
    held: float = 0.0
    """US dollars at most that may have been billed without being reported; they count against the cap."""
    unpriced: int = 0
    """Attempts whose cost is not known; `spent` does not include them."""
    spent_this_run: float | None = None
    max_cost: float | None = None
    """The cap on spending in US dollars."""
    limits: dict[str, Any] = msgspec.field(default_factory=dict)
    """The limits in force, by name."""
    learnt: LearnedLimits | None = None
    """The limits of the endpoint that were learned last."""
    wait_seconds: float = 0.0
    """How long no request will be sent."""
    cause: str = ""
    """Why no request is sent; empty if the endpoint asked to wait."""
    batches: list[Batch] = msgspec.field(default_factory=list)
    """The open batches at the provider, also while no run is at work."""
    errors: list[ErrorCount] = msgspec.field(default_factory=list)
    """The most frequent kinds of error, up to five."""


def job_status(name: str | Path) -> JobStatus:
    """Read the status of a job. `name`: the path of its output, or of its folder.

    Raises BadJob if there is no such job, and NewerVersion if this version cannot read it.
    """
    folder = find_job_folder(name)
    lines = read_history(folder)
    start = next((line for line in reversed(lines) if isinstance(line, RunStart)), None)
    holder = lock_holder(folder)
    if start is None and holder is None:
        raise BadJob(f"{folder}: nothing was ever run here.")
    end = lines[-1] if lines and isinstance(lines[-1], RunEnd) else None
    status = JobStatus(state=_state(start, end, holder), folder=str(folder))
    if start is not None:
        status = _with_start(status, start)
    if holder is not None and status.state in ("preparing", "running", "unknown"):
        status = msgspec.structs.replace(status, by=holder.process, since=holder.since)
    elif end is not None:
        code, message = end.summary.exit_code, end.summary.message
        status = msgspec.structs.replace(status, ended=end.at, exit_code=int(code), message=message)
    try:
        with contextlib.closing(Reader(folder / "store")) as reader:
            return _with_store(status, folder, reader, start, end)
    except NewerVersion:
        raise
    except (FileNotFoundError, Stopped) as error:
        return msgspec.structs.replace(status, message=f"{status.message} {error}".strip())


def _state(start: RunStart | None, end: RunEnd | None, holder: Holder | None) -> State:
    if holder is not None and holder.alive is None:
        return "unknown"
    if holder is not None and holder.alive:
        return "preparing" if start is None or end is not None or start.at < holder.since else "running"
    if end is None:
        return "dead"
    return "finished" if end.summary.exit_code in (Exit.DONE, Exit.INCOMPLETE) else "stopped"


def _with_start(status: JobStatus, start: RunStart) -> JobStatus:
    limits = start.settings.get("limits", {})
    return msgspec.structs.replace(
        status,
        output=start.output,
        by=Process(start.user, start.host, start.pid),
        since=start.at,
        limits=limits,
        max_cost=limits.get("max_cost"),
    )


def _with_store(
    status: JobStatus, folder: Path, reader: Reader, start: RunStart | None, end: RunEnd | None
) -> JobStatus:
    """Add what the store knows: ledger, learned limits, batches, the noted run status, rows and errors."""
    ledger, noted = read_ledger(reader), read_run_status(reader)
    if noted is not None and (start is None or noted.began < start.at):
        noted = None  # an earlier run's
    status = msgspec.structs.replace(
        status,
        last_stored=reader.last_stored(),
        prompt_tokens=ledger.usage.prompt_tokens or 0,
        output_tokens=ledger.usage.billed_output_tokens or 0,
        spent=ledger.cost,
        held=ledger.held + ledger.aside,
        unpriced=ledger.unpriced,
        learnt=latest_learned_limits(reader),
        batches=[Batch(s.batch_id, s.requests, s.done, s.made_at) for s in read_open_batches(reader.note).sheets],
    )
    if noted is not None:
        status = _with_run_status(status, reader, noted, end)
    if start is None or not keys_path(folder).exists() or keys_hash(keys_path(folder)) != start.keys_hash:
        return status
    try:
        job = job_of_start(folder, start)
    except (BadJob, NewerVersion):  # run by another version: its rows' statuses cannot be computed
        return status
    statuses = row_statuses(job, folder, reader)
    counts = dict(statuses.value_counts().iter_rows())
    unusable = statuses.is_in(UNUSABLE)
    return msgspec.structs.replace(
        status,
        rows={name: counts.get(name, 0) for name in STATUSES},
        errors=_errors(folder, Chains(job, reader), unusable) if unusable.any() else [],
    )


def _with_run_status(status: JobStatus, reader: Reader, noted: RunStatus, end: RunEnd | None) -> JobStatus:
    """Add progress, rates and pause of the present or last run, from the status that it noted."""
    asked = end.summary.run if end is not None else noted.asked
    seconds = (noted.at - noted.began).total_seconds()
    overall = asked.rows / seconds if seconds > 0 else None
    changes: dict[str, Any] = {"to_ask": noted.to_ask, "asked": asked.rows, "rows_per_second_overall": overall}
    changes |= {"spent_this_run": asked.cost, "limits": noted.limits, "max_cost": noted.limits.get("max_cost")}
    if status.state in ("running", "unknown"):
        now = datetime.now(tz=UTC)
        age = max(0.0, (now - noted.at).total_seconds())  # a clock may have been set back
        minute = min(RATE_SECONDS, max(1.0, (now - noted.began).total_seconds()))
        rate = reader.count_since(now - timedelta(seconds=minute)) / minute
        pace = rate or overall
        changes |= {
            "state": "stopping" if noted.stopping and status.state == "running" else status.state,
            "rows_per_second": rate,
            "seconds_left": (noted.to_ask - asked.rows) / pace if pace else None,
            "wait_seconds": max(0.0, noted.wait_seconds - age),
            "cause": noted.cause,
            "message": noted.stopping,
        }
    return msgspec.structs.replace(status, **changes)


def _errors(folder: Path, chains: Chains, unusable: pl.Series) -> list[ErrorCount]:
    """The most frequent kinds of error among the rows whose place in `unusable` is true."""
    rows = keys_and_errors(folder, unusable)
    followed = chains.follow([Request(key, b"") for key in rows["key"] if key is not None])
    found: dict[str, ErrorCount] = {}
    for row, key, error in rows.iter_rows():
        kind, message = ("prompt", error) if key is None else _error_of(next(followed))
        first = found.get(kind) or ErrorCount(kind, 0, row, message)
        found[kind] = msgspec.structs.replace(first, rows=first.rows + 1)
    return sorted(found.values(), key=lambda error: -error.rows)[:ERRORS_SHOWN]


def _error_of(chain: Chain) -> tuple[str, str]:
    """The kind and the message of a sample's error."""
    step = chain.result
    if step is None:  # asked again since the statuses were read, or the row has its status from another sample
        return "pending", ""
    if isinstance(step.outcome, Failure):
        return step.outcome.kind, step.outcome.reason
    error = step.parsed.error if step.parsed is not None else None
    return step.status, error or step.outcome.refusal or step.outcome.text


# ---- as text


def status_text(status: JobStatus, now: datetime | None = None) -> str:
    """The status as a few lines of text, the last of which say what to type next; times are relative to `now`."""
    lines = [_headline(status, now or datetime.now(tz=UTC))]
    if status.message:
        lines.append(f"  {status.message.splitlines()[0]}")
    if status.to_ask and status.asked is not None:
        lines.append(_line("asked", _progress(status)))
    if status.batches:
        done, requests = (sum(getattr(batch, name) for batch in status.batches) for name in ("done", "requests"))
        facts = f"{len(status.batches):,} with the provider, {done:,} of {requests:,} requests done"
        lines.append(_line("batch", [facts]))
    if status.wait_seconds >= 1:
        cause = status.cause or "the endpoint asked to wait"
        lines.append(_line("paused", [f"{duration(status.wait_seconds)}: {cause}"]))
    if status.rows is not None:
        counts = ", ".join(f"{number:,} {name}" for name, number in status.rows.items() if number)
        lines.append(_line("rows", [f"{counts or '0 rows'} = {sum(status.rows.values()):,}"]))
    tokens = f"{short_count(status.prompt_tokens)} in, {short_count(status.output_tokens)} out"
    lines.append(_line("tokens", [tokens, *_spending(status)]))
    lines.append(_line("limits", [*_limits(status.limits), *filter(None, [learned_text(status.learnt)])]))
    for at, error in enumerate(status.errors):
        message = clip(one_line(error.message), LINE_CHARACTERS)
        lines.append(_line("" if at else "errors", [f"{error.rows:,} {error.kind}; row {error.row:,}: {message}"]))
    return "\n".join([*lines, *_next_commands(status)])


def _line(name: str, facts: list[str]) -> str:
    return f"  {name:<7}{' · '.join(facts)}"


def _headline(status: JobStatus, now: datetime) -> str:
    def since(moment: datetime | None) -> str:
        return duration(max(0.0, (now - moment).total_seconds())) if moment is not None else ""

    who = one_line(f"{status.by.user}@{status.by.host}, process {status.by.pid}") if status.by else ""
    running = since(status.since)
    match status.state:
        case "preparing":
            text = f"preparing: reading its input for {running} ({who})"
        case "running" | "stopping":
            text = f"{status.state}, started {running} ago by {who}"
        case "unknown":
            last = f"; its latest answer came {since(status.last_stored)} ago" if status.last_stored else ""
            text = f"locked for {running} by {who}, which cannot be checked from here{last}"
        case "dead":
            text = f"killed: the run started {running} ago by {who} did not end, and its process is gone"
        case _:
            then = f" {since(status.ended)} ago" if status.ended else ""
            text = f"{status.state}{then}, exit code {status.exit_code} ({who})"
    return f"{one_line(status.output or status.folder)} · {text}"


def _progress(status: JobStatus) -> list[str]:
    asked, to_ask = status.asked or 0, status.to_ask or 0
    facts = [f"{asked:,} of {to_ask:,} ({asked / to_ask:.0%})"]
    if status.rows_per_second is not None:
        facts.append(f"{status.rows_per_second:,.1f} rows/s in the last minute")
    if status.rows_per_second_overall is not None:
        facts.append(f"{status.rows_per_second_overall:,.1f} rows/s overall")
    if status.seconds_left is not None:
        facts.append(f"{duration(status.seconds_left)} left")
    return facts


def _limits(limits: Mapping[str, Any]) -> Iterator[str]:
    yield f"concurrency {limits.get('concurrency', 'auto')}"
    for name, unit in (("requests_per_minute", "requests/min"), ("tokens_per_minute", "tokens/min")):
        if limits.get(name) is not None:
            yield f"{limits[name]:,.10g} {unit}"
    if limits.get("max_runtime") is not None:
        yield f"at most {limits['max_runtime']}"


def _spending(status: JobStatus) -> list[str]:
    spent = f"{money(status.spent)} in all"
    if status.spent_this_run is not None:
        spent = f"{money(status.spent_this_run)} this run, {spent}"
    facts = [f"{spent}, without {status.unpriced:,} requests at an unknown price" if status.unpriced else spent]
    if status.held:
        facts.append(f"up to {money(status.held)} more may be billed")
    if status.max_cost is not None:
        facts.append(f"cap {money(status.max_cost)}")
    return facts


def _next_commands(status: JobStatus) -> Iterator[str]:
    job = _job_name(status)
    if status.state in ("dead", "stopped"):
        yield f"  Every answer so far is kept. Go on: pipeline resume {job}"
    unusable = [name for name in UNUSABLE if status.rows and status.rows[name]]
    if unusable:
        yield f"  Look: pipeline show {job} --status {unusable[0]}"


def _job_name(status: JobStatus) -> str:
    """The name to type for this job: its output if the job folder is beside it, else the folder."""
    folder, output = Path(status.folder), status.output
    return shlex.quote(output if output and default_job_folder(Path(output)) == folder else status.folder)
