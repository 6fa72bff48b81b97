"""Child processes for tests: on this host, as if on another host or a network file system; and small disks."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

import pytest

CHILD_SECONDS = 60


@contextmanager
def child(script: str, *arguments: object, where: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
    """Run a Python script in a child process, killed at the end. `where`: words that start it, as from `on_host`."""
    command = [*where, sys.executable, "-W", "error", "-c", script, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def pipe(end: IO[str] | None) -> IO[str]:
    assert end is not None
    return end


@cache
def _may_mount() -> bool:
    try:
        return subprocess.run(["unshare", "-rmu", "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _in_own_mounts(setup: str, *words: object) -> list[str]:
    """Words that start a process after `setup`, with mounts of its own; it keeps the process number of the shell."""
    if not _may_mount():
        pytest.skip("this system lets no test mount anything (unshare -rmu)")
    return ["unshare", "-rmu", "sh", "-ec", f'{setup}; shift {len(words)}; exec "$@"', "sh", *map(str, words)]


def on_host(name: str, spare: Path, folder: Path) -> list[str]:
    """Words that start a process as if on another host: with another name, boot id, machine id and its own file locks.

    Hosts with NFS (nolock) or Lustre (localflock) see a folder like that. `spare`: a folder for the host's files.
    """
    spare.mkdir(exist_ok=True)
    for kind in ("boot", "machine", "lock"):
        (spare / f"{name}-{kind}").write_text("" if kind == "lock" else f"{name}\n")
    (folder / "lock").touch()
    binds = [
        'hostname "$1"',
        'mount --bind "$2/$1-boot" /proc/sys/kernel/random/boot_id',
        '[ ! -e /etc/machine-id ] || mount --bind "$2/$1-machine" /etc/machine-id',
        'mount --bind "$2/$1-lock" "$3/lock"',
    ]
    return _in_own_mounts("; ".join(binds), name, spare, folder)


def on_network(folder: Path, table: Path) -> list[str]:
    """Words that start a process for which `folder` is on NFS, by the table of mounts that it reads."""
    lines = Path("/proc/self/mountinfo").read_text("utf-8")
    table.write_text(f"{lines}999 1 0:99 / {folder} rw,relatime shared:9 - nfs4 server:/home rw,vers=4.2\n")
    return _in_own_mounts('mount --bind "$1" /proc/$$/mountinfo', table)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a file system of this size, in memory, on `folder`."""
    folder.mkdir(exist_ok=True)
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True, check=False).returncode != 0:
        pytest.skip("this system lets no test mount a small disk (mount -t tmpfs)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
