"""What a job asks for: the settings of its job file, checked before anything is sent."""

from .added_columns import ADDED_COLUMNS
from .endpoint import LOOPBACK, Endpoint
from .file import OUTPUT_CAPS, JobFile
from .job import Job, ThisRun, default_job_folder, seen_hash, settings_id
from .key_command import KeyCommand
from .load import uses_of
from .model_names import is_news, is_router, is_same_model, names_models, served_text
from .prices import ModelPrices
from .reference import parse_setting, setting_help
from .retirements import is_listed, retirement_note
from .sections import AUTO_WINDOW, AnswerSection, Limits, Prompt
from .values import duration_seconds

__all__ = [
    "ADDED_COLUMNS",
    "AUTO_WINDOW",
    "LOOPBACK",
    "OUTPUT_CAPS",
    "AnswerSection",
    "Endpoint",
    "Job",
    "JobFile",
    "KeyCommand",
    "Limits",
    "ModelPrices",
    "Prompt",
    "ThisRun",
    "default_job_folder",
    "duration_seconds",
    "is_listed",
    "is_news",
    "is_router",
    "is_same_model",
    "names_models",
    "parse_setting",
    "retirement_note",
    "seen_hash",
    "served_text",
    "setting_help",
    "settings_id",
    "uses_of",
]
