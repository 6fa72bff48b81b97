"""Tables in and out, in every file format.

`open_table` makes one table of the input files, which is read in slices; `write_table` writes one. Each format is a
line in a table from suffix to functions: READERS in `open`, WRITERS in `write`.
"""

from .cells import as_text
from .open import open_table, remove_leftovers, remove_old_snapshots
from .table import Table, read_parquet_metadata, read_slices
from .write import NO_OPTIONS, SpreadsheetOptions, check_output, check_place, check_row_count, write_table

__all__ = [
    "NO_OPTIONS",
    "SpreadsheetOptions",
    "Table",
    "as_text",
    "check_output",
    "check_place",
    "check_row_count",
    "open_table",
    "read_parquet_metadata",
    "read_slices",
    "remove_leftovers",
    "remove_old_snapshots",
    "write_table",
]
