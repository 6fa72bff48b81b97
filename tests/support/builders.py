"""The one builder of jobs, a table of numbered questions, and what came of them."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
from chat_server import ChatServer

from pipeline import Job, Summary, ThisRun

PIPELINE = (sys.executable, "-m", "pipeline")
TEMPLATE = "Answer {{ q }}"
NOWHERE = "http://127.0.0.1:9/v1"
"""An address where nobody listens, for jobs that send nothing."""


def job(
    url: str = NOWHERE,
    table: Path | str = "in.csv",
    output: Path | str | None = "out.csv",
    this_run: ThisRun | None = None,
    **settings: Any,
) -> Job:
    """A job of model `m`; settings by dotted name, with `__` for the dot: `limits__max_cost=5`.

    Without a template of its own the job asks TEMPLATE; `prompt__template=None` leaves it out.
    """
    given = {"prompt.template": TEMPLATE} | {name.replace("__", "."): value for name, value in settings.items()}
    given = {"endpoint.base_url": url, "endpoint.model": "m"} | given
    if given["prompt.template"] is None:
        del given["prompt.template"]
    return Job.load([table], output, settings=given, this_run=this_run or ThisRun(verbosity=-1))


def questions(path: Path, numbers: Any) -> Path:
    """A CSV with the columns `id` and `q`, a row for each number."""
    pl.DataFrame({"id": [f"{n:05d}" for n in numbers], "q": [f"question {n}" for n in numbers]}).write_csv(path)
    return path


def asked(server: ChatServer) -> Counter[str]:
    """How often each prompt arrived."""
    return Counter(seen.prompt for seen in server.log)


def command_line(url: str, source: Path, output: Path, *more: str) -> list[str]:
    """The words of a `run` over such a table, for a process of its own."""
    return [*PIPELINE, "run", str(source), "-o", str(output), "--base-url", url, "-m", "m", "-p", TEMPLATE, *more]


def counts(summary: Summary) -> dict[str, int]:
    """The rows of a summary by status, without zeros."""
    return {
        name: n for name in ("ok", "failed", "invalid", "truncated", "pending") if (n := getattr(summary.rows, name))
    }
