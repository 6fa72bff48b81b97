"""Whether a folder lies on a file system that other hosts may share."""

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")

SHARED_KINDS = re.compile(
    "nfs|cifs|smb|lustre|gpfs|beegfs|9p|afs|ceph|panfs|pvfs2|orangefs|glusterfs|gfs2|ocfs2|wekafs|dvs|coda|acfs|"
    "virtiofs|vboxsf|prl_fs|fuse"
)
"""How their names begin; `fuse` may be anything, sshfs as well as a disk of this machine."""


def is_shared_with_hosts(folder: Path, mounts: str | None = None) -> bool:
    """Whether the kernel's table of mounts (proc(5), mountinfo) says so. No, where there is none but Linux has one.

    `mounts`: that table, if it is known already. The folder need not be there yet.
    """
    if mounts is None:
        try:
            mounts = MOUNTS.read_text("utf-8", "surrogateescape")
        except OSError:
            return False
    path, kind, depth = folder.resolve(), "", 0
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        if len(before.split()) < 5 or not after.split():
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4]))
        # of two at one place the later covers the earlier
        if path.is_relative_to(point) and len(point.parts) >= depth:
            kind, depth = after.split()[0], len(point.parts)
    return SHARED_KINDS.match(kind) is not None
