"""Jobs that were run, for every test of evaluation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from gold_jobs import LABELS, Ran, Two, run_job


@pytest.fixture
def ran(tmp_path: Path) -> Ran:
    """A job over these rows with these answers; its output is `output`."""

    def ran(
        rows: Mapping[str, list[Any]], answers: Mapping[str, str | int], output: str = "out.csv", **settings: Any
    ) -> Path:
        source = tmp_path / f"in-{output}.parquet"
        if not source.exists():
            pl.DataFrame(rows, strict=False).write_parquet(source)
        return run_job(source, answers, tmp_path / output, settings)

    return ran


@pytest.fixture
def two(tmp_path: Path) -> Two:
    """Two jobs with labels over one input, or each over its own."""

    def two(
        first: Mapping[str, str | int], second: Mapping[str, str | int], *rows: Mapping[str, list[Any]], **settings: Any
    ) -> tuple[Path, Path]:
        jobs = []
        for at, answers in enumerate((first, second)):
            source = tmp_path / f"in{at if len(rows) > 1 else ''}.parquet"
            pl.DataFrame(rows[min(at, len(rows) - 1)]).write_parquet(source)
            jobs.append(run_job(source, answers, tmp_path / f"out{at}.csv", {**LABELS, **settings}))
        return jobs[0], jobs[1]

    return two
