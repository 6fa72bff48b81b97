"""A table is written as a whole, or the old file stays."""

import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl
import pytest
from tables_support import CITIES, RICH, in_a_process, opened, whole, write, written

from pipeline.records import BadJob, Exit, Stopped
from pipeline.tables.cells import as_text
from pipeline.tables.write import WRITERS, OutputFormat, check_output, write_table


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_parquet_and_arrow_keep_every_type(tmp_path: Path, folder: Path, name: str) -> None:
    assert whole(opened(write(RICH, tmp_path / name), folder)).equals(RICH)


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.tsv.gz", "a.csv.zst", "a.arrow"])
def test_an_output_without_rows_still_has_its_columns(tmp_path: Path, folder: Path, name: str) -> None:
    write_table([], RICH.schema, tmp_path / name, {})
    table = opened(tmp_path / name, folder)
    assert (table.rows, list(table.schema)) == (0, RICH.columns)


def test_frames_are_written_in_the_order_they_come(tmp_path: Path, folder: Path) -> None:
    write_table((pl.DataFrame({"n": [at]}) for at in range(300)), pl.Schema({"n": pl.Int64}), tmp_path / "a.csv", {})
    assert (tmp_path / "a.csv").read_text().split() == ["n", *map(str, range(300))]


def test_parquet_carries_the_metadata(tmp_path: Path) -> None:
    write_table([CITIES], CITIES.schema, tmp_path / "a.parquet", {"pipeline.settings": '{"é": 1}'})
    assert pl.read_parquet_metadata(tmp_path / "a.parquet")["pipeline.settings"] == '{"é": 1}'


def breaking() -> Iterator[pl.DataFrame]:
    yield CITIES
    raise Stopped("stop here", Exit.TRY_LATER)


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.tsv.zst", "a.ndjson", "a.arrow"])
def test_an_exception_of_the_frames_is_raised_unchanged_and_the_old_output_stays(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, "old")
    with pytest.raises(Stopped, match="stop here") as stop:
        write_table(breaking(), CITIES.schema, path, {})
    assert stop.value.exit_code is Exit.TRY_LATER
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_frame_of_another_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(pl.exceptions.SchemaError):
        write_table([CITIES], pl.Schema({"city": pl.Int64, "n": pl.String}), tmp_path / "a.parquet", {})
    assert not list(tmp_path.iterdir())


INTERRUPTED = """
import sys, threading
from pathlib import Path
import polars as pl
from pipeline.tables import write_table
def frames():
    yield pl.DataFrame({"n": [1]})
    print("writing", flush=True)
    sys.stdin.readline()
    yield pl.DataFrame({"n": [2]})
write_table(frames(), pl.Schema({"n": pl.Int64}), Path(sys.argv[1]), {})
"""


def test_an_interrupted_write_leaves_the_old_output_and_no_other_file(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "old")
    line = [sys.executable, "-c", INTERRUPTED, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "writing\n"
        child.send_signal(signal.SIGINT)
        child.stdin.write("\n")
        child.stdin.close()
        child.wait(60)
    assert child.returncode != 0
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_slices_are_written_while_they_are_read_on_a_single_polars_thread(tmp_path: Path, folder: Path) -> None:
    path = write(pl.DataFrame({"n": range(1_000)}), tmp_path / "a.csv", 100)
    code = """
import os, sys
os.environ["POLARS_MAX_THREADS"] = "1"
from pathlib import Path
from pipeline.tables import open_table, write_table
table = open_table([sys.argv[1]], Path(sys.argv[2]))
write_table(table.slices(size=7), table.schema, Path(sys.argv[3]), {})
"""
    in_a_process(code, path, folder, tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_bytes() == path.read_bytes()


def test_an_output_has_the_mode_of_any_new_file(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
import polars as pl
from pipeline.tables import write_table
os.umask(0o027)
write_table([pl.DataFrame({"n": [1]})], pl.Schema({"n": pl.Int64}), Path(sys.argv[1]), {})
"""
    in_a_process(code, tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_mode & 0o777 == 0o640


def test_a_symlinked_output_stays_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "a.csv").symlink_to(tmp_path / "real" / "b.csv")
    write(CITIES, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").is_symlink()
    assert (tmp_path / "real" / "b.csv").stat().st_size > 0


def refusal(path: Path, *inputs: Path) -> str:
    with pytest.raises(BadJob) as told:
        check_output(path, [str(name) for name in inputs])
    return str(told.value)


def test_an_output_that_can_be_written_passes_and_nothing_is_left(tmp_path: Path) -> None:
    source = written(tmp_path / "a.csv", "a\n1\n")
    check_output(tmp_path / "b.csv", [str(source), "-"])
    assert list(tmp_path.iterdir()) == [source]


def test_an_output_that_cannot_be_written_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "d.csv").mkdir()
    assert "Use one of .parquet, .csv" in refusal(tmp_path / "a.docx")
    assert "is a folder" in refusal(tmp_path / "d.csv")
    assert f"mkdir -p {shlex.quote(str(tmp_path / 'not there'))}" in refusal(tmp_path / "not there" / "a.csv")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder in which not even root makes files")
def test_a_folder_in_which_no_file_can_be_made_is_refused() -> None:
    assert "cannot be written" in refusal(Path("/proc/a.csv"))


def test_an_output_that_is_an_input_is_refused_under_any_name(tmp_path: Path) -> None:
    source = written(tmp_path / "a.csv", "a\n1\n")
    (tmp_path / "link.csv").symlink_to(source)
    (tmp_path / "hard.csv").hardlink_to(source)
    for output in (source, tmp_path / "link.csv", tmp_path / "hard.csv", tmp_path / "job" / ".." / "a.csv"):
        (tmp_path / "job").mkdir(exist_ok=True)
        assert "is also an input" in refusal(output, source)
    assert "is also an input" in refusal(source, tmp_path / "*.csv")


def test_an_output_inside_a_job_folder_is_refused_under_any_name(tmp_path: Path) -> None:
    job = tmp_path / "any name"
    (job / "store").mkdir(parents=True)
    (job / "store" / "cache.db").touch()
    (tmp_path / "link").symlink_to(job)
    (tmp_path / "keys.parquet").symlink_to(job / "keys.parquet")
    for output in (
        job / "keys.parquet",
        job / "new.csv",
        job / "store" / "new.csv",
        tmp_path / "link" / "new.csv",
        tmp_path / "link" / "store" / ".." / "new.csv",
        tmp_path / "keys.parquet",
    ):
        assert "is in the job folder" in refusal(output)
    (tmp_path / "history.jsonl").touch()  # such a name alone may be anybody's
    check_output(tmp_path / "other.jsonl", [])
    (tmp_path / "lock").touch()
    assert "is in the job folder" in refusal(tmp_path / "other.jsonl")


def test_an_output_that_would_be_in_the_way_of_its_own_job_folder_is_refused_before_that_is_made(
    tmp_path: Path,
) -> None:
    for output, folder in (("a.csv", "."), ("a.csv", "a.csv"), ("a.csv", "a.csv/job"), ("a.csv", "x/..")):
        with pytest.raises(BadJob, match=r"is in the job folder"):
            check_output(tmp_path / output, [], own_folder=tmp_path / folder)
    check_output(tmp_path / "a.csv", [], own_folder=tmp_path / "a.csv.job")
    assert not list(tmp_path.iterdir())


def test_an_output_format_is_one_function_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_lines(
        frames: Iterator[pl.DataFrame], schema: pl.Schema, draft: Path, metadata: Mapping[str, str]
    ) -> None:
        rows = pl.concat([schema.to_frame(), *frames]).iter_rows()
        draft.write_text("".join(f"{cells} {metadata['of']}\n" for cells in rows))

    monkeypatch.setitem(WRITERS, ".lines", OutputFormat(write_lines, as_text))
    path = tmp_path / "a.lines"
    assert ".lines" in refusal(tmp_path / "a.docx")
    check_output(path, [])
    frame = pl.DataFrame({"n": [1, 2], "list": [[1], None]})
    write_table(frame.iter_slices(1), frame.schema, path, {"of": "x"})
    assert path.read_text() == "(1, '[1]') x\n(2, None) x\n"
