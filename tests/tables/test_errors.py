"""A full disk stops the job with a remedy, and no file is changed."""

from pathlib import Path

import polars as pl
import pytest
from tables_support import CITIES, in_a_process, write, written

from pipeline.files import replacing
from pipeline.records import Exit, Stopped
from pipeline.tables.errors import brief, reporting_disk_errors


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
@pytest.mark.parametrize("sink", ["sink_parquet", "sink_csv", "sink_ndjson", "sink_ipc"])
def test_a_full_disk_stops_the_job_with_the_remedy(tmp_path: Path, sink: str) -> None:
    path = written(tmp_path / "a.csv", "old")
    rows = pl.LazyFrame({"n": range(100_000)})
    with (
        pytest.raises(Stopped, match=r"No space left .*\nMake room \(df -h") as stop,
        reporting_disk_errors(path),
        replacing(path),
    ):
        getattr(rows, sink)("/dev/full")
    assert stop.value.exit_code is Exit.NEEDS_PERSON
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


LIMITED = """
import resource, sys
from pathlib import Path
from pipeline.records import Stopped
from pipeline.tables import open_table, write_table
source = open_table([sys.argv[1]], Path(sys.argv[2]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
for act in (
    lambda: write_table(source.slices(), source.schema, Path(sys.argv[3]), {}),
    lambda: open_table([sys.argv[1], sys.argv[1]], Path(sys.argv[2])),
):
    try:
        act()
    except Stopped as stop:
        print(str(stop).split(" for ")[0])
"""


@pytest.mark.parametrize("name", ["b.csv", "b.parquet", "b.ndjson", "b.arrow"])
def test_an_output_and_a_snapshot_too_large_for_the_disk_stop_the_job(tmp_path: Path, folder: Path, name: str) -> None:
    path = write(pl.DataFrame({"n": [f"{at * 7919 % 10_007}" for at in range(10_000)]}), tmp_path / "a.csv", 5_000)
    output = written(tmp_path / name, "old")
    done = in_a_process(LIMITED, path, folder, output)
    assert done.stdout.decode().splitlines() == ["No space left on the disk"] * 2
    assert output.read_text() == "old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.csv", name, "job"]
    assert len(list(folder.iterdir())) == 1


def test_any_other_disk_error_stops_the_job_and_names_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "file", "old") / "a.csv"
    with pytest.raises(Stopped, match=r"a\.csv could not be written: .*Not a directory.* Its old content is unchanged"):
        write(CITIES, path)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("\n  first line.\nsecond"), "first line"),
        (ValueError(), "ValueError"),
        (ValueError("x" * 201), "x" * 199 + "…"),
    ],
)
def test_an_error_is_repeated_by_its_first_line(error: Exception, expected: str) -> None:
    assert brief(error) == expected
