"""A job's folder opened to be looked at: its settings, its rows and their answers, also while it runs."""

from pathlib import Path
from typing import NamedTuple

from ..folder import find_job_folder, hold_lock, job_of_start, last_start
from ..job import Job
from ..planning import keys_hash, keys_path, select_rows
from ..records import BadJob
from ..store import Reader, StoreHalfWritten, roll_back
from ..tables import Table, open_table


class OpenJob(NamedTuple):
    """What a job folder holds. The reader is to be closed."""

    job: Job
    """As it was last run."""
    table: Table
    """The rows of the last run."""
    reader: Reader
    inputs: list[str]
    """The files that no output may stand in for."""
    input_hash: str
    """Of the input files' content, whatever snapshot the rows are now read from."""


def open_job(name: str | Path) -> OpenJob:
    """Open the job that JOB names. Raises BadJob if nothing was run there, or its input has changed since."""
    folder = find_job_folder(name)
    began = last_start(folder)
    if began is None:
        raise BadJob(f"{folder}: nothing was ever run here.")
    job = job_of_start(folder, began)
    originals = [str(Path(began.directory, name)) for name in began.inputs if name != "-"]
    table = open_table(job.inputs, folder)
    if folder not in table.path.parents and table.content_hash != began.input_hash:
        raise BadJob(f"{table.path} has changed since it was last run: run it again, then look.")
    keys = keys_path(folder)
    if not keys.exists() or keys_hash(keys) != began.keys_hash:
        raise BadJob(
            f"{folder}: the last run is just beginning, or was cut short as it began: run it again, then look."
        )
    try:
        reader = _reader(folder)
    except FileNotFoundError as error:
        raise BadJob(f"{error}.") from None
    return OpenJob(job, select_rows(job.this_run, table), reader, [str(table.path), *originals], began.input_hash)


def _reader(folder: Path) -> Reader:
    try:
        return Reader(folder / "store")
    except StoreHalfWritten:
        with hold_lock(folder):
            roll_back(folder / "store")
        return Reader(folder / "store")
