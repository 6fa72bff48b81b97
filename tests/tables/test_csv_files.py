"""CSV and TSV are read as the text they hold, and refused with the line where they cannot be."""

import gzip
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables_support import CITIES, opened, read, refusal_of, whole, write, written


def test_csv_cells_are_the_text_that_came_in(tmp_path: Path) -> None:
    frame = read(tmp_path / "a.csv", 'id,for,😀\n00123,,""\n 1 ,"x ""y"", z",1e5\nNA,null,2026-01-01\n')
    assert frame.schema == pl.Schema({"id": pl.String, "for": pl.String, "😀": pl.String})
    assert frame.rows() == [("00123", None, ""), (" 1 ", 'x "y", z', "1e5"), ("NA", "null", "2026-01-01")]


def test_a_byte_order_mark_crlf_and_quoted_newlines_are_read(tmp_path: Path) -> None:
    frame = read(tmp_path / "a.csv", '\ufeffa,b\r\n1,"x\r\ny"\r\n2,"p\nq"\r\n')
    assert frame.to_dict(as_series=False) == {"a": ["1", "2"], "b": ["x\r\ny", "p\nq"]}


def test_a_header_of_quoted_names_is_read_as_written(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", '"a ""x""","b\nc","d,e"\n1,2,3\n').columns == ['a "x"', "b\nc", "d,e"]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.zst", "A.CSV", "a.tsv", "a.tsv.gz", "a.tsv.zst"])
def test_csv_and_tsv_come_back_as_they_were_written_compressed_or_not(tmp_path: Path, folder: Path, name: str) -> None:
    assert whole(opened(write(CITIES, tmp_path / name), folder)).equals(CITIES)


def test_a_header_alone_is_a_table_of_no_rows(tmp_path: Path, folder: Path) -> None:
    table = opened(written(tmp_path / "a.csv", "a,b"), folder)
    assert (table.rows, list(table.schema)) == (0, ["a", "b"])
    assert list(table.slices()) == []


def test_blank_lines_of_a_csv_are_skipped(tmp_path: Path) -> None:
    frame = read(tmp_path / "a.csv", "\n\na,b\n1,2\n\n,\n3,\r\n\r\n4,5\n\n")
    assert frame.rows() == [("1", "2"), (None, None), ("3", None), ("4", "5")]


def test_blank_lines_of_a_single_column_are_null_cells(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", 'a\n\n1\n""\n\n')["a"].to_list() == [None, "1", "", None]


def test_two_thousand_columns_are_read_and_written(tmp_path: Path, folder: Path) -> None:
    wide = pl.DataFrame({f"column {at}": [str(at), None, ""] for at in range(2_000)})
    assert whole(opened(write(wide, tmp_path / "a.csv"), folder)).equals(wide)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('a,b\n1,"x\ny"\n2,3,4\n', ":4: 3 cells, where the header has 2"),
        ("a,b,c\n1,2,3\n4,5\n", ":3: 2 cells, where the header has 3"),
        ("a,b\n1\n", ":2: 1 cells"),
        ('a,b\n1,2\n3,"x\n4,5\n', ":3: the quotes of the row that begins here do not match"),
        ('a,b\n1,"x" y\n', ":2: the quotes"),
        ('a,b\n1,5" pipe\n2,6" hose\n', ":2: a lone quote"),
        ("a,b,a\n1,2,3\n", ":1: columns of the same name: 'a' at [1, 3]"),
        (",b,\n1,2,3\n", ":1: the header has no name at column 1, 3"),
        ("a,b\r1,2\r3,4\r", ":1: carriage returns stand alone"),
        ("\n\r\n", "empty: there is not even a header"),
    ],
)
def test_a_malformed_csv_is_refused_with_file_and_line(tmp_path: Path, name: str, content: str, expected: str) -> None:
    path = tmp_path / name
    message = refusal_of(path, gzip.compress(content.encode()) if name.endswith(".gz") else content)
    assert message.startswith(str(path))
    assert expected in message


def test_a_short_row_is_found_in_a_zstd_file_too(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.zst"
    lines = pl.LazyFrame({"a,b": ["1,2", "3"]})
    lines.sink_csv(path, separator="\t", quote_style="never", compression="zstd")
    assert "a.csv.zst:3: 1 cells" in refusal_of(path)


texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(['"', ",", "\n", "\r", "\t", "'", " ", "0"]))


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\ufeff\0"), min_size=1)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_text_survives_csv_exactly(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    columns = data.draw(st.lists(names, min_size=1, max_size=4, unique=True))
    cells = st.lists(st.none() | texts, min_size=3, max_size=3)
    frame = pl.DataFrame({name: data.draw(cells) for name in columns}, schema=dict.fromkeys(columns, pl.String))
    path = tmp_path_factory.mktemp("csv") / data.draw(st.sampled_from(["a.csv", "a.tsv", "a.csv.gz"]))
    assert whole(opened(write(frame, path), path.parent)).equals(frame)
