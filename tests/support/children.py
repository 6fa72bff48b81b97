"""Processes of a test's own: on this host, on others that see the same folder, and on a disk that is soon full."""

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
    """A Python process; `where`: what it is started by, such as `on_host`."""
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
    """What starts a process (its number stays the shell's) after `setup`, which alone sees what it mounts."""
    if not _may_mount():
        pytest.skip("this system lets no test mount anything (unshare -rmu)")
    return ["unshare", "-rmu", "sh", "-ec", f'{setup}; shift {len(words)}; exec "$@"', "sh", *map(str, words)]


def on_host(name: str, spare: Path, folder: Path) -> list[str]:
    """What starts a process on another host: of another name, start and machine, with file locks of its own.

    That is how NFS with nolock and Lustre with localflock look. `spare`: where it keeps what makes it another.
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
    """What starts a process to which `folder` is on NFS: the kernel's table of mounts says so to it."""
    lines = Path("/proc/self/mountinfo").read_text("utf-8")
    table.write_text(f"{lines}999 1 0:99 / {folder} rw,relatime shared:9 - nfs4 server:/home rw,vers=4.2\n")
    return _in_own_mounts('mount --bind "$1" /proc/$$/mountinfo', table)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of that size in memory, mounted on `folder`."""
    folder.mkdir(exist_ok=True)
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True, check=False).returncode != 0:
        pytest.skip("this system lets no test mount a small disk (mount -t tmpfs)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
