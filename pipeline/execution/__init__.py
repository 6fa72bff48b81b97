"""Send requests and record their outcomes: live, in the provider's batches, or by Ray actors.

An executor is a function `answer_all(job, requests, context)`. `RunContext` is all that it knows of the run.
"""

from .context import DRAIN_SECONDS, lane_id
from .executor import executor
from .local_context import LocalContext

__all__ = ["DRAIN_SECONDS", "LocalContext", "executor", "lane_id"]
