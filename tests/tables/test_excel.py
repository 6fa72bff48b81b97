"""Excel files are written and read back, within what a sheet can hold."""

import datetime as dt
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from tables_support import write

from pipeline.records import BadJob, Stopped
from pipeline.tables.open import open_table
from pipeline.tables.write import check_row_count


def test_an_excel_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    frame = pl.DataFrame({
        "id": ["001", "002", "003"],
        "text": ["=1+1", "https://example.org", None],
        "number": [1.5, float("nan"), None],
        "big": [2**60, 1, None],
        "flag": [True, False, None],
        "at": pl.Series([dt.datetime(2026, 11, 24, 22, 5, tzinfo=dt.UTC), None, None]),
        "tags": [["a"], [], None],
    })  # fmt: skip
    back = open_table([str(write(frame, tmp_path / "out.xlsx"))], tmp_path)
    rows = pl.concat(back.slices()).to_dicts()
    assert [row["id"] for row in rows] == ["001", "002", "003"]
    assert [row["text"] for row in rows] == ["=1+1", "https://example.org", None]
    assert (rows[0]["number"], rows[0]["flag"], rows[0]["tags"]) == (1.5, True, '["a"]')
    assert rows[0]["at"] == dt.datetime(2026, 11, 24, 22, 5)  # noqa: DTZ001 - Excel knows no zones
    assert str(rows[0]["big"]) == str(2**60)
    assert rows[2]["number"] is None


def test_a_cell_or_a_table_too_large_for_excel_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "out.xlsx"
    path.write_text("before")
    with pytest.raises(Stopped, match=r"(?s)Row 2, column 1: 32,768 characters, .* export the table in another format"):
        write(pl.DataFrame({"a": ["short", "x" * 32_768]}), path)
    assert path.read_text() == "before"
    check_row_count(path, 1_048_575)
    with pytest.raises(
        BadJob, match=r"holds at most 1,048,575 rows below its header, and the table has 1,048,576\. .*out\.parquet"
    ):
        check_row_count(path, 1_048_576)
    check_row_count(tmp_path / "out.csv", 5_000_000)


def test_without_its_libraries_excel_files_are_refused_with_the_command_that_installs_them(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['xlsxwriter'] = None\n"
        "from pipeline.tables import check_output; from pathlib import Path\n"
        f"check_output(Path({str(tmp_path / 'out.xlsx')!r}), [])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "pip install 'batch-prompt-pipeline[excel]'" in done.stderr


@pytest.mark.parametrize("content", [b"hi\n", b"PK\x03\x04 and no more"])
def test_a_file_that_is_no_excel_file_is_named_as_that(folder: Path, content: bytes) -> None:
    (folder / "broken.xlsx").write_bytes(content)
    with pytest.raises(BadJob, match=r"broken\.xlsx cannot be read as an Excel file: .*\n.*is complete"):
        open_table([str(folder / "broken.xlsx")], folder)
