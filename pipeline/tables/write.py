"""Write a table in the format that its suffix names; the file is replaced as a whole. New output formats go here."""

import contextlib
import errno
import functools
import shlex
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any, NamedTuple

import polars as pl

from ..files import job_folder_around, new_draft, replacing
from ..paths import check_name, special_kind
from ..records import BadJob
from .cells import as_json, as_text, escape_formulas, unchanged
from .csv_files import SEPARATORS, write_csv
from .errors import reporting_disk_errors
from .excel import EXCEL, EXCEL_ROWS, check_excel_libraries, write_excel
from .frames import as_lazy
from .ndjson import NDJSON_SUFFIXES, write_ndjson
from .source import COMPRESSIONS, expand_pattern, suffix_of

SIGNAL_SECONDS = 0.2
"""While a table is written, a signal such as Ctrl-C is handled within this time."""
ARROW_SUFFIXES = (".arrow", ".ipc", ".feather")
"""Suffixes of Arrow's file format."""
GROUP_BYTES = 64 * 1024 * 1024
"""How large a row group of Parquet and a batch of Arrow become, of rows of about the same size: polars holds a whole
one while it writes it."""
POLARS_GROUP_ROWS = 122_880
"""Rows in a row group or a batch, if polars is left to choose: of rows that are small."""


@dataclass(frozen=True)
class SpreadsheetOptions:
    """Changes to an output that is meant for a spreadsheet program."""

    byte_order_mark: bool = False
    """Begin CSV and TSV with a byte order mark, by which Excel recognises UTF-8."""
    escape_formulas: bool = False
    """Put an apostrophe before cells and column names that a spreadsheet program would run as a formula."""


NO_OPTIONS = SpreadsheetOptions()
"""An output as other programs want it."""


class OutputFormat(NamedTuple):
    """How a table is written in one format."""

    write: Callable[..., None]
    """`write(frames: Iterator[pl.DataFrame], schema: pl.Schema, draft: Path, metadata: Mapping[str, str])`.

    It writes all rows to the file `draft`, and should hold no more than a frame at a time. That of CSV and TSV takes
    `byte_order_mark: bool` too; those of the formats in `GROUPED` take `group_rows: int | None`.
    """
    convert: Callable[[pl.DataFrame], pl.DataFrame]
    """Converts the cells of each frame to types that the format can hold; a function of `cells`."""


def write_table(
    frames: Iterable[pl.DataFrame],
    schema: pl.Schema,
    path: Path,
    metadata: Mapping[str, str],
    *,
    private: bool = False,
    options: SpreadsheetOptions = NO_OPTIONS,
    row_bytes: int = 0,
) -> None:
    """Write `frames`, each with the schema `schema`, one after the other, in the format that the suffix names.

    When this returns, the file is on disk and complete. If anything goes wrong, its old content is unchanged. A symlink
    stays one. `metadata` is written to Parquet only. CSV and TSV hold lists and structs as JSON text, with ISO dates;
    they and NDJSON hold bytes as base64.

    `row_bytes`: the mean size of a row, by which the rows of a Parquet row group are limited (GROUP_BYTES).

    A new file has the mode of any new file; if `private`, the mode of the files in a job folder.

    `frames` is consumed in the calling thread, where a signal ends at once what makes them. Its exceptions are raised
    unchanged. Raises Stopped if the disk is full or the file cannot be written.
    """
    output = _with_options(WRITERS[suffix_of(path)], options)
    if suffix_of(path) in GROUPED:
        group_rows = max(1, GROUP_BYTES // max(1, row_bytes))
        is_few = group_rows < POLARS_GROUP_ROWS
        output = output._replace(write=functools.partial(output.write, group_rows=group_rows if is_few else None))
    handed: Queue[pl.DataFrame | None] = Queue(1)
    cancelled = threading.Event()
    target = path.resolve()
    with reporting_disk_errors(target), replacing(target, private=private) as draft:
        written = output.convert(schema.to_frame()).schema
        with ThreadPoolExecutor(1) as executor, _cancelling(cancelled):
            writing = executor.submit(output.write, _received(handed, cancelled), written, draft, metadata)
            for frame in frames:
                _hand_over(output.convert(frame), handed, writing)
            _hand_over(None, handed, writing)
            _wait_for(writing)


def check_place(path: Path, own_folder: Path | None = None) -> None:
    """Raise BadJob if a file at `path` would be inside a job folder, where it could replace what the job keeps.

    `own_folder`: the job folder of the run that begins, which may not be there yet.
    """
    target = path.resolve()
    folder = job_folder_around(target)
    if folder is None and own_folder is not None and _overlap(target, own_folder.resolve()):
        folder = own_folder
    if folder is not None:
        raise BadJob(
            f"{path} is in the job folder {folder}, which keeps answers and is not for outputs.\n"
            "Name a file elsewhere, or another job folder (--job-dir). Nothing was sent, and nothing was written."
        )


def _overlap(target: Path, folder: Path) -> bool:
    """Whether one of two resolved paths is the other, or is inside it, whatever case the file system tells apart."""
    pairs = [*((upper, folder) for upper in (target, *target.parents)), *((target, upper) for upper in folder.parents)]
    return any(one == other or _is_same_file(one, other) for one, other in pairs)


def _is_same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there, or cannot be: whoever makes it says so
        return False


def check_output(
    path: Path, inputs: Sequence[str], options: SpreadsheetOptions = NO_OPTIONS, *, own_folder: Path | None = None
) -> None:
    """Raise BadJob if a table could not be written to `path`, or would overwrite an input or a job's own file.

    `own_folder`: as for `check_place`.
    """
    try:
        if path.is_dir():
            raise BadJob(f"{path} is a folder. Name a file, such as {path / 'output.csv'}.")
        if suffix_of(path) not in WRITERS:
            raise BadJob(f"{path}: its ending names no format that can be written. Use one of {', '.join(WRITERS)}.")
        if suffix_of(path) == EXCEL:
            check_excel_libraries(path)
        if options.byte_order_mark and not suffix_of(path).startswith(tuple(SEPARATORS)):
            raise BadJob(
                f"{path}: --for-excel adds a byte order mark, which only CSV and TSV can have. Name such an output, or "
                "leave out --for-excel."
            )
        target = path.resolve()
        _check_target(path, target)
        for name in (name for text in inputs if text != "-" for name in expand_pattern(text)):
            check_name(name)
            if path.exists() and Path(name).exists() and path.samefile(name):
                raise BadJob(f"{path} is also an input ({name}). Name another output: an input is never overwritten.")
        check_place(path, own_folder)
        with new_draft(target):
            pass  # the folder takes new files
    except RuntimeError as error:  # what pathlib raises for it before Python 3.13
        raise BadJob(f"{path} cannot be written: its link leads back to itself. Nothing was sent.") from error
    except OSError as error:
        raise BadJob(f"{path} cannot be written: {error.strerror}. Name another folder.") from error


def _check_target(path: Path, target: Path) -> None:
    """Raise BadJob if no file can stand at `target`, to which `path` leads, or something else than a file does."""
    check_name(target)
    if not target.parent.is_dir():
        remedy = f"Make it first: mkdir -p {shlex.quote(str(target.parent))}"
        raise BadJob(f"{path}: there is no folder {target.parent}. {remedy}")
    if kind := special_kind(target):
        raise BadJob(f"{path} is {kind}, and is not replaced by a table. Name a file. Nothing was sent.")


def check_row_count(path: Path, rows: int) -> None:
    """Raise BadJob if the output's format cannot hold `rows` rows."""
    if suffix_of(path) == EXCEL and rows >= EXCEL_ROWS:
        raise BadJob(
            f"{path}: an Excel sheet holds at most {EXCEL_ROWS - 1:,} rows below its header, and the table has "
            f"{rows:,}. Name another format, such as {path.with_suffix('.parquet')} or {path.with_suffix('.csv')}. "
            "Nothing was sent."
        )


def run_interruptibly(work: Callable[[], object], cancelled: threading.Event) -> None:
    """Run `work` in another thread and wait for it. Its exceptions are raised here.

    Python handles signals only in the main thread, and there only between its own instructions: inside a long call of
    polars, Ctrl-C would wait for its end. An exception in this thread sets `cancelled`, and `work` should end soon
    after: let it call `check_cancelled` for every batch of rows.
    """
    with ThreadPoolExecutor(1) as executor, _cancelling(cancelled):
        _wait_for(executor.submit(work))


@contextlib.contextmanager
def _cancelling(cancelled: threading.Event) -> Iterator[None]:
    try:
        yield
    except BaseException:
        cancelled.set()
        raise


def _wait_for(working: Future[Any]) -> None:
    while not wait([working], timeout=SIGNAL_SECONDS).done:
        pass  # a signal that arrived in another thread is handled when this one wakes
    working.result()


def _hand_over(frame: pl.DataFrame | None, handed: Queue[pl.DataFrame | None], writing: Future[None]) -> None:
    """Give the writing thread a frame, or None after the last. Raises what ended the writing, if it has ended."""
    while not writing.done():
        with contextlib.suppress(Full):
            handed.put(frame, timeout=SIGNAL_SECONDS)
            return
    writing.result()


def _received(handed: Queue[pl.DataFrame | None], cancelled: threading.Event) -> Iterator[pl.DataFrame]:
    while True:
        try:
            frame = handed.get(timeout=SIGNAL_SECONDS)
        except Empty:
            check_cancelled(cancelled)
            continue
        if frame is None:
            return
        yield frame


def check_cancelled(cancelled: threading.Event) -> None:
    """Raise InterruptedError if the work was cancelled."""
    if cancelled.is_set():
        raise InterruptedError(errno.EINTR, "cancelled")


def _with_options(output: OutputFormat, options: SpreadsheetOptions) -> OutputFormat:
    if options.byte_order_mark:
        output = output._replace(write=functools.partial(output.write, byte_order_mark=True))
    if options.escape_formulas:
        convert = output.convert
        output = output._replace(convert=lambda frame: escape_formulas(convert(frame)))
    return output


def _write_parquet(
    frames: Iterator[pl.DataFrame],
    schema: pl.Schema,
    draft: Path,
    metadata: Mapping[str, str],
    *,
    group_rows: int | None,
) -> None:
    as_lazy(frames, schema).sink_parquet(draft, metadata=dict(metadata), row_group_size=group_rows)


def _write_arrow(
    frames: Iterator[pl.DataFrame],
    schema: pl.Schema,
    draft: Path,
    _metadata: Mapping[str, str],
    *,
    group_rows: int | None,
) -> None:
    as_lazy(frames, schema).sink_ipc(draft, record_batch_size=group_rows)


GROUPED = (".parquet", *ARROW_SUFFIXES)
"""The formats that keep rows in groups, each of which is written as a whole."""


WRITERS: dict[str, OutputFormat] = {
    ".parquet": OutputFormat(_write_parquet, unchanged),
    **{
        kind + packed: OutputFormat(functools.partial(write_csv, separator=separator, compression=compression), as_text)
        for kind, separator in SEPARATORS.items()
        for packed, compression in COMPRESSIONS.items()
    },
    **{
        kind + packed: OutputFormat(functools.partial(write_ndjson, compression=compression), as_json)
        for kind in NDJSON_SUFFIXES
        for packed, compression in COMPRESSIONS.items()
    },
    **dict.fromkeys(ARROW_SUFFIXES, OutputFormat(_write_arrow, unchanged)),
    EXCEL: OutputFormat(write_excel, as_text),
}
"""The output formats by suffix. To add one, write its function and add one line:

    ".md": OutputFormat(write_markdown, as_text),

`OutputFormat` says what the function is given. Checks and messages take the known formats from this table.
"""
