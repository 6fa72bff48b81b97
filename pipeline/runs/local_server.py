"""A model on this machine (`local:…`): named by the hash of its weights, and served while the run asks."""

import contextlib
from collections.abc import Iterator

from ..job import Job


def name_by_weights(job: Job) -> Job:
    """Return the job as its answers are filed: a local model is named by its weights' hash, wherever its file is."""
    if not job.endpoint.is_local:
        return job
    from ..endpoint import find_gguf, gguf_sha256  # noqa: PLC0415 - imports the HTTP client, which most commands need not

    weights = gguf_sha256(find_gguf(job.endpoint.base_url, job.home))
    endpoint = job.endpoint.model_copy(update={"name": job.endpoint.name or "local", "model": weights})
    return job.model_copy(update={"endpoint": endpoint})


@contextlib.contextmanager
def served(job: Job) -> Iterator[Job]:
    """Yield the job with an address that can be asked: a local model is served until the block ends."""
    if not job.endpoint.is_local:
        yield job
        return
    from ..endpoint import find_gguf, serve  # noqa: PLC0415 - as above

    with serve(find_gguf(job.endpoint.base_url, job.home), job.limits.width, job.folder / "model.log") as server:
        update = {
            "base_url": server.base_url,
            "api_key_env": "",
            "api_key_command": "",
            "api_key_default": server.api_key,
        }
        limits = job.limits.model_copy(update={"concurrency": job.limits.width})  # the server has as many slots
        yield job.model_copy(update={"endpoint": job.endpoint.model_copy(update=update), "limits": limits})
