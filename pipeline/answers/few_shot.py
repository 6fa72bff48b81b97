"""Few-shot examples: the answers that the model is shown before each prompt."""

import json
from collections.abc import Mapping
from typing import Any

from ..job import JobFile
from ..records import BadJob
from ..text import clip
from .shapes import Shape, shape_of


def example_answer(job: JobFile, example: Mapping[str, Any]) -> str:
    """The answer that the model should have given to one row of `prompt.examples`.

    JSON with the value of each property from the row's column; for free text, the column `answer`. Raises BadJob if the
    row holds no answer.
    """
    contract = job.answer.contract or {}
    names = [job.answer.label_property] if job.answer.labels is not None else contract.get("properties", {})
    columns = dict(zip(names, job.typed_columns, strict=True))
    shapes = {name: shape_of(contract["properties"][name], contract) for name in columns}
    return _answer_text(example, columns, shapes)


def _answer_text(example: Mapping[str, Any], columns: Mapping[str, str], shapes: Mapping[str, Shape]) -> str:
    """`columns`: the column of each property; a column with the property's own name serves as well."""
    names = list(dict.fromkeys([*columns, *columns.values()])) or ["answer"]
    if not any(example.get(name) not in (None, "") for name in names):
        row = json.dumps(example, ensure_ascii=False, default=str)
        raise BadJob(f"prompt.examples: no answer in {' or '.join(names)}: {clip(row, 200)}\nNothing was sent.")
    if not columns:
        return str(example["answer"])
    cells = {name: example.get(column, example.get(name)) for name, column in columns.items()}
    values = {name: _value(cell, shapes[name]) for name, cell in cells.items() if cell is not None}
    return json.dumps(values, ensure_ascii=False)


def _value(cell: object, shape: Shape) -> object:
    """A cell as a JSON value. What cannot be read stays text, and does not fit when the contract checks it."""
    if not isinstance(cell, str) or shape.kind in ("text", "word", "date", "datetime"):
        return cell
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return [part.strip() for part in cell.split(",")] if shape.kind == "list" else cell
