"""Whether a value fits a schema is known in bounded time, and so is what is wrong with it."""

import time
from typing import Any

import pytest

from pipeline.answers.schema import EXPLAINED_VALUES_MAX, SLOW_PATTERN_CHARACTERS_MAX, SLOW_PATTERN_TEXT_MAX, Schema
from pipeline.records import BadJob

LONG = 1_000_000


def schema_of(part: dict[str, Any]) -> Schema:
    return Schema({"type": "object", "properties": {"s": part}})


@pytest.mark.parametrize(
    "items",
    [{"type": "string"}, {"enum": [str(n) for n in range(200)]}, {"oneOf": [{"type": "string"}, {"type": "object"}]}],
)
def test_a_value_with_a_hundred_thousand_faults_is_refused_at_once(items: dict[str, Any]) -> None:
    lists, wrong = {"type": "array", "items": items}, {"s": [1] * 100_000}
    for schema in (schema_of(lists), schema_of({"oneOf": [lists, lists]})):
        began = time.process_time()
        [error] = schema.errors(wrong, LONG)
        assert time.process_time() - began < 0.5  # seconds, on a busy machine, of which there were 4 to 60
        assert "more than 1,000" in error


def test_of_few_values_it_is_told_which_do_not_fit() -> None:
    errors = schema_of({"type": "array", "items": {"type": "string"}}).errors(
        {"s": [1] * (EXPLAINED_VALUES_MAX - 1)}, 1
    )
    assert len(errors) == EXPLAINED_VALUES_MAX - 1
    assert errors[0] == 'at /s/0: 1 is not of type "string"'


def test_many_values_that_fit_do() -> None:
    assert schema_of({"type": "array", "items": {"type": "string"}}).errors({"s": ["x"] * 100_000}, LONG) == []


@pytest.mark.parametrize(
    "pattern", [r"^(a+)+$", r"(a*)*b", r"^(\w+\s*){1,500}$", r"(?=a*b)a", r"(a+)\1b", r"^(?!.*x).*$"]
)
def test_a_pattern_that_others_match_slowly_takes_no_longer_with_a_long_string(pattern: str) -> None:
    schema = schema_of({"type": "string", "pattern": pattern})
    began = time.process_time()
    assert schema.errors({"s": "a" * LONG + "!"}, LONG) != [] or pattern == r"(?=a*b)a"
    assert time.process_time() - began < 1  # seconds, on a busy machine


def test_a_pattern_with_look_around_is_matched_as_ever_with_strings_of_usual_length() -> None:
    schema = schema_of({"anyOf": [{"type": "string", "pattern": "^(?!.*secret)"}, {"type": "array"}]})
    for length in (10, SLOW_PATTERN_CHARACTERS_MAX - 10):
        assert schema.errors({"s": "a" * length}, LONG) == []
        assert len(schema.errors({"s": "a" * length + " secret"}, LONG)) == 1
    whole = {"s": "a" * SLOW_PATTERN_TEXT_MAX}
    assert schema.errors(whole, SLOW_PATTERN_TEXT_MAX) == []
    assert schema.errors(whole, SLOW_PATTERN_TEXT_MAX + 1) == [
        "more than 10,000 characters in a string that has a pattern"
    ]
    assert schema.errors({"s": "a", "pattern": "x" * LONG}, LONG) == []
    assert schema.errors({"s": 5}, LONG) == schema.errors({"s": 5}, 5) != []


@pytest.mark.parametrize(
    "schema", [{"type": "array"}, {"type": "object", "properties": 3}, {"type": "object", "$ref": "https://h/s.json"}]
)
def test_what_is_no_schema_of_an_object_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(BadJob, match="Nothing was sent"):
        Schema(schema)
