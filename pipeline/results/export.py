"""Export of a job's table with the answers it has so far, in any format, also while the job runs."""

import contextlib
from pathlib import Path

from ..planning import keys_path
from ..progress import Progress
from ..records import Tally
from ..tables import NO_OPTIONS, SpreadsheetOptions, check_output, check_row_count, write_table
from .columns import OutputTable, output_metadata, output_schema, with_reported_columns
from .open_job import check_own_output, open_job


def export_table(name: str | Path, output: Path | None, options: SpreadsheetOptions = NO_OPTIONS) -> tuple[Path, Tally]:
    """Write the table of a job's last run in input order, atomically; rows without an outcome are pending.

    `name` is the path of the job's output or folder; `output` is the file to write, or None for the job's own output.
    Returns the path that was written and the tally of its rows. Raises BadJob as `open_job` does, and if `output` is an
    input or cannot be written, or is not given and another user named it.
    """
    job, table, reader, inputs, _ = open_job(name)
    if output is None:
        check_own_output(name, job)
    path = output or job.output_path
    check_output(path, inputs, options)
    check_row_count(path, table.rows)
    wide = with_reported_columns(job, table, reader)
    cells = OutputTable(wide, table, keys_path(job.folder), reader)
    with contextlib.closing(reader), Progress().counting("writing", table.rows) as on_rows:
        schema, facts = output_schema(wide, table), output_metadata(job)
        write_table(cells.frames(on_rows), schema, path, facts, options=options, row_bytes=cells.row_bytes)
    return path, cells.tally
