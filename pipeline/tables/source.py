"""Input files: found by path, pattern or standard input, recognised by their format, fingerprinted, read by line."""

import glob
import gzip
import hashlib
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import polars as pl

from ..paths import check_name, is_stream, saying_that_it_waits, special_kind
from ..records import BadJob
from ..text import near_name
from .errors import UNREADABLE, brief, reporting_disk_errors

Compression = Literal["uncompressed", "gzip", "zstd"]
"""The compressions of text files, by polars' names."""
COMPRESSIONS: dict[str, Compression] = {"": "uncompressed", ".gz": "gzip", ".zst": "zstd"}
"""Compressions by the suffix that a name ends in after the format's own, as in `.csv.gz`."""
GZIP_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
"""First bytes of compressed files."""
ARROW_FILE_MAGIC, ARROW_STREAM_MAGIC, PARQUET_MAGIC = b"ARROW1", b"\xff\xff\xff\xff", b"PAR1"
"""First bytes of Arrow's file format, Arrow's stream format and Parquet."""
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
"""Byte order marks of UTF-16, little-endian and big-endian."""
READER_VERSION = b"2"
"""Part of the hash in a snapshot's name. Raise it when the same bytes would be read as other rows."""
STANDARD_INPUT = "standard input"
"""The name of standard input in messages."""

Stamp = tuple[int, int, int]
"""Size in bytes, modification time in nanoseconds and inode of a file: they differ if it was changed or replaced."""


@dataclass(frozen=True)
class Source:
    """One input file."""

    path: Path
    name: str
    """Its name in messages: as the user wrote it, or "standard input"."""
    suffix: str
    """Its format, as a key of READERS."""
    is_copy: bool = False
    """Whether `path` is a copy of what came through a stream, which is removed when the table is opened."""


def find_sources(text: str, readable: Collection[str], folder: Path, cleanup: ExitStack) -> Iterator[Source]:
    """Find the files that one input argument names: a path, a pattern, or "-" for standard input.

    `readable` are the suffixes that can be read. What comes through standard input or another pipe is copied to a file
    in `folder`, which `cleanup` removes. Raises BadJob for a name without a file, a folder and an unknown suffix.
    """
    if text == "-":
        if sys.stdin is None:
            raise BadJob("Standard input is closed. Name a file, or send the rows through a pipe.")
        with saying_that_it_waits(STANDARD_INPUT):
            yield _copy(sys.stdin.buffer, STANDARD_INPUT, None, folder, cleanup)
        return
    names = expand_pattern(text)
    if not names:
        raise BadJob(f"{text}: no file matches this pattern (searched from {Path.cwd()}).")
    for name in names:
        path = Path(name)
        check_name(path.absolute())
        if path.is_dir():
            raise BadJob(f"{path} is a folder. Name the files in it: {shlex.quote(str(path / '*.csv'))}")
        if not path.exists():
            raise BadJob(f"{path}: there is no such file.{_suggestion(path)}")
        suffix = suffix_of(path)
        if suffix not in readable and not (is_stream(path) and not suffix):
            raise BadJob(f"{path}: its ending names no format that can be read. Use one of {', '.join(readable)}.")
        if is_stream(path):
            with saying_that_it_waits(name), path.open("rb") as stream:
                yield _copy(stream, name, suffix or None, folder, cleanup)
        elif kind := special_kind(path):
            raise BadJob(f"{path} is {kind}. Name a file, or send its rows through standard input, as the input -.")
        else:
            yield Source(path, name, suffix)


def expand_pattern(text: str) -> list[str]:
    """The names that a pattern matches, sorted. A text that is an existing path, or no pattern, stands for itself."""
    if not glob.has_magic(text) or Path(text).exists():
        return [text]
    return sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - the pattern may be absolute


def suffix_of(path: Path) -> str:
    """The part of a name that tells the format, in lower case: `.csv`, or `.csv.gz` for a compressed file."""
    last = path.suffix.lower()
    return path.with_suffix("").suffix.lower() + last if last in COMPRESSIONS else last


@contextmanager
def naming_source(source: Source) -> Iterator[None]:
    """Raise BadJob, naming the file and its format, if it cannot be read."""
    try:
        yield
    except UNREADABLE as error:
        raise BadJob(
            f"{source.name} cannot be read as {source.suffix.lstrip('.')}: {brief(error)}.\n"
            "Check that the file is complete and that its ending names its format."
        ) from error


def _suggestion(path: Path) -> str:
    try:
        neighbours = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f" The folder {path.parent} does not exist either."
    near = near_name(path.name, neighbours)
    return f" Did you mean {path.parent / near}?" if near else ""


def _copy(stream: BinaryIO, name: str, suffix: str | None, folder: Path, cleanup: ExitStack) -> Source:
    """Copy a stream to its end. `suffix`: its format, or None to find it in the content."""
    with reporting_disk_errors(folder / name):
        handle, copied = tempfile.mkstemp(dir=folder, prefix=".stdin-")
        path = Path(copied)
        cleanup.callback(path.unlink)
        with os.fdopen(handle, "wb") as file:
            shutil.copyfileobj(stream, file)
    return Source(path, name, suffix or _format_of_content(path), is_copy=True)


def _format_of_content(path: Path) -> str:
    """The format of a file that has no name of its own, as a key of READERS, by its first bytes or first line."""
    start = first_bytes(path)
    if start.startswith(PARQUET_MAGIC):
        return ".parquet"
    if start.startswith((ARROW_FILE_MAGIC, ARROW_STREAM_MAGIC)):
        return ".arrow"
    source = Source(path, STANDARD_INPUT, ".csv")
    first_line = next((line for line in byte_lines(source) if line.strip()), b"")
    return ".ndjson" if first_line.lstrip().startswith(b"{") else ".csv"


def stamp_of(path: Path) -> Stamp:
    """The stamp of a file, to be compared with a later one. Raises OSError."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def fingerprint(sources: Sequence[Source]) -> tuple[str, str]:
    """Hash the files' bytes, in order. Raises BadJob for an empty file and one that cannot be read.

    Returns two sha256 hashes in hexadecimal digits: of the content alone, and of everything that decides which rows
    are read from it (the content, each file's format and size, READER_VERSION).
    """
    content, reading = hashlib.sha256(), hashlib.sha256(READER_VERSION)
    for source in sources:
        size = 0
        try:
            with source.path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    content.update(chunk)
                    size += len(chunk)
        except OSError as error:
            raise BadJob(f"{source.name} cannot be read: {error.strerror}.") from error
        if not size:
            raise BadJob(f"{source.name} is empty: there is not even a header.")
        reading.update(f"{source.suffix} {size}\n".encode())
    reading.update(content.digest())
    return content.hexdigest(), reading.hexdigest()


def first_bytes(path: Path) -> bytes:
    """The first 8 bytes of a file, which show its format and its compression."""
    with path.open("rb") as file:
        return file.read(8)


def byte_lines(source: Source) -> Iterator[bytes]:
    """The lines of a file, uncompressed, each with its line end."""
    start = first_bytes(source.path)
    if start.startswith(ZSTD_MAGIC):
        for batch in pl.scan_lines(source.path, glob=False).collect_batches():
            yield from (line.encode() + b"\n" for line in batch["line"])
        return
    with gzip.open(source.path) if start.startswith(GZIP_MAGIC) else source.path.open("rb") as file:
        yield from file


def text_lines(source: Source) -> Iterator[str]:
    """The lines of a file as text, each with its line end, without a byte order mark.

    Raises BadJob at the first byte that is not UTF-8.
    """
    offset = 0
    for number, line in enumerate(byte_lines(source), 1):
        if number == 1 and (line.startswith(UTF16_MARKS) or b"\0" in line[:2]):
            raise BadJob(f"{source.name} is in UTF-16. {_how_to_convert(source, 'utf-16')}")
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise BadJob(
                f"{source.name}:{number}: byte {line[error.start]:#04x} at offset {offset + error.start:,} is not "
                f"UTF-8. {_how_to_convert(source, 'latin1')}"
            ) from error
        offset += len(line)
        yield text.removeprefix("\ufeff") if number == 1 else text


def _how_to_convert(source: Source, encoding: str) -> str:
    if source.is_copy:
        return f"Send it through: iconv -f {encoding} -t utf-8"
    unpacked = source.path.with_suffix("") if source.path.suffix.lower() in COMPRESSIONS else source.path
    first = "Unpack it, then convert it" if unpacked != source.path else "Convert it"
    old, new = (shlex.quote(str(path)) for path in (unpacked, unpacked.with_stem(unpacked.stem + "-utf8")))
    return f"{first}: iconv -f {encoding} -t utf-8 {old} > {new}"
