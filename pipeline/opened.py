"""A job's folder opened to be looked at: its settings, its rows and their answers, also while it runs."""

from pathlib import Path
from typing import NamedTuple

from . import history
from .job import Job
from .lock import hold
from .plan import chosen_rows, keys_hash, keys_path
from .records import BadJob
from .store import HalfWritten, Reader, take_back
from .tables import Table, open_table


class Opened(NamedTuple):
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


def open_job(name: str | Path) -> Opened:
    """Open the job that JOB names. Raises BadJob if nothing was run there, or its input has changed since."""
    folder = history.folder_of(name)
    began = history.last(folder)
    if began is None:
        raise BadJob(f"{folder}: nothing was ever run here.")
    job = history.job_of(folder, began)
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
    return Opened(job, chosen_rows(job, table), reader, [str(table.path), *originals], began.input_hash)


def with_free_names(job: Job, table: Table) -> Job:
    """The job with every added column, whatever its output wants, under a prefix that no column of the input has."""
    prefix = max(table.schema, key=len, default="") + "."
    return job.model_copy(update={"output": job.output.model_copy(update={"columns": None, "prefix": prefix})})


def _reader(folder: Path) -> Reader:
    try:
        return Reader(folder / "store")
    except HalfWritten:
        with hold(folder):
            take_back(folder / "store")
        return Reader(folder / "store")
