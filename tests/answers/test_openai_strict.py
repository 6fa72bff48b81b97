"""A strict schema is one that strict mode accepts, and what fits it fits the job's own schema."""

import json
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.answers.openai_strict import strict_schema


def closed(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("given_schema", "sent"),
    [
        (closed(a=TEXT), closed(a=TEXT)),
        ({"type": "object", "properties": {"a": TEXT}, "required": ["a"]}, closed(a=TEXT)),
        (closed(a={"enum": ["x", "y"]}), closed(a={"type": "string", "enum": ["x", "y"]})),
        (closed(a={"enum": ["x", None]}), closed(a={"type": ["string", "null"], "enum": ["x", None]})),
        (closed(a={"const": 3}), closed(a={"type": "integer", "enum": [3]})),
        (
            {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                **closed(a={**TEXT, "default": "", "title": "A"}),
            },
            closed(a={**TEXT, "title": "A"}),
        ),
        (
            {"type": "object", "properties": {"a": {"anyOf": [TEXT, {"type": "null"}], "default": None}}},
            closed(a={"anyOf": [TEXT, {"type": "null"}]}),
        ),
        (
            {"type": "object", "properties": {"a": {"type": ["integer", "null"]}}},
            closed(a={"type": ["integer", "null"]}),
        ),
        (
            closed(a={"type": "array", "items": {"type": "object", "properties": {"b": TEXT}, "required": ["b"]}}),
            closed(a={"type": "array", "items": closed(b=TEXT)}),
        ),
        (
            {**closed(a={"$ref": "#/$defs/B", "description": "the b"}, c={"$ref": "#/$defs/B"}), "$defs": {"B": TEXT}},
            {**closed(a={**TEXT, "description": "the b"}, c={"$ref": "#/$defs/B"}), "$defs": {"B": TEXT}},
        ),
        (
            {**closed(kids={"type": "array", "items": {"$ref": "#"}})},
            {**closed(kids={"type": "array", "items": {"$ref": "#"}})},
        ),
    ],
)
def test_a_schema_is_made_strict_where_the_same_answers_fit(given_schema: dict[str, Any], sent: dict[str, Any]) -> None:
    assert strict_schema(given_schema) == sent


@pytest.mark.parametrize(
    "loose",
    [
        {"type": "object", "properties": {"a": TEXT}},
        {"type": "object"},
        closed(a={"type": "object"}),
        closed(a={"type": "object", "properties": {"b": TEXT}, "additionalProperties": True}),
        closed(a={}),
        closed(a=True),
        closed(a={**TEXT, "minLength": 1}),
        closed(a={**TEXT, "format": "uri"}),
        closed(a={"type": "array"}),
        closed(a={"type": "array", "items": TEXT, "uniqueItems": True}),
        closed(a={"oneOf": [TEXT, {"type": "integer"}]}),
        closed(a={"$ref": "#/$defs/B", "minLength": 1}),
        closed(a={"$ref": "#/$defs/none", "description": "x"}),
        closed(a={"enum": [[1]]}),
        closed(a={"enum": [str(number) for number in range(1001)]}),
        {**closed(a=TEXT), "anyOf": [{"required": ["a"]}]},
        {"type": "object", "properties": {"a": {"enum": ["x"], "type": ["string", "null"]}}},
    ],
)
def test_a_schema_that_strict_mode_would_change_or_reject_is_not_made_strict(loose: dict[str, Any]) -> None:
    assert strict_schema(loose) is None


def test_a_schema_that_is_nested_too_deeply_is_not_made_strict() -> None:
    schema = closed(a=TEXT)
    for _ in range(9):
        schema = closed(a=schema)
    assert strict_schema(schema) is not None
    assert strict_schema(closed(a=closed(a=schema))) is None


LEAVES = st.sampled_from(
    [
        TEXT,
        {"type": "integer"},
        {"type": ["number", "null"]},
        {"enum": ["x", None]},
        {"const": "y"},
        {"type": "boolean"},
    ]
)


def objects(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    properties = st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    return st.builds(
        lambda named, required, more: {
            "type": "object",
            "properties": named,
            "required": [name for name in named if name in required],
            **more,
        },
        properties,
        st.sets(st.sampled_from("abc")),
        st.sampled_from([{}, {"additionalProperties": False}]),
    )


SCHEMAS = objects(
    st.recursive(
        LEAVES,
        lambda inner: (
            objects(inner)
            | st.builds(lambda items: {"type": "array", "items": items}, inner)
            | st.builds(lambda one: {"anyOf": [one, {"type": "null"}]}, inner)
        ),
        max_leaves=4,
    )
)
VALUES = st.recursive(
    st.sampled_from(["x", "y", 1, 0.5, True, None]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=6,
)


@given(schema=SCHEMAS, value=VALUES)
def test_what_fits_the_strict_schema_fits_the_jobs_own(schema: dict[str, Any], value: Any) -> None:
    sent = strict_schema(schema)
    if sent is not None and jsonschema_rs.validator_for(sent).is_valid(value):
        assert jsonschema_rs.validator_for(schema).is_valid(value)
    assert json.dumps(sent)
