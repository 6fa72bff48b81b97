"""What a job asks for: the job file's settings, validated before anything is sent."""

from .added_columns import ADDED_COLUMNS
from .job import (
    LOOPBACK,
    Endpoint,
    Job,
    JobFile,
    Limits,
    ThisRun,
    default_job_folder,
    duration_seconds,
    parse_setting,
    setting_help,
    settings_id,
)

__all__ = [
    "ADDED_COLUMNS",
    "LOOPBACK",
    "Endpoint",
    "Job",
    "JobFile",
    "Limits",
    "ThisRun",
    "default_job_folder",
    "duration_seconds",
    "parse_setting",
    "setting_help",
    "settings_id",
]
