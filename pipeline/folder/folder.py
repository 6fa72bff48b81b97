"""The job folder: made private, checked to be a job's, and locked while a run works in it."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..files import PRIVATE, job_folder_around, open_private, share_with_group, sync
from ..paths import check_name
from ..records import BadJob
from .history import last_start, read_history
from .lock import hold_lock


@contextlib.contextmanager
def job_folder(folder: Path, *, shared: bool) -> Iterator[None]:
    """Make the job folder if it is missing, and hold its lock for the block.

    If the block raises BadJob, a folder that was made here and in which no run has begun is removed again.

    Raises BadJob if the folder holds files that are not a job's, or cannot be made or locked; Stopped (exit code 5) if
    another process holds the lock; NewerVersion if a newer version worked on the job in a way that this one does not
    understand. `shared`: as for `make_job_folder`.
    """
    try:
        check_name(folder.resolve())
        is_new = not folder.exists()
        is_other = not is_new and not _is_job_folder(folder)
    except (OSError, RuntimeError) as error:  # RuntimeError: a link that leads back to itself
        why = error.strerror if isinstance(error, OSError) else "its link leads back to itself"
        raise BadJob(f"The job folder {folder} cannot be used: {why}. Name another with --job-dir.") from error
    if is_other:
        raise BadJob(f"The job folder {folder} holds other files. Name a new or an empty one with --job-dir.")
    if around := job_folder_around(folder.parent):
        raise BadJob(f"{folder} would be inside another job folder, {around}. Name another with --job-dir.")
    make_job_folder(folder, shared=shared)
    with hold_lock(folder):
        read_history(folder)  # nothing is changed in a folder of a newer version
        try:
            yield
        except BadJob:
            # asked under the lock: another process may have made the folder too, and its run begun and ended
            if is_new and last_start(folder) is None:
                shutil.rmtree(folder, ignore_errors=True)
            raise


def make_job_folder(folder: Path, *, shared: bool = False) -> None:
    """Make the job folder, mode 0700, with a .gitignore of `*`. A folder that holds files is left as it is.

    When this returns, the folder and all that was made above it are on disk.

    `shared`: give the folder and all that is in it to its group as well. Raises BadJob if it cannot be made or shared.
    """
    try:
        is_new = not folder.exists()
        made = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
        folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        if shared:
            share_with_group(folder)
        # Not in a folder that holds other files: there it would hide a person's own files from git.
        if is_new or not any(folder.iterdir()):
            # Not through a draft: one left by a killed process would make this look like a person's folder.
            with os.fdopen(open_private(folder / ".gitignore", os.O_WRONLY), "w", encoding="utf-8") as file:
                file.write("*\n")
        # Also where the folder was there before: a process that was killed may not have come so far.
        for path in {folder, folder.parent, *(path.parent for path in made)}:
            with contextlib.suppress(PermissionError):  # one that may be entered but not read: it was not made here
                sync(path)
    except OSError as error:
        raise BadJob(f"The job folder {folder} cannot be made: {error}. Name another with --job-dir.") from error


def _is_job_folder(folder: Path) -> bool:
    """Whether the folder is empty, or a run has begun in it. Files in any other folder must not be touched."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return names <= {".gitignore"} or bool(names & {"lock", "store", "history.jsonl"})
