"""Files on disk: private ones in a job folder, whatever the umask, and files that are replaced as a whole.

A job folder's own mode decides who may use what is in it: a folder that its group may enter and write, with the
set-group-ID bit (`output.shared`), gives its files to the group; any other keeps them to its owner.

A job folder may come from somebody else. So no link in it is followed, neither symbolic nor hard, and what must come
from one user is read only if that user owns the file.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

NO_LINK = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
"""Flags of `os.open` that follow no link and wait for no pipe."""
PRIVATE, SHARED = 0o700, 0o2770
"""Modes of a folder. With the set-group-ID bit, new files inside belong to the folder's group too."""
MARKS = (("store/cache.db",), ("lock", "lock.json"), ("lock", "history.jsonl"))
"""A folder that holds the files of one of these lines is taken for a job folder."""


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

    `flags` are those of `os.open`, without O_CREAT. Raises OSError, also for a link or a pipe: what would be written
    through it is another file, which somebody else may have chosen.
    """
    mode = file_mode(path.parent)
    descriptor = os.open(path, flags & ~os.O_TRUNC | os.O_CREAT | NO_LINK, mode)
    try:
        _refuse_link(descriptor, path)
        if flags & os.O_TRUNC:  # only now: of another file, nothing may be lost
            os.ftruncate(descriptor, 0)
    except OSError:
        os.close(descriptor)
        raise
    _set_mode(descriptor, mode)
    return descriptor


def read_private(path: Path, bytes_max: int, owners: Collection[int] | None = None) -> bytes:
    """Read the beginning of a file in a job folder; with -1, all of it. Raises OSError.

    No link is followed and no pipe is waited for: the folder may be another user's. `owners`: the ids of the users
    whose file it may be; PermissionError is raised for any other's. None: anybody's.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | NO_LINK), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no plain file", str(path))
        # a hard link would be a file that its owner put elsewhere
        if owners is not None and (found.st_uid not in owners or found.st_nlink > 1):
            raise PermissionError(errno.EPERM, f"it was put here by another user than {found.st_uid}", str(path))
        return file.read(bytes_max)


def owner_of_new_files(folder: Path) -> int:
    """The user id that a file has which this process makes in the folder. Raises OSError.

    On a network or removable file system it may be another than the process's own.
    """
    draft = new_draft(folder / "owner", private=True)
    try:
        return draft.stat().st_uid
    finally:
        draft.unlink(missing_ok=True)


def is_open_to_everyone(folder: Path) -> bool:
    """Whether any user of the machine may write into the folder."""
    return bool(folder.stat().st_mode & stat.S_IWOTH)


def job_folder_around(path: Path) -> Path | None:
    """The innermost job folder that a path is in, or is itself, known by the files in it; None if it is in none.

    Links on the way are followed.
    """
    resolved = path.resolve()
    for folder in (resolved, *resolved.parents):
        if any(all(os.path.lexists(folder / name) for name in names) for names in MARKS):
            return folder
    return None


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


def _refuse_link(descriptor: int, path: Path) -> None:
    """Raise OSError unless this is a plain file with one name."""
    found = os.fstat(descriptor)  # O_NOFOLLOW has refused a symbolic link
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise OSError(errno.ELOOP, "it is a link to another file, or no file", str(path))


def _set_mode(descriptor: int, mode: int) -> None:
    """Set the mode in spite of the umask. A colleague's file, or a system without modes, stays as it is."""
    if hasattr(os, "fchmod") and stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
        with contextlib.suppress(PermissionError):
            os.fchmod(descriptor, mode)
