"""The history of a job's runs, as records and as text."""

import shlex
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from ..folder import RunEnd, RunStart, find_job_folder, lock_holder, read_history
from ..records import STATUSES, Process, Record, Tally
from ..text import duration, money, one_line

SHOWN = 100
"""Characters of a message or a setting that a line repeats."""


class RunRecord(Record, frozen=True, omit_defaults=False):
    """One run, as `history --json` prints it. Times are UTC."""

    began: datetime
    by: Process
    version: str
    command: list[str] | None
    """The words after `pipeline`; null from Python."""
    changed: dict[str, tuple[Any, Any]]
    """Settings that differ from those of the run before, by dotted name: old, new."""
    ended: datetime | None = None
    """Null of one that was killed, or runs yet."""
    running: bool = False
    exit_code: int | None = None
    message: str = ""
    rows: dict[str, int] | None = None
    asked: int | None = None
    spent: float | None = None
    """US dollars, of this run alone."""
    seconds: float | None = None


def job_history(name: str | Path) -> list[RunRecord]:
    """Every run in a job folder, oldest first. Raises BadJob if there is no such job."""
    folder = find_job_folder(name)
    held_by = lock_holder(folder)
    found: list[RunRecord] = []
    before: Mapping[str, Any] | None = None
    for line in read_history(folder):
        if isinstance(line, RunStart):
            now = _settings(line)
            names = [] if before is None else sorted(now.keys() | before.keys())
            changed = {n: (before.get(n), now.get(n)) for n in names if before and before.get(n) != now.get(n)}
            found.append(
                RunRecord(line.at, Process(line.user, line.host, line.pid), line.version, line.command, changed)
            )
            before = now
        elif found:
            found[-1] = _ended(found[-1], line)
    if found and found[-1].ended is None and held_by is not None and held_by.alive is not False:
        found[-1] = msgspec.structs.replace(found[-1], running=True)
    return found


def _settings(began: RunStart) -> dict[str, Any]:
    """By dotted name; and what else decides a run."""
    flat = {f"{section}.{key}": value for section, keys in began.settings.items() for key, value in keys.items()}
    extra = {"--limit": began.limit, "--sample": began.sample, "--retry": ",".join(began.retry) or None}
    return {**flat, **extra, "input": began.input_hash[:12], "output": began.output}


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
    """A few lines for each run."""
    if not runs:
        yield "Nothing was ever run here."
    for number, run in enumerate(runs, 1):
        who = one_line(f"{run.by.user}@{run.by.host}")
        yield f"{number} · {run.began.astimezone():%Y-%m-%d %H:%M} · {who} · version {run.version} · {_outcome(run)}"
        yield f"    {_short('pipeline ' + shlex.join(run.command)) if run.command is not None else '(from Python)'}"
        for name, (old, new) in run.changed.items():
            yield f"    {one_line(name)}: {_short(old)} → {_short(new)}"
        if run.message:
            yield f"    {_short(run.message)}"


def _outcome(run: RunRecord) -> str:
    if run.running:
        return "runs"
    if run.ended is None:
        return "killed"
    counts = ", ".join(f"{number:,} {name}" for name, number in (run.rows or {}).items() if number)
    facts = [f"exit {run.exit_code} after {duration(run.seconds or 0)}", f"{run.asked or 0:,} asked"]
    return ", ".join([*facts, money(run.spent or 0)]) + (f" · {counts}" if counts else "")


def _short(value: object) -> str:
    text = one_line(
        value if isinstance(value, str) else "none" if value is None else msgspec.json.encode(value).decode()
    )
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
