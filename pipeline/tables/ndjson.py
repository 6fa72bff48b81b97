"""NDJSON (also called JSON Lines): one JSON object a line, read with its columns in the order of the file."""

import glob
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from ..records import BadJob
from ..text import refuse_lone_surrogates, strict_json
from .errors import UNREADABLE
from .frames import as_lazy, open_text
from .source import Compression, Source, byte_lines, text_lines

NDJSON_SUFFIXES = (".ndjson", ".jsonl")
"""Suffixes of the format, without a compression's."""


def read_ndjson(source: Source) -> pl.LazyFrame:
    """Scan an NDJSON file, with types inferred from all of its lines. Reads it through to check it.

    Raises BadJob, with the line and the remedy, for a line that is not one JSON object.
    """
    try:
        scanned = pl.scan_ndjson(glob.escape(str(source.path)), infer_schema_length=None).collect_schema()
        storable = pl.Schema({name: _storable(dtype) for name, dtype in scanned.items()})
        frame = scan_ndjson(source, _in_file_order(source, storable))
        frame.null_count().collect()
    except UNREADABLE:
        _check_lines(source)
        raise
    _check_surrogates(source)
    return frame


def scan_ndjson(source: Source, schema: pl.Schema) -> pl.LazyFrame:
    """Scan an NDJSON file with a known schema."""
    # scan_ndjson takes every path for a pattern: unescaped, it would read a.json where a[a].json was named
    return pl.scan_ndjson(glob.escape(str(source.path)), schema=schema)


def is_ndjson(source: Source) -> bool:
    """Whether the file is NDJSON, compressed or not."""
    return source.suffix.startswith(NDJSON_SUFFIXES)


def write_ndjson(
    frames: Iterator[pl.DataFrame],
    schema: pl.Schema,
    draft: Path,
    _metadata: Mapping[str, str],
    *,
    compression: Compression,
) -> None:
    """Write rows as NDJSON, which has no place for metadata."""
    if compression == "zstd":
        as_lazy(frames, schema).sink_ndjson(draft, compression=compression, check_extension=False)
        return
    with open_text(draft, compression) as file:
        for frame in frames:
            frame.write_ndjson(file)


def _storable(dtype: pl.DataType) -> pl.DataType:
    """The type in which a snapshot keeps a column. Parquet has no struct without fields: it is kept as JSON text."""
    if isinstance(dtype, pl.List):
        return pl.List(_storable(_instance(dtype.inner)))
    if isinstance(dtype, pl.Struct):
        fields = {each.name: _storable(_instance(each.dtype)) for each in dtype.fields}
        return pl.Struct(fields) if fields else pl.String()
    return dtype


def _in_file_order(source: Source, schema: pl.Schema) -> pl.Schema:
    """The schema with its names, nested ones too, in the order in which the file first has them.

    Polars orders them differently in each process, and a prompt that shows the whole row would change with them.
    """
    whole = pl.Struct(dict(schema))
    seen: dict[str, Any] = {}
    for line in text_lines(source):
        if _add_names(seen, _json_or_none(line)) and _has_all_names(seen, whole):
            break
    return pl.Schema({each.name: _instance(each.dtype) for each in _sort_fields(seen, whole).fields})


def _add_names(seen: dict[str, Any], value: object) -> bool:
    """Add a value's field names to `seen`, a tree of names. Returns whether one of them was new."""
    is_new = False
    if isinstance(value, list):
        for each in value:
            is_new |= _add_names(seen, each)
    elif isinstance(value, dict):
        for name, each in value.items():
            is_new |= name not in seen
            is_new |= _add_names(seen.setdefault(name, {}), each)
    return is_new


def _has_all_names(seen: dict[str, Any], dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List):
        return _has_all_names(seen, _instance(dtype.inner))
    if not isinstance(dtype, pl.Struct):
        return True
    return all(each.name in seen and _has_all_names(seen[each.name], _instance(each.dtype)) for each in dtype.fields)


def _sort_fields(seen: dict[str, Any], dtype: Any) -> Any:  # noqa: ANN401 - the same kind of type as was given
    if isinstance(dtype, pl.List):
        return pl.List(_sort_fields(seen, _instance(dtype.inner)))
    if not isinstance(dtype, pl.Struct):
        return dtype
    order = list(seen)
    fields = sorted(dtype.fields, key=lambda each: order.index(each.name) if each.name in seen else len(order))
    return pl.Struct({each.name: _sort_fields(seen.get(each.name, {}), _instance(each.dtype)) for each in fields})


def _instance(dtype: Any) -> pl.DataType:  # noqa: ANN401 - polars types a nested dtype as class or instance
    return dtype() if isinstance(dtype, type) else dtype  # type: ignore[no-any-return] # polars types both as Any


def _json_or_none(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):  # polars reports such a line, or is able to read it
        return None


def _check_lines(source: Source) -> None:
    """Raise BadJob at the first line that is not one JSON object."""
    for number, line in enumerate(text_lines(source), 1):
        if not line.strip():
            continue
        try:
            value = strict_json(line)
        except UnicodeEncodeError as error:
            raise _lone_surrogate(source, number, error) from error
        except (ValueError, RecursionError) as error:
            raise BadJob(f"{source.name}:{number}: not JSON: {error}. Each line must be one whole object.") from error
        if not isinstance(value, dict):
            raise BadJob(f'{source.name}:{number}: not an object. Each line must be one, such as {{"review": "…"}}.')


def _check_surrogates(source: Source) -> None:
    """Raise BadJob at half of a surrogate pair, which is no character: polars reads it as NUL."""
    for number, line in enumerate(byte_lines(source), 1):
        if b"\\ud" in line or b"\\uD" in line:
            try:
                refuse_lone_surrogates(_json_or_none(line.decode()))
            except UnicodeEncodeError as error:
                raise _lone_surrogate(source, number, error) from error


def _lone_surrogate(source: Source, number: int, error: UnicodeEncodeError) -> BadJob:
    return BadJob(
        f"{source.name}:{number}: half of a surrogate pair ({error.object[error.start]!r}) is no character."
        " Replace it with \\ufffd, or remove it."
    )
