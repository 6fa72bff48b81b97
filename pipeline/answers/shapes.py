"""The shape of a value that a JSON Schema describes: one that a column can have. References and nulls are resolved.

Every column may hold null, so a schema that allows null has the shape of what else it allows. A schema without a single
shape (several types, a tuple, an object with any keys, a schema that contains itself) has the shape `json`: any value,
kept as JSON text.
"""

import json
import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, Literal

from ..records import Record

Kind = Literal["text", "word", "integer", "number", "boolean", "date", "datetime", "list", "object", "json"]
"""`word` is one of a list of strings."""


class Shape(Record, frozen=True):
    """The shape of a value: its kind, and the shapes within it."""

    kind: Kind
    words: tuple[str, ...] = ()
    """The allowed strings of a `word`, in the schema's order."""
    items: "Shape | None" = None
    """The shape of each element of a `list`."""
    fields: Mapping[str, "Shape"] = {}
    """The shape of each property of an `object`."""


ANY = Shape("json")
SHAPES_OF_TYPES: dict[str, Shape] = {
    "string": Shape("text"),
    "integer": Shape("integer"),
    "number": Shape("number"),
    "boolean": Shape("boolean"),
}
SHAPES_OF_FORMATS: dict[object, Shape] = {"date": Shape("date"), "date-time": Shape("datetime")}
NEVER_MISMATCHED = ("text", "word", "boolean")
"""Shapes whose columns hold every value that fits the schema."""
TOO_LARGE = "a number larger than its column can hold"
NO_ZONE = "a time without its zone, such as Z or +02:00"


def shape_of(schema: object, root: Mapping[str, Any]) -> Shape:
    """The shape that `schema` describes; its references point into `root`. Never raises."""
    return _shape(schema, root, ())


def resolve_pointer(address: str, root: Mapping[str, Any]) -> object:
    """Follow a reference such as `#/$defs/Person` (a JSON Pointer, RFC 6901); None if it points nowhere in `root`."""
    found: object = root
    for part in address.removeprefix("#").split("/")[1:] if address.startswith("#") else ["elsewhere"]:
        name = part.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def mismatch(value: object, shape: Shape, place: str = "") -> str | None:
    """The reason why a column of this shape cannot hold a value that fits its schema, with the place in the value.

    None if the column can hold it.
    """
    if value is None:
        return None
    if shape.kind == "list" and isinstance(value, list) and shape.items is not None:
        if shape.items.kind in NEVER_MISMATCHED:
            return None
        each = (mismatch(item, shape.items, f"{place}/{number}") for number, item in enumerate(value))
        return next((reason for reason in each if reason), None)
    if shape.kind == "object" and isinstance(value, dict):
        each = (mismatch(value.get(name), field, f"{place}/{name}") for name, field in shape.fields.items())
        return next((reason for reason in each if reason), None)
    reason = _mismatch_of_scalar(value, shape.kind)
    return f"at {place}: {reason}" if reason else None


def _shape(schema: object, root: Mapping[str, Any], within: tuple[str, ...]) -> Shape:
    """`within`: the references that were followed on the way here."""
    if not isinstance(schema, Mapping):
        return ANY
    if isinstance(address := schema.get("$ref"), str):
        target = None if address in within else resolve_pointer(address, root)
        return _shape(target, root, (*within, address))
    for keyword in ("anyOf", "oneOf", "allOf"):
        if isinstance(choices := schema.get(keyword), list):
            return _common_shape([_shape(each, root, within) for each in choices if not _is_null(each)])
    if isinstance(values := [schema["const"]] if "const" in schema else schema.get("enum"), list):
        return _shape_of_values([value for value in values if value is not None])
    types = schema.get("type")
    named = [each for each in (types if isinstance(types, list) else [types]) if each != "null"]
    return _common_shape([_shape_of_type(each, schema, root, within) for each in named])


def _shape_of_type(name: object, schema: Mapping[str, Any], root: Mapping[str, Any], within: tuple[str, ...]) -> Shape:
    if name == "array" and "prefixItems" not in schema:
        items = _shape(schema.get("items"), root, within)
        return ANY if items == ANY else Shape("list", items=items)
    properties = schema.get("properties")
    if name == "object" and isinstance(properties, Mapping) and properties:
        if schema.get("additionalProperties", False) is not False or "patternProperties" in schema:
            return ANY
        return Shape("object", fields={key: _shape(each, root, within) for key, each in properties.items()})
    if name == "string" and schema.get("format") in SHAPES_OF_FORMATS:
        return SHAPES_OF_FORMATS[schema["format"]]
    return SHAPES_OF_TYPES.get(str(name), ANY)


def _shape_of_values(values: list[object]) -> Shape:
    """The shape of the values of an `enum` or `const`."""
    if values and all(isinstance(value, str) for value in values):
        return Shape("word", words=tuple(dict.fromkeys(str(value) for value in values)))
    if values and all(isinstance(value, bool) for value in values):
        return SHAPES_OF_TYPES["boolean"]
    if any(isinstance(value, (bool, str, list, dict)) for value in values) or not values:
        return ANY
    return SHAPES_OF_TYPES["integer" if all(isinstance(value, int) for value in values) else "number"]


def _common_shape(shapes: list[Shape]) -> Shape:
    """The shape that all of them have. An integer is a number, too."""
    if len(shapes) > 1 and {each.kind for each in shapes} == {"integer", "number"}:
        return SHAPES_OF_TYPES["number"]
    return shapes[0] if shapes and all(each == shapes[0] for each in shapes) else ANY


def _is_null(schema: object) -> bool:
    return isinstance(schema, Mapping) and (schema.get("type") == "null" or schema.get("const", ...) is None)


def _mismatch_of_scalar(value: object, kind: Kind) -> str | None:
    if kind == "json":
        try:
            json.dumps(value, allow_nan=False)
        except ValueError:  # Python reads 1e999 as infinity, which JSON cannot express
            return TOO_LARGE
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        is_too_large_integer = kind == "integer" and not -(2**63) <= value < 2**63
        is_too_large_number = kind == "number" and not -sys.float_info.max <= value <= sys.float_info.max
        return TOO_LARGE if is_too_large_integer or is_too_large_number else None
    if isinstance(value, str) and kind in ("date", "datetime"):
        try:
            return _mismatch_of_time(value, kind)
        except (ValueError, OverflowError) as error:
            return f"not a {'date, as 2026-11-24' if kind == 'date' else 'time, as 2026-11-24T03:10:00Z'}: {error}"
    return None


def _mismatch_of_time(value: str, kind: Kind) -> str | None:
    """Raises ValueError or OverflowError for a text that is no date or time."""
    if kind == "date":
        date.fromisoformat(value)
        return None
    time = datetime.fromisoformat(value)
    time.astimezone(UTC)  # raises where UTC would be before year 1 or after 9999
    return NO_ZONE if time.tzinfo is None else None
