"""The lock of a job folder: one process at a time works on a job, and others can see who it is.

Two locks are used, because each fails on some file systems. The operating system's lock on the file `lock` is free as
soon as its process is dead, but on some network file systems (NFS with nolock, Lustre with localflock) each host has
locks of its own. So the holder also writes its name to `lock.json`; it does so with a hard link, which on every file
system only one process can make. But a killed process leaves that file behind. Therefore a process that gets the first
lock replaces an old `lock.json` only if a process of the same host left it.

What the same host means is in `host.py`. Containers on one machine are one host, and see each other's locks whatever
their names are.
"""

import contextlib
import json
import os
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock

from ..files import file_mode, new_draft, read_private, sync
from ..host import host_identity, is_running, process_identity
from ..records import BadJob, Exit, Process, Record, Stopped
from ..text import clip, one_line

CLAIM_BYTES = 4096
"""The most bytes of `lock.json` that are read; a longer file was not written by pipeline."""
CLAIM_CHARACTERS = 80
"""The most characters of each field of `lock.json` that a message shows."""


class Holder(Record, frozen=True):
    """The process that holds a job folder, by its `lock.json`."""

    process: Process
    since: datetime
    alive: bool | None
    """Whether the process is alive; None if that cannot be seen from here (another host or container)."""


def lock_holder(folder: Path) -> Holder | None:
    """Return who holds the folder, or was killed while holding it; None if nobody. Does not take the lock."""
    with contextlib.suppress(OSError, KeyError, TypeError, ValueError, OverflowError):
        claim = _read_claim(folder / "lock.json") or {}
        process = Process(_shown(claim, "user"), _shown(claim, "host"), int(claim["pid"]))
        return Holder(process, datetime.fromisoformat(claim["since"]).astimezone(UTC), _is_alive(claim))
    return None


@contextlib.contextmanager
def hold_lock(folder: Path) -> Iterator[None]:
    """Hold the job folder for the block: one process at a time, on this host or any other that sees the folder.

    Raises Stopped (exit code 5) at once, naming the holder, if another process holds it, or one of another host held it
    last and did not release it; BadJob if the folder cannot be locked.
    """
    # Not soft: where the system has no locks, as on Lustre without its flock option, SQLite would have none either.
    lock = filelock.FileLock(
        folder / "lock", mode=file_mode(folder), blocking=False, thread_local=False, fallback_to_soft=False
    )
    try:
        lock.acquire()
        claim = _write_claim(folder / "lock.json")
    except filelock.Timeout:
        raise Stopped(_held_message(folder), Exit.LOCKED) from None
    except OSError as error:
        lock.release()
        remedy = (
            "Check its permissions, or name another (--job-dir)"
            if isinstance(error, PermissionError)
            else "Keep it on a local disk (--job-dir)"
        )
        raise BadJob(f"{folder} cannot be locked: {error}. {remedy}. Nothing was sent.") from error
    except Stopped:
        lock.release()
        raise
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # a claim that stays does no harm, a lock that stays would
            if (folder / "lock.json").read_bytes() == claim:  # else it was removed by hand, and another process came
                (folder / "lock.json").unlink()
        lock.release()


def _write_claim(path: Path) -> bytes:
    """Write `lock.json`, whole or not at all, and return its content. Raises Stopped if another host's is there."""
    old = _read_claim(path)
    if old is not None and not _is_from_this_host(old):
        raise Stopped(_held_elsewhere_message(path, old), Exit.LOCKED)
    process = Process.this()
    claim = {
        "user": process.user,
        "host": process.host,
        "pid": process.pid,
        "since": datetime.now(UTC).isoformat(sep=" ", timespec="seconds"),
        **host_identity(),
        **process_identity(process.pid),
    }
    content = json.dumps(claim).encode()
    with new_draft(path, private=True) as draft:
        draft.write_bytes(content)
        sync(draft)
        _put_in_place(draft, path, replace=old is not None)
    return content


def _put_in_place(draft: Path, path: Path, *, replace: bool) -> None:
    """Give the draft its name; without `replace`, raise Stopped if another process was faster."""
    if replace:
        draft.replace(path)
        return
    try:
        os.link(draft, path)
    except FileExistsError:  # another host came in the same instant
        raise Stopped(_held_elsewhere_message(path, _read_claim(path) or {}), Exit.LOCKED) from None
    except OSError:  # a file system without hard links, such as a memory stick's
        draft.replace(path)


def _read_claim(path: Path) -> dict[str, Any] | None:
    """Read `lock.json`; empty if it makes no sense or cannot be read, None if there is none."""
    try:
        claim = json.loads(read_private(path, CLAIM_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return {}
    return claim if isinstance(claim, dict) else {}


def _is_alive(claim: dict[str, Any]) -> bool | None:
    """Whether the process of a claim is alive; None if that cannot be seen from here."""
    if not _is_from_this_host(claim):
        return None
    space = process_identity(claim["pid"])["space"]
    if space != claim.get("space", space):
        return None
    return is_running(claim["pid"], claim.get("started") or "")


def _is_from_this_host(claim: dict[str, Any]) -> bool:
    """Whether a claim is of this host: if so, its process is dead once the system's lock was free for us."""
    here = host_identity()
    if here["boot"] and claim.get("boot") == here["boot"]:
        return True
    return (claim.get("host"), claim.get("machine")) == (Process.this().host, here["machine"])


def _held_message(folder: Path) -> str:
    """The message for a folder whose lock another process holds: who it is, and how to wait for it or stop it."""
    claim = _read_claim(folder / "lock.json") or {}
    where = "" if _is_from_this_host(claim) else f" on {_shown(claim, 'host')}" if "host" in claim else ""
    signal = f"`kill -INT {claim['pid']}`{where}" if type(claim.get("pid")) is int else "SIGINT"
    return (
        f"{_who(claim)} holds {folder}: a run of this job is at work, one at a time. Nothing was sent and nothing was "
        f"changed.\nWait until it ends, or stop it (no answer is lost): `pipeline stop {shlex.quote(str(folder))}`, or "
        f"{signal}; then type the same command again."
    )


def _held_elsewhere_message(path: Path, claim: dict[str, Any]) -> str:
    """The message for a claim of another host: what to check, and how to remove it if its process has ended."""
    what = f"it still runs on {_shown(claim, 'host')}" if "host" in claim else "another process works on this job"
    why = "Which of the two cannot be seen from this host." if claim else f"{path} does not say who it is."
    return (
        f"{_who(claim)} holds {path.parent}, or was killed while it did. {why} Nothing was sent and nothing was "
        f"changed.\nCheck whether {what}. Only if it has certainly ended (its container or node is gone, or has a new "
        f"name): rm {shlex.quote(str(path))}\nthen type the same command again. While it runs, that would let two "
        "processes ask, and pay, at once."
    )


def _who(claim: dict[str, Any]) -> str:
    if not {"user", "host", "pid", "since"} <= claim.keys():
        return "Another process"
    user, host, pid, since = (_shown(claim, name) for name in ("user", "host", "pid", "since"))
    return f"{user}@{host} (process {pid}, since {since})"


def _shown(claim: dict[str, Any], name: str) -> str:
    """A field of a claim, which anyone may have written, in one short line that cannot control a terminal."""
    return clip(one_line(str(claim[name])), CLAIM_CHARACTERS)
