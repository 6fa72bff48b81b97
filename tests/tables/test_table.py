"""Rows in, rows out."""

import csv
import datetime as dt
import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records import BadJob, Exit, Stopped
from pipeline.tables import table as tables
from pipeline.tables.table import (
    PLAIN,
    SpreadsheetOptions,
    Table,
    check_output,
    check_row_count,
    open_table,
    read_slices,
    remove_old_snapshots,
    write_table,
)

CITIES = pl.DataFrame({"city": ["Oslo", "Bern", None, "日本 😀"], "n": ["00123", "", "2", 'a,"b"\r\nc']})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "job"
    path.mkdir()
    return path


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def opened(path: Path, folder: Path) -> Table:
    return open_table([str(path)], folder)


def whole(table: Table) -> pl.DataFrame:
    return pl.concat([table.schema.to_frame(), *table.slices()])


def read(path: Path, content: bytes | str) -> pl.DataFrame:
    folder = path.parent / "job"
    folder.mkdir(exist_ok=True)
    return whole(opened(written(path, content), folder))


def complaint(path: Path, content: bytes | str | None = None) -> str:
    folder = path.parent / "job"
    folder.mkdir(exist_ok=True)
    if content is not None:
        written(path, content)
    with pytest.raises(BadJob) as told:
        opened(path, folder)
    assert not list(folder.iterdir()), "a bad input leaves nothing behind"
    return str(told.value)


def write(frame: pl.DataFrame, path: Path, at_once: int = 2) -> Path:
    write_table(frame.iter_slices(at_once), frame.schema, path, {})
    return path


def in_a_process(code: str, *arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    line = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(line, input=stdin, capture_output=True, check=True, timeout=120)


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
def test_csv_and_tsv_come_back_as_they_were_written_packed_or_plain(tmp_path: Path, folder: Path, name: str) -> None:
    assert whole(opened(write(CITIES, tmp_path / name), folder)).equals(CITIES)


def test_a_header_alone_is_a_table_of_no_rows(tmp_path: Path, folder: Path) -> None:
    table = opened(written(tmp_path / "a.csv", "a,b"), folder)
    assert (table.rows, list(table.schema)) == (0, ["a", "b"])
    assert list(table.slices()) == []


def test_blank_lines_of_a_csv_are_no_rows(tmp_path: Path) -> None:
    frame = read(tmp_path / "a.csv", "\n\na,b\n1,2\n\n,\n3,\r\n\r\n4,5\n\n")
    assert frame.rows() == [("1", "2"), (None, None), ("3", None), ("4", "5")]


def test_blank_lines_of_a_single_column_are_null_cells(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", 'a\n\n1\n""\n\n')["a"].to_list() == [None, "1", "", None]


def test_two_thousand_columns_are_read_and_written(tmp_path: Path, folder: Path) -> None:
    wide = pl.DataFrame({f"column {at}": [str(at), None, ""] for at in range(2_000)})
    assert whole(opened(write(wide, tmp_path / "a.csv"), folder)).equals(wide)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('a,b\n1,"x\ny"\n2,3,4\n', ":4: 3 cells, where the header has 2"),
        ("a,b,c\n1,2,3\n4,5\n", ":3: 2 cells, where the header has 3"),
        ("a,b\n1\n", ":2: 1 cells"),
        ('a,b\n1,2\n3,"x\n4,5\n', ":3: the quotes of the row that begins here do not match"),
        ('a,b\n1,"x" y\n', ":2: the quotes"),
        ('a,b\n1,5" pipe\n2,6" hose\n', ":2: a lone quote"),
        ("a,b,a\n1,2,3\n", ":1: columns of the same name: 'a' at [1, 3]"),
        (",b,\n1,2,3\n", ":1: no name at column 1, 3 of the header"),
        ("a,b\r1,2\r3,4\r", ":1: carriage returns stand alone"),
        ("\n\r\n", "empty: not even a header"),
    ],
)
def test_a_misshapen_csv_is_told_of_with_file_and_line(tmp_path: Path, name: str, content: str, said: str) -> None:
    path = tmp_path / name
    told = complaint(path, gzip.compress(content.encode()) if name.endswith(".gz") else content)
    assert told.startswith(str(path))
    assert said in told


def test_a_short_row_is_found_in_a_zstd_file_too(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.zst"
    lines = pl.LazyFrame({"a,b": ["1,2", "3"]})
    lines.sink_csv(path, separator="\t", quote_style="never", compression="zstd")
    assert "a.csv.zst:3: 1 cells" in complaint(path)


@pytest.mark.parametrize("where", ["header", "cell"])
def test_another_encoding_is_told_of_with_line_offset_and_remedy(tmp_path: Path, where: str) -> None:
    text = "caf\xe9,b\n1,2\n" if where == "header" else "a,b\n1,2\ncaf\xe9,4\n"
    told = complaint(tmp_path / "a.csv", text.encode("latin1"))
    place = "a.csv:1: byte 0xe9 at offset 3" if where == "header" else "a.csv:3: byte 0xe9 at offset 11"
    assert place in told
    assert f"iconv -f latin1 -t utf-8 '{tmp_path / 'a.csv'}' > '{tmp_path / 'a-utf8.csv'}'" in told


def test_utf_16_is_told_of_with_its_remedy(tmp_path: Path) -> None:
    assert "iconv -f utf-16" in complaint(tmp_path / "a.csv", "a,b\n1,2\n".encode("utf-16"))


def test_a_packed_file_that_is_cut_off_is_a_bad_job(tmp_path: Path) -> None:
    packed = gzip.compress(("a,b\n" + "".join(f"{at},{at * at}\n" for at in range(9_999))).encode())
    assert "Is it whole" in complaint(tmp_path / "a.csv.gz", packed[:-2_000])


def test_ndjson_keeps_late_keys_nested_values_and_large_integers(tmp_path: Path) -> None:
    lines = ['{"a": 9007199254740993}'] * 2_000 + ['{"a": 1, "late": {"x": [1, 2]}, "for": "é😀"}', ""]
    frame = read(tmp_path / "a.ndjson", "\n".join(lines))
    assert frame.height == 2_001
    assert frame["a"][0] == 9007199254740993
    assert frame.row(-1) == (1, {"x": [1, 2]}, "é😀")


def test_ndjson_has_its_columns_and_fields_in_the_order_of_the_file(tmp_path: Path) -> None:
    # polars has them in another order in each process, so one try in this one proves enough
    wide = {f"c{n}": n for n in range(40)}
    lines = [{"z": 1, "list": [{"y": 1}, {"x": {"b": 1, "a": 2}}]}, {**wide, "list": [{"w": 1, "x": {"0": 1}}]}]
    path = tmp_path / "a.ndjson"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = open_table([str(path)], tmp_path)
    assert list(table.schema) == ["z", "list", *wide]
    [frame] = table.slices()
    assert [json.dumps(row["list"][-1]) for row in frame.to_dicts()] == [
        '{"y": null, "x": {"b": 1, "a": 2, "0": null}, "w": null}',
        '{"y": null, "x": {"b": null, "a": null, "0": 1}, "w": 1}',
    ]


def test_ndjson_objects_that_are_always_empty_are_kept_as_text(tmp_path: Path) -> None:
    frame = read(tmp_path / "a.jsonl", '{"m": {}, "l": [{"x": {}, "y": 1}]}\n{"m": null}\n')
    assert frame.rows() == [("{}", [{"x": "{}", "y": 1}]), (None, None)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a": 1}\n\n{"a":\n{"a": 3}\n', "a.ndjson:3: not JSON"),
        ('{"a": 1}\n[1]\n', "a.ndjson:2: not an object"),
        ('{"a": NaN}\n', "a.ndjson:1: not JSON: NaN is no JSON number"),
        ('{\n"a": 1\n}\n', "a.ndjson:1: not JSON"),
        ("{}\n{}\n", "a.ndjson holds no columns"),
        ('{"a": 1}\n{"a": true}\n', "a.ndjson cannot be read as ndjson"),
    ],
)
def test_a_broken_line_of_ndjson_is_told_of_with_its_number(tmp_path: Path, content: str, said: str) -> None:
    assert said in complaint(tmp_path / "a.ndjson", content)


def test_ndjson_in_another_encoding_is_told_of_with_its_line(tmp_path: Path) -> None:
    assert "a.ndjson:2: byte 0xe9" in complaint(tmp_path / "a.ndjson", '{"a": "x"}\n{"a": "\xe9"}\n'.encode("latin1"))


def test_a_name_with_brackets_is_that_file_and_not_a_pattern(tmp_path: Path) -> None:
    written(tmp_path / "a1.ndjson", '{"a": "wrong"}\n')
    assert read(tmp_path / "a[1].ndjson", '{"a": "right"}\n').item() == "right"
    assert read(tmp_path / "a[1].csv", "a\nright\n").item() == "right"


@pytest.mark.parametrize("name", ["a.ndjson", "a.jsonl.gz", "a.ndjson.zst", "a.arrow", "a.feather", "a.ipc"])
def test_ndjson_and_arrow_come_back_as_they_were_written(tmp_path: Path, folder: Path, name: str) -> None:
    frame = CITIES.with_columns(big=pl.lit(2**53 + 1), nested=pl.struct(x=pl.lit([1, 2])))
    assert whole(opened(write(frame, tmp_path / name), folder)).equals(frame.cast({"big": pl.Int64}))


def test_arrow_is_read_in_its_stream_format_too(tmp_path: Path, folder: Path) -> None:
    CITIES.write_ipc_stream(tmp_path / "a.arrow")
    assert whole(opened(tmp_path / "a.arrow", folder)).equals(CITIES)


def test_one_parquet_file_is_sliced_where_it_lies(tmp_path: Path, folder: Path) -> None:
    frame = pl.DataFrame(
        {
            "big": [2**53 + 1, 2**63 - 1],
            "money": [Decimal("0.10"), Decimal("1234567890.12")],
            "day": [dt.date(2026, 11, 22), None],
            "^a.*$": [1, 2],
            "*": [3, 4],
        }
    )
    path = write(frame, tmp_path / "a.parquet")
    table = opened(path, folder)
    assert (table.path, table.rows, table.schema) == (path, 2, frame.schema)
    assert whole(table).equals(frame)
    assert next(table.slices(["*", "^a.*$"])).rows() == [(3, 1), (4, 2)]
    assert not list(folder.iterdir())


def test_several_files_and_patterns_are_one_table_in_sorted_order(tmp_path: Path, folder: Path) -> None:
    written(tmp_path / "p2.csv", "a,b\n3,4\n")
    written(tmp_path / "p1.csv", "a,b\n1,2\n")
    write(pl.DataFrame({"b": ["6"], "a": ["5"]}), tmp_path / "last.parquet")
    table = open_table([str(tmp_path / "p*.csv"), str(tmp_path / "last.parquet")], folder)
    assert whole(table).rows() == [("1", "2"), ("3", "4"), ("5", "6")]


def test_several_parquet_files_are_one_table(tmp_path: Path, folder: Path) -> None:
    write(pl.DataFrame({"a": [None, None]}), tmp_path / "1.parquet")
    write(pl.DataFrame({"a": [2**53 + 1]}), tmp_path / "2.parquet")
    assert whole(open_table([str(tmp_path / "*.parquet")], folder))["a"].to_list() == [None, None, 2**53 + 1]


def test_several_ndjson_files_share_the_types_of_all(tmp_path: Path, folder: Path) -> None:
    written(tmp_path / "1.ndjson", '{"a": 1, "s": {"x": 1}}\n')
    written(tmp_path / "2.ndjson", '{"a": 1.5, "s": {"y": "z"}}\n')
    rows = whole(open_table([str(tmp_path / "*.ndjson")], folder)).rows()
    assert rows == [(1.0, {"x": 1, "y": None}), (1.5, {"x": None, "y": "z"})]


def test_files_of_other_columns_or_types_are_told_of_with_the_difference(tmp_path: Path, folder: Path) -> None:
    written(tmp_path / "1.csv", "a,b\n1,2\n")
    written(tmp_path / "2.csv", "a,c\n1,2\n")
    write(pl.DataFrame({"a": [1], "b": ["x"]}), tmp_path / "3.parquet")
    with pytest.raises(BadJob, match=r"2\.csv has other columns than .*1\.csv: it lacks \['b'\] and has also \['c'\]"):
        open_table([str(tmp_path / "*.csv")], folder)
    with pytest.raises(BadJob, match=r"Column 'a' is Int64 in .*3\.parquet and String in .*1\.csv"):
        open_table([str(tmp_path / "1.csv"), str(tmp_path / "3.parquet")], folder)


def test_the_fault_of_one_file_among_several_names_that_file(tmp_path: Path, folder: Path) -> None:
    written(tmp_path / "1.csv", "a,b\n1,2\n")
    written(tmp_path / "2.csv", "a,b\n1\n")
    with pytest.raises(BadJob, match=r"2\.csv:2: 1 cells"):
        open_table([str(tmp_path / "*.csv")], folder)


def test_what_is_no_readable_file_is_a_bad_job_with_its_remedy(tmp_path: Path) -> None:
    written(tmp_path / "reviews.csv", "a\n1\n")
    assert f"Did you mean {tmp_path / 'reviews.csv'}?" in complaint(tmp_path / "review.csv")
    assert "no file matches this pattern" in complaint(tmp_path / "*.tsv")
    assert "is a folder" in complaint(tmp_path)
    assert "Known are .parquet, .csv" in complaint(tmp_path / "a.docx", "x")
    assert "a.csv is empty" in complaint(tmp_path / "a.csv", "")
    assert "cannot be read as parquet" in complaint(tmp_path / "a.parquet", b"PAR1" + b"x" * 99)
    assert "cannot be read as arrow" in complaint(tmp_path / "a.arrow", b"ARROW1" + b"x" * 99)
    with pytest.raises(BadJob, match="Nor is there a folder"):
        opened(tmp_path / "nowhere" / "a.csv", tmp_path)


def test_no_input_at_all_is_a_bad_job(folder: Path) -> None:
    with pytest.raises(BadJob, match="There is no input"):
        open_table([], folder)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that opens and does not read")
def test_a_file_whose_bytes_do_not_come_is_a_bad_job(tmp_path: Path) -> None:
    (tmp_path / "a.csv").symlink_to("/proc/self/mem")
    assert "a.csv cannot be read" in complaint(tmp_path / "a.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_a_bad_job(tmp_path: Path) -> None:
    written(tmp_path / "a.csv", "a\n1\n").chmod(0)
    assert "a.csv cannot be read: Permission denied" in complaint(tmp_path / "a.csv")


FROM_STDIN = """
import sys
from pathlib import Path
from pipeline.tables import open_table
table = open_table(["-"], Path(sys.argv[1]))
print([row for frame in table.slices() for row in frame.rows()], table.content_hash)
"""


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.ndjson", "a.jsonl.zst", "a.parquet", "a.arrow"])
def test_standard_input_is_read_in_the_format_that_its_bytes_show(tmp_path: Path, folder: Path, name: str) -> None:
    path = write(CITIES, tmp_path / name)
    told = in_a_process(FROM_STDIN, folder, stdin=path.read_bytes())
    assert told.stdout.decode().strip() == f"{CITIES.rows()} {opened(path, tmp_path).content_hash}"
    assert [entry.name[:6] for entry in folder.iterdir()] == ["input-"], "the copy of standard input is gone"


def test_a_fault_in_standard_input_is_told_of_by_that_name(folder: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        in_a_process(FROM_STDIN, folder, stdin=b"a,b\n1,2\n3\n")
    assert "BadJob: standard input:3: 1 cells" in failed.value.stderr.decode()
    assert not list(folder.iterdir())


def test_the_same_content_is_read_once(tmp_path: Path, folder: Path) -> None:
    path = written(tmp_path / "a.csv", "a\n1\n")
    first = opened(path, folder)
    path.touch()
    again = opened(path, folder)
    assert again == first, "the stamp shows that the snapshot was not written anew"


def test_the_content_hash_is_that_of_the_files_bytes_in_order(tmp_path: Path, folder: Path) -> None:
    parts = [written(tmp_path / "1.csv", "a\n1\n"), written(tmp_path / "2.csv", "a\n2\n")]
    table = open_table([str(part) for part in parts], folder)
    assert table.content_hash == hashlib.sha256(b"a\n1\na\n2\n").hexdigest()
    assert open_table([str(part) for part in reversed(parts)], folder).content_hash != table.content_hash


def test_a_new_content_has_a_snapshot_of_its_own_until_the_old_one_is_forgotten(tmp_path: Path, folder: Path) -> None:
    old = opened(written(tmp_path / "a.csv", "a\n1\n"), folder)
    new = opened(written(tmp_path / "a.csv", "a\n2\n"), folder)
    assert old.content_hash != new.content_hash
    assert sorted(folder.iterdir()) == sorted([old.path, new.path])
    remove_old_snapshots(folder, new)
    assert list(folder.iterdir()) == [new.path]
    with pytest.raises(Stopped, match="is gone since"):
        list(old.slices())


def test_the_same_bytes_read_otherwise_are_another_snapshot(tmp_path: Path, folder: Path) -> None:
    text = "a\tb,c\n1\t2,3\n"
    assert whole(opened(written(tmp_path / "a.csv", text), folder)).columns == ["a\tb", "c"]
    assert whole(opened(written(tmp_path / "a.tsv", text), folder)).columns == ["a", "b,c"]


MEASURED = """
import re, sys, threading
from pathlib import Path
from pipeline.tables import open_table, write_table
peak, done = 0, threading.Event()
def watch():
    global peak
    while not done.wait(0.01):
        status = Path("/proc/self/status").read_text()
        peak = max(peak, int(re.search(r"RssAnon:\\s+(\\d+)", status)[1]) // 1024)
threading.Thread(target=watch).start()
table = open_table([sys.argv[1]], Path(sys.argv[2]))
write_table(table.slices(), table.schema, Path(sys.argv[3]), {})
done.set()
print(table.rows, peak)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured as Linux tells it")
def test_a_million_rows_pass_in_bounded_memory(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("w") as file:
        file.write("id,review\n")
        file.writelines(f'{at:07},"row {at}: {"so many words, " * 10}"\n' for at in range(1_000_000))
    told = in_a_process(MEASURED, path, folder, tmp_path / "out.csv").stdout.split()
    assert int(told[0]) == 1_000_000
    assert int(told[1]) < 600, "MB; the file has 170"
    assert (tmp_path / "out.csv").stat().st_size == path.stat().st_size


def numbers(folder: Path, rows: int) -> Table:
    return opened(
        write(pl.DataFrame({"n": range(rows), "t": map(str, range(rows))}), folder / "n.parquet", 100), folder
    )


def test_slices_hold_each_row_once_in_order(folder: Path) -> None:
    table = numbers(folder, 1_001)
    assert [frame.height for frame in table.slices(size=250)] == [250, 250, 250, 250, 1]
    assert pl.concat(table.slices(["n"], 250))["n"].to_list() == list(range(1_001))
    assert [frame.shape for frame in table.slices([], 600)] == [(600, 1), (401, 1)]


def test_a_head_is_the_first_rows(folder: Path) -> None:
    table = numbers(folder, 100)
    assert whole(table.head(3))["n"].to_list() == [0, 1, 2]
    assert (table.head(3).rows, table.head(101).rows, table.head(0).rows) == (3, 100, 0)


def test_a_sample_is_drawn_by_chance_and_the_same_for_its_seed(folder: Path) -> None:
    table = numbers(folder, 1_000)
    drawn = pl.concat(table.sample(50, seed=1).slices(size=20))
    rows = drawn["n"].to_list()
    assert rows == sorted(set(rows))
    assert len(rows) == 50
    assert drawn["t"].to_list() == [str(row) for row in rows]
    assert whole(table.sample(50, seed=1)).equals(drawn)
    assert not whole(table.sample(50, seed=2)).equals(drawn)
    assert [frame.height for frame in table.sample(50, seed=1).slices(["t"], 20)] == [20, 20, 10]
    assert whole(table.sample(2_000, seed=1)).equals(whole(table))
    assert whole(table.sample(50, seed=1).head(5)).equals(drawn.head(5))
    assert set(whole(table.sample(50, seed=1).sample(9, seed=3))["n"]) < set(rows)


@pytest.mark.parametrize("how", ["rewritten", "replaced", "touched", "removed"])
def test_a_parquet_that_changes_while_it_is_read_stops_the_job(folder: Path, how: str) -> None:
    table = numbers(folder, 100)
    frames = table.slices(size=40)
    next(frames)
    content = table.path.read_bytes()
    if how == "rewritten":
        table.path.write_bytes(content[:-9])
    elif how == "replaced":
        written(folder / "new", content).replace(table.path)
    elif how == "touched":
        os.utime(table.path, ns=(1, 1))
    else:
        table.path.unlink()
    with pytest.raises(Stopped, match="since the job began to read it") as stop:
        next(frames)
    assert stop.value.exit_code is Exit.NEEDS_PERSON


def test_a_change_after_the_last_slice_is_noticed(folder: Path) -> None:
    table = numbers(folder, 10)
    frames = table.slices()
    next(frames)
    os.utime(table.path, ns=(1, 1))
    with pytest.raises(Stopped, match="has changed"):
        next(frames)


def test_our_own_parquet_is_read_in_slices(folder: Path) -> None:
    table = numbers(folder, 10)
    assert [frame["n"].to_list() for frame in read_slices(table.path, ["n"], 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert pl.concat(read_slices(table.path)).equals(whole(table))


RICH = pl.DataFrame(
    {
        "list": [[1, None], None, []],
        "array": pl.Series([[1, 2], None, [3, 4]], dtype=pl.Array(pl.Int8, 2)),
        "struct": [{"day": dt.date(2026, 1, 2), "at": dt.datetime(2026, 1, 2, 3, 4)}, None, {"day": None, "at": None}],  # noqa: DTZ001 - a time without a zone is what is tested
        "bytes": [b"\xff\x00", None, b""],
        "nested_bytes": [[b"x"], None, []],
        "odd": [{"d": Decimal("1.10"), "f": float("nan"), "t": dt.timedelta(days=1, seconds=3)}, None, None],
        "span": [dt.timedelta(days=1, seconds=3), None, None],
        "kind": pl.Series(["a", None, "b"], dtype=pl.Enum(["a", "b"])),
        "zoned": pl.Series([dt.datetime(2026, 1, 2, tzinfo=dt.UTC), None, None]),
        "none": [None, None, None],
    }
)


def test_csv_holds_nested_cells_as_json_and_bytes_as_base64(tmp_path: Path) -> None:
    with write(RICH, tmp_path / "a.csv").open(newline="") as file:
        row, nothing, last = csv.DictReader(file)
    assert json.loads(row["list"]) == [1, None]
    assert json.loads(row["array"]) == [1, 2]
    assert json.loads(row["struct"]) == {"day": "2026-01-02", "at": "2026-01-02T03:04:00"}
    assert (row["bytes"], row["nested_bytes"], row["span"], row["kind"]) == ("/wA=", '["eA=="]', "P1DT3S", "a")
    assert json.loads(row["odd"]) == {"d": "1.10", "f": None, "t": "P1DT3S"}
    assert set(nothing.values()) == {""}
    assert (last["list"], last["nested_bytes"]) == ("[]", "[]")


def test_ndjson_keeps_nested_cells(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in write(RICH, tmp_path / "a.ndjson").read_text().splitlines()]
    assert list(rows[0]) == RICH.columns
    assert (rows[0]["list"], rows[0]["array"], rows[0]["bytes"]) == ([1, None], [1, 2], "/wA=")
    assert (rows[0]["struct"]["day"], rows[0]["nested_bytes"]) == ("2026-01-02", '["eA=="]')
    assert set(map(str, rows[1].values())) == {"None"}


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_parquet_and_arrow_keep_every_type(tmp_path: Path, folder: Path, name: str) -> None:
    assert whole(opened(write(RICH, tmp_path / name), folder)).equals(RICH)


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.tsv.gz", "a.csv.zst", "a.arrow"])
def test_an_output_of_no_rows_still_has_its_columns(tmp_path: Path, folder: Path, name: str) -> None:
    write_table([], RICH.schema, tmp_path / name, {})
    table = opened(tmp_path / name, folder)
    assert (table.rows, list(table.schema)) == (0, RICH.columns)


def test_an_ndjson_output_of_no_rows_is_an_empty_file(tmp_path: Path) -> None:
    write_table([], RICH.schema, tmp_path / "a.ndjson", {})
    assert (tmp_path / "a.ndjson").read_bytes() == b""


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
def test_what_the_frames_raise_comes_through_and_the_old_output_stands(tmp_path: Path, name: str) -> None:
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


def test_an_interrupted_write_leaves_the_old_output_and_nothing_else(tmp_path: Path) -> None:
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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
@pytest.mark.parametrize("sink", ["sink_parquet", "sink_csv", "sink_ndjson", "sink_ipc"])
def test_a_full_disk_stops_the_job_with_the_remedy(tmp_path: Path, sink: str) -> None:
    path = written(tmp_path / "a.csv", "old")
    rows = pl.LazyFrame({"n": range(100_000)})
    with pytest.raises(Stopped, match=r"No space left .*\nMake room \(df -h") as stop, tables._replacing(path):
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
def test_an_output_and_a_snapshot_that_outgrow_the_disk_stop_the_job(tmp_path: Path, folder: Path, name: str) -> None:
    path = write(pl.DataFrame({"n": [f"{at * 7919 % 10_007}" for at in range(10_000)]}), tmp_path / "a.csv", 5_000)
    output = written(tmp_path / name, "old")
    told = in_a_process(LIMITED, path, folder, output)
    assert told.stdout.decode().splitlines() == ["No space left on the disk"] * 2
    assert output.read_text() == "old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.csv", name, "job"]
    assert len(list(folder.iterdir())) == 1


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
    assert "Known are .parquet, .csv" in refusal(tmp_path / "a.docx")
    assert "is a folder" in refusal(tmp_path / "d.csv")
    assert f"mkdir -p '{tmp_path / 'no'}'" in refusal(tmp_path / "no" / "a.csv")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder in which not even root makes files")
def test_a_folder_that_takes_no_files_is_refused() -> None:
    assert "cannot be written" in refusal(Path("/proc/a.csv"))


def test_an_output_that_is_an_input_is_refused_by_whatever_name(tmp_path: Path) -> None:
    source = written(tmp_path / "a.csv", "a\n1\n")
    (tmp_path / "link.csv").symlink_to(source)
    (tmp_path / "hard.csv").hardlink_to(source)
    for output in (source, tmp_path / "link.csv", tmp_path / "hard.csv", tmp_path / "job" / ".." / "a.csv"):
        (tmp_path / "job").mkdir(exist_ok=True)
        assert "is also an input" in refusal(output, source)
    assert "is also an input" in refusal(source, tmp_path / "*.csv")


# ---- for spreadsheets


def dressed(folder: Path, frame: pl.DataFrame, name: str, dress: SpreadsheetOptions = PLAIN) -> Path:
    write_table([frame], frame.schema, folder / name, {}, dress=dress)
    return folder / name


def test_an_excel_file_gives_back_what_it_was_given(tmp_path: Path) -> None:
    frame = pl.DataFrame({
        "id": ["001", "002", "003"],
        "text": ["=1+1", "https://example.org", None],
        "number": [1.5, float("nan"), None],
        "big": [2**60, 1, None],
        "flag": [True, False, None],
        "at": pl.Series([dt.datetime(2026, 11, 24, 22, 5, tzinfo=dt.UTC), None, None]),
        "tags": [["a"], [], None],
    })  # fmt: skip
    back = open_table([str(dressed(tmp_path, frame, "out.xlsx"))], tmp_path)
    rows = pl.concat(back.slices()).to_dicts()
    assert [row["id"] for row in rows] == ["001", "002", "003"]
    assert [row["text"] for row in rows] == ["=1+1", "https://example.org", None]
    assert (rows[0]["number"], rows[0]["flag"], rows[0]["tags"]) == (1.5, True, '["a"]')
    assert rows[0]["at"] == dt.datetime(2026, 11, 24, 22, 5)  # noqa: DTZ001 - Excel knows no zones
    assert str(rows[0]["big"]) == str(2**60)
    assert rows[2]["number"] is None


def test_what_excel_cannot_hold_is_said_and_what_stood_there_stands(tmp_path: Path) -> None:
    path = tmp_path / "out.xlsx"
    path.write_text("before")
    with pytest.raises(Stopped, match=r"(?s)Row 2, column 1: 32,768 characters, .* export the table in another format"):
        dressed(tmp_path, pl.DataFrame({"a": ["short", "x" * 32_768]}), "out.xlsx")
    assert path.read_text() == "before"
    check_row_count(path, 1_048_575)
    with pytest.raises(
        BadJob, match=r"holds 1,048,575 rows below its header, and these are 1,048,576\. .*out\.parquet"
    ):
        check_row_count(path, 1_048_576)
    check_row_count(tmp_path / "out.csv", 5_000_000)


def test_without_the_extra_excel_files_are_refused_with_the_line_that_installs_it(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['xlsxwriter'] = None\n"
        "from pipeline.tables import check_output; from pathlib import Path\n"
        f"check_output(Path({str(tmp_path / 'out.xlsx')!r}), [])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "pip install 'batch-prompt-pipeline[excel]'" in done.stderr


def test_csv_for_excel_begins_with_a_mark_and_formulas_become_text_where_numbers_stay(tmp_path: Path) -> None:
    cells = ["=1+1", "+49 30", "-1.5", "+2e3", "@x", "\ta", "\ra", "a=b", "-", None, "é"]
    frame = pl.DataFrame({"text": cells, "n": [-1] * len(cells)}).with_columns(
        pl.lit("=x").cast(pl.Enum(["=x"])).alias("e")
    )
    path = dressed(tmp_path, frame, "out.csv", SpreadsheetOptions(mark=True, escape_formulas=True))
    assert path.read_bytes().startswith(b"\xef\xbb\xbftext,n,e")
    back = pl.read_csv(path, infer_schema=False)
    assert back["text"].to_list() == ["'=1+1", "'+49 30", "-1.5", "+2e3", "'@x", "'\ta", "'\ra", "a=b", "'-", None, "é"]
    assert set(back["n"]) == {"-1"}
    assert set(back["e"]) == {"'=x"}
    with pytest.raises(BadJob, match="belongs before CSV and TSV alone"):
        check_output(tmp_path / "out.parquet", [], SpreadsheetOptions(mark=True))
