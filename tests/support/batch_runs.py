"""Small jobs that run in batches, and a check of their output table."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
from batch_server import Provider
from chat_server import answer_to

from pipeline import Job, ThisRun
from pipeline.store.notes import read_ledger
from pipeline.store.reader import Reader

PRICES = {"prices.input": 1.0, "prices.output": 3.0}
ANSWER_COST = 12e-6 + 6 * 3e-6
"""US dollars that one answer costs."""


def write_table(folder: Path, rows: int) -> None:
    """Write `in.csv` with that number of questions."""
    pl.DataFrame({"q": [f"question {number}" for number in range(rows)]}).write_csv(folder / "in.csv")


def batch_job(folder: Path, url: str, *, this_run: ThisRun | None = None, **settings: Any) -> Job:
    """A job with batches of 20 requests from `in.csv` to `out.parquet`; `__` in a setting's name stands for the dot."""
    given = {
        "endpoint.base_url": url,
        "endpoint.name": "here",
        "endpoint.model": "m",
        "prompt.template": "{{ q }}",
        "run.how": "batch",
        "run.batch_requests": 20,
        "run.poll_seconds": 0.01,
        **PRICES,
        **{name.replace("__", "."): value for name, value in settings.items()},
    }
    return Job.load([folder / "in.csv"], folder / "out.parquet", settings=given, this_run=this_run)


def check_table(folder: Path, provider: Provider, rows: int, ok: int | None = None) -> pl.DataFrame:
    """Check and return the output table: every row has its own answer, and every answer was billed once.

    `ok`: number of rows with an answer, if not all. No batch file may be left in the job folder.
    """
    table = pl.read_parquet(folder / "out.parquet")
    assert table["q"].to_list() == [f"question {number}" for number in range(rows)]
    answered = table.filter(pl.col("status") == "ok")
    assert answered.height == (rows if ok is None else ok)
    assert answered["answer"].to_list() == [answer_to(prompt) for prompt in answered["q"]]
    assert max(provider.billed.values()) == 1
    assert not list((folder / "out.parquet.job" / "batches").iterdir())
    return table


def spent(folder: Path) -> float:
    """US dollars spent by the ledger."""
    reader = Reader(folder / "out.parquet.job" / "store")
    cost = read_ledger(reader).cost
    reader.close()
    return cost


def command_words(folder: Path, url: str, *more: str) -> list[str]:
    """The arguments of `pipeline` for the same job, to run it in another process."""
    sets = ("endpoint.name=here", "run.how=batch", "run.batch_requests=20", "run.poll_seconds=0.01")
    words = [
        "run",
        str(folder / "in.csv"),
        "-o",
        str(folder / "out.parquet"),
        "--base-url",
        url,
        "-m",
        "m",
        "-p",
        "{{ q }}",
    ]
    prices = [f"{name}={value}" for name, value in PRICES.items()]
    return [*words, *(word for text in (*sets, *prices) for word in ("--set", text)), *more]


def start(*words: str) -> "subprocess.Popen[str]":
    """Start Python with these arguments in another process."""
    return subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True)
