"""What a job asks for: the job file's settings, validated before anything is sent."""

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
