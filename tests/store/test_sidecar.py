"""A sidecar is whole or the one before, and one that makes no sense counts as none."""

from pathlib import Path

import pytest
from children import CHILD_SECONDS, child

from pipeline.store.sidecar import Sidecar, sidecar_path

WRITE_WITHOUT_ROOM = """
import resource, sys
from pathlib import Path
from pipeline.store.sidecar import Sidecar

resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
Sidecar("id", 2).write(Path(sys.argv[1]))
"""


def test_what_is_written_is_read_with_every_byte_of_its_notes(tmp_path: Path) -> None:
    sidecar = Sidecar("id", 3, {"ledger": b'{"ok":1}', "odd": bytes(range(256))})
    sidecar.write(tmp_path / "store")
    assert Sidecar.read(tmp_path / "store") == sidecar
    assert [path.name for path in tmp_path.iterdir()] == ["store.json"]


@pytest.mark.parametrize(
    "content", [b"", b"[", b"[]", b"{}", b"[" * 100_000, b'{"identity":"i","rows":"x","notes":{}}', b"\xff"]
)
def test_what_makes_no_sense_is_none(tmp_path: Path, content: bytes) -> None:
    sidecar_path(tmp_path / "store").write_bytes(content)
    assert Sidecar.read(tmp_path / "store") == Sidecar()


def test_one_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    Sidecar("id", 1).write(folder)
    with child(WRITE_WITHOUT_ROOM, folder) as process:
        assert process.wait(CHILD_SECONDS) == 0
    assert Sidecar.read(folder).rows == 1
    assert [path.name for path in tmp_path.iterdir()] == ["store.json"]
