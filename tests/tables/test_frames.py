"""Text files take each frame as it comes and hold none; a sink takes them as one lazy frame."""

import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from pipeline.tables.csv_files import write_csv
from pipeline.tables.frames import as_lazy, open_text
from pipeline.tables.ndjson import write_ndjson
from pipeline.tables.source import Compression

SCHEMA = pl.Schema({"n": pl.Int64, "text": pl.String})
CHARACTERS = 1_000_000


@pytest.mark.parametrize("write", [partial(write_csv, separator=","), write_ndjson])
def test_a_frame_is_in_the_file_before_the_next_one_is_taken(tmp_path: Path, write: partial[None]) -> None:
    sizes = []

    def frames() -> Iterator[pl.DataFrame]:
        for number in range(3):
            sizes.append(draft.stat().st_size)
            yield pl.DataFrame({"n": [number], "text": ["x" * CHARACTERS]}, schema=SCHEMA)

    draft = tmp_path / "draft"
    write(frames(), SCHEMA, draft, {}, compression="uncompressed")
    assert [size // CHARACTERS for size in sizes] == [0, 1, 2]


@pytest.mark.parametrize("packing", ["uncompressed", "gzip"])
def test_what_is_written_in_parts_is_one_file_that_every_reader_reads_to_its_end(
    tmp_path: Path, packing: Compression
) -> None:
    for name in ("a", "b"):
        with open_text(tmp_path / name, packing) as file:
            for number in range(3):
                file.write(b"part %d\n" % number)
    packed = (tmp_path / "a").read_bytes()
    assert packed == (tmp_path / "b").read_bytes()
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16)
    assert (packed if packing == "uncompressed" else unpacking.decompress(packed)) == b"part 0\npart 1\npart 2\n"
    assert unpacking.unused_data == b""


def test_a_lazy_frame_gives_the_frames_in_order() -> None:
    frames = [pl.DataFrame({"n": [number], "text": ["x"]}, schema=SCHEMA) for number in range(3)]
    assert as_lazy(iter(frames), SCHEMA).collect()["n"].to_list() == [0, 1, 2]
