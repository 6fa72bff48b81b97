"""Typed values survive every output format: the values of the answer are read back."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from job_files import MINIMAL

from pipeline.answers.contract import Contract
from pipeline.answers.typed_columns import column_dtype, column_shapes, typed_cells
from pipeline.job.job import Job
from pipeline.tables.write import write_table

VISIT = {
    "type": "object",
    "$defs": {
        "Person": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "role": {"enum": ["guest", "host", None]},
                "born": {"type": ["string", "null"], "format": "date"},
            },
            "required": ["name"],
        }
    },
    "properties": {
        "mood": {"enum": ["glad", "sad"]},
        "stars": {"type": "integer"},
        "score": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "again": {"type": "boolean"},
        "day": {"type": "string", "format": "date"},
        "at": {"type": "string", "format": "date-time"},
        "tags": {"type": "array", "items": {"enum": ["food", "staff"]}},
        "people": {"type": "array", "items": {"$ref": "#/$defs/Person"}},
        "place": {
            "type": "object",
            "properties": {"street": {"type": "string"}, "at": {"type": "array", "items": {"type": "number"}}},
        },
        "odd": {"type": ["integer", "string"]},
    },
}
ANSWERS: list[dict[str, Any]] = [
    {
        "mood": "glad", "stars": 4, "score": 1, "again": True, "day": "2026-11-24", "at": "2026-11-24T03:10:00+02:00",
        "tags": ["food", "staff"], "place": {"street": 'Größe "7", \U0001f642', "at": [1, 0.5]}, "odd": 3,
        "people": [{"name": "Ada", "role": "host", "born": "1815-12-10"}, {"name": "Bo"}],
    },
    {"mood": None, "tags": [], "people": [], "place": {}, "odd": "three"} | {"mood": "sad"},
    {},
]  # fmt: skip


def frame_of(answers: list[dict[str, Any]]) -> pl.DataFrame:
    job = Job.load(["in.csv"], settings={**MINIMAL, "answer.schema": VISIT})
    shapes, contract = column_shapes(job), Contract(VISIT)
    parsed = [contract.read(json.dumps(each)) for each in answers]
    assert [each.error for each in parsed] == [None] * len(parsed)
    rows = [typed_cells(each, job.answer, shapes) for each in parsed]
    return pl.DataFrame(rows, schema={name: column_dtype(shape) for name, shape in shapes.items()})


def test_every_kind_of_value_has_its_type() -> None:
    frame = frame_of(ANSWERS)
    person = pl.Struct({"name": pl.String, "role": pl.Enum(["guest", "host"]), "born": pl.Date})
    assert frame.schema == {
        "mood": pl.Enum(["glad", "sad"]),
        "stars": pl.Int64,
        "score": pl.Float64,
        "again": pl.Boolean,
        "day": pl.Date,
        "at": pl.Datetime("us", "UTC"),
        "tags": pl.List(pl.Enum(["food", "staff"])),
        "people": pl.List(person),
        "place": pl.Struct({"street": pl.String, "at": pl.List(pl.Float64)}),
        "odd": pl.String,
    }
    first = frame.row(0, named=True)
    assert first["at"] == datetime(2026, 11, 24, 1, 10, tzinfo=UTC)
    assert first["people"] == [
        {"name": "Ada", "role": "host", "born": date(1815, 12, 10)},
        {"name": "Bo", "role": None, "born": None},
    ]
    assert frame["odd"].to_list() == ["3", "three", None]
    assert frame["tags"].to_list() == [["food", "staff"], [], None]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".ndjson", ".csv"])
def test_nested_values_go_through_every_format_and_come_back(tmp_path: Path, suffix: str) -> None:
    frame, path = frame_of(ANSWERS), tmp_path / f"out{suffix}"
    write_table([frame], frame.schema, path, {})
    if suffix == ".parquet":
        back = pl.read_parquet(path)
    elif suffix == ".arrow":
        back = pl.read_ipc(path)
    elif suffix == ".ndjson":
        back = pl.read_ndjson(path, schema={**frame.schema, "at": pl.String}).with_columns(
            pl.col("at").str.to_datetime(time_unit="us", time_zone="UTC")
        )
    else:
        back = from_csv(pl.read_csv(path, infer_schema=False), frame.schema)
    assert back.schema == frame.schema
    assert back.to_dicts() == frame.to_dicts()


def from_csv(text: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """Read a CSV file's text columns into their types; nested columns hold JSON text."""
    read = []
    for name, dtype in schema.items():
        column = text[name]
        if dtype.is_nested():
            read.append(column.str.json_decode(dtype))
        elif dtype == pl.Date:
            read.append(column.str.to_date())
        elif dtype == pl.Datetime:
            read.append(column.str.to_datetime(time_unit="us", time_zone="UTC"))
        else:
            read.append(column == "true" if dtype == pl.Boolean else column.cast(dtype))
    return pl.DataFrame([column.alias(name) for column, name in zip(read, schema, strict=True)])


def test_several_labels_are_a_list_without_repetition() -> None:
    settings = {**MINIMAL, "answer.labels": ["a", "b"], "answer.multi": True, "answer.name": "topics"}
    job = Job.load(["in.csv"], settings=settings)
    shapes = column_shapes(job)
    assert {name: column_dtype(shape) for name, shape in shapes.items()} == {"topics": pl.List(pl.Enum(["a", "b"]))}
    parsed = Contract(job.answer.contract or {}, job.answer.labels).read('{"labels": ["b", "a", "b"]}')
    assert typed_cells(parsed, job.answer, shapes) == {"topics": ["b", "a"]}
