"""Where a job stands, and what was run in it: read from any terminal, without asking, locking or writing anything."""

import contextlib
import shlex
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec

from ..folder import Holder, RunEnd, RunStart, find_job_folder, job_of_start, lock_holder, read_history
from ..job import default_job_folder
from ..planning import Chain, Chains, keys_and_errors, keys_hash, keys_path, row_statuses
from ..progress import learned_text
from ..records import STATUSES, UNUSABLE, BadJob, Exit, Failure, LearnedLimits, Process, Record, Request, Stopped
from ..store import Reader, RunStatus, latest_learned_limits, read_ledger, read_open_batches, read_run_status
from ..text import duration, money, one_line, short_count

State = Literal["preparing", "running", "stopping", "finished", "stopped", "dead", "unknown"]

RATE_SECONDS = 60
"""The rate now is that of the last minute."""
ERRORS_SHOWN = 5
SHOWN = 100
"""Characters of a message or a setting that a line repeats."""


class ErrorCount(Record, frozen=True, omit_defaults=False):
    """One kind of error: how many rows ended so, and one of them."""

    kind: str
    rows: int
    row: int
    """From 1."""
    message: str
    """Of that row."""


class Batch(Record, frozen=True, omit_defaults=False):
    """One batch that is with the provider."""

    id: str
    requests: int
    done: int
    """As the provider said last."""
    made: datetime | None


class JobStatus(Record, frozen=True, omit_defaults=False):
    """Where a job stands: what `status --json` prints. Times are UTC; what is not known is null."""

    state: State
    """preparing: reads its input · running · stopping: waits for what is in flight · finished · stopped: it says why ·
    dead: its process was killed · unknown: it runs where it cannot be seen from here, or was killed there."""
    folder: str
    output: str | None = None
    by: Process | None = None
    """Who runs it, or ran it last: `user`, `host`, `pid`."""
    since: datetime | None = None
    """When that run began."""
    ended: datetime | None = None
    exit_code: int | None = None
    message: str = ""
    """Why it stopped, or why its answers cannot be read just now."""
    rows: dict[str, int] | None = None
    """Of the table, by status."""
    to_ask: int | None = None
    """Requests that this run began with, …"""
    asked: int | None = None
    """… and so many of them that have an outcome."""
    rows_per_second: float | None = None
    """In the last minute."""
    rows_per_second_overall: float | None = None
    """Of this run."""
    seconds_left: float | None = None
    last_stored: datetime | None = None
    """When the latest outcome was stored."""
    prompt_tokens: int = 0
    """Over the job folder's life, as `output_tokens` (hidden reasoning included), `spent` and `held`."""
    output_tokens: int = 0
    spent: float = 0.0
    """US dollars."""
    held: float = 0.0
    """US dollars at most that may have been billed and were never told: they count against the cap."""
    unpriced: int = 0
    """Attempts whose cost is not known, and not in `spent`."""
    spent_this_run: float | None = None
    max_cost: float | None = None
    limits: dict[str, Any] = msgspec.field(default_factory=dict)
    """In force, by name."""
    learnt: LearnedLimits | None = None
    """What was found out about the endpoint's pace."""
    wait_seconds: float = 0.0
    """For so long nothing leaves, …"""
    cause: str = ""
    """… and why."""
    batches: list[Batch] = msgspec.field(default_factory=list)
    """What is with the provider's Batch API, whether a run is at work or not."""
    errors: list[ErrorCount] = msgspec.field(default_factory=list)
    """The five commonest."""


def job_status(name: str | Path) -> JobStatus:
    """Where a job stands, running or not. Raises BadJob if there is none of this name."""
    folder = find_job_folder(name)
    lines = read_history(folder)
    began = next((line for line in reversed(lines) if isinstance(line, RunStart)), None)
    held_by = lock_holder(folder)
    if began is None and held_by is None:
        raise BadJob(f"{folder}: nothing was ever run here.")
    end = lines[-1] if lines and isinstance(lines[-1], RunEnd) else None
    standing = JobStatus(state=_state(began, end, held_by), folder=str(folder))
    if began is not None:
        standing = _as_begun(standing, began)
    if held_by is not None and standing.state in ("preparing", "running", "unknown"):
        standing = msgspec.structs.replace(standing, by=held_by.process, since=held_by.since)
    elif end is not None:
        code, message = end.summary.exit_code, end.summary.message
        standing = msgspec.structs.replace(standing, ended=end.at, exit_code=int(code), message=message)
    try:
        with contextlib.closing(Reader(folder / "store")) as reader:
            return _read(standing, folder, reader, began, end)
    except (FileNotFoundError, Stopped) as error:
        return msgspec.structs.replace(standing, message=f"{standing.message} {error}".strip())


def _state(began: RunStart | None, end: RunEnd | None, held_by: Holder | None) -> State:
    if held_by is not None and held_by.alive is None:
        return "unknown"
    if held_by is not None and held_by.alive:
        return "preparing" if began is None or end is not None or began.at < held_by.since else "running"
    if end is None:
        return "dead"
    return "finished" if end.summary.exit_code in (Exit.DONE, Exit.INCOMPLETE) else "stopped"


def _as_begun(standing: JobStatus, began: RunStart) -> JobStatus:
    limits = began.settings.get("limits", {})
    return msgspec.structs.replace(
        standing,
        output=began.output,
        by=Process(began.user, began.host, began.pid),
        since=began.at,
        limits=limits,
        max_cost=limits.get("max_cost"),
    )


def _read(standing: JobStatus, folder: Path, reader: Reader, began: RunStart | None, end: RunEnd | None) -> JobStatus:
    """All that the store knows."""
    ledger, now = read_ledger(reader), read_run_status(reader)
    if now is not None and (began is None or now.began < began.at):
        now = None  # an earlier run's
    standing = msgspec.structs.replace(
        standing,
        last_stored=reader.last_stored(),
        prompt_tokens=ledger.usage.prompt_tokens or 0,
        output_tokens=ledger.usage.billed_output_tokens or 0,
        spent=ledger.cost,
        held=ledger.held + ledger.aside,
        unpriced=ledger.unpriced,
        learnt=latest_learned_limits(reader),
        batches=[Batch(s.batch_id, s.requests, s.done, s.made_at) for s in read_open_batches(reader.note).sheets],
    )
    if now is not None:
        standing = _as_it_runs(standing, reader, now, end)
    if began is None or not keys_path(folder).exists() or keys_hash(keys_path(folder)) != began.keys_hash:
        return standing
    try:
        job = job_of_start(folder, began)
    except BadJob:  # of another version: its rows are not told apart
        return standing
    statuses = row_statuses(job, folder, reader)
    counts = dict(statuses.value_counts().iter_rows())
    troubled = statuses.is_in(UNUSABLE)
    return msgspec.structs.replace(
        standing,
        rows={name: counts.get(name, 0) for name in STATUSES},
        errors=_errors(folder, Chains(job, reader), troubled) if troubled.any() else [],
    )


def _as_it_runs(standing: JobStatus, reader: Reader, now: RunStatus, end: RunEnd | None) -> JobStatus:
    asked = end.summary.run if end is not None else now.asked
    seconds = (now.at - now.began).total_seconds()
    overall = asked.rows / seconds if seconds > 0 else None
    changes: dict[str, Any] = {"to_ask": now.to_ask, "asked": asked.rows, "rows_per_second_overall": overall}
    changes |= {"spent_this_run": asked.cost, "limits": now.limits, "max_cost": now.limits.get("max_cost")}
    if standing.state in ("running", "unknown"):
        moment = datetime.now(tz=UTC)
        age = (moment - now.at).total_seconds()
        minute = min(RATE_SECONDS, max(1.0, (moment - now.began).total_seconds()))
        rate = reader.count_since(moment - timedelta(seconds=minute)) / minute
        pace = rate or overall
        changes |= {
            "state": "stopping" if now.stopping and standing.state == "running" else standing.state,
            "rows_per_second": rate,
            "seconds_left": (now.to_ask - asked.rows) / pace if pace else None,
            "wait_seconds": max(0.0, now.wait_seconds - age),
            "cause": now.cause,
            "message": now.stopping,
        }
    return msgspec.structs.replace(standing, **changes)


def _errors(folder: Path, chains: Chains, troubled: Any) -> list[ErrorCount]:  # noqa: ANN401 - a polars Series
    """The commonest kinds of error among these rows."""
    rows = keys_and_errors(folder, troubled)
    walked = iter(chains.follow([Request(key, b"") for key in rows["key"] if key is not None]))
    found: dict[str, ErrorCount] = {}
    for row, key, error in rows.iter_rows():
        kind, message = ("prompt", error) if key is None else _told(next(walked))
        first = found.get(kind) or ErrorCount(kind, 0, row, message)
        found[kind] = msgspec.structs.replace(first, rows=first.rows + 1)
    return sorted(found.values(), key=lambda trouble: -trouble.rows)[:ERRORS_SHOWN]


def _told(chain: Chain) -> tuple[str, str]:
    """The kind and the words of one error."""
    shown = chain.result
    if shown is None:  # asked again in between, or another of its opinions is the row's
        return "pending", ""
    if isinstance(shown.outcome, Failure):
        return shown.outcome.kind, shown.outcome.reason
    error = shown.parsed.error if shown.parsed is not None else None
    return shown.status, error or shown.outcome.refusal or shown.outcome.text


# ---- as text


def status_text(standing: JobStatus, now: datetime | None = None) -> str:
    """For a person, in a few lines."""
    moment = now or datetime.now(tz=UTC)
    lines = [_headline(standing, moment)]
    if standing.message:
        lines.append(f"  {standing.message.splitlines()[0]}")
    if standing.to_ask and standing.asked is not None:
        lines.append(_line("asked", _pace(standing)))
    if standing.batches:
        done, requests = (sum(getattr(batch, name) for batch in standing.batches) for name in ("done", "requests"))
        facts = f"{len(standing.batches):,} with the provider, {done:,} of {requests:,} requests done"
        lines.append(_line("batch", [facts]))
    if standing.wait_seconds >= 1:
        lines.append(_line("waits", [f"{duration(standing.wait_seconds)}: {standing.cause or 'the endpoint said so'}"]))
    if standing.rows is not None:
        counts = ", ".join(f"{number:,} {name}" for name, number in standing.rows.items() if number)
        lines.append(_line("rows", [f"{counts or '0 rows'} = {sum(standing.rows.values()):,}"]))
    tokens = f"{short_count(standing.prompt_tokens)} in, {short_count(standing.output_tokens)} out"
    lines.append(_line("tokens", [tokens, *_spend(standing)]))
    lines.append(_line("limits", [*_limits(standing.limits), *filter(None, [learned_text(standing.learnt)])]))
    for at, trouble in enumerate(standing.errors):
        said = one_line(trouble.message)
        said = said if len(said) <= SHOWN else said[: SHOWN - 1] + "…"
        lines.append(_line("" if at else "errors", [f"{trouble.rows:,} {trouble.kind}; row {trouble.row:,}: {said}"]))
    return "\n".join([*lines, *_next(standing)])


def _line(name: str, facts: list[str]) -> str:
    return f"  {name:<7}{' · '.join(facts)}"


def _headline(standing: JobStatus, moment: datetime) -> str:
    who = one_line(f"{standing.by.user}@{standing.by.host}, process {standing.by.pid}") if standing.by else ""
    name = one_line(standing.output or standing.folder)
    ago = f"{duration((moment - standing.since).total_seconds())} ago" if standing.since else ""
    match standing.state:
        case "preparing":
            text = f"preparing: reads its input since {ago.removesuffix(' ago')} ({who})"
        case "running" | "stopping":
            text = f"{standing.state}, begun {ago} by {who}"
        case "unknown":
            seen = standing.last_stored
            last = f"; its latest answer came {duration((moment - seen).total_seconds())} ago" if seen else ""
            text = f"held by {who}, which cannot be seen from here, since {ago.removesuffix(' ago')}{last}"
        case "dead":
            text = f"killed: the run begun {ago} by {who} has no end, and its process is gone"
        case _:
            then = f" {duration((moment - standing.ended).total_seconds())} ago" if standing.ended else ""
            text = f"{standing.state}{then}, exit code {standing.exit_code} ({who})"
    return f"{name} · {text}"


def _pace(standing: JobStatus) -> list[str]:
    asked, to_ask = standing.asked or 0, standing.to_ask or 0
    facts = [f"{asked:,} of {to_ask:,} ({asked / to_ask:.0%})"]
    if standing.rows_per_second is not None:
        facts.append(f"{standing.rows_per_second:,.1f} rows/s in the last minute")
    if standing.rows_per_second_overall is not None:
        facts.append(f"{standing.rows_per_second_overall:,.1f} over all")
    if standing.seconds_left is not None:
        facts.append(f"{duration(standing.seconds_left)} left")
    return facts


def _limits(limits: Mapping[str, Any]) -> Iterator[str]:
    yield f"{limits.get('concurrency', 'auto')} at once"
    for name, unit in (("requests_per_minute", "requests/min"), ("tokens_per_minute", "tokens/min")):
        if limits.get(name) is not None:
            yield f"{limits[name]:,.10g} {unit}"
    if limits.get("max_runtime") is not None:
        yield f"for {limits['max_runtime']}"


def _spend(standing: JobStatus) -> list[str]:
    spent = f"{money(standing.spent)} in all"
    if standing.spent_this_run is not None:
        spent = f"{money(standing.spent_this_run)} this run, {spent}"
    facts = [f"{standing.unpriced:,} requests at an unknown price, else {spent}" if standing.unpriced else spent]
    if standing.held:
        facts.append(f"{money(standing.held)} more at most")
    if standing.max_cost is not None:
        facts.append(f"cap {money(standing.max_cost)}")
    return facts


def _next(standing: JobStatus) -> Iterator[str]:
    """What to type next."""
    job = _job_name(standing)
    if standing.state in ("dead", "stopped"):
        yield f"  Every answer so far is kept. Go on: pipeline resume {job}"
    bad = [name for name in UNUSABLE if standing.rows and standing.rows[name]]
    if bad:
        yield f"  Look: pipeline show {job} --status {bad[0]}"


def _job_name(standing: JobStatus) -> str:
    folder, output = Path(standing.folder), standing.output
    return shlex.quote(output if output and default_job_folder(Path(output)) == folder else standing.folder)
