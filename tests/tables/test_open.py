"""Files are opened as one table, by way of a snapshot."""

import datetime as dt
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from children import child, pipe
from tables_support import CITIES, in_a_process, opened, refusal_of, whole, write, written

from pipeline.files import new_draft
from pipeline.records import BadJob, Stopped
from pipeline.tables.open import READERS, open_table, remove_leftovers, remove_old_snapshots


def test_arrow_is_read_in_its_stream_format_too(tmp_path: Path, folder: Path) -> None:
    CITIES.write_ipc_stream(tmp_path / "a.arrow")
    assert whole(opened(tmp_path / "a.arrow", folder)).equals(CITIES)


def test_one_parquet_file_is_read_where_it_is(tmp_path: Path, folder: Path) -> None:
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


def test_files_with_other_columns_or_types_are_refused_with_the_difference(tmp_path: Path, folder: Path) -> None:
    written(tmp_path / "1.csv", "a,b\n1,2\n")
    written(tmp_path / "2.csv", "a,c\n1,2\n")
    write(pl.DataFrame({"a": [1], "b": ["x"]}), tmp_path / "3.parquet")
    with pytest.raises(BadJob, match=r"2\.csv has other columns than .*1\.csv: it lacks \['b'\] and has also \['c'\]"):
        open_table([str(tmp_path / "*.csv")], folder)
    with pytest.raises(BadJob, match=r"Column 'a' is Int64 in .*3\.parquet and String in .*1\.csv"):
        open_table([str(tmp_path / "1.csv"), str(tmp_path / "3.parquet")], folder)


def test_an_error_in_one_file_of_several_names_that_file(tmp_path: Path, folder: Path) -> None:
    written(tmp_path / "1.csv", "a,b\n1,2\n")
    written(tmp_path / "2.csv", "a,b\n1\n")
    with pytest.raises(BadJob, match=r"2\.csv:2: 1 cells"):
        open_table([str(tmp_path / "*.csv")], folder)


def test_no_input_at_all_is_a_bad_job(folder: Path) -> None:
    with pytest.raises(BadJob, match="There is no input"):
        open_table([], folder)


def test_the_same_content_is_converted_once(tmp_path: Path, folder: Path) -> None:
    path = written(tmp_path / "a.csv", "a\n1\n")
    first = opened(path, folder)
    path.touch()
    again = opened(path, folder)
    assert again == first, "the stamp shows that the snapshot was not written anew"


def test_the_name_of_a_snapshot_stays_so_that_the_next_version_finds_it(tmp_path: Path, folder: Path) -> None:
    path = str(written(tmp_path / "a.csv", "a\n1\n"))
    assert open_table([path], folder).path.name == "input-5c84ed2bb680e7f3.parquet"
    assert open_table([path, path], folder).path.name == "input-1c2287cf7b8845fc.parquet"


def test_new_content_has_a_snapshot_of_its_own_and_the_old_one_can_be_removed(tmp_path: Path, folder: Path) -> None:
    old = opened(written(tmp_path / "a.csv", "a\n1\n"), folder)
    new = opened(written(tmp_path / "a.csv", "a\n2\n"), folder)
    assert old.content_hash != new.content_hash
    assert sorted(folder.iterdir()) == sorted([old.path, new.path])
    remove_old_snapshots(folder, new)
    assert list(folder.iterdir()) == [new.path]
    with pytest.raises(Stopped, match="was removed while"):
        list(old.slices())


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


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured in /proc")
def test_a_million_rows_pass_in_bounded_memory(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("w") as file:
        file.write("id,review\n")
        file.writelines(f'{at:07},"row {at}: {"so many words, " * 10}"\n' for at in range(1_000_000))
    told = in_a_process(MEASURED, path, folder, tmp_path / "out.csv").stdout.split()
    assert int(told[0]) == 1_000_000
    assert int(told[1]) < 600, "MB; the file has 170"
    assert (tmp_path / "out.csv").stat().st_size == path.stat().st_size


LEAVES_DRAFTS = """
import os, sys
from contextlib import ExitStack
from pathlib import Path
from pipeline.files import new_draft

stack = ExitStack()
drafts = [stack.enter_context(new_draft(Path(name))) for name in sys.argv[1:]]
print(*drafts, sep="\\n", flush=True)
os._exit(9)
"""


def test_half_written_files_of_killed_runs_are_removed_and_no_others(tmp_path: Path, folder: Path) -> None:
    output, order = tmp_path / "o[1].csv", folder / "orders.json"
    table, other = folder / "input-1.parquet", tmp_path / "o1.csv"
    with child(LEAVES_DRAFTS, output, order, table, other) as process:
        *dead, others_draft = map(Path, pipe(process.stdout).read().splitlines())
    dead.append(written(folder / ".stdin-x", "half"))
    with new_draft(output) as being_exported, new_draft(order) as being_ordered:
        remove_leftovers(folder, output)
        kept = [being_exported, being_ordered, others_draft, written(output, "old"), written(table, "old")]
        assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in dead)


def test_an_input_format_is_one_function_and_one_line(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(READERS, ".lines", lambda source: pl.scan_lines(source.path))
    assert ".lines" in refusal_of(tmp_path / "a.docx", "x")
    path = written(tmp_path / "a.lines", "x\ny\n")
    assert whole(opened(path, folder))["line"].to_list() == ["x", "y"]
