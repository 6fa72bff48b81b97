"""The job folder's files: who may read and write what a job keeps, whatever the umask.

The folder's own mode says it, so that whoever works on the job, and from wherever, keeps to it: one that its group may
enter and write, with the set-group-ID bit (`output.shared`), gives its files to the group, any other keeps its own.
"""

import contextlib
import os
import stat
from pathlib import Path

PRIVATE, SHARED = 0o700, 0o2770
"""Modes of a folder. With the set-group-ID bit, what is made inside belongs to the folder's group too."""


def is_shared(folder: Path) -> bool:
    """The folder's group works on the job as well."""
    return folder.stat().st_mode & SHARED == SHARED


def make_inside(folder: Path) -> None:
    """Make a folder in a job folder, and open to the same. Raises OSError, FileExistsError among them."""
    shared = is_shared(folder.parent)
    folder.mkdir(mode=PRIVATE)
    if shared:
        folder.chmod(SHARED)


def open_inside(path: Path, flags: int) -> int:
    """A descriptor of a file in a job folder, made if it is not there: 0600, or 0660 if its folder is shared.

    `flags`: as for `os.open`, without O_CREAT. Raises OSError.
    """
    mode = file_mode(path.parent)
    descriptor = os.open(path, flags | os.O_CREAT, mode)
    _set_mode(descriptor, mode)
    return descriptor


def read_inside(path: Path, most_bytes: int) -> bytes:
    """The beginning of a file in a job folder. Raises OSError.

    Neither a link is followed nor a pipe waited for: a group may share the folder.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        return file.read(most_bytes)


def file_mode(folder: Path) -> int:
    """What a file in this job folder is to have: 0600, or 0660 if it is shared."""
    return 0o660 if is_shared(folder) else 0o600


def share(folder: Path) -> None:
    """Give the folder, and all that is in it already, to its group. Raises OSError if it is another user's."""
    if is_shared(folder):
        return
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a job that runs meanwhile may tidy up
            path.chmod(SHARED if path.is_dir() else 0o660)
    folder.chmod(SHARED)  # last, so that what is cut short is done again


def _set_mode(descriptor: int, mode: int) -> None:
    """Past the umask; what a colleague made, or a system without such modes, stays as it is."""
    if hasattr(os, "fchmod") and stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
        with contextlib.suppress(PermissionError):
            os.fchmod(descriptor, mode)
