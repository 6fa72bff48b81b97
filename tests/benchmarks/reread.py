"""What it takes to read stored answers under another column name: nothing is sent, and this is how long it takes.

    python tests/benchmarks/reread.py [--rows 200000]

The store is filled directly, as if every row had been answered; then the same job runs twice, the second time with
`answer.name` changed. Nobody listens at its endpoint, so a single request would end the run.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import msgspec
import polars as pl

from pipeline.folder.folder import make_job_folder
from pipeline.job.job import Job
from pipeline.prompts.prompts import Prompts
from pipeline.records import Answer, Failure, Request, Usage
from pipeline.store.writer import Store

SETTINGS = {
    "endpoint.base_url": "http://127.0.0.1:9/v1",
    "endpoint.model": "m",
    "prompt.template": "Good or bad? {{ q }}",
    "answer.labels": ["good", "bad"],
}
AT_ONCE = 5_000


def made(requests: list[Request] | Failure) -> list[Request]:
    assert isinstance(requests, list)
    return requests


async def fill(job: Job, table: pl.DataFrame) -> None:
    prompts = Prompts(job, table.columns)
    make_job_folder(job.folder)
    with closing(Store(job.folder / "store")) as store:
        for part in table.iter_slices(AT_ONCE):
            requests = [one for row in part.iter_rows(named=True) for one in made(prompts.requests(row))]
            answer = Answer(text='{"label": "good"}', finish_reason="stop", usage=Usage(20, 5), attempts=1, cost=0.0)
            stored = msgspec.json.encode(answer)
            await asyncio.gather(*(store.put(each.key, stored, "ok") for each in requests))


def timed(folder: Path, name: str) -> float:
    flags = [f"--set={key}={value!r}".replace("'", '"') for key, value in {**SETTINGS, "answer.name": name}.items()]
    line = [sys.executable, "-m", "pipeline", "run", "in.parquet", "-o", "out.parquet", "--yes", *flags]
    began = time.monotonic()
    subprocess.run(line, cwd=folder, check=True)
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = pl.DataFrame({"q": [f"question {number}" for number in range(rows)]})
        table.write_parquet(folder / "in.parquet")
        asyncio.run(fill(Job.load([folder / "in.parquet"], folder / "out.parquet", settings=SETTINGS), table))
        for column in ("label", "verdict"):
            seconds = timed(folder, column)
            read = pl.read_parquet(folder / "out.parquet")
            if read[column].to_list() != ["good"] * rows:
                raise SystemExit(f"not every row was read as {column}")
            print(f"{rows:,} stored answers read as `{column}` in {seconds:.1f} s, none asked")


if __name__ == "__main__":
    main()
