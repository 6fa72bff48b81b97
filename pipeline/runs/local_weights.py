"""A model on this machine goes by the hash of its weights."""

from ..job import Job


def name_by_weights(job: Job) -> Job:
    """The job as its answers are filed: a model on this machine goes by its weights' hash, wherever the file stands."""
    if not job.endpoint.is_local:
        return job
    from ..endpoint import find_gguf, gguf_sha256  # noqa: PLC0415 - imports the HTTP client, too

    weights = gguf_sha256(find_gguf(job.endpoint.base_url, job.home))
    endpoint = job.endpoint.model_copy(update={"name": job.endpoint.name or "local", "model": weights})
    return job.model_copy(update={"endpoint": endpoint})
