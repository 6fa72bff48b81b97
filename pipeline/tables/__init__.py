"""Tables in and out, in every file format. New formats go into `READERS` (open.py) and `WRITERS` (write.py)."""

from .open import open_table, remove_leftovers, remove_old_snapshots
from .table import Table, read_parquet_metadata, read_slices
from .write import NO_OPTIONS, SpreadsheetOptions, check_output, check_row_count, write_table

__all__ = [
    "NO_OPTIONS",
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
