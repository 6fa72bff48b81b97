"""Open input files as one table: each is read in its format, all are combined and kept as a snapshot in Parquet."""

import functools
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import polars as pl
from polars.exceptions import PanicException, PolarsError

from ..files import remove_dead_drafts, replacing
from ..paths import check_name
from ..records import BadJob
from .csv_files import SEPARATORS, read_csv
from .errors import brief, is_disk_full, reporting_disk_errors
from .excel import EXCEL, read_excel
from .ndjson import NDJSON_SUFFIXES, is_ndjson, read_ndjson, scan_ndjson
from .source import (
    ARROW_STREAM_MAGIC,
    COMPRESSIONS,
    Source,
    Stamp,
    find_sources,
    fingerprint,
    first_bytes,
    naming_source,
    stamp_of,
)
from .table import Table, count_rows, scan_parquet, select_columns
from .write import ARROW_SUFFIXES, check_cancelled, run_interruptibly

SNAPSHOT_GROUP_ROWS = 50_000
"""Rows in a row group of a snapshot. Polars decodes whole groups: small ones make a slice cheap wherever it begins."""


def open_table(inputs: Sequence[str], folder: Path) -> Table:
    """Open the inputs as one table, their rows one after the other.

    Each of `inputs` is a path, a pattern (its matches are sorted), a pipe or "-" for standard input, in a format of
    READERS.
    One Parquet file is read where it is. Anything else is written to a snapshot in `folder`, which must exist:
    `input-HEX.parquet`, named after the content, so that the same content is converted only once.

    The cells of CSV are text: an empty field is null, a quoted empty one is "". Blank lines are skipped, unless there
    is a single column. An Arrow stream and an Excel sheet are read into memory; everything else is streamed.

    Raises BadJob if the inputs cannot be read as one table, with the file, the line and the remedy where they are
    known. Raises Stopped if the disk is full.
    """
    check_name(folder.resolve())
    with ExitStack() as cleanup:
        try:
            sources = [source for text in inputs for source in find_sources(text, READERS, folder, cleanup)]
            before = [stamp_of(source.path) for source in sources]
        except OSError as error:
            raise BadJob(f"{error.filename} cannot be read: {error.strerror}.") from error
        if not sources:
            raise BadJob("There is no input. Name a file, a pattern such as 'data/*.csv', or - for standard input.")
        content_hash, reading_hash = fingerprint(sources)
        if len(sources) == 1 and sources[0].suffix == ".parquet" and not sources[0].is_copy:
            return _table(sources[0], content_hash, before[0])
        path = folder / f"input-{reading_hash[:16]}.parquet"
        if not path.exists():
            _write_snapshot(path, sources, before)
        return _table(Source(path, str(path), ".parquet"), content_hash, stamp_of(path))


def remove_old_snapshots(folder: Path, table: Table) -> None:
    """Remove all snapshots in `folder` but the one that `table` reads."""
    for snapshot in folder.glob(f"input-{'[0-9a-f]' * 16}.parquet"):
        if not snapshot.samefile(table.path):
            snapshot.unlink(missing_ok=True)


def remove_leftovers(folder: Path, output: Path) -> None:
    """Remove what killed runs left half-written in the job folder, whose lock is held, and beside the output.

    What another process may still be writing stays: an export to the same output, or an order to this run.
    """
    # only the holder of the lock writes these: that it is held says that the others are dead, on every host
    for path in (*folder.glob(".input-*.tmp"), *folder.glob(".stdin-*")):
        path.unlink(missing_ok=True)
    remove_dead_drafts(folder)
    remove_dead_drafts(output.resolve().parent, output.resolve().name)


def _table(source: Source, content_hash: str, stamp: Stamp) -> Table:
    with naming_source(source):
        frame = scan_parquet(source.path)
        return Table(source.path, frame.collect_schema(), count_rows(frame), content_hash, stamp)


def _write_snapshot(path: Path, sources: Sequence[Source], before: Sequence[Stamp]) -> None:
    """Write the sources' rows to `path`. Raises BadJob if a source has not its stamp of `before` any more."""
    cancelled = threading.Event()

    def passed_on(rows: pl.DataFrame) -> pl.DataFrame:
        check_cancelled(cancelled)
        return rows

    combined = _combine(sources)
    frame = combined.map_batches(passed_on, streamable=True, schema=combined.collect_schema())
    with reporting_disk_errors(path), replacing(path, private=True) as draft:
        try:
            run_interruptibly(lambda: frame.sink_parquet(draft, row_group_size=SNAPSHOT_GROUP_ROWS), cancelled)
        except (PolarsError, PanicException) as error:
            if is_disk_full(error):
                raise
            names = ", ".join(source.name for source in sources)
            raise BadJob(f"{names} cannot be read as one table: {brief(error)}.") from error
        for source, stamp in zip(sources, before, strict=True):
            if not source.path.exists() or stamp_of(source.path) != stamp:
                raise BadJob(
                    f"{source.name} was changed while it was being read. Run the same command again when it no longer "
                    "changes."
                )


def _combine(sources: Sequence[Source]) -> pl.LazyFrame:
    """The rows of all files, one after the other, with the columns in the order of the first file."""
    frames = [_open_source(source) for source in sources]
    schemas = [frame.collect_schema() for frame in frames]
    names = list(schemas[0])
    for source, schema in zip(sources, schemas, strict=True):
        missing, extra = [n for n in names if n not in schema], [n for n in schema if n not in names]
        if missing or extra:
            differences = [f"lacks {missing}"] * bool(missing) + [f"has also {extra}"] * bool(extra)
            raise BadJob(
                f"{source.name} has other columns than {sources[0].name}: it {' and '.join(differences)}. Files that "
                "are read as one table must have the same columns."
            )
    types = {name: _common_type(name, sources, schemas) for name in names}
    for at, (source, schema) in enumerate(zip(sources, schemas, strict=True)):
        wanted = pl.Schema({name: types[name] for name in schema})
        if wanted != schema:
            frames[at] = scan_ndjson(source, wanted) if is_ndjson(source) else frames[at].cast(wanted)
    return pl.concat([select_columns(frame, names) for frame in frames])


def _common_type(name: str, sources: Sequence[Source], schemas: Sequence[pl.Schema]) -> pl.DataType:
    """The type that a column has in all files. Only NDJSON files, whose types are inferred, may differ in it."""
    types = [schema[name] for schema in schemas]
    if all(is_ndjson(source) for source in sources):
        with naming_source(sources[0]):
            return pl.concat([pl.DataFrame(schema={name: each}) for each in types], how="vertical_relaxed").schema[name]
    known = next((each for each in types if each != pl.Null), types[0])
    for source, each in zip(sources, types, strict=True):
        if each not in (known, pl.Null):
            raise BadJob(
                f"Column {name!r} is {each} in {source.name} and {known} in {sources[types.index(known)].name}. "
                "A column must have the same type in all files: convert one of them."
            )
    return known


def _open_source(source: Source) -> pl.LazyFrame:
    """Scan one file and read it through once, so that a message about its content names this file."""
    with naming_source(source):
        frame = READERS[source.suffix](source)
        if not frame.collect_schema():
            raise BadJob(f"{source.name} holds no columns.")
        return frame


def _read_parquet(source: Source) -> pl.LazyFrame:
    frame = scan_parquet(source.path)
    frame.null_count().collect()
    return frame


def _read_arrow(source: Source) -> pl.LazyFrame:
    if first_bytes(source.path).startswith(ARROW_STREAM_MAGIC):
        return pl.read_ipc_stream(source.path).lazy()
    frame = pl.scan_ipc(source.path, glob=False, hive_partitioning=False)
    frame.null_count().collect()
    return frame


READERS: dict[str, Callable[[Source], pl.LazyFrame]] = {
    ".parquet": _read_parquet,
    **{
        kind + packed: functools.partial(read_csv, separator=separator)
        for kind, separator in SEPARATORS.items()
        for packed in COMPRESSIONS
    },
    **{kind + packed: read_ndjson for kind in NDJSON_SUFFIXES for packed in COMPRESSIONS},
    **dict.fromkeys(ARROW_SUFFIXES, _read_arrow),
    EXCEL: read_excel,
}
"""The input formats by suffix. To add one, write its function and add one line: `".orc": read_orc`.

The function is given a `Source` and returns its rows as a `pl.LazyFrame`. It reads the file through once: it raises
BadJob or one of UNREADABLE for a file that could not be read later, when rows are asked for.
"""
