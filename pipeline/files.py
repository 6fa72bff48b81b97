"""Files on disk: private ones in a job folder, whatever the umask, and files that are replaced as a whole.

A job folder's own mode decides who may use what is in it: a folder that its group may enter and write, with the
set-group-ID bit (`output.shared`), gives its files to the group; any other keeps them to its owner.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

PRIVATE, SHARED = 0o700, 0o2770
"""Modes of a folder. With the set-group-ID bit, new files inside belong to the folder's group too."""


def is_group_shared(folder: Path) -> bool:
    """Whether the folder's group works on the job as well."""
    return folder.stat().st_mode & SHARED == SHARED


def make_private_folder(folder: Path) -> None:
    """Make a folder inside a job folder, with the same access. Raises OSError, also if it exists already."""
    shared = is_group_shared(folder.parent)
    folder.mkdir(mode=PRIVATE)
    if shared:
        folder.chmod(SHARED)


def open_private(path: Path, flags: int) -> int:
    """Open a file in a job folder and return its descriptor; a new one gets mode 0600, or 0660 in a shared folder.

    `flags` are those of `os.open`, without O_CREAT. Raises OSError.
    """
    mode = file_mode(path.parent)
    descriptor = os.open(path, flags | os.O_CREAT, mode)
    _set_mode(descriptor, mode)
    return descriptor


def read_private(path: Path, bytes_max: int) -> bytes:
    """Read the beginning of a file in a job folder. Raises OSError.

    No link is followed and no pipe is waited for: the folder may be shared with a group.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        return file.read(bytes_max)


def file_mode(folder: Path) -> int:
    """The mode of files in this job folder: 0600, or 0660 if it is shared."""
    return 0o660 if is_group_shared(folder) else 0o600


def share_with_group(folder: Path) -> None:
    """Give the folder and everything in it to its group. Raises OSError if it belongs to another user."""
    if is_group_shared(folder):
        return
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a running job may remove its own files meanwhile
            path.chmod(SHARED if path.is_dir() else 0o660)
    folder.chmod(SHARED)  # last: an interrupted change is done again


def write_whole(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write a file as a whole: after a crash at any moment the old content or the new one is there. Raises OSError.

    When this returns, the content and the name are on disk. `private`: give it the mode of a job folder's files.
    """
    with replacing(path, private=private) as draft:
        draft.write_bytes(content)


@contextlib.contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Yield an empty draft beside `path`; put it in the place of `path`, on disk, if the block ends well.

    If the block raises, the draft is removed and `path` stays as it was. Raises OSError.
    """
    draft = new_draft(path, private=private)
    try:
        yield draft
        sync(draft)
        draft.replace(path)
        sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def new_draft(path: Path, *, private: bool = False) -> Path:
    """Make an empty hidden file beside `path`, named `.NAME.HEX.tmp`.

    Its mode is that of any new file, or if `private` that of the job folder's files. Raises OSError.
    """
    draft = path.with_name(f".{path.name[:100]}.{os.urandom(4).hex()}.tmp")
    flags = os.O_WRONLY | os.O_EXCL
    os.close(open_private(draft, flags) if private else os.open(draft, flags | os.O_CREAT, 0o666))
    return draft


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk. Windows flushes folders itself and cannot open them."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _set_mode(descriptor: int, mode: int) -> None:
    """Set the mode in spite of the umask. A colleague's file, or a system without modes, stays as it is."""
    if hasattr(os, "fchmod") and stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
        with contextlib.suppress(PermissionError):
            os.fchmod(descriptor, mode)
