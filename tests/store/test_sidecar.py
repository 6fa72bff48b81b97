"""A watermark is whole or the one before, and what makes no sense is none."""

import resource
from pathlib import Path

import pytest

from pipeline.store.sidecar import Sidecar, sidecar_path


def test_what_is_put_is_found_with_every_byte_of_its_notes(tmp_path: Path) -> None:
    mark = Sidecar("id", 3, {"ledger": b'{"ok":1}', "odd": bytes(range(256))})
    mark.put(tmp_path / "store")
    assert Sidecar.of(tmp_path / "store") == mark
    assert [path.name for path in tmp_path.iterdir()] == ["store.json"]


@pytest.mark.parametrize(
    "content", [b"", b"[", b"[]", b"{}", b"[" * 100_000, b'{"identity":"i","rows":"x","notes":{}}', b"\xff"]
)
def test_what_makes_no_sense_is_none(tmp_path: Path, content: bytes) -> None:
    sidecar_path(tmp_path / "store").write_bytes(content)
    assert Sidecar.of(tmp_path / "store") == Sidecar()


def test_one_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    Sidecar("id", 1).put(folder)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # as on a full disk
    try:
        Sidecar("id", 2).put(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert Sidecar.of(folder).rows == 1
