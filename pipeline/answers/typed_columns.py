"""A value of a known shape as a cell of a table: the type of its column, and what stands in it."""

import json
from datetime import UTC, date, datetime

import polars as pl

from ..job import Job
from .contract import ParsedAnswer
from .shapes import Shape, shape_of

TYPES: dict[str, pl.DataType] = {
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
    """The type of a column of this shape; every column may hold null."""
    if shape.kind == "word":
        return pl.Enum(shape.words)
    if shape.kind == "list" and shape.items is not None:
        return pl.List(column_dtype(shape.items))
    if shape.kind == "object":
        return pl.Struct({name: column_dtype(field) for name, field in shape.fields.items()})
    return TYPES[shape.kind]


def typed_cells(held: ParsedAnswer, job: Job, shapes: dict[str, Shape]) -> dict[str, object]:
    """The typed cells of an answer that fits: a null for each property that it leaves out."""
    if job.answer.labels is not None:
        label = held.values[job.answer.label_property]
        return {job.answer.name: list(dict.fromkeys(label)) if isinstance(label, list) else label}
    return {name: cell_of(held.values.get(name), shape) for name, shape in shapes.items()}


def cell_of(value: object, shape: Shape) -> object:
    """A value that fits as polars takes it; of no single type, it is text or JSON text."""
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
