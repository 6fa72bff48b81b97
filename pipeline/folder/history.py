"""What was run in a job folder: a line when a run begins, a line when it ends, in `history.jsonl`.

A run without its second line was killed. No secret is ever in it.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from ..files import open_private, write_whole
from ..job import Job, ThisRun, default_job_folder, settings_id
from ..records import BadJob, Exit, Process, Record, Status, Stopped, Summary
from ..version import __version__


class RunStart(Record, frozen=True, tag="began"):
    """Who began a run, when, with what settings, over what."""

    at: datetime
    user: str
    host: str
    pid: int
    version: str
    command: list[str] | None
    """The command line's words after `pipeline`; None from Python."""
    directory: str
    """Where one stood: paths of the command line are relative to it."""
    inputs: list[str]
    input_hash: str
    table: str
    """The Parquet that was read: the input itself, or its snapshot."""
    keys_hash: str
    """Of the plan's keys: if they are others, the run was cut short as it began."""
    output: str
    settings: dict[str, Any]
    seen_by_model: dict[str, Any]
    limit: int | None = None
    sample: int | None = None
    seed: int = 0
    retry: tuple[Status, ...] = ()

    @property
    def settings_id(self) -> str:
        """The digits by which the column `settings` names the settings of this run."""
        return settings_id(self.seen_by_model)


class RunEnd(Record, frozen=True, tag="ended"):
    """How the run that began last came out."""

    at: datetime
    summary: Summary


_lines: msgspec.json.Decoder[RunStart | RunEnd] = msgspec.json.Decoder(RunStart | RunEnd)


def record_start(job: Job, command: Sequence[str] | None, input_hash: str, table: Path, keys_hash: str) -> None:
    """Write down, durably, that a run begins. Raises Stopped if that cannot be done."""
    who = Process.this()
    began = RunStart(
        at=datetime.now(tz=UTC),
        user=who.user,
        host=who.host,
        pid=who.pid,
        version=__version__,
        command=None if command is None else list(command),
        directory=str(Path.cwd()),
        inputs=list(job.inputs),
        input_hash=input_hash,
        table=str(table.absolute()),
        keys_hash=keys_hash,
        output=str(job.output_path.absolute()),
        settings=job.without_secrets(),
        seen_by_model=job.seen_by_model(),
        limit=job.this_run.limit,
        sample=job.this_run.sample,
        seed=job.this_run.seed,
        retry=job.this_run.retry,
    )
    _append(job.folder, began)


def record_end(folder: Path, summary: Summary) -> None:
    """Write down how the run ended, here and in `summary.json`. Raises Stopped if that cannot be done."""
    _append(folder, RunEnd(at=datetime.now(tz=UTC), summary=summary))
    text = msgspec.json.format(msgspec.json.encode(summary), indent=2)
    with _telling(folder / "summary.json"):
        write_whole(folder / "summary.json", text + b"\n", private=True)


def read_history(folder: Path) -> list[RunStart | RunEnd]:
    """All lines, oldest first. One that a crash cut short, or another version wrote, is passed over."""
    try:
        lines = (folder / "history.jsonl").read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [known for line in lines if line.endswith(b"\n") and (known := _known(line)) is not None]


def _known(line: bytes) -> RunStart | RunEnd | None:
    """What a line tells; None for one that this version does not understand: no answer hangs on it."""
    try:
        return _lines.decode(line)
    except ValueError:  # msgspec's own, and Python's of bytes that are no text
        return None


def last_start(folder: Path, *, pilots: bool = True) -> RunStart | None:
    """The run that began last, or the last one over the whole table; None if there was none."""
    runs = [line for line in read_history(folder) if isinstance(line, RunStart)]
    wanted = runs if pilots else [run for run in runs if run.limit is None and run.sample is None]
    return wanted[-1] if wanted else None


def last_summary(folder: Path) -> Summary | None:
    """How the run that began last ended; None if it did not, or there was none."""
    line = next(reversed(read_history(folder)), None)
    return line.summary if isinstance(line, RunEnd) else None


def retried_since(folder: Path, retry: Sequence[Status]) -> datetime | None:
    """When the retry began that this one carries on: the last runs, if they retried the same and came to no end.

    None if there is nothing to carry on.
    """
    since = None
    for line in reversed(read_history(folder)):
        if isinstance(line, RunEnd):
            if line.summary.exit_code in (Exit.DONE, Exit.INCOMPLETE):
                break
        elif retry and tuple(line.retry) == tuple(retry):
            since = line.at
        else:
            break
    return since


def find_job_folder(name: str | Path) -> Path:
    """The job folder that JOB means: itself, or that of an output. Raises BadJob if there is none."""
    path = Path(name)
    for folder in (path, default_job_folder(path)):
        if (folder / "history.jsonl").is_file() or (folder / "lock.json").is_file():  # the first run is planning yet
            return folder.absolute()
    raise BadJob(f"{path}: there is no job of this name. Name an output, or its job folder (OUTPUT.job, or --job-dir).")


def job_of_start(folder: Path, began: RunStart) -> Job:
    """The Job of a run that was begun, over the table that it read, wherever its folder has moved meanwhile.

    Its headers' values are not known any more. Raises BadJob for settings of another version.
    """
    this_run = ThisRun(limit=began.limit, sample=began.sample, seed=began.seed, job_dir=folder)
    table = Path(began.table)
    moved = folder / table.name
    try:
        return Job.model_validate(
            {
                **began.settings,
                "inputs": (str(moved if moved.exists() else table),),
                "output_file": Path(began.output),
                "this_run": this_run,
            }
        )
    except ValueError as error:
        raise BadJob(
            f"{folder} was last run with settings that this version does not know: {error}\nRun it again, then look."
        ) from None


def _append(folder: Path, line: RunStart | RunEnd) -> None:
    """Add a line, on disk when this returns. A line that a crash cut short is taken away: it would spoil this one."""
    path = folder / "history.jsonl"
    with _telling(path), os.fdopen(open_private(path, os.O_RDWR), "r+b") as file:
        file.truncate(file.read().rfind(b"\n") + 1)
        file.seek(0, os.SEEK_END)
        file.write(msgspec.json.encode(line) + b"\n")
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Stopped(
            f"{path} cannot be written: {error.strerror}. Every answer so far is kept.\n"
            "Make room, or see to your rights in the folder; then run the same command again."
        ) from error
