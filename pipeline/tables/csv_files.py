"""CSV and TSV: read by polars with every cell as text, then checked for rows that polars would read otherwise."""

import csv
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import polars as pl

from ..records import BadJob
from .errors import UNREADABLE
from .frames import as_lazy, open_text
from .source import Compression, Source, text_lines
from .table import count_rows, unused_name

SEPARATORS = {".csv": ",", ".tsv": "\t"}
"""The character between two cells, by the suffix without its compression."""


class CsvRecord(NamedTuple):
    """One row of a CSV file, or a blank line."""

    line: int
    """Number of the line that it begins on, from 1."""
    raw: str
    """Its text in the file, with line ends."""
    fields: list[str]
    """Its cells, without carriage returns; empty for a blank line."""


def read_csv(source: Source, separator: str) -> pl.LazyFrame:
    """Scan a CSV file: every cell is text, an empty one null, a quoted empty one "". Reads it through once to check it.

    Blank lines are skipped, but are null cells if there is only one column. Raises BadJob, with the line and the
    remedy, for a row that has more or fewer cells than the header, unmatched quotes, and a header that cannot be used.
    """
    names = _read_header(source, separator)
    try:
        frame = pl.scan_csv(source.path, separator=separator, infer_schema=False, glob=False, new_columns=names)
        ends_in_null = frame.null_count().collect().row(0)[-1] > 0
    except UNREADABLE:
        _find_blank_rows(source, separator, len(names))
        raise
    # polars silently fills a row that has too few cells: such a row ends in null
    if not ends_in_null or len(names) == 1:
        return frame
    blank, rows = _find_blank_rows(source, separator, len(names))
    if rows != count_rows(frame):
        raise BadJob(
            f"{source.name}: it is ambiguous where its {rows:,} rows end. Put each cell that holds a quote in quotes."
        )
    number = unused_name(frame.collect_schema())
    kept = frame.with_row_index(number).filter(~pl.col(number).is_in(blank)).drop(number)
    return kept if blank else frame


def write_csv(
    frames: Iterator[pl.DataFrame],
    schema: pl.Schema,
    draft: Path,
    _metadata: Mapping[str, str],
    *,
    separator: str,
    compression: Compression,
    byte_order_mark: bool = False,
) -> None:
    """Write rows as CSV or TSV, which has no place for metadata."""
    if compression == "zstd":
        sunk = as_lazy(frames, schema)
        sunk.sink_csv(
            draft, separator=separator, compression=compression, check_extension=False, include_bom=byte_order_mark
        )
        return
    with open_text(draft, compression) as file:
        schema.to_frame().write_csv(file, separator=separator, include_bom=byte_order_mark)
        for frame in frames:
            frame.write_csv(file, separator=separator, include_header=False)


def _read_header(source: Source, separator: str) -> list[str]:
    """Read the column names. Polars is not asked for them, since it renames the second of two equal names."""
    header = next((record for record in _records(source, separator) if record.fields), None)
    if header is None:
        raise BadJob(f"{source.name} is empty: there is not even a header.")
    if "\r" in header.raw.rstrip("\r\n"):
        raise BadJob(
            f"{source.name}:1: carriage returns stand alone, without line feeds. Convert them: "
            "tr '\\r' '\\n' < FILE > NEW"
        )
    names = header.fields
    if unnamed := [str(at) for at, name in enumerate(names, 1) if not name]:
        raise BadJob(
            f"{source.name}:{header.line}: the header has no name at column {', '.join(unnamed)}. Name each column, or "
            "remove a separator that ends each line, or an index that pandas wrote (to_csv(..., index=False))."
        )
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        places = ", ".join(f"{name!r} at {[at for at, n in enumerate(names, 1) if n == name]}" for name in repeated)
        raise BadJob(f"{source.name}:{header.line}: columns of the same name: {places}. Rename them.")
    return names


def _records(source: Source, separator: str) -> Iterator[CsvRecord]:
    csv.field_size_limit(sys.maxsize)
    raw: list[str] = []

    def lines() -> Iterator[str]:
        for line in text_lines(source):
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
                'A quote inside a quoted cell must be doubled: "5"" pipe".'
            ) from error
        yield CsvRecord(line, "".join(raw), fields)


def _find_blank_rows(source: Source, separator: str, width: int) -> tuple[list[int], int]:
    """Find the blank lines: their row numbers, from 0 below the header, and the number of rows, blank ones included.

    Raises BadJob at the first row that has not `width` cells, or has quotes that polars reads otherwise than `csv`.
    """
    records = _records(source, separator)
    next(record for record in records if record.fields)
    blank, rows = [], 0
    for record in records:
        if not record.fields:
            blank.append(rows)
        elif len(record.fields) != width:
            raise BadJob(
                f"{source.name}:{record.line}: {len(record.fields)} cells, where the header has {width}. A cell that "
                f"holds {'a tab' if separator == chr(9) else 'a comma'} or a line break must be quoted."
            )
        elif record.raw.count('"') % 2:
            raise BadJob(
                f"{source.name}:{record.line}: a lone quote. A cell that holds a quote must be quoted, and its quote "
                'doubled: "5"" pipe"'
            )
        rows += 1
    return blank, rows
