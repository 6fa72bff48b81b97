"""The runs of a job, oldest first: as records (`history --json`) and as text."""

import shlex
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from ..folder import RunEnd, RunStart, find_job_folder, lock_holder, read_history
from ..records import STATUSES, Process, Record, Tally
from ..text import clip, compact_json, duration, money, one_line

LINE_CHARACTERS = 100
"""The longest command, setting or message that a line of text repeats; longer ones are clipped."""


class RunRecord(Record, frozen=True, omit_defaults=False):
    """One run, as `history --json` prints it. Times are UTC."""

    began: datetime
    by: Process
    """The user, host and process id."""
    version: str
    command: list[str] | None
    """The words of the command line after `pipeline`, without secrets; null for a run from Python."""
    changed: dict[str, tuple[Any, Any]]
    """The settings that differ from the run before, by dotted name: old and new value."""
    ended: datetime | None = None
    """Null for a run that was killed or is still running."""
    running: bool = False
    exit_code: int | None = None
    message: str = ""
    """Why the run stopped; empty if it finished."""
    rows: dict[str, int] | None = None
    """Number of rows of the table by status, at the end of the run."""
    asked: int | None = None
    """Number of requests that this run settled."""
    spent: float | None = None
    """US dollars that this run alone spent."""
    seconds: float | None = None


def job_history(name: str | Path) -> list[RunRecord]:
    """Read every run of a job, oldest first. Raises BadJob if there is no such job."""
    folder = find_job_folder(name)
    holder = lock_holder(folder)
    found: list[RunRecord] = []
    before: Mapping[str, Any] | None = None
    for line in read_history(folder):
        if isinstance(line, RunStart):
            now = _settings(line)
            names = [] if before is None else sorted(now.keys() | before.keys())
            changed = {n: (before.get(n), now.get(n)) for n in names if before and before.get(n) != now.get(n)}
            found.append(
                RunRecord(line.at, Process(line.user, line.host, line.pid), line.version, line.shown_command, changed)
            )
            before = now
        elif found:
            found[-1] = _ended(found[-1], line)
    if found and found[-1].ended is None and holder is not None and holder.alive is not False:
        found[-1] = msgspec.structs.replace(found[-1], running=True)
    return found


def _settings(start: RunStart) -> dict[str, Any]:
    """All that decides a run, by name: its settings (dotted), its selection of rows, its input and its output."""
    settings = {
        f"{section}.{key}": value for section, keys in start.shown_settings.items() for key, value in keys.items()
    }
    selection = {"--limit": start.limit, "--sample": start.sample, "--retry": ",".join(start.retry) or None}
    return {**settings, **selection, "input": start.input_hash[:12], "output": start.output}


def _ended(run: RunRecord, end: RunEnd) -> RunRecord:
    summary = end.summary
    return msgspec.structs.replace(
        run,
        ended=end.at,
        exit_code=int(summary.exit_code),
        message=summary.message,
        rows=_counts(summary.rows),
        asked=summary.run.rows,
        spent=summary.run.cost,
        seconds=summary.seconds,
    )


def _counts(tally: Tally) -> dict[str, int]:
    return {name: getattr(tally, name) for name in STATUSES}


def history_text(runs: list[RunRecord]) -> Iterator[str]:
    """The lines of text for these runs: who, when and how it ended; the command; changed settings; the message."""
    if not runs:
        yield "Nothing was ever run here."
    for number, run in enumerate(runs, 1):
        who = one_line(f"{run.by.user}@{run.by.host}")
        yield f"{number} · {run.began.astimezone():%Y-%m-%d %H:%M} · {who} · version {run.version} · {_result(run)}"
        yield f"    {_value('pipeline ' + shlex.join(run.command)) if run.command is not None else '(from Python)'}"
        for name, (old, new) in run.changed.items():
            yield f"    {one_line(name)}: {_value(old)} → {_value(new)}"
        if run.message:
            yield f"    {_value(run.message)}"


def _result(run: RunRecord) -> str:
    if run.running:
        return "running"
    if run.ended is None:
        return "killed"
    counts = ", ".join(f"{number:,} {name}" for name, number in (run.rows or {}).items() if number)
    facts = [f"exit {run.exit_code} after {duration(run.seconds or 0)}", f"{run.asked or 0:,} asked"]
    return ", ".join([*facts, money(run.spent or 0)]) + (f" · {counts}" if counts else "")


def _value(value: object) -> str:
    """A setting or a message on one line, clipped."""
    text = value if isinstance(value, str) else "none" if value is None else compact_json(value).decode()
    return clip(one_line(text), LINE_CHARACTERS)
