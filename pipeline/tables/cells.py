"""Cells that a format cannot hold, converted to ones that it can: nested cells to JSON text, bytes to base64."""

import base64
import datetime as dt
import json
import math
from typing import Any

import polars as pl

FORMULA = r"^[\s\x{FEFF}]*[=+\-@\x{FF1D}\x{FF0B}\x{FF0D}\x{FF20}]|^[\t\r\n]"
"""Text that a spreadsheet program may take for a formula: also behind white space, which some of them remove, behind a
byte order mark, and with the full-width signs that are = + - @ to a Japanese or Chinese Excel."""
NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
"""Text that is a number: it may begin with a sign and is no formula."""
TEXT_TYPES = (pl.String, pl.Categorical, pl.Enum)
"""Types of columns whose cells are text."""


def unchanged(frame: pl.DataFrame) -> pl.DataFrame:
    """All cells as they are, for formats that hold every type."""
    return frame


def as_text(frame: pl.DataFrame) -> pl.DataFrame:
    """Cells for a format of plain text: nested ones as JSON text, bytes as base64, durations as ISO 8601."""
    return frame.with_columns(_json_text(column) if column.dtype.is_nested() else _plain(column) for column in frame)


def as_json(frame: pl.DataFrame) -> pl.DataFrame:
    """Cells for a format of JSON: bytes as base64, nested cells with bytes inside as JSON text."""
    return frame.with_columns(_json_text(c) if _holds_bytes(c.dtype) else c for c in map(_base64, frame))


def escape_formulas(frame: pl.DataFrame) -> pl.DataFrame:
    """Put an apostrophe before text, in cells and names, that a spreadsheet program would run (FORMULA).

    Text that is a number stays as it is. Names stay different from each other.
    """
    cells = frame.with_columns(_escape(column) for column in frame if column.dtype in TEXT_TYPES)
    names = []
    for name, escaped in zip(frame.columns, _escape(pl.Series(frame.columns, dtype=pl.String)), strict=True):
        new = escaped
        while new != name and (new in frame.columns or new in names):
            new = f"'{new}"
        names.append(new)
    cells.columns = names
    return cells


def _escape(column: pl.Series) -> pl.Series:
    cells = column.cast(pl.String)
    is_formula = cells.str.contains(FORMULA) & ~cells.str.contains(NUMBER)
    return pl.select(pl.when(is_formula).then("'" + cells).otherwise(cells).alias(column.name)).to_series()


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
    cells = (None if cell is None else json.dumps(_json_value(cell), ensure_ascii=False) for cell in column.to_list())
    return pl.Series(column.name, list(cells), dtype=pl.String)


def _json_value(cell: object) -> object:
    """A nested cell as a JSON value: what JSON cannot hold becomes text, or null for a float that is not finite."""
    match cell:
        case dict():
            return {name: _json_value(each) for name, each in cell.items()}
        case list():
            return [_json_value(each) for each in cell]
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
