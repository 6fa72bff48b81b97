"""A run from end to end: plan, ask what is unanswered, write the table; and what comes before and after it."""

from .control import send_order
from .estimate import estimate_job, estimate_text
from .init import write_job_file
from .on_finish import run_on_finish
from .preview import preview_requests
from .run import arun, run
from .signals import signals_raised
from .texts import summary_text

__all__ = [
    "arun",
    "estimate_job",
    "estimate_text",
    "preview_requests",
    "run",
    "run_on_finish",
    "send_order",
    "signals_raised",
    "summary_text",
    "write_job_file",
]
