"""A JSON Schema as OpenAI's strict mode takes it, where that leaves the same answers fitting.

Strict mode takes a part of JSON Schema, and refuses all else with a 400. From its guide to structured outputs: every
object closed, every property required, only these keywords and formats, and so much nesting and so many words.
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
"""These say nothing of which values fit, and are not taken there."""
FORMATS = frozenset({None, "date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid"})
NESTED_MAX = 10
WORDS_MAX = 1_000
TYPE_NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


class _Loose(Exception):
    """The schema takes what strict mode cannot say."""


def strict_schema(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """The schema as OpenAI's strict mode takes it; None if that would change which answers fit.

    Objects are closed where the schema leaves it open, and a property that may be null is required, so that it is given
    as null instead of left out. What fits this schema fits the given one.
    """
    if "anyOf" in schema:
        return None
    defined = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
    try:
        sent = _strict({name: value for name, value in schema.items() if name not in defined}, schema, ())
        for name, parts in defined.items():
            sent[name] = {each: _strict(part, schema, ()) for each, part in parts.items()}
        return sent  # noqa: TRY300 - the raise that is caught is far below
    except _Loose:
        return None


def _strict(schema: object, root: Mapping[str, Any], within: tuple[str, ...], depth: int = 0) -> dict[str, Any]:
    if not isinstance(schema, Mapping) or depth > NESTED_MAX:
        raise _Loose
    kept = {name: value for name, value in schema.items() if name not in ANNOTATIONS}
    if "$ref" in kept:
        return _referred(kept, root, within, depth)
    if "const" in kept:
        kept["enum"] = [kept.pop("const")]
    if set(kept) - KEYWORDS or kept.get("format") not in FORMATS:
        raise _Loose
    if "enum" in kept:
        kept = {"type": _types_of(kept["enum"]), **kept}
    if "anyOf" in kept:
        kept["anyOf"] = [_strict(each, root, within, depth) for each in kept["anyOf"]]
    elif "type" not in kept:
        raise _Loose
    kinds = kept.get("type", [])  # a name, or several: either tells what is in it
    if "object" in kinds:
        kept |= _closed(kept, root, within, depth)
    if "array" in kinds:
        kept["items"] = _strict(kept.get("items"), root, within, depth + 1)
    return kept


def _referred(kept: dict[str, Any], root: Mapping[str, Any], within: tuple[str, ...], depth: int) -> dict[str, Any]:
    """A reference stands alone: with a description beside it, what it points to stands in its place."""
    address = kept["$ref"]
    beside = {name: value for name, value in kept.items() if name != "$ref"}
    target = resolve_pointer(address, root)
    if set(beside) - {"description", "title"} or not isinstance(target, Mapping):
        raise _Loose
    if not beside or address in within:
        return {"$ref": address}
    return _strict({**target, **beside}, root, (*within, address), depth)


def _closed(schema: Mapping[str, Any], root: Mapping[str, Any], within: tuple[str, ...], depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or schema.get("additionalProperties", False) is not False:
        raise _Loose
    closed = {name: _strict(each, root, within, depth + 1) for name, each in properties.items()}
    required = schema.get("required", [])
    if any(name not in required and not _admits_null(each) for name, each in properties.items()):
        raise _Loose
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
    if "" in names or len(values) > WORDS_MAX:
        raise _Loose
    return names[0] if len(names) == 1 else names
