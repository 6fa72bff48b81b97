"""Excel files: the first sheet is read, one sheet is written; needs the libraries of the extra `excel`."""

import datetime as dt
import logging
import math
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl

from ..records import BadJob, Stopped
from .errors import brief
from .source import Source

EXCEL = ".xlsx"
"""The suffix of the format."""
EXCEL_ROWS = 1_048_576
"""Most rows in a sheet, its header included."""
EXCEL_CHARACTERS = 32_767
"""Most characters in a cell, counted in UTF-16 code units."""
EXCEL_INTEGER = 10**15
"""Excel keeps 15 digits of a number: a larger integer is written as text, so that it is not rounded."""
EXCEL_LIBRARIES = ("fastexcel", "xlsxwriter")
"""The libraries that read and write Excel files."""


def check_excel_libraries(path: Path) -> None:
    """Raise BadJob, with the command that installs them, if the libraries for Excel files are missing."""
    missing = [name for name in EXCEL_LIBRARIES if find_spec(name) is None]
    if missing:
        raise BadJob(
            f"{path}: Excel files need {' and '.join(missing)}:  pip install 'batch-prompt-pipeline[excel]'\n"
            "Or name another format, such as .csv. Nothing was sent."
        )


def read_excel(source: Source) -> pl.LazyFrame:
    """Read the first sheet into memory. Its first row holds the column names."""
    check_excel_libraries(source.path)
    logging.getLogger("fastexcel").setLevel(logging.ERROR)  # it would warn of each column that has no cell
    try:
        return pl.read_excel(source.path, engine="calamine", infer_schema_length=None).lazy()
    except Exception as error:  # its own errors are known by name only where the extra is installed
        raise BadJob(
            f"{source.name} cannot be read as an Excel file: {brief(error)}.\n"
            "Check that the file is complete and that its ending names its format."
        ) from error


def write_excel(frames: Iterator[pl.DataFrame], schema: pl.Schema, draft: Path, _metadata: Mapping[str, str]) -> None:
    """Write rows as one sheet, row by row, without holding them in memory. Text is never made a formula or a link.

    Raises Stopped for a text that is too long for a cell.
    """
    import xlsxwriter  # noqa: PLC0415 - an extra, and slow to import

    options = {
        "constant_memory": True,
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "strings_to_numbers": False,
        "remove_timezone": True,
        "default_date_format": "yyyy-mm-dd hh:mm:ss",
        "tmpdir": str(draft.parent),
    }
    with xlsxwriter.Workbook(draft, options) as book:
        sheet = book.add_worksheet()
        for column, name in enumerate(schema):
            sheet.write_string(0, column, name)
        for row, cells in enumerate((cells for frame in frames for cells in frame.iter_rows()), 1):
            for column, cell in enumerate(cells):
                _write_cell(sheet, row, column, cell)


def _write_cell(sheet: Any, row: int, column: int, cell: object) -> None:  # noqa: ANN401 - xlsxwriter is untyped
    match cell:
        case None:
            return
        case bool():
            sheet.write_boolean(row, column, cell)
        case int() | float() if math.isfinite(cell) and abs(cell) <= EXCEL_INTEGER:
            sheet.write_number(row, column, cell)
        case dt.datetime() | dt.date() | dt.time():
            sheet.write_datetime(row, column, cell)
        case _:
            text = str(cell)
            if len(text.encode("utf-16-le")) > 2 * EXCEL_CHARACTERS:
                raise Stopped(
                    f"Row {row:,}, column {column + 1}: {len(text):,} characters, and a cell of Excel holds at most "
                    f"{EXCEL_CHARACTERS:,}.\nEvery answer is kept: export the table in another format (-o OUTPUT.csv)."
                )
            sheet.write_string(row, column, text)
