"""What Ray adds and costs on one machine: the same rows asked by one process, and by Ray actors.

    python tests/benchmarks/run_spread.py [--rows 20000] [--workers 2] [--delay-ms 50]

Each is a process of its own against tests/chat_server.py, timed from start to exit; `asking` is from the first stored
outcome to the last, so without the start of anything. Memory is that of the process that writes the store, without the
actors. Every answer is checked; no time is.
"""

import argparse
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))

from chat_server import answer_to, chat_process
from measuring import apart

MEGA = 1e6 if sys.platform == "darwin" else 1e3  # of ru_maxrss: bytes there, kilobytes elsewhere


def write_input(path: Path, rows: int) -> None:
    import polars as pl  # noqa: PLC0415 - see `apart`

    pl.DataFrame({"q": [f"question {number}" for number in range(rows)]}).write_parquet(path)


def check(output: Path, rows: int) -> None:
    import polars as pl  # noqa: PLC0415 - see `apart`

    table = pl.read_parquet(output)
    assert table["q"].to_list() == [f"question {number}" for number in range(rows)]
    assert table["answer"].to_list() == [answer_to(prompt) for prompt in table["q"]]


def measured(folder: Path, url: str, rows: int, *more: str) -> tuple[float, float, float]:
    """Seconds in all, rows a second while asking, peak megabytes."""
    output = folder / "out.parquet"
    words = ["run", str(folder / "in.parquet"), "-o", str(output), "--base-url", url, "-m", "m", "-p", "{{ q }}", "-q"]
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "pipeline", *words, *more])
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    assert status == 0, status
    apart(check, output, rows)
    with closing(sqlite3.connect(f"file:{output}.job/store/cache.db?mode=ro", uri=True)) as store:
        first, last = store.execute("SELECT min(store_time), max(store_time) FROM Cache WHERE tag = 'ok'").fetchone()
    return seconds, rows / max(1e-9, last - first), used.ru_maxrss / MEGA


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--delay-ms", type=float, default=50)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    print("| | rows | seconds in all | rows/s while asking | peak MB of the run's own process |\n|---|--:|--:|--:|--:|")
    for name, how in (
        ("one process", ()),
        (f"{options.workers} Ray actors", ("--set", "run.how=ray", "--set", f"run.workers={options.workers}")),
    ):
        with (
            tempfile.TemporaryDirectory() as folder,
            chat_process(delay_seconds=options.delay_ms / 1000, for_seconds=1200) as server,
        ):
            apart(write_input, Path(folder) / "in.parquet", options.rows)
            seconds, pace, peak = measured(Path(folder), server.url, options.rows, *how)
        print(f"| {name} | {options.rows:,} | {seconds:.0f} | {pace:,.0f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
