"""Jobs and request bodies for tests of costs."""

from typing import Any

import msgspec

from pipeline.job.job import Job

LOOPBACK = "http://127.0.0.1:9/v1"
OWN = {"prices.input": 1.0, "prices.cached_input": 0.25, "prices.output": 4.0}
"""Prices of a job file, in US dollars per million tokens."""


def job_at(url: str, model: str = "gpt-4o-mini", **settings: Any) -> Job:
    flags = {"endpoint.base_url": url, "endpoint.model": model, **settings}
    return Job.load(["in.csv"], "out.csv", settings=flags)


def body_of(*parts: Any) -> bytes:
    content = [{"type": "text", "text": "What is it?"}, *parts]
    return msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": content}]})


def image(url: str, **more: str) -> Any:
    return {"type": "image_url", "image_url": {**more, "url": url}}
