"""A running job's rate before and during repeated looks from another process: `status` and `export`.

    python tests/benchmarks/looked_at.py [--rows 200000] [--concurrency 64] [--delay-ms 1000] [--seconds 15]

The job has `--rows` rows, all but the last 20,000 of them answered before, so that each look finds a large job. Its
answers come from tests/chat_server.py; what is told is how many a second arrive there, and how long each look takes.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))

from chat_server import ChatProcess, chat_process

from pipeline.folder.folder import make_job_folder
from pipeline.job.job import Job
from pipeline.prompts.prompts import Prompts
from pipeline.records import Answer, Failure, Request, Usage
from pipeline.store.writer import Store
from pipeline.tables.open import open_table

PIPELINE = (sys.executable, "-m", "pipeline")
ASKED_LIVE = 20_000
TEMPLATE = "Answer in one word. {{ q }}"


async def answer(store: Store, requests: list[Request]) -> None:
    """As a run would have stored them."""
    said = msgspec.json.encode(Answer("re: " + "word " * 40, "stop", "m", Usage(30, 40, total_tokens=70), cost=0.0001))
    for start in range(0, len(requests), 2_000):
        await asyncio.gather(*(store.put(each.key, said, "ok") for each in requests[start : start + 2_000]))


def prepare(folder: Path, url: str, rows: int) -> None:
    """A table, and the answers to all but its last rows."""
    pl.DataFrame({"q": [f"question {n} of {'x' * 100}" for n in range(rows)]}).write_parquet(folder / "in.parquet")
    settings = {"endpoint.base_url": url, "endpoint.model": "m", "prompt.template": TEMPLATE}
    job = Job.load([folder / "in.parquet"], folder / "out.csv", settings=settings)
    make_job_folder(job.folder)
    table = open_table(job.inputs, job.folder)
    prompts = Prompts(job, list(table.schema))
    store = Store(job.folder / "store")
    made = (prompts.requests(row) for frame in table.slices() for row in frame.iter_rows(named=True))
    asyncio.run(
        answer(store, [each for row in made if not isinstance(row, Failure) for each in row][: rows - ASKED_LIVE])
    )
    store.close()


def rate(server: ChatProcess, seconds: float) -> float:
    """Requests that arrive a second, over so many."""
    before, began = len(server.log_lines()), time.monotonic()
    time.sleep(seconds)
    return (len(server.log_lines()) - before) / (time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--delay-ms", type=float, default=1000)
    parser.add_argument("--seconds", type=float, default=15)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        chat_process(Path(name) / "log", delay_seconds=given.delay_ms / 1000) as server,
    ):
        folder = Path(name)
        prepare(folder, server.url, given.rows)
        words = ["run", "in.parquet", "-o", "out.csv", "--base-url", server.url, "-m", "m", "-p", TEMPLATE]
        line = [*PIPELINE, *words, "--concurrency", str(given.concurrency)]
        with subprocess.Popen(line, cwd=folder, stderr=subprocess.DEVNULL) as run:
            while len(server.log_lines()) < 2 * given.concurrency:
                time.sleep(0.1)
            print(f"nobody looks: {rate(server, given.seconds):.1f} requests/s")
            for look in (["status", "out.csv"], ["export", "out.csv", "-o", "so-far.parquet"]):
                before, began, times = len(server.log_lines()), time.monotonic(), []
                while time.monotonic() < began + given.seconds:
                    started = time.monotonic()
                    subprocess.run([*PIPELINE, *look], cwd=folder, capture_output=True, check=True)
                    times.append(time.monotonic() - started)
                passed = time.monotonic() - began
                asked = (len(server.log_lines()) - before) / passed
                print(f"{look[0]} again and again: {asked:.1f} requests/s, each look {statistics.median(times):.2f} s")
            print(f"nobody looks: {rate(server, given.seconds):.1f} requests/s")
            run.kill()


if __name__ == "__main__":
    main()
