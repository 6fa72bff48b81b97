"""Whether a folder lies on a file system that other hosts may share, by the kernel's table of mounts."""

import re
from pathlib import Path

MOUNT_TABLE = Path("/proc/self/mountinfo")

SHARED_FILE_SYSTEMS = re.compile(
    "nfs|cifs|smb|lustre|gpfs|beegfs|9p|afs|ceph|panfs|pvfs2|orangefs|glusterfs|gfs2|ocfs2|wekafs|dvs|coda|acfs|"
    "virtiofs|vboxsf|prl_fs|fuse"
)
"""The beginnings of their names. `fuse` may be a network file system (sshfs) or a local disk; it counts as shared."""


def is_shared_with_hosts(folder: Path, mounts: str | None = None) -> bool:
    """Whether `folder`, which need not exist yet, is on a file system that other hosts may share.

    `mounts` is the kernel's table (proc(5), /proc/PID/mountinfo), read here if it is not given. False on systems
    without such a table: only Linux has one.
    """
    if mounts is None:
        try:
            mounts = MOUNT_TABLE.read_text("utf-8", "surrogateescape")
        except OSError:
            return False
    path, file_system, depth = folder.resolve(), "", 0
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        if len(before.split()) < 5 or not after.split():
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4]))
        # of two mounts at one place the later covers the earlier
        if path.is_relative_to(point) and len(point.parts) >= depth:
            file_system, depth = after.split()[0], len(point.parts)
    return SHARED_FILE_SYSTEMS.match(file_system) is not None
