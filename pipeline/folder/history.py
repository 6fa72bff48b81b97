"""The history of a job folder: `history.jsonl`, with a line when a run begins and another when it ends.

A run without its second line was killed or is still running. The file never holds a secret. Each line ends in the mark
of who wrote it (`marks`): a line of the history may be anybody's, and is run again unasked only if it is one's own.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from ..files import is_group_shared, is_open_to_everyone, open_private, read_private, sync, write_whole
from ..job import Job, ThisRun, default_job_folder, seen_hash, settings_id
from ..records import BadJob, Exit, Moment, NewerVersion, Process, Record, Status, Stopped, Summary
from ..secrecy import hidden_in_command, hidden_in_setting
from ..version import __version__, is_newer
from .marks import is_own, with_mark

RowCount = Annotated[int, msgspec.Meta(ge=1)]


class RunStart(Record, frozen=True, tag="began"):
    """The line for the beginning of a run: when, by whom, with which settings, over which table."""

    at: Moment
    """When the run began (UTC)."""
    user: str
    host: str
    pid: int
    version: str
    """The version of pipeline."""
    command: list[str] | None
    """The arguments after `pipeline` on the command line, with `***` for what looks like a secret; None if the run was
    started from Python."""
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
    settings: dict[str, dict[str, Any]]
    """All settings of the job, without keys and the values of headers, and with `***` for what looks like a secret."""
    seen_by_model: dict[str, Any]
    """The settings that decide what the model sees, by dotted name, with `***` for what looks like a secret."""
    limit: RowCount | None = None
    """The first rows only, this many; None for all."""
    sample: RowCount | None = None
    """Random rows only, this many; None for all."""
    seed: int = 0
    """The seed of the sample."""
    retry: tuple[Status, ...] = ()
    """The statuses whose rows the run asked again."""
    uid: int | None = None
    """The id of the user who started the run, as the line says; None in lines of earlier versions."""
    group: int | None = None
    """The id of the group that the job folder was shared with (`output.shared`); None if it was not."""
    hidden_words: tuple[int, ...] = ()
    """The places (from 0) of the words of `command` in which a secret was replaced: they cannot be typed again."""
    seen_hash: str = ""
    """The sha256 of `seen_by_model` before secrets were replaced in it; empty if an earlier version wrote the line."""
    retry_id: str = ""
    """The id of that retry, which all runs share that go on with it; empty for none, and in lines of early versions."""

    @property
    def settings_id(self) -> str:
        """The hexadecimal digits that stand for these settings in the output column `settings`."""
        return settings_id(self.seen_by_model, self.seen_hash)

    @property
    def shown_command(self) -> list[str] | None:
        """The command without secrets, also where an earlier version kept them."""
        return None if self.command is None else hidden_in_command(self.command)[0]

    @property
    def shown_settings(self) -> dict[str, Any]:
        """The settings without secrets, also where an earlier version kept them."""
        return {
            section: {key: hidden_in_setting(f"{section}.{key}", value) for key, value in values.items()}
            for section, values in self.settings.items()
        }

    def changed_settings(self, now: Mapping[str, Any], known: Sequence[str]) -> list[str]:
        """The names of the settings that the model sees otherwise `now` (`JobFile.seen_by_model`) than in this run.

        `known`: the job's own secrets, as for the history.
        """
        before = self.seen_by_model
        changed = [
            name
            for name, value in now.items()
            if hidden_in_setting(name, value, known) != hidden_in_setting(name, before.get(name), known)
        ]
        if not changed and self.seen_hash not in ("", seen_hash(now)):  # then in nothing but a secret
            changed = [name for name, value in now.items() if hidden_in_setting(name, value, known) != value]
        return changed


class RunEnd(Record, frozen=True, tag="ended"):
    """The line for the end of the run that began last."""

    at: Moment
    """When the run ended (UTC)."""
    summary: Summary


class Earlier(NamedTuple):
    """The runs that a history tells of, and which of them this user started."""

    starts: list[RunStart]
    """All starts, oldest first."""
    own: list[RunStart]
    """Those that this user wrote: their marks prove it."""
    shares: bool
    """This user has agreed to work on the job with the group of its folder, and nobody else can write into it."""

    @property
    def is_own(self) -> bool:
        """Whether the latest run is this user's own."""
        return bool(self.own) and self.own[-1] is self.starts[-1]


_line_decoder: msgspec.json.Decoder[RunStart | RunEnd] = msgspec.json.Decoder(RunStart | RunEnd)


class UnfinishedRetry(NamedTuple):
    """The retry that a run goes on with, and how to know what it has done."""

    id: str
    """The outcomes that it is done with carry this id; empty if only early versions worked on it."""
    since: datetime | None
    """The beginning of its part by an early version, which wrote no ids; None if there is none."""


def record_start(job: Job, command: Sequence[str] | None, input_hash: str, table: Path, keys_hash: str) -> RunStart:
    """Append the line for the beginning of a run, and return it; it is on disk then. Raises Stopped on a failed write.

    A run with `--retry` gets the id of the retry that it goes on with, or a new one.
    """
    process, retry = Process.this(), job.this_run.retry
    earlier = unfinished_retry(job.folder, retry)
    known, seen = job.endpoint.secrets, job.seen_by_model()
    words, hidden_words = hidden_in_command(command or [], known)
    start = RunStart(
        at=datetime.now(tz=UTC),
        user=process.user,
        host=process.host,
        pid=process.pid,
        version=__version__,
        command=None if command is None else words,
        directory=str(job.directory.absolute()),
        inputs=list(job.inputs),
        input_hash=input_hash,
        table=str(table.absolute()),
        keys_hash=keys_hash,
        output=str(job.output_path.absolute()),
        settings=job.without_secrets(),
        seen_by_model={name: hidden_in_setting(name, value, known) for name, value in seen.items()},
        limit=job.this_run.limit,
        sample=job.this_run.sample,
        seed=job.this_run.seed,
        retry=retry,
        retry_id=(earlier.id if earlier is not None else "") or (os.urandom(8).hex() if retry else ""),
        uid=os.geteuid(),
        group=_group(job.folder) if job.output.shared else None,
        hidden_words=tuple(hidden_words),
        seen_hash=seen_hash(seen),
    )
    _append(job.folder, start)
    return start


def record_end(folder: Path, summary: Summary) -> None:
    """Append the line for the end of a run, and write its summary to `summary.json`.

    Both are on disk when this returns. Raises Stopped on a failed write.
    """
    _append(folder, RunEnd(at=datetime.now(tz=UTC), summary=summary))
    text = msgspec.json.format(msgspec.json.encode(summary), indent=2)
    with _reporting_errors(folder / "summary.json"):
        write_whole(folder / "summary.json", text + b"\n", private=True)


def read_history(folder: Path) -> list[RunStart | RunEnd]:
    """Read all lines, oldest first, without any that a crash cut off or that makes no sense.

    Raises NewerVersion for a line of a newer version's run that this version does not understand.
    """
    return [decoded for _, decoded in _read_lines(folder)]


def read_earlier(folder: Path) -> Earlier:
    """Read the starts of all runs, and find those that this user wrote. Raises NewerVersion as `read_history`."""
    starts: list[RunStart] = []
    own: list[RunStart] = []
    for line, start in _read_lines(folder):
        if isinstance(start, RunStart):
            starts.append(start)
            if is_own(line):
                own.append(start)
    group = _group(folder)
    return Earlier(starts, own, group is not None and any(start.group == group for start in own))


def _read_lines(folder: Path) -> list[tuple[bytes, RunStart | RunEnd]]:
    try:
        lines = read_private(folder / "history.jsonl", -1).splitlines(keepends=True)
    except FileNotFoundError:
        return []
    found: list[tuple[bytes, RunStart | RunEnd]] = []
    version: object = ""
    for line in lines:
        if not line.endswith(b"\n"):
            continue
        decoded = _decode(line)
        if decoded is not None:
            found.append((line[:-1], decoded))
        version = decoded.version if isinstance(decoded, RunStart) else _version_in(line) or version
        if decoded is None and is_newer(version):
            raise NewerVersion(f"{folder / 'history.jsonl'} (a line in it is of version {str(version)[:40]})")
    return found


def _group(folder: Path) -> int | None:
    """The id of the group that alone works in the folder beside its owner; None if there is none."""
    with contextlib.suppress(OSError):
        if is_group_shared(folder) and not is_open_to_everyone(folder):
            return folder.stat().st_gid
    return None


def last_start(folder: Path, *, pilots: bool = True) -> RunStart | None:
    """Return the start of the latest run (without `pilots`, of the latest over the whole table); None without one."""
    starts = [line for line in read_history(folder) if isinstance(line, RunStart)]
    wanted = starts if pilots else [start for start in starts if start.limit is None and start.sample is None]
    return wanted[-1] if wanted else None


def last_summary(folder: Path) -> Summary | None:
    """Return the summary of the latest run; None if it has not ended, or there was none."""
    line = next(reversed(read_history(folder)), None)
    return line.summary if isinstance(line, RunEnd) else None


def unfinished_retry(folder: Path, retry: Sequence[Status]) -> UnfinishedRetry | None:
    """Return the retry that a run with the same `retry`, in any order, goes on with; None if it begins one of its own.

    It goes on with that of the latest runs if they all retried the same statuses and none of them finished.
    """
    found = None
    for line in reversed(read_history(folder)):
        if isinstance(line, RunEnd):
            if line.summary.exit_code in (Exit.DONE, Exit.INCOMPLETE):
                break
        elif retry and set(line.retry) == set(retry):
            known = found or UnfinishedRetry("", None)
            found = UnfinishedRetry(known.id or line.retry_id, known.since if line.retry_id else line.at)
        else:
            break
    return found


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

    The values of its headers are lost, and secrets in its prompt: they were not recorded. For settings that this
    version does not understand, raises NewerVersion if a newer one recorded them, else BadJob.
    """
    this_run = ThisRun(limit=start.limit, sample=start.sample, seed=start.seed, job_dir=folder)
    table = Path(start.table)
    moved = folder / table.name
    try:
        return Job.model_validate(
            {
                **start.shown_settings,
                "inputs": (str(moved if moved.exists() else table),),
                "output_file": Path(start.output),
                "this_run": this_run,
            }
        )
    except ValueError as error:
        if is_newer(start.version):
            raise NewerVersion(
                f"The line of the last run of {folder} (its settings are of version {start.version[:40]})"
            ) from None
        raise BadJob(
            f"{folder} was last run with settings that this version of pipeline does not understand: {error}\n"
            "Its answers are kept. Run the job again with this version, then type the same command again."
        ) from None


def _decode(line: bytes) -> RunStart | RunEnd | None:
    """Decode a line; None if this version does not understand it, which loses no answer."""
    try:
        return _line_decoder.decode(line)
    except (ValueError, RecursionError):  # msgspec's error, Python's for bytes that are not UTF-8 or nested deeply
        return None


def _version_in(line: bytes) -> object:
    """The version that a line names; None if it names none."""
    try:
        fields = msgspec.json.decode(line)
    except (ValueError, RecursionError):
        return None
    return fields.get("version") if isinstance(fields, dict) else None


def _append(folder: Path, line: RunStart | RunEnd) -> None:
    """Append a line; it is on disk when this returns. Remove a line that a crash cut off: it would spoil this one."""
    path = folder / "history.jsonl"
    with _reporting_errors(path), os.fdopen(open_private(path, os.O_RDWR), "r+b") as file:
        file.truncate(file.read().rfind(b"\n") + 1)
        file.seek(0, os.SEEK_END)
        file.write(with_mark(msgspec.json.encode(line)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
        sync(folder)


@contextlib.contextmanager
def _reporting_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Stopped(
            f"{path} cannot be written: {error.strerror}. Every answer so far is kept.\n"
            "Free some space, or check the permissions of the folder; then type the same command again."
        ) from error
