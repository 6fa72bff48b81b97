"""Every schema has one shape, and a value that its column cannot hold is reported."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.answers.shapes import ANY, NO_ZONE, TOO_LARGE, Shape, mismatch, shape_of

TEXT, WHOLE, NUMBER, DAY, MOMENT = (Shape(kind) for kind in ("text", "integer", "number", "date", "datetime"))
ROOT = {
    "$defs": {
        "Mood": {"enum": ["glad", "sad"], "type": "string"},
        "Who": {"type": "object", "properties": {"name": {"type": "string"}, "mood": {"$ref": "#/$defs/Mood"}}},
        "Tree": {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}}},
        "a/b~c": {"type": "integer"},
    }
}
MOOD = Shape("word", words=("glad", "sad"))
WHO, WHOLES = Shape("object", fields={"name": TEXT, "mood": MOOD}), Shape("list", items=WHOLE)
NULL = {"type": "null"}


@pytest.mark.parametrize(
    ("schema", "shape"),
    [
        ({"type": "string"}, TEXT),
        ({"type": ["string", "null"]}, TEXT),
        ({"type": "string", "format": "date"}, DAY),
        ({"type": ["null", "string"], "format": "date-time"}, MOMENT),
        ({"type": "string", "format": "uri"}, TEXT),
        ({"type": "integer"}, WHOLE),
        ({"type": ["integer", "number"]}, NUMBER),
        ({"type": ["integer", "string"]}, ANY),
        ({"type": "boolean"}, Shape("boolean")),
        ({"const": "glad"}, Shape("word", words=("glad",))),
        ({"enum": ["glad", "sad", "sad", None]}, MOOD),
        ({"enum": [1, 2, None]}, WHOLE),
        ({"enum": [1, 0.5]}, NUMBER),
        ({"enum": [True, False]}, Shape("boolean")),
        ({"enum": [True, 1]}, ANY),
        ({"enum": ["a", 1]}, ANY),
        ({"enum": [None]}, ANY),
        ({"anyOf": [{"type": "integer"}, NULL]}, WHOLE),
        ({"anyOf": [{"$ref": "#/$defs/Mood"}, NULL], "default": None}, MOOD),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, ANY),
        ({"anyOf": [{"type": "number"}, {"type": "integer"}, NULL]}, NUMBER),
        ({"allOf": [{"$ref": "#/$defs/Mood"}], "description": "x"}, MOOD),
        ({"$ref": "#/$defs/a~1b~0c"}, WHOLE),
        ({"$ref": "#/$defs/none"}, ANY),
        ({"$ref": "https://h.example/schema"}, ANY),
        ({"type": "array", "items": {"$ref": "#/$defs/Who"}}, Shape("list", items=WHO)),
        ({"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}, Shape("list", items=WHOLES)),
        ({"type": "array"}, ANY),
        ({"type": "array", "items": {}}, ANY),
        ({"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "string"}}, ANY),
        ({"type": "object"}, ANY),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, ANY),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": True}, ANY),
        ({"type": "object", "properties": {"a": {}}}, Shape("object", fields={"a": ANY})),
        ({"$ref": "#/$defs/Tree"}, Shape("object", fields={"kids": ANY})),
        ({}, ANY),
        (True, ANY),
        (None, ANY),
    ],
)  # fmt: skip
def test_each_schema_has_one_shape(schema: Any, shape: Shape) -> None:
    assert shape_of(schema, ROOT) == shape


LIST = Shape("list", items=Shape("object", fields={"n": WHOLE, "at": MOMENT}))


@pytest.mark.parametrize(
    ("value", "shape", "reason"),
    [
        (None, WHOLE, None),
        (2**63, WHOLE, f"at /x: {TOO_LARGE}"),
        (2**63, NUMBER, None),
        (10**400, NUMBER, f"at /x: {TOO_LARGE}"),
        (True, WHOLE, None),
        ([{"n": 1}, {"n": 2**63}], LIST, f"at /x/1/n: {TOO_LARGE}"),
        ([{"n": None, "at": "2026-11-24T03:10:00Z"}, None], LIST, None),
        ([{"at": "2026-11-24T03:10:00"}], LIST, f"at /x/0/at: {NO_ZONE}"),
        ("2026-11-24", DAY, None),
        ("24 Nov", DAY, "at /x: not a date, as 2026-11-24: Invalid isoformat string: '24 Nov'"),
        ("2026-11-24T03:10:00+02:00", MOMENT, None),
        ("0001-01-01T00:00:00+23:00", MOMENT, "at /x: not a time, as 2026-11-24T03:10:00Z: date value out of range"),
        (10**400, ANY, None),
        ([{"a": float("inf")}], ANY, f"at /x: {TOO_LARGE}"),
    ],
)
def test_a_value_too_large_or_wrong_for_its_column_has_a_reason(value: Any, shape: Shape, reason: str | None) -> None:
    assert mismatch(value, shape, "/x") == reason


SCHEMAS = st.recursive(
    st.none() | st.booleans() | st.sampled_from(["string", "null", "#/$defs/Tree", "#", "integer"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "$ref", "anyOf", "enum", "items", "properties", "const", "format", "allOf"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(SCHEMAS)
def test_no_schema_raises_whatever_it_holds(schema: Any) -> None:
    assert isinstance(shape_of(schema, ROOT), Shape)
