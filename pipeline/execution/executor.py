"""Choose how a job's requests are answered: live, in batches, or by Ray actors."""

from collections.abc import AsyncIterator, Awaitable, Callable

from ..job import Job
from ..records import Request
from .context import NotesContext

Executor = Callable[[Job, AsyncIterator[Request], NotesContext], Awaitable[None]]
"""Asks every request and records every outcome in the context; returns when all are settled.

Raises Stopped when the job cannot go on or was asked to stop: what has no outcome is then pending.
"""


def executor(job: Job) -> Executor:
    """The `answer_all` of the package that the job names with `run.how`."""
    if job.run.how == "batch":
        from .batch import answer_all as answer_in_batches  # noqa: PLC0415 - most runs do not need it

        return answer_in_batches
    if job.run.how == "ray":
        from .ray import answer_all as answer_by_actors  # noqa: PLC0415 - most runs do not need it

        return answer_by_actors
    from .live import answer_all  # noqa: PLC0415 - imports the HTTP client

    return answer_all
