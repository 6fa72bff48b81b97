"""One process at a time works on a job: the lock of its folder, and who holds it.

Two belts, since neither holds everywhere. The operating system's lock on `lock` is free the moment its process is dead,
but on some network file systems (NFS with nolock, Lustre with localflock) each host has locks of its own. So the
holder also leaves its name in `lock.json`, made with a hard link, which is made once on every file system; SIGKILL
leaves it behind. Whoever gets the first takes over the second only if it was left by the same host.

The same host is the same kernel since the same start (its boot id: two containers on one machine share it and see each
other's locks, whatever their names are), or after a restart the same name together with the same machine id. Neither
alone would do: the nodes of a cluster often share an image and its machine id, and many machines are called localhost.
"""

import contextlib
import hashlib
import json
import os
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock

from ..files import file_mode, new_draft, read_private, sync
from ..records import BadJob, Exit, Process, Record, Stopped
from ..text import one_line

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
MACHINE_ID = Path("/etc/machine-id")
NAME_BYTES = 4096
"""As much of `lock.json` is read; one that is longer is none of ours."""
SHOWN = 80
"""Characters of each thing that it claims which a message repeats."""


class Holder(Record, frozen=True):
    """Who left their name as the holder of a job folder."""

    process: Process
    since: datetime
    alive: bool | None
    """Its process lives; None if that cannot be seen from here: another host's, or another container's."""


def lock_holder(folder: Path) -> Holder | None:
    """Who holds the folder, or was killed while they did; None if nobody. Reads alone: it never takes the lock."""
    with contextlib.suppress(OSError, KeyError, TypeError, ValueError):
        told = _told(folder / "lock.json") or {}
        process = Process(_shown(told, "user"), _shown(told, "host"), int(told["pid"]))
        return Holder(process, datetime.fromisoformat(told["since"]), _lives(told))
    return None


def _lives(told: dict[str, Any]) -> bool | None:
    if not _from_here(told):
        return None
    here = _process(told["pid"])
    if here["space"] != told.get("space", here["space"]):
        return None
    if here["started"] or told.get("started"):  # a number may be given again, the tick of its start with it is not
        return here["started"] == told.get("started")
    try:
        os.kill(told["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # a colleague's
        return True
    return True


@contextlib.contextmanager
def hold_lock(folder: Path) -> Iterator[None]:
    """Hold the job folder: one process at a time, here or on any host that sees it.

    Raises Stopped (exit code 5) at once, naming the holder, if it is held, or was when a process of another host last
    had it; BadJob if the folder cannot be locked.
    """
    # Not soft: where the system has no locks, as on Lustre without its flock option, SQLite would have none either.
    lock = filelock.FileLock(
        folder / "lock", mode=file_mode(folder), blocking=False, thread_local=False, fallback_to_soft=False
    )
    try:
        lock.acquire()
        name = _put_name(folder / "lock.json")
    except filelock.Timeout:
        raise Stopped(_held(folder), Exit.LOCKED) from None
    except OSError as error:
        lock.release()
        remedy = "See to your rights in it" if isinstance(error, PermissionError) else "Keep it on a local disk"
        raise BadJob(f"{folder} cannot be locked: {error}. {remedy} (--job-dir). Nothing was sent.") from error
    except Stopped:
        lock.release()
        raise
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # a name left behind harms nobody, a lock left behind would
            if (folder / "lock.json").read_bytes() == name:  # else someone took it away, and another came
                (folder / "lock.json").unlink()
        lock.release()


def _put_name(path: Path) -> bytes:
    """Leave our name as the holder's, whole or not at all, and give it. Raises Stopped if another host's stands."""
    left = _told(path)
    if left is not None and not _from_here(left):
        raise Stopped(_held_elsewhere(path, left), Exit.LOCKED)
    who = Process.this()
    since = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
    told = {"user": who.user, "host": who.host, "pid": who.pid, "since": since, **_identity(), **_process(who.pid)}
    name = json.dumps(told).encode()
    draft = new_draft(path, private=True)
    try:
        draft.write_bytes(name)
        sync(draft)
        _place(draft, path, over=left is not None)
    finally:
        draft.unlink(missing_ok=True)
    return name


def _place(draft: Path, path: Path, *, over: bool) -> None:
    """Give the draft its name: over one that was left by this host, else only if there is none."""
    if over:
        draft.replace(path)
        return
    try:
        os.link(draft, path)
    except FileExistsError:  # another host came in the same instant
        raise Stopped(_held_elsewhere(path, _told(path) or {}), Exit.LOCKED) from None
    except OSError:  # a file system without hard links, such as a memory stick's
        draft.replace(path)


def _told(path: Path) -> dict[str, Any] | None:
    """What `lock.json` claims; nothing in it if it makes no sense, None if it is not there. Raises OSError."""
    try:
        told = json.loads(read_private(path, NAME_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _identity() -> dict[str, str]:
    """What tells this host from others; a part that is unknown, as on other systems than Linux, is empty.

    The machine's id is hashed, as machine-id(5) asks of those that write it down.
    """
    machine = _first_line(MACHINE_ID)
    return {
        "boot": _first_line(BOOT_ID),
        "machine": hashlib.sha256(f"pipeline {machine}".encode()).hexdigest()[:16] if machine else "",
    }


def _process(pid: int) -> dict[str, str]:
    """What tells a process from a later one of its number, and whose numbers they are; empty on other systems."""
    try:
        # after the name, which may hold anything, come the state and 18 numbers more (proc(5))
        started = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        started = ""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return {"started": started, "space": space}


def _first_line(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def _from_here(told: dict[str, Any]) -> bool:
    """Whether its process ran on this host, so that it is dead now that the system's lock is ours."""
    here = _identity()
    if here["boot"] and told.get("boot") == here["boot"]:
        return True
    return (told.get("host"), told.get("machine")) == (Process.this().host, here["machine"])


def _held(folder: Path) -> str:
    """Say who holds the folder, as far as is known."""
    told = None
    with contextlib.suppress(OSError):
        told = _told(folder / "lock.json")
    told = told or {}
    where = "" if _from_here(told) else f" on {_shown(told, 'host')}" if "host" in told else ""
    signal = f"`kill -INT {told['pid']}`{where}" if type(told.get("pid")) is int else "SIGINT"
    return (
        f"{_who(told)} holds {folder}: one process at a time may work on a job. Nothing was asked and nothing was "
        f"changed.\nWait for it, or end it gently, its answers kept: `pipeline stop {shlex.quote(str(folder))}`, or "
        f"{signal}; then type the same command again."
    )


def _held_elsewhere(path: Path, told: dict[str, Any]) -> str:
    """Say whose name stands there, and how a person who knows better takes it away."""
    whether = f"it runs on {_shown(told, 'host')}" if "host" in told else "another process works on this job"
    why = "which cannot be seen from this host" if told else f"and {path} does not say who it is"
    return (
        f"{_who(told)} holds {path.parent}, or was killed while it did, {why}. Nothing was asked and nothing was "
        f"changed.\nLook whether {whether}. If it has surely ended (a container, a node or a name that is gone): "
        f"rm {shlex.quote(str(path))}\nthen type the same command again. While it runs, that would let two ask, and "
        "pay, at once."
    )


def _who(told: dict[str, Any]) -> str:
    if not {"user", "host", "pid", "since"} <= told.keys():
        return "Another process"
    return (
        f"{_shown(told, 'user')}@{_shown(told, 'host')} (process {_shown(told, 'pid')}, since {_shown(told, 'since')})"
    )


def _shown(told: dict[str, Any], name: str) -> str:
    """A claim of a file that anyone may have written, without what could move a terminal's cursor."""
    return one_line(str(told[name])[:SHOWN])
