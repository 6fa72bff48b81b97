"""Tables in and out: the only package that knows file formats."""

from .table import (
    PLAIN,
    SpreadsheetOptions,
    Table,
    check_output,
    check_row_count,
    open_table,
    read_parquet_metadata,
    read_slices,
    remove_leftovers,
    remove_old_snapshots,
    write_table,
)

__all__ = [
    "PLAIN",
    "SpreadsheetOptions",
    "Table",
    "check_output",
    "check_row_count",
    "open_table",
    "read_parquet_metadata",
    "read_slices",
    "remove_leftovers",
    "remove_old_snapshots",
    "write_table",
]
