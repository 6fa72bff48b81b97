"""Files on disk: private ones in a job folder, whatever the umask, and files that are replaced as a whole.

A job folder's own mode decides who may use what is in it: a folder that its group may enter and write, with the
set-group-ID bit (`output.shared`), gives its files to the group; any other keeps them to its owner.

A job folder may come from somebody else. So no link in it is followed, neither symbolic nor hard, and what must come
from one user is read only if that user owns the file.
"""

import contextlib
import errno
import hashlib
import os
import re
import socket
import stat
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from .host import host_identity, is_running, process_identity

NO_LINK = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
"""Flags of `os.open` that follow no link and wait for no pipe."""
PRIVATE, SHARED = 0o700, 0o2770
"""Modes of a folder. With the set-group-ID bit, new files inside belong to the folder's group too."""
NAME_BYTES = 72
"""The most bytes of a file's name that the name of its draft repeats."""
HEX = "[0-9a-f]"
DRAFT = re.compile(
    rf"\.(?P<name>.*)\.(?P<kernel>{HEX}{{8}})\.(?P<machine>{HEX}{{8}})\.(?P<pid>{HEX}+)-(?P<started>{HEX}+)\.{HEX}{{8}}"
    r"\.tmp",
    re.DOTALL,
)
"""The name of a draft."""
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
    with new_draft(folder / "owner", private=True) as draft:
        return draft.stat().st_uid


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
    with new_draft(path, private=private) as draft:
        yield draft
        sync(draft)
        draft.replace(path)
        sync(path.parent)


@contextlib.contextmanager
def new_draft(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Yield an empty hidden file beside `path`, which no other process makes; it is gone when the block ends.

    Its name says which process made it (`_draft_name`), so that `remove_dead_drafts` leaves it alone while that runs.
    Its mode is that of any new file, or if `private` that of the job folder's files. Raises OSError.
    """
    draft = path.with_name(_draft_name(path.name))
    flags = os.O_WRONLY | os.O_EXCL
    os.close(open_private(draft, flags) if private else os.open(draft, flags | os.O_CREAT, 0o666))
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def remove_dead_drafts(folder: Path, name: str | None = None) -> None:
    """Remove the drafts of `name` (None for any) in a folder that were left by processes which are surely dead.

    Those are the drafts of a process of this host that runs no more, and older ones than the last start of this host.
    A draft of another host or container stays: nobody can see from here whether it is still being written. So does one
    that may not be removed, such as another user's in a folder that all can write.
    """
    found: list[tuple[Path, re.Match[str]]] = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        found = [(Path(entry.path), maker) for entry in entries if (maker := DRAFT.fullmatch(entry.name))]
    for draft, maker in found:
        if (name is None or maker["name"] == _shortened(name)) and _is_dead(draft, maker):
            with contextlib.suppress(OSError):
                draft.unlink()


def _draft_name(name: str) -> str:
    """`.NAME.KERNEL.MACHINE.PID-STARTED.CHANCE.tmp`: who makes the draft, in hexadecimal digits, and a random number.

    NAME is shortened, so that the whole has at most 143 bytes: eCryptfs has names no longer than that.
    """
    started = process_identity(os.getpid())["started"]
    maker = f"{_kernel()}.{_machine()}.{os.getpid():x}-{int(started or 0):x}"
    return f".{_shortened(name)}.{maker}.{os.urandom(4).hex()}.tmp"


def _shortened(name: str) -> str:
    """The beginning of a name, in at most 72 bytes, without half a character."""
    return os.fsencode(name)[:NAME_BYTES].decode("utf-8", "ignore")


def _is_dead(draft: Path, maker: re.Match[str]) -> bool:
    """Whether the process that made a draft is surely dead."""
    if maker["kernel"] == _kernel():
        started = int(maker["started"], 16)
        return not is_running(int(maker["pid"], 16), str(started) if started else "")
    if maker["machine"] != _machine() or not hasattr(time, "CLOCK_BOOTTIME"):
        return False
    last_start = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    with contextlib.suppress(OSError):
        return draft.lstat().st_mtime < last_start
    return False


def _kernel() -> str:
    """8 digits for this kernel since its start, and the namespace of its processes that this one is in."""
    boot = host_identity()["boot"] or socket.gethostname()
    return _digits(boot, process_identity(os.getpid())["space"])


def _machine() -> str:
    """8 digits for this machine, which stay when it is started again."""
    return _digits(socket.gethostname(), host_identity()["machine"])


def _digits(*facts: str) -> str:
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:8]


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
