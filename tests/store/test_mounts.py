"""Whether other hosts may share a folder is read from the kernel's table of mounts."""

from pathlib import Path

import pytest

from pipeline.store.mounts import is_shared_with_hosts

ROOT = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"


def at(point: str, kind: str, optional: str = " shared:3") -> str:
    return f"90 22 0:50 / {point} rw,relatime{optional} - {kind} server:/export rw,vers=4.2\n"


@pytest.mark.parametrize(
    ("folder", "mounts", "shared"),
    [
        ("/home/ann/job", ROOT, False),
        ("/home/ann/job", "", False),
        ("/home/ann/job", ROOT + at("/home", "nfs4"), True),
        ("/home/ann/job", at("/home", "nfs") + ROOT, True),
        ("/home/ann/job", ROOT + at("/home", "nfs4", ""), True),
        ("/home/ann/job", ROOT + at("/home", "nfs4", " shared:1 master:2 propagate_from:3"), True),
        ("/home", ROOT + at("/home", "nfs4"), True),
        ("/homes/ann", ROOT + at("/home", "nfs4"), False),
        ("/home/ann/scratch/job", ROOT + at("/home", "nfs4") + at("/home/ann/scratch", "xfs"), False),
        ("/home/ann/job", ROOT + at("/home", "autofs") + at("/home/ann", "nfs"), True),
        ("/mnt/x/job", ROOT + at("/mnt/x", "nfs4") + at("/mnt/x", "tmpfs"), False),
        ("/mnt/x/job", ROOT + at("/mnt/x", "tmpfs") + at("/mnt/x", "nfs4"), True),
        ("/mnt/my disk/job", ROOT + at("/mnt/my\\040disk", "cifs"), True),
        ("/mnt/a - b/job", ROOT + at("/mnt/a\\040-\\040b", "smb3"), True),
        ("/scratch/job", ROOT + at("/scratch", "lustre"), True),
        ("/scratch/job", ROOT + at("/scratch", "gpfs"), True),
        ("/scratch/job", ROOT + at("/scratch", "beegfs"), True),
        ("/scratch/job", ROOT + at("/scratch", "ceph"), True),
        ("/scratch/job", ROOT + at("/scratch", "panfs"), True),
        ("/scratch/job", ROOT + at("/scratch", "fuse.sshfs"), True),
        ("/scratch/job", ROOT + at("/scratch", "9p"), True),
        ("/scratch/job", ROOT + at("/scratch", "afs"), True),
        ("/scratch/job", ROOT + at("/scratch", "btrfs"), False),
        ("/scratch/job", ROOT + at("/scratch", "overlay"), False),
        ("/scratch/job", "garbage\n\n - \n1 2 3 - nfs\n" + ROOT, False),
    ],
)
def test_a_folder_is_shared_with_hosts_if_the_mount_that_covers_it_is(folder: str, mounts: str, shared: bool) -> None:
    assert is_shared_with_hosts(Path(folder), mounts) is shared


def test_a_link_is_followed_to_where_the_folder_really_lies(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far")
    assert is_shared_with_hosts(tmp_path / "near" / "job", ROOT + at(str(tmp_path / "far"), "nfs4"))


def test_this_machine_has_a_table_or_none(tmp_path: Path) -> None:
    assert is_shared_with_hosts(tmp_path) in (False, True)
