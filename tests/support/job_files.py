"""Job files of tests: a text becomes a Job, or the words in which it is refused."""

from pathlib import Path

import pytest

from pipeline.job.job import Job
from pipeline.records import BadJob

MINIMAL = {"endpoint.base_url": "http://127.0.0.1:9/v1", "endpoint.model": "m"}
"""The settings that no job can do without, by dotted name."""
REVIEW = {
    "type": "object",
    "properties": {
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
        "who": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}}},
            "required": ["name"],
        },
        "free": {},
    },
    "required": ["stars"],
    "additionalProperties": False,
}
"""A JSON Schema with an object, a list, a bound and a property of any kind."""
ENDPOINT = '[endpoint]\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "m"\n'
"""The same as the beginning of a job file."""


def job_from(text: str, folder: Path, **flags: object) -> Job:
    """Write `folder/job.toml` and load it, with `flags` set over it."""
    path = folder / "job.toml"
    path.write_text(text, "utf-8")
    return Job.load(["in.csv"], "out.csv", config=path, settings=flags)


def complaint(text: str, folder: Path) -> str:
    """Why a job file is refused, without the folder's name."""
    with pytest.raises(BadJob) as caught:
        job_from(text, folder)
    return str(caught.value).replace(f"{folder}/", "")


def complaint_of(**settings: object) -> str:
    """Why a job with these settings beside the minimal ones is refused; `__` stands for the dot in a name."""
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    with pytest.raises(BadJob) as caught:
        Job.load(["in.csv"], "out.csv", settings={**MINIMAL, **dotted})
    return str(caught.value)
