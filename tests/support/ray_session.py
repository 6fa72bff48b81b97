"""A Ray that tests share, and the job that they answer with it."""

from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from pipeline import Job

ROWS = 60


class RayHere(NamedTuple):
    """A Ray that all tests share, as its start takes half a minute. Runs in this process find it, others by address."""

    address: str
    logs: str
    key_variable: str
    """An environment variable with a key, set before Ray was started, so that the actors have it."""


def job(folder: Path, url: str, **settings: Any) -> Job:
    """A job of ROWS rows for Ray; settings are named with a double underscore: `limits__max_cost=5`."""
    pl.DataFrame({"q": [f"question {number}" for number in range(ROWS)]}).write_csv(folder / "in.csv")
    given = {
        "endpoint.base_url": url,
        "endpoint.model": "m",
        "prompt.template": "{{ q }}",
        "prices.input": 1.0,
        "prices.output": 3.0,
        "run.how": "ray",
        **{name.replace("__", "."): value for name, value in settings.items()},
    }
    return Job.load([folder / "in.csv"], folder / "out.parquet", settings=given)


def words(folder: Path, url: str, *more: str) -> list[str]:
    """The same job as a command line."""
    sets = ["run.how=ray", "prices.input=1.0", "prices.output=3.0", *more]
    line = ["run", str(folder / "in.csv"), "-o", str(folder / "out.parquet"), "--base-url", url, "-m", "m"]
    return [*line, "-p", "{{ q }}", *(word for each in sets for word in ("--set", each))]
