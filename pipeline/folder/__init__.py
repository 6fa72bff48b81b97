"""The job folder: how it is made, its lock, and the history of its runs."""

from .folder import job_folder
from .history import (
    RunEnd,
    RunStart,
    find_job_folder,
    job_of_start,
    last_start,
    last_summary,
    read_history,
    record_end,
    record_start,
    unfinished_retry,
)
from .lock import Holder, hold_lock, lock_holder

__all__ = [
    "Holder",
    "RunEnd",
    "RunStart",
    "find_job_folder",
    "hold_lock",
    "job_folder",
    "job_of_start",
    "last_start",
    "last_summary",
    "lock_holder",
    "read_history",
    "record_end",
    "record_start",
    "unfinished_retry",
]
