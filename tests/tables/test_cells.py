"""Cells that a format cannot hold become text."""

import csv
import datetime as dt
import io
import json
from pathlib import Path

import polars as pl
import pytest
from tables_support import RICH, write

from pipeline.records import BadJob
from pipeline.tables.cells import escape_formulas
from pipeline.tables.write import SpreadsheetOptions, check_output


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


def test_csv_for_excel_begins_with_a_byte_order_mark_and_formulas_but_not_numbers_are_escaped(tmp_path: Path) -> None:
    cells = ["=1+1", "+49 30", "-1.5", "+2e3", "@x", "\ta", "\ra", "a=b", "-", None, "é"]
    frame = pl.DataFrame({"text": cells, "n": [-1] * len(cells)}).with_columns(
        pl.lit("=x").cast(pl.Enum(["=x"])).alias("e")
    )
    path = write(frame, tmp_path / "out.csv", options=SpreadsheetOptions(byte_order_mark=True, escape_formulas=True))
    assert path.read_bytes().startswith(b"\xef\xbb\xbftext,n,e")
    back = pl.read_csv(path, infer_schema=False)
    assert back["text"].to_list() == ["'=1+1", "'+49 30", "-1.5", "+2e3", "'@x", "'\ta", "'\ra", "a=b", "'-", None, "é"]
    assert set(back["n"]) == {"-1"}
    assert set(back["e"]) == {"'=x"}
    with pytest.raises(BadJob, match="which only CSV and TSV can have"):
        check_output(tmp_path / "out.parquet", [], SpreadsheetOptions(byte_order_mark=True))


def read_back(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_bytes().decode(), newline="")))


FORMULAS = ["=A1", "-a", "@x", "\ta", "\ra", "\na", " =A1", "\u00a0=A1", "\ufeff=A1", "＝A1", "＋A1", "－A1", "＠A1"]
NO_FORMULAS = ["-1", "+.5", " -1.5e3", "1=1", "'=A1", ""]


def test_text_that_begins_like_a_formula_is_escaped_unless_it_is_a_number() -> None:
    cells = escape_formulas(pl.DataFrame({"text": [*FORMULAS, *NO_FORMULAS, None]}))["text"].to_list()
    assert cells == [*(f"'{text}" for text in FORMULAS), *NO_FORMULAS, None]


def test_column_names_are_escaped_like_cells_and_stay_different(tmp_path: Path) -> None:
    names = [*FORMULAS, *NO_FORMULAS[:-1], "''=A1"]
    path = write(
        pl.DataFrame({name: ["=x"] for name in names}),
        tmp_path / "out.csv",
        options=SpreadsheetOptions(escape_formulas=True),
    )
    header, cells = read_back(path)
    assert header[: len(FORMULAS)] == ["'''=A1", *(f"'{name}" for name in FORMULAS[1:])]
    assert header[len(FORMULAS) :] == [*NO_FORMULAS[:-1], "''=A1"]
    assert set(cells) == {"'=x"}
    assert len(set(header)) == len(names)


def test_what_becomes_text_only_in_a_csv_is_escaped_too(tmp_path: Path) -> None:
    frame = pl.DataFrame({"bytes": [b"\xfb"], "time": [-dt.timedelta(hours=1)], "list": [["=x"]]})
    path = write(frame, tmp_path / "out.csv", options=SpreadsheetOptions(escape_formulas=True))
    assert read_back(path)[1] == ["'+w==", "'-PT1H", '["=x"]']
