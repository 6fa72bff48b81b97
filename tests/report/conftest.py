"""One job of 240 rows and its page, for every test of the report."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import polars as pl
import pytest
from chat_server import ChatServer
from report_pages import HOSTILE, LABELS, PRICES, labelled, run_into

from pipeline import Summary
from pipeline.evaluation.score import score_job
from pipeline.report.report import write_report


@pytest.fixture(scope="session")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Summary]]:
    """A finished job of 240 rows, with labels, gold, failures and hostile texts; its output and its summary."""
    folder = tmp_path_factory.mktemp("labelled")
    rows = range(240)
    frame = pl.DataFrame(
        {
            "text": [f"{HOSTILE[row % len(HOSTILE)]} {row if row % 40 else 0}" for row in rows],
            "gold": [LABELS[row % len(LABELS)] if row % 6 else None for row in rows],
        }
    )
    settings = {
        **PRICES,
        "limits.concurrency": 16,
        "prompt.template": "Label this: {{ text }}",
        "prompt.system": "Be <kind>.",
        "answer.labels": LABELS,
    }
    with ChatServer(labelled) as server:
        summary = run_into(folder, server, frame, **settings)
    yield folder / "out.csv", summary
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def page(job: tuple[Path, Summary]) -> Path:
    return write_report(job[0], score=msgspec.to_builtins(score_job(job[0], gold="gold")))
