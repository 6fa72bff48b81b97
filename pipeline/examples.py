"""Rows with their answers, which a model is shown before each prompt."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .records import BadJob
from .shapes import Shape

SEPARATORS = {".csv": ",", ".tsv": "\t"}


def read_examples(path: Path, text: str) -> list[dict[str, Any]]:
    """The rows of a CSV, TSV or NDJSON; an empty cell is null. Raises BadJob for anything else."""
    try:
        if path.suffix in (".ndjson", ".jsonl"):
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        elif path.suffix in SEPARATORS:
            lines = io.StringIO(text.removeprefix("\ufeff"), newline="")
            read = csv.DictReader(lines, delimiter=SEPARATORS[path.suffix], strict=True)
            rows = [{name: cell or None for name, cell in row.items()} for row in read]
        else:
            raise BadJob(f"{path}: examples are read from .csv, .tsv, .ndjson or .jsonl.\nNothing was sent.")
    except (ValueError, RecursionError, csv.Error) as error:
        raise BadJob(f"{path}: the examples cannot be read: {error}\nNothing was sent.") from None
    if not rows or not all(isinstance(row, dict) and None not in row for row in rows):
        raise BadJob(f"{path}: no examples: each is a row with a cell for each column.\nNothing was sent.")
    return rows


def answer_of(example: Mapping[str, Any], columns: Mapping[str, str], shapes: Mapping[str, Shape]) -> str:
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
