"""What is wrong with a text is told with its place, whatever the text is."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.job import Job
from pipeline.records import BadJob
from pipeline.schema import Contract, contract_of

MINIMAL = {"endpoint.base_url": "http://127.0.0.1:9/v1", "endpoint.model": "m"}
REVIEW = {
    "type": "object",
    "properties": {
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
        "who": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}}},
            "required": ["name"],
        },
        "free": {},
    },
    "required": ["stars"],
    "additionalProperties": False,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["stars", "who", "name"]), inner),
    max_leaves=10,
)


def error_of(text: str, schema: dict[str, Any] = REVIEW) -> str:
    held = Contract(schema).read(text)
    assert held.error is not None
    assert held.values == {}
    return held.error


def complaint(schema: dict[str, Any]) -> str:
    with pytest.raises(BadJob) as caught:
        Contract(schema)
    return str(caught.value)


def labels(*names: str) -> Contract:
    contract = contract_of(Job.load(["in.csv"], settings={**MINIMAL, "answer.labels": list(names)}))
    assert contract is not None
    return contract


def test_a_label_is_held_and_any_other_word_is_an_error_at_its_place() -> None:
    contract = labels("positive", "negative")
    assert contract.read('{"label": "positive"}').values == {"label": "positive"}
    assert (contract.read('{"label": "meh"}').error or "").startswith('at /label: "meh"')
    assert (contract.read('{"label": "positive", "why": "x"}').error or "").startswith("at /: ")
    assert (contract.read("{}").error or "").startswith('at /: "label"')
    assert (contract.read("positive").error or "").startswith("not JSON")


def test_free_text_has_no_contract() -> None:
    assert contract_of(Job.load(["in.csv"], settings=MINIMAL)) is None


def test_a_schema_that_the_job_file_names_is_the_contract(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps(REVIEW))
    (tmp_path / "job.toml").write_text('[answer]\nschema = "s.json"\n')
    contract = contract_of(Job.load(["in.csv"], config=tmp_path / "job.toml", settings=MINIMAL))
    assert contract is not None
    assert contract.read('{"stars": 9}').error is not None


def test_what_fits_a_nested_schema_is_held_whole() -> None:
    value = {"stars": 4, "who": {"name": "Ada \U0001f642", "tags": ["a", "b"]}, "free": [None, 1.5]}
    assert Contract(REVIEW).read(json.dumps(value)).values == value


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"stars": 6}', "at /stars: "),
        ('{"stars": "4"}', "at /stars: "),
        ('{"stars": 4, "who": {}}', "at /who: "),
        ('{"stars": 4, "who": {"name": 3}}', "at /who/name: "),
        ('{"stars": 4, "who": {"name": "a", "tags": ["x", 7]}}', "at /who/tags/1: "),
        ("{}", "at /: "),
        ("[]", "at /: "),
        ("null", "at /: "),
        ('"{}"', "at /: "),
    ],
)
def test_every_error_names_its_place(text: str, place: str) -> None:
    assert error_of(text).startswith(place)


def test_all_errors_are_told_at_once() -> None:
    told = error_of('{"stars": 6, "who": {"name": 3}}')
    assert "at /stars: " in told
    assert "; at /who/name: " in told


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "Sure! It is positive.",
        '{"stars": 4',
        '{"stars": 4} and more',
        '```json\n{"stars": 4}\n```',
        '{"stars": 4, "free": NaN}',
        '{"stars": 4, "free": -Infinity}',
        '{"stars": 4, "free": "\\ud83d"}',
        '{"stars": 4, "\\ud83d": 1}',
        '{"stars": 4, "free": ' + "[" * 5000 + "]" * 5000 + "}",
        "[" * 100_000,
        '{"stars": ' + "9" * 5000 + "}",
        "\x00",
        "\ufeff{}",
    ],
)
def test_what_is_not_json_is_said_to_be_none(text: str) -> None:
    assert error_of(text).startswith("not JSON: ")


def test_a_whole_pair_of_surrogates_is_a_character() -> None:
    assert Contract(REVIEW).read('{"stars": 4, "free": "\\ud83d\\ude42"}').values["free"] == "\U0001f642"


@given(st.text() | st.text('{}[]":,0123456789.eE+-\\untrfalsNI "') | JSON.map(json.dumps))
def test_no_text_raises_and_each_is_held_or_has_an_error(text: str) -> None:
    held = Contract(REVIEW).read(text)
    if held.error is None:
        assert held.values == json.loads(text)
    else:
        assert held.error.startswith(("not JSON", "at /"))


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "object", "properties": {"stars": {"type": "strin"}}}, "at /properties/stars/type: "),
        ({"type": "object", "properties": {"stars": {"minimum": "1"}}}, "at /properties/stars/minimum: "),
        ({"type": "object", "properties": {"name": {"pattern": "("}}}, "at /properties/name/pattern: "),
        ({"type": "object", "properties": []}, "at /properties: "),
        ({"type": "object", "required": "stars"}, "at /required: "),
        ({"type": "objekt"}, "at /type: "),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}}, "/$defs/none"),
    ],
)
def test_a_schema_that_is_none_is_a_bad_job_with_the_path_inside(schema: dict[str, Any], place: str) -> None:
    told = complaint(schema)
    assert told.startswith("answer.schema is not a JSON Schema: ")
    assert place in told
    assert told.endswith("Nothing was sent.")


@pytest.mark.parametrize("schema", [{}, {"type": "array"}, {"type": "string"}, {"type": ["object", "null"]}])
def test_a_schema_of_anything_but_an_object_is_refused(schema: dict[str, Any]) -> None:
    assert '"type" is to be "object"' in complaint(schema)


@pytest.mark.parametrize("keyword", ["$ref", "$schema"])
def test_an_address_inside_a_schema_is_not_visited(keyword: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/schema.json"
        assert address in complaint({"type": "object", keyword: address})
        with pytest.raises(BlockingIOError):  # nobody came
            listener.accept()


def test_a_schema_may_refer_to_its_own_parts() -> None:
    tree = {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}}}
    assert Contract(tree).read('{"kids": [{"kids": []}]}').error is None
    assert error_of('{"kids": [{"kids": 1}]}', tree).startswith("at /kids/0/kids: ")
