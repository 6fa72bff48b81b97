"""Rows in, rows out: the only file that knows formats."""

import base64
import csv
import datetime as dt
import difflib
import errno
import functools
import glob
import gzip
import hashlib
import json
import logging
import math
import os
import random
import shutil
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

import polars as pl
import polars.selectors as cs
from polars.exceptions import PanicException, PolarsError
from polars.io.plugins import register_io_source

from ..files import new_draft, replacing
from ..records import BadJob, Stopped

SLICE_ROWS = 25_000
"""Rows in hand at once, where the caller does not say."""
SNAPSHOT_GROUP_ROWS = 50_000
"""Rows of a snapshot that are decoded together: a slice costs little wherever it begins."""
READING = b"2"
"""Part of a snapshot's name. Raise it when the same bytes would be read as other rows."""

Compression = Literal["uncompressed", "gzip", "zstd"]
COMPRESSIONS: dict[str, Compression] = {"": "uncompressed", ".gz": "gzip", ".zst": "zstd"}
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
ARROW_FILE, ARROW_STREAM, PARQUET = b"ARROW1", b"\xff\xff\xff\xff", b"PAR1"
UTF16 = (b"\xff\xfe", b"\xfe\xff")
UNREADABLE = (PolarsError, PanicException, OSError, EOFError)
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
HEARD_SECONDS = 0.2
"""While a table is written, a signal is heard within so long."""
EXCEL = ".xlsx"
EXCEL_ROWS, EXCEL_CHARACTERS, EXCEL_WHOLE = 1_048_576, 32_767, 10**15
"""Rows of a sheet, the header's among them; characters of a cell; whole numbers that it does not round."""
EXCEL_LIBRARIES = ("fastexcel", "xlsxwriter")
FORMULA = r"^[=+\-@\t\r]"
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
TEXT = (pl.String, pl.Categorical, pl.Enum)
QUOTED_MOST = 200
"""Characters of a library's own words that a message repeats."""

Stamp = tuple[int, int, int]
"""Size in bytes, time of change in nanoseconds, inode: what tells that a file is no longer the one that was opened."""


@dataclass(frozen=True)
class Table:
    """An opened input: every row readable in slices, in order, at any offset. Made by `open_table`."""

    path: Path
    """The Parquet that is sliced: the input itself if it is one Parquet file, else the snapshot."""
    schema: pl.Schema
    rows: int
    """Of this table, which after `head` or `sample` are fewer than the file's."""
    content_hash: str
    """64 hexadecimal digits: sha256 over the input files' bytes, in order."""
    stamp: Stamp = field(repr=False)
    chosen: pl.Series | None = field(default=None, repr=False, compare=False)
    """The rows of a sample, ascending from 0; None for all."""

    def head(self, rows: int) -> "Table":
        """The first `rows` rows as a table, or all if there are no more."""
        return replace(self, rows=min(rows, self.rows))

    def sample(self, rows: int, seed: int) -> "Table":
        """So many rows drawn by chance, in the input's order; the same for the same seed. All if there are no more."""
        drawn = random.Random(seed).sample(range(self.rows), min(rows, self.rows))  # noqa: S311 - a draw, not a secret
        places = pl.Series(sorted(drawn), dtype=pl.UInt32)
        return replace(self, rows=len(places), chosen=places if self.chosen is None else self.chosen.gather(places))

    def slices(self, columns: Sequence[str] | None = None, size: int = SLICE_ROWS) -> Iterator[pl.DataFrame]:
        """Frames of `size` rows, the last of fewer, of the columns asked for.

        A frame without columns has no height, so where none is asked for the first comes along. Raises Stopped if
        the Parquet changed since it was opened: looked at after each slice is read and at the end.
        """
        wanted = list(self.schema)[:1] if columns is not None and not columns else columns
        for start in range(0, self.rows, size):
            try:
                frame = self._read(start, min(size, self.rows - start), wanted)
            except (PolarsError, PanicException, OSError) as error:
                self._check_unchanged()
                raise Stopped(f"{self.path} cannot be read any more: {_short(error)}.\n{_REOPEN}") from error
            self._check_unchanged()
            yield frame
        self._check_unchanged()

    def _read(self, start: int, rows: int, columns: Sequence[str] | None) -> pl.DataFrame:
        if self.chosen is None:
            return _columns(_scan_parquet(self.path).slice(start, rows), columns).collect()
        places = self.chosen.slice(start, rows)
        first, last = places[0], places[-1]
        number = _free_name(self.schema)
        numbered = _scan_parquet(self.path).slice(first, last - first + 1).with_row_index(number, first)
        picked = numbered.filter(pl.col(number).is_in(places.implode())).drop(number)
        return _columns(picked, columns).collect()

    def _check_unchanged(self) -> None:
        try:
            now = _stamp(self.path)
        except OSError as error:
            raise Stopped(f"{self.path} is gone since the job began to read it.\n{_REOPEN}") from error
        if now != self.stamp:
            raise Stopped(f"{self.path} has changed since the job began to read it.\n{_REOPEN}")


@dataclass(frozen=True)
class SpreadsheetOptions:
    """How a table is dressed for a spreadsheet program."""

    mark: bool = False
    """A byte order mark before CSV or TSV, by which Excel knows that it is UTF-8."""
    escape_formulas: bool = False
    """An apostrophe before text that a spreadsheet would run: all that begins with = + - @ tab or CR, but numbers."""


PLAIN = SpreadsheetOptions()


_REOPEN = "The answers so far are kept. When the input stands still, run the same command again: it is read anew."


def open_table(inputs: Sequence[str], folder: Path) -> Table:
    """Open what the user named as one table.

    `inputs` are paths, globs (their matches sorted) or "-" for standard input, of the formats in READERS. One Parquet
    file is sliced where it lies. All else is written once to `folder/input-….parquet` (the folder must be there), named
    after its content: the same content finds it again.

    A CSV cell is the text that came in: an empty field is null, a quoted empty one is "". Blank lines are no rows,
    unless the table has a single column. A stream of Arrow, unlike all else, is held in memory whole.

    Raises BadJob if it is not a table, with file, line and remedy where they can be found; Stopped if the disk is full.
    """
    with ExitStack() as tidy:
        try:
            sources = [source for text in inputs for source in _sources(text, folder, tidy)]
            before = [_stamp(source.path) for source in sources]
        except OSError as error:
            raise BadJob(f"{error.filename} cannot be read: {error.strerror}.") from error
        if not sources:
            raise BadJob("There is no input. Name a file, a glob, or - for standard input.")
        content_hash, reading = _fingerprint(sources)
        if len(sources) == 1 and sources[0].suffix == ".parquet" and inputs[0] != "-":
            return _table(sources[0], content_hash, before[0])
        path = folder / f"input-{reading[:16]}.parquet"
        if not path.exists():
            _write_snapshot(path, sources, before)
        return _table(_Source(path, str(path), ".parquet"), content_hash, _stamp(path))


def remove_old_snapshots(folder: Path, table: Table) -> None:
    """Remove the snapshots in `folder` that `table` is not read from."""
    for snapshot in folder.glob(f"input-{'[0-9a-f]' * 16}.parquet"):
        if not snapshot.samefile(table.path):
            snapshot.unlink(missing_ok=True)


def remove_leftovers(folder: Path, output: Path) -> None:
    """Remove what killed runs left half-written, in the job's folder and beside its output."""
    hexes = "[0-9a-f]" * 8
    half_written = [*folder.glob(f".*.{hexes}.tmp"), *folder.glob(".stdin-*")]
    half_written += output.parent.glob(f".{glob.escape(output.name[:100])}.{hexes}.tmp")
    for path in half_written:
        path.unlink(missing_ok=True)


def read_slices(path: Path, columns: Sequence[str] | None = None, size: int = SLICE_ROWS) -> Iterator[pl.DataFrame]:
    """Frames of `size` rows, the last of fewer, of a Parquet that is our own and stands still."""
    for start in range(0, _count(_scan_parquet(path)), size):
        yield _columns(_scan_parquet(path).slice(start, size), columns).collect()


def read_parquet_metadata(path: Path) -> dict[str, str]:
    """What a Parquet file says of itself."""
    return pl.read_parquet_metadata(path)


def write_table(  # noqa: PLR0913 - what, to where, and how
    frames: Iterable[pl.DataFrame],
    schema: pl.Schema,
    path: Path,
    metadata: Mapping[str, str],
    *,
    private: bool = False,
    dress: SpreadsheetOptions = PLAIN,
) -> None:
    """Write `frames`, each of `schema`, one after the other, in the format that the suffix names.

    The file is replaced whole and on disk when this returns; if anything goes wrong, what stood there stands. A
    symlink stays one. Parquet carries `metadata`; polars can give it to no other format. CSV and TSV hold lists and
    structs as JSON text, with ISO dates; they and NDJSON hold bytes as base64.

    A new file has the mode that any has, or if `private` that of a file in its job folder.

    `frames` is drawn from another thread, one frame at a time. What it raises comes through as it is; a full disk and
    a file that cannot be written are Stopped.
    """
    writer = _dressed(WRITERS[_suffix(path)], dress)
    given_up = threading.Event()

    def shaped() -> Iterator[pl.DataFrame]:
        for frame in frames:
            if given_up.is_set():
                raise InterruptedError(errno.EINTR, "given up")
            yield writer.shape(frame)

    with _replacing(path.resolve(), private=private) as temporary:
        table = _lazily(shaped(), writer.shape(schema.to_frame()).schema)
        _heard(lambda: writer.sink(table, temporary, metadata), given_up)


def _heard(work: Callable[[], object], given_up: threading.Event) -> None:
    """Do what is long in polars' own code in another thread: in the main one no signal would be heard before its end.

    One that raises sets `given_up`, by which the work is to end.
    """
    with ThreadPoolExecutor(1) as beside:
        working = beside.submit(work)
        try:
            while not wait([working], timeout=HEARD_SECONDS).done:
                pass  # a signal that struck another thread is heard when this one wakes
            working.result()
        except BaseException:
            given_up.set()
            raise


def check_output(path: Path, inputs: Sequence[str], dress: SpreadsheetOptions = PLAIN) -> None:
    """Raise BadJob if the output could not be written when its time comes, or would overwrite an input."""
    try:
        if path.is_dir():
            raise BadJob(f"{path} is a folder. Name a file, such as {path / 'output.csv'}.")
        if _suffix(path) not in WRITERS:
            raise BadJob(f"{path}: this ending names no format that can be written. Known are {', '.join(WRITERS)}.")
        if _suffix(path) == EXCEL:
            _need_excel(path)
        if dress.mark and not _suffix(path).startswith(tuple(_SEPARATORS)):
            raise BadJob(f"{path}: a byte order mark for Excel belongs before CSV and TSV alone. Name such an output.")
        target = path.resolve()
        if not target.parent.is_dir():
            raise BadJob(f"{path}: there is no folder {target.parent}. Make it first: mkdir -p '{target.parent}'")
        for name in (name for text in inputs if text != "-" for name in _expanded(text)):
            if Path(name).resolve() == target or (path.exists() and Path(name).exists() and path.samefile(name)):
                raise BadJob(f"{path} is also an input ({name}). Name another output: no input is written over.")
        new_draft(target).unlink()
    except OSError as error:
        raise BadJob(f"{path} cannot be written: {error.strerror}. Name another folder.") from error


def check_row_count(path: Path, rows: int) -> None:
    """Raise BadJob if the output's format cannot hold so many."""
    if _suffix(path) == EXCEL and rows >= EXCEL_ROWS:
        raise BadJob(
            f"{path}: a sheet of Excel holds {EXCEL_ROWS - 1:,} rows below its header, and these are {rows:,}. Name "
            f"another format, such as {path.with_suffix('.parquet')} or {path.with_suffix('.csv')}. Nothing was sent."
        )


@dataclass(frozen=True)
class _Source:
    """One input file."""

    path: Path
    name: str
    """What messages call it."""
    suffix: str
    """A key of READERS."""


def _sources(text: str, folder: Path, tidy: ExitStack) -> Iterator[_Source]:
    if text == "-":
        yield _spooled(folder, tidy)
        return
    names = _expanded(text)
    if not names:
        raise BadJob(f"{text}: no file matches this pattern (from {Path.cwd()}).")
    for name in names:
        path = Path(name)
        if path.is_dir():
            raise BadJob(f"{path} is a folder. Name the files in it: '{path / '*.csv'}'")
        if not path.exists():
            raise BadJob(f"{path}: there is no such file.{_near(path)}")
        suffix = _suffix(path)
        if suffix not in READERS:
            raise BadJob(f"{path}: this ending names no format that can be read. Known are {', '.join(READERS)}.")
        yield _Source(path, name, suffix)


def _expanded(text: str) -> list[str]:
    """The names that a pattern matches, sorted; a plain path, or one that exists as it is written, is itself."""
    if not glob.has_magic(text) or Path(text).exists():
        return [text]
    return sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - the pattern may be absolute


def _near(path: Path) -> str:
    try:
        neighbours = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f" Nor is there a folder {path.parent}."
    near = difflib.get_close_matches(path.name, neighbours, n=1)
    return f" Did you mean {path.parent / near[0]}?" if near else ""


def _suffix(path: Path) -> str:
    """The part of a name that tells the format: `.csv`, or `.csv.gz`."""
    last = path.suffix.lower()
    return path.with_suffix("").suffix.lower() + last if last in COMPRESSIONS else last


def _spooled(folder: Path, tidy: ExitStack) -> _Source:
    """Standard input, kept in a file for as long as it is being read."""
    if sys.stdin is None:
        raise BadJob("Standard input is closed. Name a file, or send the rows through a pipe.")
    with _telling_failure(folder / "standard input"):
        handle, name = tempfile.mkstemp(dir=folder, prefix=".stdin-")
        path = Path(name)
        tidy.callback(path.unlink)
        with os.fdopen(handle, "wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
    return _Source(path, "standard input", _sniffed(path))


def _sniffed(path: Path) -> str:
    """The format of a file without a name, by its first bytes."""
    start = _first_bytes(path)
    if start.startswith(PARQUET):
        return ".parquet"
    if start.startswith((ARROW_FILE, ARROW_STREAM)):
        return ".arrow"
    source = _Source(path, "standard input", ".csv")
    first = next((line for line in _byte_lines(source) if line.strip()), b"")
    return ".ndjson" if first.lstrip().startswith(b"{") else ".csv"


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)


def _fingerprint(sources: Sequence[_Source]) -> tuple[str, str]:
    """The hash of the content, and that of all that decides which rows it holds."""
    content, reading = hashlib.sha256(), hashlib.sha256(READING)
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
            raise BadJob(f"{source.name} is empty: not even a header.")
        reading.update(f"{source.suffix} {size}\n".encode())
    reading.update(content.digest())
    return content.hexdigest(), reading.hexdigest()


def _stamp(path: Path) -> Stamp:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _table(source: _Source, content_hash: str, stamp: Stamp) -> Table:
    with _blaming(source):
        frame = _scan_parquet(source.path)
        return Table(source.path, frame.collect_schema(), _count(frame), content_hash, stamp)


def _scan_parquet(path: Path) -> pl.LazyFrame:
    return pl.scan_parquet(path, glob=False, hive_partitioning=False)


def _count(frame: pl.LazyFrame) -> int:
    return int(frame.select(pl.len()).collect().item())


def _columns(frame: pl.LazyFrame, columns: Sequence[str] | None) -> pl.LazyFrame:
    """Those columns, by their names as they are: `select` would take `^a.*$` for a pattern."""
    return frame if columns is None else frame.select(cs.by_name(*columns))


def _free_name(schema: pl.Schema) -> str:
    return "_" + max(schema, key=len, default="")


def _write_snapshot(path: Path, sources: Sequence[_Source], before: Sequence[Stamp]) -> None:
    given_up = threading.Event()

    def passed_on(rows: pl.DataFrame) -> pl.DataFrame:
        if given_up.is_set():
            raise InterruptedError(errno.EINTR, "given up")
        return rows

    combined = _combined(sources)
    frame = combined.map_batches(passed_on, streamable=True, schema=combined.collect_schema())
    with _replacing(path, private=True) as temporary:
        try:
            _heard(lambda: frame.sink_parquet(temporary, row_group_size=SNAPSHOT_GROUP_ROWS), given_up)
        except (PolarsError, PanicException) as error:
            if _is_full(error):
                raise
            names = ", ".join(source.name for source in sources)
            raise BadJob(f"{names} cannot be read as one table: {_short(error)}.") from error
        for source, stamp in zip(sources, before, strict=True):
            if not source.path.exists() or _stamp(source.path) != stamp:
                raise BadJob(f"{source.name} changed while it was being read. Run again when it stands still.")


def _combined(sources: Sequence[_Source]) -> pl.LazyFrame:
    """The rows of all files, one after the other, in the column order of the first."""
    frames = [_opened(source) for source in sources]
    schemas = [frame.collect_schema() for frame in frames]
    names = list(schemas[0])
    for source, schema in zip(sources, schemas, strict=True):
        lacking, further = [n for n in names if n not in schema], [n for n in schema if n not in names]
        if lacking or further:
            told = [f"lacks {lacking}"] * bool(lacking) + [f"has also {further}"] * bool(further)
            raise BadJob(f"{source.name} has other columns than {sources[0].name}: it {' and '.join(told)}.")
    types = {name: _common_type(name, sources, schemas) for name in names}
    for at, (source, schema) in enumerate(zip(sources, schemas, strict=True)):
        wanted = pl.Schema({name: types[name] for name in schema})
        if wanted != schema:
            frames[at] = _scan_ndjson(source, wanted) if _is_ndjson(source) else frames[at].cast(wanted)
    return pl.concat([_columns(frame, names) for frame in frames])


def _common_type(name: str, sources: Sequence[_Source], schemas: Sequence[pl.Schema]) -> pl.DataType:
    """The one type of a column. Only NDJSON files, whose types are inferred from what each holds, may differ."""
    types = [schema[name] for schema in schemas]
    if all(_is_ndjson(source) for source in sources):
        with _blaming(sources[0]):
            return pl.concat([pl.DataFrame(schema={name: each}) for each in types], how="vertical_relaxed").schema[name]
    known = next((each for each in types if each != pl.Null), types[0])
    for source, each in zip(sources, types, strict=True):
        if each not in (known, pl.Null):
            raise BadJob(
                f"Column {name!r} is {each} in {source.name} and {known} in {sources[types.index(known)].name}. "
                "Write the files with one type for each column."
            )
    return known


def _opened(source: _Source) -> pl.LazyFrame:
    """One file's rows, read through once: whatever is wrong with them is told of that file."""
    with _blaming(source):
        frame = READERS[source.suffix](source)
        if not frame.collect_schema():
            raise BadJob(f"{source.name} holds no columns.")
        return frame


@contextmanager
def _blaming(source: _Source) -> Iterator[None]:
    try:
        yield
    except UNREADABLE as error:
        raise BadJob(
            f"{source.name} cannot be read as {source.suffix.lstrip('.')}: {_short(error)}.\n"
            "Is it whole, and is its ending the right one?"
        ) from error


def _short(error: BaseException) -> str:
    """A library's words: the first line of them that says something, without its full stop."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return first[:QUOTED_MOST].rstrip(".:")


def _read_parquet(source: _Source) -> pl.LazyFrame:
    frame = _scan_parquet(source.path)
    frame.null_count().collect()
    return frame


def _read_arrow(source: _Source) -> pl.LazyFrame:
    if _first_bytes(source.path).startswith(ARROW_STREAM):
        return pl.read_ipc_stream(source.path).lazy()
    frame = pl.scan_ipc(source.path, glob=False, hive_partitioning=False)
    frame.null_count().collect()
    return frame


def _need_excel(path: Path) -> None:
    lacking = [name for name in EXCEL_LIBRARIES if find_spec(name) is None]
    if lacking:
        raise BadJob(
            f"{path}: Excel files need {' and '.join(lacking)}:  pip install 'batch-prompt-pipeline[excel]'\n"
            "Or name another format, such as .csv. Nothing was sent."
        )


def _read_excel(source: _Source) -> pl.LazyFrame:
    """The first sheet; its first row has the names."""
    _need_excel(source.path)
    logging.getLogger("fastexcel").setLevel(logging.ERROR)  # else it warns of each column without a cell
    return pl.read_excel(source.path, engine="calamine", infer_schema_length=None).lazy()


def _byte_lines(source: _Source) -> Iterator[bytes]:
    """The lines of a file that may be compressed, each with its end."""
    start = _first_bytes(source.path)
    if start.startswith(ZSTD):
        for batch in pl.scan_lines(source.path, glob=False).collect_batches():
            yield from (line.encode() + b"\n" for line in batch["line"])
        return
    with gzip.open(source.path) if start.startswith(GZIP) else source.path.open("rb") as file:
        yield from file


def _lines(source: _Source) -> Iterator[str]:
    """The lines as text, each with its end, without a byte order mark. Raises BadJob at a byte that is not UTF-8."""
    offset = 0
    for number, line in enumerate(_byte_lines(source), 1):
        if number == 1 and (line.startswith(UTF16) or b"\0" in line[:2]):
            raise BadJob(f"{source.name} is in UTF-16. {_recode(source, 'utf-16')}")
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise BadJob(
                f"{source.name}:{number}: byte {line[error.start]:#04x} at offset {offset + error.start:,} is not "
                f"UTF-8. {_recode(source, 'latin1')}"
            ) from error
        offset += len(line)
        yield text.removeprefix("\ufeff") if number == 1 else text


def _recode(source: _Source, encoding: str) -> str:
    plain = source.path.with_suffix("") if source.path.suffix.lower() in {".gz", ".zst"} else source.path
    packed = " (unpacked first)" if plain != source.path else ""
    if source.name == "standard input":
        return f"Send it through: iconv -f {encoding} -t utf-8"
    return f"Recode it{packed}: iconv -f {encoding} -t utf-8 '{plain}' > '{plain.with_stem(plain.stem + '-utf8')}'"


class _CsvRecord(NamedTuple):
    """One row of a CSV as it stands in the file."""

    line: int
    """The line it begins on, from 1."""
    raw: str
    fields: list[str]
    """Without carriage returns; none for a blank line."""


def _csv_records(source: _Source, separator: str) -> Iterator[_CsvRecord]:
    csv.field_size_limit(sys.maxsize)
    raw: list[str] = []

    def lines() -> Iterator[str]:
        for line in _lines(source):
            raw.append(line)
            yield line.replace("\r", "")

    reader = csv.reader(lines(), delimiter=separator, strict=True)
    while True:
        line = reader.line_num + 1
        raw.clear()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise BadJob(
                f"{source.name}:{line}: the quotes of the row that begins here do not match ({error}). "
                'A quote within a quoted cell is written twice: "5"" pipe".'
            ) from error
        yield _CsvRecord(line, "".join(raw), fields)


def _csv_header(source: _Source, separator: str) -> list[str]:
    """The names of the columns, read by themselves, since polars renames what stands twice."""
    header = next((record for record in _csv_records(source, separator) if record.fields), None)
    if header is None:
        raise BadJob(f"{source.name} is empty: not even a header.")
    if "\r" in header.raw.rstrip("\r\n"):
        raise BadJob(f"{source.name}:1: carriage returns stand alone. Mend it: tr '\\r' '\\n' < FILE > NEW")
    names = header.fields
    if unnamed := [str(at) for at, name in enumerate(names, 1) if not name]:
        raise BadJob(
            f"{source.name}:{header.line}: no name at column {', '.join(unnamed)} of the header. Name each column, or "
            "take out the last separator of each line (pandas: to_csv(..., index=False))."
        )
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        places = ", ".join(f"{name!r} at {[at for at, n in enumerate(names, 1) if n == name]}" for name in twice)
        raise BadJob(f"{source.name}:{header.line}: columns of the same name: {places}. Rename them.")
    return names


def _read_csv(source: _Source, separator: str) -> pl.LazyFrame:
    names = _csv_header(source, separator)
    try:
        frame = pl.scan_csv(source.path, separator=separator, infer_schema=False, glob=False, new_columns=names)
        ends_in_null = frame.null_count().collect().row(0)[-1] > 0
    except UNREADABLE:
        _blank_rows(source, separator, len(names))
        raise
    # polars fills up a row of too few cells without a word; such a row ends in null
    if not ends_in_null or len(names) == 1:
        return frame
    blank, rows = _blank_rows(source, separator, len(names))
    if rows != _count(frame):
        raise BadJob(f"{source.name}: it is not clear where its {rows:,} rows end. Quote cells that hold quotes.")
    number = _free_name(frame.collect_schema())
    kept = frame.with_row_index(number).filter(~pl.col(number).is_in(blank)).drop(number)
    return kept if blank else frame


def _blank_rows(source: _Source, separator: str, width: int) -> tuple[list[int], int]:
    """Which rows (from 0, below the header) are blank lines, and how many rows there are with them.

    Raises BadJob at the first row that has another width than the header, or quotes that polars reads otherwise.
    """
    records = _csv_records(source, separator)
    next(record for record in records if record.fields)
    blank, rows = [], 0
    for record in records:
        if not record.fields:
            blank.append(rows)
        elif len(record.fields) != width:
            raise BadJob(
                f"{source.name}:{record.line}: {len(record.fields)} cells, where the header has {width}. A cell that "
                f"holds {'a tab' if separator == chr(9) else 'a comma'} or a line break must stand in quotes."
            )
        elif record.raw.count('"') % 2:
            raise BadJob(
                f'{source.name}:{record.line}: a lone quote. A cell that holds one is quoted and doubles it: "5"" pipe"'
            )
        rows += 1
    return blank, rows


def _read_ndjson(source: _Source) -> pl.LazyFrame:
    try:
        scanned = pl.scan_ndjson(glob.escape(str(source.path)), infer_schema_length=None).collect_schema()
        storable = pl.Schema({name: _storable(dtype) for name, dtype in scanned.items()})
        frame = _scan_ndjson(source, _in_order(source, storable))
        frame.null_count().collect()
    except UNREADABLE:
        _check_json_lines(source)
        raise
    _refuse_half_pairs(source)
    return frame


def _refuse_half_pairs(source: _Source) -> None:
    """Raise BadJob at half of a surrogate pair, which is no character: polars reads a NUL there."""
    for number, line in enumerate(_byte_lines(source), 1):
        if b"\\ud" in line or b"\\uD" in line:
            try:
                json.dumps(_json_or_nothing(line.decode()), ensure_ascii=False).encode()
            except UnicodeEncodeError as error:
                raise BadJob(
                    f"{source.name}:{number}: half of a surrogate pair ({error.object[error.start]!r}) is no character."
                    " Write \\ufffd in its place, or take it out."
                ) from error


def _in_order(source: _Source, schema: pl.Schema) -> pl.Schema:
    """The schema with its names, nested ones too, in the order in which the file has them first.

    Polars has them in an order by chance, another in each process, and so would a prompt that shows the whole row.
    """
    whole = pl.Struct(dict(schema))
    seen: dict[str, Any] = {}
    for line in _lines(source):
        if _learn(seen, _json_or_nothing(line)) and _has_all(seen, whole):
            break
    return pl.Schema({each.name: _instance(each.dtype) for each in _sorted_by(seen, whole).fields})


def _json_or_nothing(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):  # polars will say so, or knows better
        return None


def _learn(seen: dict[str, Any], value: object) -> bool:
    """Add the names in a value to those seen, each with those within it; whether one was new."""
    is_new = False
    if isinstance(value, list):
        for each in value:
            is_new |= _learn(seen, each)
    elif isinstance(value, dict):
        for name, each in value.items():
            is_new |= name not in seen
            is_new |= _learn(seen.setdefault(name, {}), each)
    return is_new


def _has_all(seen: dict[str, Any], dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List):
        return _has_all(seen, _instance(dtype.inner))
    if not isinstance(dtype, pl.Struct):
        return True
    return all(each.name in seen and _has_all(seen[each.name], _instance(each.dtype)) for each in dtype.fields)


def _sorted_by(seen: dict[str, Any], dtype: Any) -> Any:  # noqa: ANN401 - the same kind of type as was given
    if isinstance(dtype, pl.List):
        return pl.List(_sorted_by(seen, _instance(dtype.inner)))
    if not isinstance(dtype, pl.Struct):
        return dtype
    known = list(seen)
    fields = sorted(dtype.fields, key=lambda each: known.index(each.name) if each.name in seen else len(known))
    return pl.Struct({each.name: _sorted_by(seen.get(each.name, {}), _instance(each.dtype)) for each in fields})


def _scan_ndjson(source: _Source, schema: pl.Schema) -> pl.LazyFrame:
    # scan_ndjson takes every path for a pattern, and would read a.json where a[a].json was named
    return pl.scan_ndjson(glob.escape(str(source.path)), schema=schema)


def _is_ndjson(source: _Source) -> bool:
    return source.suffix.startswith((".ndjson", ".jsonl"))


def _storable(dtype: pl.DataType) -> pl.DataType:
    """The type with every object that never has a key as its JSON text: Parquet knows no struct without fields."""
    if isinstance(dtype, pl.List):
        return pl.List(_storable(_instance(dtype.inner)))
    if isinstance(dtype, pl.Struct):
        fields = {each.name: _storable(_instance(each.dtype)) for each in dtype.fields}
        return pl.Struct(fields) if fields else pl.String()
    return dtype


def _instance(dtype: Any) -> pl.DataType:  # noqa: ANN401 - polars types a nested dtype as class or instance
    return dtype() if isinstance(dtype, type) else dtype  # type: ignore[no-any-return]


def _check_json_lines(source: _Source) -> None:
    """Raise BadJob at the first line that is not one JSON object."""
    for number, line in enumerate(_lines(source), 1):
        if not line.strip():
            continue
        try:
            held = json.loads(line, parse_constant=_refuse_constant)
        except ValueError as error:
            raise BadJob(f"{source.name}:{number}: not JSON: {error}. Each line is one whole object.") from error
        if not isinstance(held, dict):
            raise BadJob(f'{source.name}:{number}: not an object. Each line is one, such as {{"review": "…"}}.')


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _lazily(frames: Iterator[pl.DataFrame], schema: pl.Schema) -> pl.LazyFrame:
    """The frames as something that polars can sink without holding them all; good for one sink.

    `register_io_source` is marked unstable, and is used here alone.
    """

    def draw(_columns: object, _filter: object, _rows: object, _size: object) -> Iterator[pl.DataFrame]:
        return frames

    return register_io_source(draw, schema=schema, validate_schema=True)


@contextmanager
def _replacing(path: Path, *, private: bool = False) -> Iterator[Path]:
    """As `files.replacing`; raises Stopped for a full disk and a file that cannot be written."""
    with _telling_failure(path), replacing(path, private=private) as draft:
        yield draft


@contextmanager
def _telling_failure(path: Path) -> Iterator[None]:
    """Raise Stopped for what the disk refuses."""
    try:
        yield
    except (PolarsError, OSError) as error:
        if _is_full(error):
            raise Stopped(
                f"No space left on the disk for {path}. Nothing on it was changed, and answers already stored are kept."
                f"\nMake room (df -h '{path.parent}'), then run the same command again."
            ) from error
        if isinstance(error, OSError):
            raise Stopped(f"{path} could not be written: {_short(error)}. What stood there stands.") from error
        raise


def _is_full(error: BaseException) -> bool:
    """Whether the disk (or the user's share of it) is full; polars keeps the number only in its words."""
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    return any(f"(os error {number})" in str(error) for number in FULL)


def _as_it_is(frame: pl.DataFrame) -> pl.DataFrame:
    return frame


def _as_text(frame: pl.DataFrame) -> pl.DataFrame:
    """What CSV can hold: nested cells as JSON text, bytes as base64, durations as ISO 8601."""
    return frame.with_columns(_json_text(column) if column.dtype.is_nested() else _plain(column) for column in frame)


def _as_json(frame: pl.DataFrame) -> pl.DataFrame:
    """What polars can write as JSON: bytes as base64, nested cells that hold bytes as JSON text."""
    return frame.with_columns(_json_text(c) if _holds_bytes(c.dtype) else c for c in map(_base64, frame))


def _base64(column: pl.Series) -> pl.Series:
    return column.bin.encode("base64") if column.dtype == pl.Binary else column


def _plain(column: pl.Series) -> pl.Series:
    return column.dt.to_string("iso") if column.dtype == pl.Duration else _base64(column)


def _holds_bytes(dtype: Any) -> bool:  # noqa: ANN401 - polars types a nested dtype as class or instance
    if isinstance(dtype, pl.List | pl.Array):
        return _holds_bytes(dtype.inner)
    if isinstance(dtype, pl.Struct):
        return any(_holds_bytes(each.dtype) for each in dtype.fields)
    return bool(dtype == pl.Binary)


def _json_text(column: pl.Series) -> pl.Series:
    cells = (None if cell is None else json.dumps(_jsonable(cell), ensure_ascii=False) for cell in column.to_list())
    return pl.Series(column.name, list(cells), dtype=pl.String)


def _jsonable(cell: object) -> object:
    """A nested cell with nothing in it that JSON has no word for."""
    match cell:
        case dict():
            return {name: _jsonable(each) for name, each in cell.items()}
        case list():
            return [_jsonable(each) for each in cell]
        case float():
            return cell if math.isfinite(cell) else None
        case None | str() | int():
            return cell
        case bytes():
            return base64.b64encode(cell).decode()
        case dt.date() | dt.time():
            return cell.isoformat()
        case dt.timedelta():
            return _plain(pl.Series([cell])).item()
        case _:
            return str(cell)


def _sink_parquet(frame: pl.LazyFrame, path: Path, metadata: Mapping[str, str]) -> None:
    frame.sink_parquet(path, metadata=dict(metadata))


def _sink_arrow(frame: pl.LazyFrame, path: Path, _metadata: Mapping[str, str]) -> None:
    frame.sink_ipc(path)


def _sink_csv(
    frame: pl.LazyFrame,
    path: Path,
    _metadata: Mapping[str, str],
    *,
    separator: str,
    compression: Compression,
    mark: bool = False,
) -> None:
    frame.sink_csv(path, separator=separator, compression=compression, check_extension=False, include_bom=mark)


def _sink_excel(frame: pl.LazyFrame, path: Path, _metadata: Mapping[str, str]) -> None:
    """One sheet, row by row: none is kept in memory. Text stays text, whatever it looks like."""
    import xlsxwriter  # noqa: PLC0415 - an extra, and slow to import

    options = {
        "constant_memory": True,
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "strings_to_numbers": False,
        "remove_timezone": True,
        "default_date_format": "yyyy-mm-dd hh:mm:ss",
        "tmpdir": str(path.parent),
    }
    with xlsxwriter.Workbook(path, options) as book:
        sheet = book.add_worksheet()
        for column, name in enumerate(frame.collect_schema()):
            sheet.write_string(0, column, name)
        rows = (row for batch in frame.collect_batches(maintain_order=True) for row in batch.iter_rows())
        for number, row in enumerate(rows, 1):
            for column, cell in enumerate(row):
                _write_cell(sheet, number, column, cell)


def _write_cell(sheet: Any, row: int, column: int, cell: object) -> None:  # noqa: ANN401 - xlsxwriter is untyped
    match cell:
        case None:
            return
        case bool():
            sheet.write_boolean(row, column, cell)
        case int() | float() if math.isfinite(cell) and abs(cell) <= EXCEL_WHOLE:
            sheet.write_number(row, column, cell)
        case dt.datetime() | dt.date() | dt.time():
            sheet.write_datetime(row, column, cell)
        case _:
            text = str(cell)
            if len(text.encode("utf-16-le")) > 2 * EXCEL_CHARACTERS:
                raise Stopped(
                    f"Row {row:,}, column {column + 1}: {len(text):,} characters, and a cell of Excel holds "
                    f"{EXCEL_CHARACTERS:,}.\nEvery answer is kept: export the table in another format (-o OUTPUT.csv)."
                )
            sheet.write_string(row, column, text)


def _dressed(writer: "_Writer", dress: SpreadsheetOptions) -> "_Writer":
    sink = functools.partial(writer.sink, mark=True) if dress.mark else writer.sink
    if not dress.escape_formulas:
        return _Writer(sink, writer.shape)
    return _Writer(sink, lambda frame: _escaped(writer.shape(frame)))


def _escaped(frame: pl.DataFrame) -> pl.DataFrame:
    """Text that a spreadsheet would run, after an apostrophe."""
    return frame.with_columns(_escaped_text(column) for column in frame if column.dtype in TEXT)


def _escaped_text(column: pl.Series) -> pl.Series:
    cells = column.cast(pl.String)
    runs = cells.str.contains(FORMULA) & ~cells.str.contains(NUMBER)
    return pl.select(pl.when(runs).then("'" + cells).otherwise(cells).alias(column.name)).to_series()


def _sink_ndjson(frame: pl.LazyFrame, path: Path, _metadata: Mapping[str, str], *, compression: Compression) -> None:
    frame.sink_ndjson(path, compression=compression, check_extension=False)


class _Writer(NamedTuple):
    sink: Callable[..., None]
    """Of a frame, a path and the metadata; a CSV's takes `mark` too."""
    shape: Callable[[pl.DataFrame], pl.DataFrame]
    """Each frame as the format can hold it."""


_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".ndjson", ".jsonl")
_ARROW = (".arrow", ".ipc", ".feather")

READERS: dict[str, Callable[[_Source], pl.LazyFrame]] = {
    ".parquet": _read_parquet,
    **{
        kind + packed: functools.partial(_read_csv, separator=separator)
        for kind, separator in _SEPARATORS.items()
        for packed in COMPRESSIONS
    },
    **{kind + packed: _read_ndjson for kind in _JSON_LINES for packed in COMPRESSIONS},
    **dict.fromkeys(_ARROW, _read_arrow),
    EXCEL: _read_excel,
}
"""How each format is read: one file in, its rows out, all of them known to be readable."""

WRITERS: dict[str, _Writer] = {
    ".parquet": _Writer(_sink_parquet, _as_it_is),
    **{
        kind + packed: _Writer(functools.partial(_sink_csv, separator=separator, compression=how), _as_text)
        for kind, separator in _SEPARATORS.items()
        for packed, how in COMPRESSIONS.items()
    },
    **{
        kind + packed: _Writer(functools.partial(_sink_ndjson, compression=how), _as_json)
        for kind in _JSON_LINES
        for packed, how in COMPRESSIONS.items()
    },
    **dict.fromkeys(_ARROW, _Writer(_sink_arrow, _as_it_is)),
    EXCEL: _Writer(_sink_excel, _as_text),
}
"""How each format is written."""
