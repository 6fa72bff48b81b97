"""A job's table is exported as far as its answers are known, to any format, and never over an input."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from chat_server import ChatServer
from children import child, pipe
from started_job import ASKED, GOOD, LONG, StartedJob, shown

from pipeline.job.job import ThisRun
from pipeline.records import Answer, BadJob, Tally
from pipeline.results.export import export_table

Start = Callable[..., StartedJob]


def test_a_job_is_exported_with_the_answers_it_has(start: Start, reviews: str, tmp_path: Path) -> None:
    job = start(reviews, **ASKED)
    job.record(GOOD, None, LONG)
    path, tally = export_table(job.job.folder, None)
    assert path == tmp_path / "out.csv"
    table = pl.read_csv(path)
    assert table["id"].to_list() == [1, 2, 3, 4]
    assert table["status"].to_list() == ["ok", "pending", "failed", "failed"]
    assert table["answer"].to_list() == ["yes", None, None, None]
    assert tally == Tally(ok=1, pending=1, failed=2, usage=GOOD.usage, cost=0.0042, unpriced=1)


@pytest.mark.parametrize("other", ["other.parquet", "other.ndjson.gz", "other.arrow"])
def test_an_export_to_another_format_leaves_the_output_of_the_job_alone(
    start: Start, reviews: str, tmp_path: Path, other: str
) -> None:
    job = start(reviews, **ASKED)
    job.record(GOOD)
    assert export_table(tmp_path / "out.csv", tmp_path / other)[0] == tmp_path / other
    readers = {".parquet": pl.read_parquet, ".gz": pl.read_ndjson, ".arrow": pl.read_ipc}
    table = readers[Path(other).suffix](tmp_path / other)
    assert table["status"].to_list() == ["ok", "pending", "pending", "failed"]
    assert not (tmp_path / "out.csv").exists()


def test_only_the_rows_of_a_pilot_are_exported_and_shown(start: Start, reviews: str, tmp_path: Path) -> None:
    job = start(reviews, this_run=ThisRun(limit=2), **ASKED)
    job.record(GOOD)
    assert export_table(job.job.folder, None)[1] == Tally(ok=1, pending=1, usage=GOOD.usage, cost=0.0042)
    assert len(shown(job)) == 2
    assert pl.read_csv(tmp_path / "out.csv").height == 2


@pytest.mark.parametrize("name", ["in.csv", "second.csv"])
def test_an_export_never_overwrites_an_input(start: Start, tmp_path: Path, name: str) -> None:
    for each in ("in.csv", "second.csv"):
        (tmp_path / each).write_text("prompt\na\n", "utf-8")
    job = start("*.csv")
    with pytest.raises(BadJob, match="an input is never overwritten"):
        export_table(job.job.folder, tmp_path / name)
    assert (tmp_path / name).read_text("utf-8") == "prompt\na\n"


def test_an_export_never_overwrites_the_snapshot(start: Start, reviews: str) -> None:
    job = start(reviews, **ASKED)
    with pytest.raises(BadJob, match="an input is never overwritten"):
        export_table(job.job.folder, job.table.path)


def test_a_job_can_be_exported_while_it_runs(start: Start, tmp_path: Path, server: ChatServer) -> None:
    pl.DataFrame({"prompt": [f"p{row}" for row in range(20)]}).write_parquet(tmp_path / "in.parquet")
    job = start("in.parquet", **{"endpoint.base_url": server.url})
    seen: list[int] = []

    def looking(seen_request: object, attempt: int) -> None:
        seen.append(export_table(job.job.folder, tmp_path / "so_far.csv")[1].ok)

    server.reply = looking
    job.answer()
    assert seen == sorted(seen)
    assert (seen[0], len(seen)) == (0, 20)
    assert export_table(job.job.folder, tmp_path / "so_far.csv")[1] == Tally(
        ok=20, usage=job.context.asked.usage, unpriced=20, attempts=20
    )


EXPORTED = """
import re, sys
from pathlib import Path
from pipeline.results.export import export_table
export_table(sys.argv[1], Path(sys.argv[2]))
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured in /proc")
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_large_answers_are_written_in_bounded_memory(start: Start, tmp_path: Path, suffix: str) -> None:
    (tmp_path / "in.csv").write_text("review\n" + "".join(f"review {row}\n" for row in range(60)))
    job = start("in.csv", **ASKED)
    job.record(*[Answer(text="So many words. " * 266_667, cost=0.0)] * 60)
    path = tmp_path / f"other.{suffix}"
    with child(EXPORTED, job.job.folder, path) as process:
        peak = int(pipe(process.stdout).read())
    assert peak < 480, "MB; the answers have 240"
    scan = pl.scan_csv if suffix == "csv" else pl.scan_parquet
    assert scan(path).select("status").collect()["status"].to_list() == ["ok"] * 60
