"""The history of a job folder: `history.jsonl`, with a line when a run begins and another when it ends.

A run without its second line was killed or is still running. The file never holds a secret.
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
    """The line for the beginning of a run: when, by whom, with which settings, over which table."""

    at: datetime
    """When the run began (UTC)."""
    user: str
    host: str
    pid: int
    version: str
    """The version of pipeline."""
    command: list[str] | None
    """The arguments after `pipeline` on the command line; None if the run was started from Python."""
    directory: str
    """The working directory, to which paths on the command line are relative."""
    inputs: list[str]
    input_hash: str
    """A hash of the table's content."""
    table: str
    """The Parquet file that was read: the input itself, or the snapshot made of it."""
    keys_hash: str
    """A hash of the plan's keys. If the plan on disk has other keys, the run was cut off before it wrote them."""
    output: str
    settings: dict[str, Any]
    """All settings of the job, without keys and the values of headers."""
    seen_by_model: dict[str, Any]
    """The settings that decide what the model sees, by dotted name."""
    limit: int | None = None
    """The first rows only, this many; None for all."""
    sample: int | None = None
    """Random rows only, this many; None for all."""
    seed: int = 0
    """The seed of the sample."""
    retry: tuple[Status, ...] = ()
    """The statuses whose rows the run asked again."""

    @property
    def settings_id(self) -> str:
        """The hexadecimal digits that stand for these settings in the output column `settings`."""
        return settings_id(self.seen_by_model)


class RunEnd(Record, frozen=True, tag="ended"):
    """The line for the end of the run that began last."""

    at: datetime
    """When the run ended (UTC)."""
    summary: Summary


_line_decoder: msgspec.json.Decoder[RunStart | RunEnd] = msgspec.json.Decoder(RunStart | RunEnd)


def record_start(job: Job, command: Sequence[str] | None, input_hash: str, table: Path, keys_hash: str) -> None:
    """Append the line for the beginning of a run; it is on disk when this returns. Raises Stopped on a failed write."""
    process = Process.this()
    start = RunStart(
        at=datetime.now(tz=UTC),
        user=process.user,
        host=process.host,
        pid=process.pid,
        version=__version__,
        command=None if command is None else list(command),
        directory=str(job.directory.absolute()),
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
    _append(job.folder, start)


def record_end(folder: Path, summary: Summary) -> None:
    """Append the line for the end of a run, and write its summary to `summary.json`.

    Both are on disk when this returns. Raises Stopped on a failed write.
    """
    _append(folder, RunEnd(at=datetime.now(tz=UTC), summary=summary))
    text = msgspec.json.format(msgspec.json.encode(summary), indent=2)
    with _reporting_errors(folder / "summary.json"):
        write_whole(folder / "summary.json", text + b"\n", private=True)


def read_history(folder: Path) -> list[RunStart | RunEnd]:
    """Read all lines, oldest first, without any that a crash cut off or that this version does not understand."""
    try:
        lines = (folder / "history.jsonl").read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [decoded for line in lines if line.endswith(b"\n") and (decoded := _decode(line)) is not None]


def last_start(folder: Path, *, pilots: bool = True) -> RunStart | None:
    """Return the start of the latest run (without `pilots`, of the latest over the whole table); None without one."""
    starts = [line for line in read_history(folder) if isinstance(line, RunStart)]
    wanted = starts if pilots else [start for start in starts if start.limit is None and start.sample is None]
    return wanted[-1] if wanted else None


def last_summary(folder: Path) -> Summary | None:
    """Return the summary of the latest run; None if it has not ended, or there was none."""
    line = next(reversed(read_history(folder)), None)
    return line.summary if isinstance(line, RunEnd) else None


def retried_since(folder: Path, retry: Sequence[Status]) -> datetime | None:
    """Return when the retry began that a run with the same `retry` continues; None if it continues none.

    It continues the latest runs if they all retried the same statuses and none of them finished.
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
    """Find a job's folder by a name as typed: the folder, or the job's output file. Raises BadJob if there is none."""
    path = Path(name)
    for folder in (path, default_job_folder(path)):
        with contextlib.suppress(OSError):  # such as a name that is too long: no job has it
            # lock.json alone: the first run is still planning
            if (folder / "history.jsonl").is_file() or (folder / "lock.json").is_file():
                return folder.absolute()
    raise BadJob(
        f"{path}: there is no job of this name. Give a job's output file, or its folder (OUTPUT.job, or what --job-dir "
        "named)."
    )


def job_of_start(folder: Path, start: RunStart) -> Job:
    """Make the Job of a recorded run again, over the table that it read, also if the job folder was moved since.

    The values of its headers are lost: they are secrets and were not recorded. Raises BadJob for settings that this
    version does not understand.
    """
    this_run = ThisRun(limit=start.limit, sample=start.sample, seed=start.seed, job_dir=folder)
    table = Path(start.table)
    moved = folder / table.name
    try:
        return Job.model_validate(
            {
                **start.settings,
                "inputs": (str(moved if moved.exists() else table),),
                "output_file": Path(start.output),
                "this_run": this_run,
            }
        )
    except ValueError as error:
        raise BadJob(
            f"{folder} was last run with settings that this version of pipeline does not understand: {error}\n"
            "Its answers are kept. Run the job again with this version, then type the same command again."
        ) from None


def _decode(line: bytes) -> RunStart | RunEnd | None:
    """Decode a line; None if this version does not understand it, which loses no answer."""
    try:
        return _line_decoder.decode(line)
    except ValueError:  # msgspec's error, or Python's for bytes that are not UTF-8
        return None


def _append(folder: Path, line: RunStart | RunEnd) -> None:
    """Append a line; it is on disk when this returns. Remove a line that a crash cut off: it would spoil this one."""
    path = folder / "history.jsonl"
    with _reporting_errors(path), os.fdopen(open_private(path, os.O_RDWR), "r+b") as file:
        file.truncate(file.read().rfind(b"\n") + 1)
        file.seek(0, os.SEEK_END)
        file.write(msgspec.json.encode(line) + b"\n")
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _reporting_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Stopped(
            f"{path} cannot be written: {error.strerror}. Every answer so far is kept.\n"
            "Free some space, or check the permissions of the folder; then type the same command again."
        ) from error
