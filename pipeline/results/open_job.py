"""A job opened for reading: its settings, its rows and the reader of its store, also while it runs."""

from pathlib import Path
from typing import NamedTuple

from ..folder import find_job_folder, hold_lock, job_of_start, last_start, read_earlier
from ..job import Job
from ..planning import keys_hash, keys_path, select_rows
from ..records import BadJob
from ..store import Reader, StoreHalfWritten, roll_back
from ..tables import Table, open_table


class OpenJob(NamedTuple):
    """The content of a job folder. Close the reader after use."""

    job: Job
    """The job with the settings of its last run."""
    table: Table
    """The rows of the last run."""
    reader: Reader
    inputs: list[str]
    """The files that no output may replace."""
    input_hash: str
    """The hash of the input files' content; the rows may be read from a snapshot of them."""


def open_job(name: str | Path) -> OpenJob:
    """Open a job by the path of its output or its folder.

    Raises BadJob if there is no such job, nothing was run, the input has changed since, or the last run is planning.
    """
    folder = find_job_folder(name)
    start = last_start(folder)
    if start is None:
        raise BadJob(f"{folder}: nothing was ever run here.")
    job = job_of_start(folder, start)
    originals = [str(Path(start.directory, name)) for name in start.inputs if name != "-"]
    table = open_table(job.inputs, folder)
    if folder not in table.path.parents and table.content_hash != start.input_hash:
        raise BadJob(f"{table.path} has changed since the last run. Run the job again, then repeat this command.")
    keys = keys_path(folder)
    if not keys.exists() or keys_hash(keys) != start.keys_hash:
        raise BadJob(
            f"{folder}: the last run has just started, or was killed as it started. Every answer so far is kept. "
            "Run the job again, then repeat this command."
        )
    try:
        reader = _open_reader(folder)
    except FileNotFoundError as error:
        raise BadJob(f"{error}.") from None
    return OpenJob(job, select_rows(job.this_run, table), reader, [str(table.path), *originals], start.input_hash)


def check_own_output(name: str | Path, job: Job) -> None:
    """Raise BadJob if the job's own output is a path that another user may have chosen, and that nobody typed.

    `name`: what was typed for the job. In the history of a folder that was handed over, the output may be any file.
    """
    earlier = read_earlier(job.folder)
    typed = Path(name).resolve() == job.output_path.resolve()
    if typed or any(start.output == str(job.output_path) for start in earlier.own):
        return
    raise BadJob(
        f"The last run in {job.folder} has no mark of yours, and its output was {job.output_path}.\n"
        "Name the file to write with -o. Nothing was written."
    )


def _open_reader(folder: Path) -> Reader:
    try:
        return Reader(folder / "store")
    except StoreHalfWritten:
        with hold_lock(folder):
            roll_back(folder / "store")
        return Reader(folder / "store")
