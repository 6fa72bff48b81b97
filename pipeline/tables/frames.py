"""Two ways to write frames that come one after the other: into a text file each, or as a lazy frame into a sink."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import polars as pl
from polars.io.plugins import register_io_source

from .source import Compression

GZIP_LEVEL = 3
"""As fast as polars' gzip; a higher level takes twice the time for files that are a twentieth smaller."""


@contextmanager
def open_text(draft: Path, compression: Compression) -> Iterator[IO[bytes]]:
    """Open a file for text, plain or packed by gzip. A sink of polars would hold 256 rows, of any size, at a time."""
    with draft.open("wb") as file:
        if compression == "gzip":
            with gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as packed:
                yield cast("IO[bytes]", packed)
        else:
            yield file


def as_lazy(frames: Iterator[pl.DataFrame], schema: pl.Schema) -> pl.LazyFrame:
    """The frames as a lazy frame that polars can write without holding all of them. It can be written once.

    `register_io_source` is marked unstable, and is used here only.
    """

    def source(_columns: object, _filter: object, _rows: object, _size: object) -> Iterator[pl.DataFrame]:
        return frames

    return register_io_source(source, schema=schema, validate_schema=True)
