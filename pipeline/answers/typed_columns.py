"""The typed columns of an answer: the polars type of each, and its cells."""

import json
from datetime import UTC, date, datetime

import polars as pl

from ..job import AnswerSection, Job
from .contract import ParsedAnswer
from .shapes import Shape, shape_of

DTYPES: dict[str, pl.DataType] = {
    "text": pl.String(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "boolean": pl.Boolean(),
    "date": pl.Date(),
    "datetime": pl.Datetime("us", "UTC"),
    "json": pl.String(),
}


def column_shapes(job: Job) -> dict[str, Shape]:
    """The shape of each typed column, by its name without prefix."""
    contract = job.answer.contract or {}
    return {name: shape_of(schema, contract) for name, schema in job.typed_columns.items()}


def column_dtype(shape: Shape) -> pl.DataType:
    """The polars type of a column of this shape."""
    if shape.kind == "word":
        return pl.Enum(shape.words)
    if shape.kind == "list" and shape.items is not None:
        return pl.List(column_dtype(shape.items))
    if shape.kind == "object":
        return pl.Struct({name: column_dtype(field) for name, field in shape.fields.items()})
    return DTYPES[shape.kind]


def typed_cells(parsed: ParsedAnswer, answer: AnswerSection, shapes: dict[str, Shape]) -> dict[str, object]:
    """The cells of an answer that fits its contract, by column; a property that it leaves out is null."""
    if answer.labels is not None:
        label = parsed.values[answer.label_property]
        return {answer.name: list(dict.fromkeys(label)) if isinstance(label, list) else label}
    return {name: cell_of(parsed.values.get(name), shape) for name, shape in shapes.items()}


def cell_of(value: object, shape: Shape) -> object:
    """A JSON value as polars takes it: dates and times as such, values of no single type as JSON text."""
    if value is None:
        return None
    if isinstance(value, list) and shape.items is not None:
        return [cell_of(each, shape.items) for each in value]
    if isinstance(value, dict) and shape.kind == "object":
        return {name: cell_of(value.get(name), field) for name, field in shape.fields.items()}
    if isinstance(value, str):
        if shape.kind == "date":
            return date.fromisoformat(value)
        return datetime.fromisoformat(value).astimezone(UTC) if shape.kind == "datetime" else value
    if isinstance(value, (int, float)) and shape.kind in ("integer", "number"):
        return int(value) if shape.kind == "integer" else float(value)
    return json.dumps(value, ensure_ascii=False) if shape.kind == "json" else value
