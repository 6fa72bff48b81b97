"""What a job costs when every row is answered already: `pipeline run` again, and `pipeline export`, by number of rows.

    python tests/benchmarks/stored_rows.py [--rows 10000 100000 1000000] [--format parquet csv]

The answers are put into the store as the program would put them, without being asked for: no endpoint is there, and a
row that was asked all the same would fail the run. 5,000,000 rows take about 10 GB of disk and half an hour.
For Linux and macOS: the figures are those of wait4.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from run_overhead import MODEL, TEMPLATE, Measured, apart, measure, prompt_of, questions

NOWHERE = "http://127.0.0.1:9/v1"
ROWS_AT_ONCE = 50_000
SECONDS_MAX = 3600.0


def write_job(table: Path, output: Path, rows: int) -> None:
    """The table, and a job folder beside the output in which every row of it has an answer."""
    import msgspec  # noqa: PLC0415 - in a process of its own, see `apart`
    import polars as pl  # noqa: PLC0415 - as above

    from pipeline.job import Job  # noqa: PLC0415 - as above
    from pipeline.prompts import Prompts  # noqa: PLC0415 - as above
    from pipeline.records import Answer, Failure, Usage  # noqa: PLC0415 - as above
    from pipeline.store import Entry, make_folder, rebuild  # noqa: PLC0415 - as above

    asked = pl.DataFrame({"id": range(rows), "question": list(questions(rows))})
    asked.write_csv(table) if table.suffix == ".csv" else asked.write_parquet(table, row_group_size=ROWS_AT_ONCE)
    settings = {"endpoint.base_url": NOWHERE, "endpoint.model": MODEL, "prompt.template": TEMPLATE}
    prompts = Prompts(Job.load([table], output, settings=settings), asked.columns)

    def entries() -> Iterator[Entry]:
        for row in asked.iter_rows(named=True):
            requests = prompts.requests(row)
            assert not isinstance(requests, Failure)
            answer = Answer(
                f"the answer to {prompt_of(row['question'])}"[:60],
                "stop",
                MODEL,
                Usage(33, 6, None, None, 39),
                attempts=1,
                asked_at=datetime.now(tz=UTC),
                latency_seconds=0.1,
                cost=0.0,
            )
            yield Entry(requests[0].key, answer.status, msgspec.json.encode(answer))

    folder = Path(f"{output}.job")
    make_folder(folder)
    rebuild(folder / "store", entries(), {})


def check(output: Path, rows: int) -> None:
    import polars as pl  # noqa: PLC0415 - see `apart`

    counted = pl.scan_parquet(output).select(pl.len(), (pl.col("status") == "ok").sum().alias("ok")).collect().row(0)
    if counted != (rows, rows):
        raise SystemExit(f"{output}: {counted} rows and such as are ok, where all of {rows} should be.")


def measure_stored(rows: int, suffix: str) -> Iterator[tuple[str, Measured]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table, output, log = folder / f"table.{suffix}", folder / "output.parquet", folder / "log.txt"
        apart(write_job, table, output, rows)
        program = [sys.executable, "-m", "pipeline"]
        job = ["-p", TEMPLATE, "-m", MODEL, "--base-url", NOWHERE, "-q"]
        yield "run again", measure([*program, "run", str(table), "-o", str(output), *job], log, SECONDS_MAX)
        apart(check, output, rows)
        exported = folder / "exported.parquet"
        yield "export", measure([*program, "export", str(output), "-o", str(exported)], log, SECONDS_MAX)
        apart(check, exported, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--format", nargs="+", choices=("parquet", "csv"), default=["parquet"])
    options = parser.parse_args()
    print("| rows | from | | seconds | CPU seconds | peak memory, MB |\n|--:|---|---|--:|--:|--:|")
    for suffix in options.format:
        for rows in options.rows:
            for what, took in measure_stored(rows, suffix):
                figures = f"{took.seconds:.1f} | {took.cpu_seconds:.1f} | {took.peak_bytes / 1e6:,.0f}"
                print(f"| {rows:,} | {suffix} | {what} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
