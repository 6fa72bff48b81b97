"""The job folder: made, checked to be ours, and locked."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..files import PRIVATE, open_private, share_with_group, sync
from ..records import BadJob
from .history import last_start
from .lock import hold_lock


@contextlib.contextmanager
def job_folder(folder: Path, *, shared: bool) -> Iterator[None]:
    """The job folder, made and locked; made in vain, it is removed again."""
    is_new = not folder.exists()
    if not is_new and not _is_ours(folder):
        raise BadJob(f"The job folder {folder} holds other files. Name a new or an empty one with --job-dir.")
    make_job_folder(folder, shared=shared)
    with hold_lock(folder):
        try:
            yield
        except BadJob:
            # asked inside the lock: another process may have begun, and ended, since the folder was looked for
            if is_new and last_start(folder) is None:
                shutil.rmtree(folder, ignore_errors=True)
            raise


def _is_ours(folder: Path) -> bool:
    """An empty folder, or one that a run has begun in: anything else may hold files that are not to be touched."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return names <= {".gitignore"} or bool(names & {"lock", "store", "history.jsonl"})


def make_job_folder(folder: Path, *, shared: bool = False) -> None:
    """Make the job folder, mode 0700, with a .gitignore of `*`. One that exists is left as it is (if empty: filled).

    `shared`: it, and all that is in it, are its group's too. Raises BadJob if it cannot be made so, or is a file.
    """
    try:
        made = not folder.exists()
        folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        if shared:
            share_with_group(folder)
        # Not in a folder that holds something else: there it would hide a person's own files from git.
        if made or not any(folder.iterdir()):
            with os.fdopen(open_private(folder / ".gitignore", os.O_WRONLY), "w", encoding="utf-8") as file:
                file.write("*\n")
            sync(folder)
            sync(folder.parent)
    except OSError as error:
        raise BadJob(f"The job folder {folder} cannot be made: {error}. Name another with --job-dir.") from error
