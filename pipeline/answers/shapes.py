"""What a JSON Schema says of a value, as one shape that a column can have; references and nulls are resolved.

Every column may hold null, so a schema that admits it has the shape of what else it admits. What has no single shape
(a mixture, a tuple, an object of any keys, a schema that holds itself) is `json`: any value, kept as JSON text.
"""

import json
import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, Literal

from ..records import Record

Kind = Literal["text", "word", "integer", "number", "boolean", "date", "datetime", "list", "object", "json"]


class Shape(Record, frozen=True):
    """The shape of a value: its kind, and what is within."""

    kind: Kind
    words: tuple[str, ...] = ()
    """Of a `word`: all that it may be, in the schema's order."""
    items: "Shape | None" = None
    """Of a `list`: the shape of each element."""
    fields: Mapping[str, "Shape"] = {}
    """Of an `object`: the shape of each property."""


ANY = Shape("json")
PLAIN: dict[str, Shape] = {
    "string": Shape("text"),
    "integer": Shape("integer"),
    "number": Shape("number"),
    "boolean": Shape("boolean"),
}
FORMATS: dict[object, Shape] = {"date": Shape("date"), "date-time": Shape("datetime")}
TOO_LARGE = "a number larger than its column can hold"
ZONED = "a time without its zone, such as Z or +02:00"


def shape_of(schema: object, root: Mapping[str, Any]) -> Shape:
    """The shape of what `schema` describes; its references point into `root`. Never raises."""
    return _shape(schema, root, ())


def _shape(schema: object, root: Mapping[str, Any], within: tuple[str, ...]) -> Shape:
    if not isinstance(schema, Mapping):
        return ANY
    if isinstance(address := schema.get("$ref"), str):
        target = None if address in within else resolve_pointer(address, root)
        return _shape(target, root, (*within, address))
    for keyword in ("anyOf", "oneOf", "allOf"):
        if isinstance(choices := schema.get(keyword), list):
            return _one_of([_shape(each, root, within) for each in choices if not _is_null(each)])
    if isinstance(values := [schema["const"]] if "const" in schema else schema.get("enum"), list):
        return _of_values([value for value in values if value is not None])
    kinds = schema.get("type")
    named = [kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if kind != "null"]
    return _one_of([_of_kind(kind, schema, root, within) for kind in named])


def _of_kind(kind: object, schema: Mapping[str, Any], root: Mapping[str, Any], within: tuple[str, ...]) -> Shape:
    if kind == "array" and "prefixItems" not in schema:
        items = _shape(schema.get("items"), root, within)
        return ANY if items == ANY else Shape("list", items=items)
    properties = schema.get("properties")
    if kind == "object" and isinstance(properties, Mapping) and properties:
        if schema.get("additionalProperties", False) is not False or "patternProperties" in schema:
            return ANY
        return Shape("object", fields={name: _shape(each, root, within) for name, each in properties.items()})
    if kind == "string" and schema.get("format") in FORMATS:
        return FORMATS[schema["format"]]
    return PLAIN.get(str(kind), ANY)


def _of_values(values: list[object]) -> Shape:
    if values and all(isinstance(value, str) for value in values):
        return Shape("word", words=tuple(dict.fromkeys(str(value) for value in values)))
    if values and all(isinstance(value, bool) for value in values):
        return PLAIN["boolean"]
    if any(isinstance(value, (bool, str, list, dict)) for value in values) or not values:
        return ANY
    return PLAIN["integer" if all(isinstance(value, int) for value in values) else "number"]


def _one_of(shapes: list[Shape]) -> Shape:
    """The shape that all have; a whole number is a number, too."""
    if len(shapes) > 1 and {each.kind for each in shapes} == {"integer", "number"}:
        return PLAIN["number"]
    return shapes[0] if shapes and all(each == shapes[0] for each in shapes) else ANY


def _is_null(schema: object) -> bool:
    return isinstance(schema, Mapping) and (schema.get("type") == "null" or schema.get("const", ...) is None)


def resolve_pointer(address: str, root: Mapping[str, Any]) -> object:
    """What a reference such as `#/$defs/Person` points to; None if it points elsewhere."""
    found: object = root
    for part in address.removeprefix("#").split("/")[1:] if address.startswith("#") else ["elsewhere"]:
        name = part.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def mismatch(value: object, shape: Shape, place: str = "") -> str | None:
    """Why a value, though its schema admits it, cannot stand in a column of this shape, and where; None if it can."""
    if value is None:
        return None
    if shape.kind == "list" and isinstance(value, list) and shape.items is not None:
        each = (mismatch(item, shape.items, f"{place}/{number}") for number, item in enumerate(value))
        return next((told for told in each if told), None)
    if shape.kind == "object" and isinstance(value, dict):
        each = (mismatch(value.get(name), field, f"{place}/{name}") for name, field in shape.fields.items())
        return next((told for told in each if told), None)
    why = _misfit(value, shape.kind)
    return f"at {place}: {why}" if why else None


def _misfit(value: object, kind: Kind) -> str | None:
    if kind == "json":
        try:
            json.dumps(value, allow_nan=False)
        except ValueError:  # 1e999 is infinite to Python, for which JSON has no word
            return TOO_LARGE
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        whole = kind == "integer" and not -(2**63) <= value < 2**63
        broken = kind == "number" and not -sys.float_info.max <= value <= sys.float_info.max
        return TOO_LARGE if whole or broken else None
    if isinstance(value, str) and kind in ("date", "datetime"):
        try:
            return _unreadable(value, kind)
        except (ValueError, OverflowError) as error:
            return f"not a {'date, as 2026-11-24' if kind == 'date' else 'time, as 2026-11-24T03:10:00Z'}: {error}"
    return None


def _unreadable(value: str, kind: Kind) -> str | None:
    if kind == "date":
        date.fromisoformat(value)
        return None
    read = datetime.fromisoformat(value)
    read.astimezone(UTC)  # at the ends of the calendar there is no such time
    return ZONED if read.tzinfo is None else None
