"""The executors: three ways for requests to travel, one signature."""

from collections.abc import AsyncIterator, Awaitable, Callable

from ..job import Job
from ..records import Request
from .context import LocalContext


def executor(job: Job) -> Callable[[Job, AsyncIterator[Request], LocalContext], Awaitable[None]]:
    """The way in which the requests travel."""
    if job.run.how == "batch":
        from ..execution.batch import answer_all as answer_in_batches  # noqa: PLC0415 - most runs do without

        return answer_in_batches
    if job.run.how == "ray":
        from ..execution.ray import answer_all as answer_by_actors  # noqa: PLC0415 - as above

        return answer_by_actors
    from .live import answer_all  # noqa: PLC0415 - imports the HTTP client

    return answer_all
