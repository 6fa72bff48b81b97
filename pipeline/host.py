"""The host and its processes, so that what a process left on a disk can be told from what one is still writing.

The same host means the same boot id: the same kernel since the same start, which containers on one machine share. After
a restart it means the same host name and machine id together. One of these alone is not enough: the nodes of a cluster
often share an image with its machine id, and many machines are called localhost.
"""

import hashlib
import os
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
MACHINE_ID = Path("/etc/machine-id")


def host_identity() -> dict[str, str]:
    """The boot id and a hash of the machine id; empty where unknown, as on systems other than Linux.

    The machine id is hashed, as machine-id(5) asks of programs that store it.
    """
    machine = _first_line(MACHINE_ID)
    return {
        "boot": _first_line(BOOT_ID),
        "machine": hashlib.sha256(f"pipeline {machine}".encode()).hexdigest()[:16] if machine else "",
    }


def process_identity(pid: int) -> dict[str, str]:
    """The start time of a process, and the namespace that process numbers here belong to; empty where unknown."""
    try:
        # the 20th field after the name, which is in brackets and may hold anything (proc(5), /proc/PID/stat)
        started = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        started = ""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return {"started": started, "space": space}


def is_running(pid: int, started: str) -> bool:
    """Whether the process with this number, and this start time if it is known, runs in this namespace.

    Process numbers are given again, but not with the same start time.
    """
    now = process_identity(pid)["started"]
    if now or started:
        return now == started
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's process
        return True
    return True


def _first_line(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
