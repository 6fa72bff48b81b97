"""The results of a job, readable at any time: its table, its rows as text, its status and its runs."""

from .columns import OutputTable, output_metadata, output_schema, with_all_columns, with_reported_columns
from .export import export_table
from .open_job import OpenJob, check_own_output, open_job
from .runs import history_text, job_history
from .show import numbered_rows, show_rows
from .status import job_status, status_text

__all__ = [
    "OpenJob",
    "OutputTable",
    "check_own_output",
    "export_table",
    "history_text",
    "job_history",
    "job_status",
    "numbered_rows",
    "open_job",
    "output_metadata",
    "output_schema",
    "show_rows",
    "status_text",
    "with_all_columns",
    "with_reported_columns",
]
