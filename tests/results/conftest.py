"""Fixtures of the tests of results."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from started_job import StartedJob

from pipeline.job.job import ThisRun


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., StartedJob]]:
    with ExitStack() as open_jobs:

        def started(
            *inputs: str, output: str = "out.csv", this_run: ThisRun | None = None, **settings: Any
        ) -> StartedJob:
            names = [name if name == "-" else str(tmp_path / name) for name in inputs]
            return open_jobs.enter_context(StartedJob(tmp_path, names, output, this_run or ThisRun(), settings))

        yield started


@pytest.fixture
def reviews(tmp_path: Path) -> str:
    (tmp_path / "in.csv").write_text("id,review\n1,Lovely.\n2,Dreadful.\n3,So so.\n4,\n", "utf-8")
    return "in.csv"
