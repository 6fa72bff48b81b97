"""An actor's share of a job: its part of the limits, and the job as it is sent to the actor."""

import math
from typing import Any

import msgspec

from ...job import Job, Limits
from ...records import LearnedLimits

NEVER_REACHED_COST = 1e12
"""US dollars: a cap that makes an actor report what may have been billed, while the run enforces the real one."""


def job_for_actor(job: Job, share: float) -> bytes:
    """The job as JSON, with a share of its limits and without its files.

    It holds the headers and the default key: it is sent to the actor only, and written to no log.
    """
    settings = {**job.as_json(), "limits": share_of_limits(job.limits, share)}
    this_run = {"wait_for_endpoint": job.this_run.wait_for_endpoint}
    return msgspec.json.encode({**settings, "this_run": this_run})


def share_of_limits(limits: Limits, share: float) -> dict[str, Any]:
    """The limits of one actor, by name. The cost cap, the run time and the failures are checked by the run."""
    return {
        **limits.model_dump(by_alias=True),
        "requests_per_minute": _times(limits.requests_per_minute, share),
        "tokens_per_minute": _times(limits.tokens_per_minute, share),
        "concurrency": "auto" if limits.concurrency == "auto" else max(1, int(limits.concurrency * share)),
        "max_cost": None if limits.max_cost is None else NEVER_REACHED_COST,
        "max_runtime": None,
        "max_failures": None,
    }


def scaled(learned: LearnedLimits, factor: float) -> LearnedLimits:
    """Learned limits times a factor: from one actor's share to the whole endpoint, or back."""
    return msgspec.structs.replace(
        learned,
        requests_per_minute=_times(learned.requests_per_minute, factor),
        tokens_per_minute=_times(learned.tokens_per_minute, factor),
        window=math.ceil(learned.window * factor),
    )


def _times(number: float | None, factor: float) -> float | None:
    return None if number is None else number * factor
