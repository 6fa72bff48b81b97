"""Reading the file of example rows that `prompt.examples` names."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from ..records import BadJob

SEPARATORS = {".csv": ",", ".tsv": "\t"}


def read_examples(path: Path, text: str) -> list[dict[str, Any]]:
    """The rows in `text`, which is CSV, TSV or NDJSON by the suffix of `path`; an empty cell is None.

    Raises BadJob for another format, for text that is not of its format, and if there is no row.
    """
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
    # csv.DictReader puts the cells beyond the header under None
    if not rows or not all(isinstance(row, dict) and None not in row for row in rows):
        raise BadJob(f"{path}: no examples in it: each must be a row with one cell per column.\nNothing was sent.")
    return rows
