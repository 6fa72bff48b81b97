"""Rows with their answers, which a model is shown before each prompt."""

import json
from collections.abc import Mapping
from typing import Any

from ..job import JobFile
from ..records import BadJob
from .shapes import Shape, shape_of


def _answer_text(example: Mapping[str, Any], columns: Mapping[str, str], shapes: Mapping[str, Shape]) -> str:
    """What the model would have said: JSON, with each property's value from its column; or without any, the text.

    `columns`: which column holds which property; one of the property's own name serves as well. Raises BadJob if there
    is no such column.
    """
    names = list(dict.fromkeys([*columns, *columns.values()])) or ["answer"]
    if not any(example.get(name) not in (None, "") for name in names):
        row = json.dumps(example, ensure_ascii=False, default=str)
        raise BadJob(f"prompt.examples: no answer in {' or '.join(names)}: {row[:200]}\nNothing was sent.")
    if not columns:
        return str(example["answer"])
    cells = {name: example.get(column, example.get(name)) for name, column in columns.items()}
    values = {name: _value(cell, shapes[name]) for name, cell in cells.items() if cell is not None}
    return json.dumps(values, ensure_ascii=False)


def _value(cell: object, shape: Shape) -> object:
    """A cell as JSON has it; what cannot be read so stays text, and is then told not to fit."""
    if not isinstance(cell, str) or shape.kind in ("text", "word", "date", "datetime"):
        return cell
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return [part.strip() for part in cell.split(",")] if shape.kind == "list" else cell


def example_answer(job: JobFile, example: Mapping[str, Any]) -> str:
    """The answer that the model would have given to one of `prompt.examples`. Raises BadJob if it holds none."""
    contract = job.answer.contract or {}
    names = [job.answer.label_property] if job.answer.labels is not None else contract.get("properties", {})
    columns = dict(zip(names, job.typed_columns, strict=True))
    shapes = {name: shape_of(contract["properties"][name], contract) for name in columns}
    return _answer_text(example, columns, shapes)
