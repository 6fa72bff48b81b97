"""The job folder: how it is made, its lock, and the history of its runs."""

from .folder import job_folder
from .history import (
    Earlier,
    RunEnd,
    RunStart,
    find_job_folder,
    job_of_start,
    last_start,
    last_summary,
    read_earlier,
    read_history,
    record_end,
    record_start,
    unfinished_retry,
)
from .lock import Holder, hold_lock, lock_holder
from .marks import can_mark

__all__ = [
    "Earlier",
    "Holder",
    "RunEnd",
    "RunStart",
    "can_mark",
    "find_job_folder",
    "hold_lock",
    "job_folder",
    "job_of_start",
    "last_start",
    "last_summary",
    "lock_holder",
    "read_earlier",
    "read_history",
    "record_end",
    "record_start",
    "unfinished_retry",
]
