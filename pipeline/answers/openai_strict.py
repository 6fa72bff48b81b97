"""Translate a JSON Schema for OpenAI's strict mode, where that does not change which answers fit.

Strict mode accepts a subset of JSON Schema, and rejects everything else with a 400. Its rules are from OpenAI's guide
to structured outputs: every object is closed (`additionalProperties: false`), every property is required, and keywords,
formats, nesting and the number of enum values are limited.
"""

from collections.abc import Mapping
from typing import Any

from .shapes import resolve_pointer

KEYWORDS = frozenset(
    {"$ref", "additionalProperties", "anyOf", "description", "enum", "exclusiveMaximum"}
    | {"exclusiveMinimum", "format", "items", "maxItems", "maximum", "minItems", "minimum", "multipleOf", "pattern"}
    | {"properties", "required", "title", "type"}
)
ANNOTATIONS = frozenset({"$comment", "$id", "$schema", "default", "deprecated", "examples", "readOnly", "writeOnly"})
"""Keywords that strict mode does not accept; they can be left out, as they do not change which values fit."""
FORMATS = frozenset({None, "date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid"})
NESTING_MAX = 10
"""Levels of nested objects and arrays."""
ENUM_VALUES_MAX = 1_000
TYPE_NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


class _NotStrict(Exception):
    """The schema cannot be expressed in strict mode."""


def strict_schema(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """The schema in strict mode's subset, or None if it cannot be expressed there. What fits it fits `schema`, too.

    Objects whose schema says nothing about additional properties are closed. A property that may be null becomes
    required: it is then given as null instead of left out.
    """
    if "anyOf" in schema:
        return None
    defined = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
    try:
        sent = _strict({name: value for name, value in schema.items() if name not in defined}, schema, ())
        for name, parts in defined.items():
            sent[name] = {each: _strict(part, schema, ()) for each, part in parts.items()}
        return sent  # noqa: TRY300 - the exception comes from deep inside the calls above
    except _NotStrict:
        return None


def _strict(schema: object, root: Mapping[str, Any], within: tuple[str, ...], depth: int = 0) -> dict[str, Any]:
    if not isinstance(schema, Mapping) or depth > NESTING_MAX:
        raise _NotStrict
    kept = {name: value for name, value in schema.items() if name not in ANNOTATIONS}
    if "$ref" in kept:
        return _reference(kept, root, within, depth)
    if "const" in kept:
        kept["enum"] = [kept.pop("const")]
    if set(kept) - KEYWORDS or kept.get("format") not in FORMATS:
        raise _NotStrict
    if "enum" in kept:
        kept = {"type": _types_of(kept["enum"]), **kept}
    if "anyOf" in kept:
        kept["anyOf"] = [_strict(each, root, within, depth) for each in kept["anyOf"]]
    elif "type" not in kept:
        raise _NotStrict
    types = kept.get("type", [])  # a name or a list of names: `in` works for both
    if "object" in types:
        kept |= _closed_object(kept, root, within, depth)
    if "array" in types:
        kept["items"] = _strict(kept.get("items"), root, within, depth + 1)
    return kept


def _reference(kept: dict[str, Any], root: Mapping[str, Any], within: tuple[str, ...], depth: int) -> dict[str, Any]:
    """A reference, which must stand alone: with a description beside it, it is replaced by its target."""
    address = kept["$ref"]
    beside = {name: value for name, value in kept.items() if name != "$ref"}
    target = resolve_pointer(address, root)
    if set(beside) - {"description", "title"} or not isinstance(target, Mapping):
        raise _NotStrict
    if not beside or address in within:
        return {"$ref": address}
    return _strict({**target, **beside}, root, (*within, address), depth)


def _closed_object(
    schema: Mapping[str, Any], root: Mapping[str, Any], within: tuple[str, ...], depth: int
) -> dict[str, Any]:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or schema.get("additionalProperties", False) is not False:
        raise _NotStrict
    closed = {name: _strict(each, root, within, depth + 1) for name, each in properties.items()}
    required = schema.get("required", [])
    if any(name not in required and not _admits_null(each) for name, each in properties.items()):
        raise _NotStrict
    return {"properties": closed, "required": list(closed), "additionalProperties": False}


def _admits_null(schema: Mapping[str, Any]) -> bool:
    if None not in schema.get("enum", [None]):
        return False
    if "type" in schema:
        return "null" in schema["type"]
    options = schema.get("anyOf", [])
    return "enum" in schema or any(isinstance(each, Mapping) and _admits_null(each) for each in options)


def _types_of(values: list[object]) -> str | list[str]:
    names = list(dict.fromkeys(TYPE_NAMES.get(type(value), "") for value in values))
    if "" in names or len(values) > ENUM_VALUES_MAX:
        raise _NotStrict
    return names[0] if len(names) == 1 else names
