"""What a job costs when every row is answered already: `pipeline run` again, and `pipeline export`, by number of rows.

    python tests/benchmarks/stored_rows.py [--rows 10000 100000 1000000 5000000] [--format parquet csv] [--quick]

The answers are put into the store as the program would put them, without being asked for: no endpoint is there, and a
row that was asked all the same would fail the run. "Planned anew" is a run that must render every row to learn its
keys, as after a change of the table or the prompt; "run again" is the same line once more. Where cost grows in line
with the rows, what a further row costs, beyond those of the line for fewer rows, stays the same. Everything lies in the
folder for temporary files (TMPDIR).
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from measuring import Measured, apart, measure
from questions import MODEL, TEMPLATE, prompt_of, questions, write_table

if TYPE_CHECKING:
    from pipeline.store.rows import Entry

NOWHERE = "http://127.0.0.1:9/v1"
QUICK_ROWS = 500
SECONDS_MAX = 3600.0
DISK_BYTES_A_ROW = 1_000
"""Of table, store and both outputs, with room to spare."""


# ---- a job whose every row is answered: in a process of its own


def answered(table: Path, output: Path, rows: int) -> Iterator["Entry"]:
    """The key of each row's request, and an answer as the program files it."""
    import msgspec  # noqa: PLC0415 - see `measure`

    from pipeline.job.job import Job  # noqa: PLC0415 - as above
    from pipeline.prompts.prompts import Prompts  # noqa: PLC0415 - as above
    from pipeline.records import Answer, Failure, Usage  # noqa: PLC0415 - as above
    from pipeline.store.rows import Entry  # noqa: PLC0415 - as above

    settings = {"endpoint.base_url": NOWHERE, "endpoint.model": MODEL, "prompt.template": TEMPLATE}
    prompts = Prompts(Job.load([table], output, settings=settings), ["id", "question"])
    now, usage = datetime.now(tz=UTC), Usage(33, 6, None, None, 39)
    for number, question in enumerate(questions(rows)):
        requests = prompts.requests({"id": number, "question": question})
        assert not isinstance(requests, Failure)
        text = f"the answer to {prompt_of(question)}"[:60]
        answer = Answer(text, "stop", MODEL, usage, attempts=1, asked_at=now, latency_seconds=0.1, cost=0.0)
        yield Entry(requests[0].key, "ok", msgspec.json.encode(answer))


def prepare(table: str, output: str, rows: str) -> None:
    """The table, and a job folder beside the output."""
    from pipeline.folder.folder import make_job_folder  # noqa: PLC0415 - see `measure`
    from pipeline.store.database import rebuild  # noqa: PLC0415 - see `measure`

    write_table(Path(table), int(rows))
    folder = Path(f"{output}.job")
    make_job_folder(folder)
    rebuild(folder / "store", answered(Path(table), Path(output), int(rows)), {})


# ---- what it costs


def check(output: Path, rows: int) -> None:
    import polars as pl  # noqa: PLC0415 - see `apart`

    counted = pl.scan_parquet(output).select(pl.len(), (pl.col("status") == "ok").sum().alias("ok")).collect().row(0)
    if counted != (rows, rows):
        raise SystemExit(f"{output}: {counted} rows and such as are ok, where all of {rows} should be.")


def token_bytes(folder: Path) -> float:
    """Megabytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def measure_stored(rows: int, suffix: str) -> Iterator[tuple[str, Measured]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        needed, free = rows * DISK_BYTES_A_ROW, shutil.disk_usage(folder).free
        if free < needed:
            raise SystemExit(
                f"{rows:,} rows need {needed / 1e9:.0f} GB in {folder.parent}, where {free / 1e9:.0f} are."
            )
        table, output, log = folder / f"table.{suffix}", folder / "output.parquet", folder / "log.txt"
        took = measure([sys.executable, __file__, "prepare", str(table), str(output), str(rows)], log, SECONDS_MAX)
        told = f"{took.seconds:.0f} s, {took.peak_bytes / 1e6:,.0f} MB of memory, {token_bytes(folder):,.0f} MB of disk"
        print(f"{rows:,} rows prepared as {suffix}: {told}", file=sys.stderr)
        program = [sys.executable, "-m", "pipeline"]
        job = ["-p", TEMPLATE, "-m", MODEL, "--base-url", NOWHERE, "-q"]
        # no run before it left keys, so that all rows are planned; the second finds those of the first
        for what in ("planned anew", "run again"):
            yield what, measure([*program, "run", str(table), "-o", str(output), *job], log, SECONDS_MAX)
            apart(check, output, rows)
        exported = folder / "exported.parquet"
        yield "export", measure([*program, "export", str(output), "-o", str(exported)], log, SECONDS_MAX)
        apart(check, exported, rows)
        print(f"{rows:,} rows from {suffix} took {token_bytes(folder):,.0f} MB of disk in all", file=sys.stderr)


def line_of_key(rows: int, took: Measured, before: tuple[int, Measured] | None) -> str:
    """Its figures, and what each row cost beyond those of a smaller table."""
    further = ""
    if before is not None and rows > before[0]:
        further = f"{1e6 * (took.cpu_seconds - before[1].cpu_seconds) / (rows - before[0]):.0f}"
    figures = f"{took.seconds:.1f} | {took.cpu_seconds:.1f} | {1e6 * took.cpu_seconds / rows:.0f} | {further}"
    return f"{figures} | {took.peak_bytes / 1e6:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--format", nargs="+", choices=("parquet", "csv"), default=["parquet", "csv"])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS} rows: whether it works, not how fast")
    options = parser.parse_args()
    print("| rows | from | | seconds | CPU seconds | CPU µs a row | a further row | peak memory, MB |")
    print("|--:|---|---|--:|--:|--:|--:|--:|")
    for suffix in options.format:
        before: dict[str, tuple[int, Measured]] = {}
        for rows in [QUICK_ROWS] if options.quick else options.rows:
            for what, took in measure_stored(rows, suffix):
                print(f"| {rows:,} | {suffix} | {what} | {line_of_key(rows, took, before.get(what))} |", flush=True)
                before[what] = rows, took


if __name__ == "__main__":
    if sys.argv[1:2] == ["prepare"]:
        prepare(*sys.argv[2:])
    else:
        main()
