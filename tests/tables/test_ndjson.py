"""NDJSON is read with all its keys, types and their order, and refused with the line where it cannot be."""

import json
from pathlib import Path

import polars as pl
import pytest
from tables_support import CITIES, RICH, opened, read, refusal_of, whole, write, written

from pipeline.tables.open import open_table
from pipeline.tables.write import write_table


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
    ("content", "expected"),
    [
        ('{"a": 1}\n\n{"a":\n{"a": 3}\n', "a.ndjson:3: not JSON"),
        ('{"a": 1}\n[1]\n', "a.ndjson:2: not an object"),
        ('{"a": NaN}\n', "a.ndjson:1: not JSON: NaN is no JSON number"),
        ('{\n"a": 1\n}\n', "a.ndjson:1: not JSON"),
        ("{}\n{}\n", "a.ndjson holds no columns"),
        ('{"a": "x"}\n{"a": "\\ud800"}\n', "a.ndjson:2: half of a surrogate pair"),
        ('{"a": "\\ud800"}\n[1]\n', "a.ndjson:1: half of a surrogate pair"),
        ('{"a": 1}\n{"a": true}\n', "a.ndjson cannot be read as ndjson"),
    ],
)
def test_a_broken_line_of_ndjson_is_refused_with_its_number(tmp_path: Path, content: str, expected: str) -> None:
    assert expected in refusal_of(tmp_path / "a.ndjson", content)


def test_ndjson_in_another_encoding_is_refused_with_its_line(tmp_path: Path) -> None:
    assert "a.ndjson:2: byte 0xe9" in refusal_of(tmp_path / "a.ndjson", '{"a": "x"}\n{"a": "\xe9"}\n'.encode("latin1"))


def test_a_name_with_brackets_is_that_file_and_not_a_pattern(tmp_path: Path) -> None:
    written(tmp_path / "a1.ndjson", '{"a": "wrong"}\n')
    assert read(tmp_path / "a[1].ndjson", '{"a": "right"}\n').item() == "right"
    assert read(tmp_path / "a[1].csv", "a\nright\n").item() == "right"


@pytest.mark.parametrize("name", ["a.ndjson", "a.jsonl.gz", "a.ndjson.zst", "a.arrow", "a.feather", "a.ipc"])
def test_ndjson_and_arrow_come_back_as_they_were_written(tmp_path: Path, folder: Path, name: str) -> None:
    frame = CITIES.with_columns(big=pl.lit(2**53 + 1), nested=pl.struct(x=pl.lit([1, 2])))
    assert whole(opened(write(frame, tmp_path / name), folder)).equals(frame.cast({"big": pl.Int64}))


def test_several_ndjson_files_share_the_types_of_all(tmp_path: Path, folder: Path) -> None:
    written(tmp_path / "1.ndjson", '{"a": 1, "s": {"x": 1}}\n')
    written(tmp_path / "2.ndjson", '{"a": 1.5, "s": {"y": "z"}}\n')
    rows = whole(open_table([str(tmp_path / "*.ndjson")], folder)).rows()
    assert rows == [(1.0, {"x": 1, "y": None}), (1.5, {"x": None, "y": "z"})]


def test_an_ndjson_output_of_no_rows_is_an_empty_file(tmp_path: Path) -> None:
    write_table([], RICH.schema, tmp_path / "a.ndjson", {})
    assert (tmp_path / "a.ndjson").read_bytes() == b""
