"""A text is read whatever it is, and an error names the place of what does not fit."""

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_files import MINIMAL, REVIEW

from pipeline.answers.contract import (
    SEARCHED_CHARACTERS_MAX,
    Contract,
    RepairKind,
    contract_of,
)
from pipeline.job.job import Job
from pipeline.records import BadJob

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["stars", "who", "name"]), inner),
    max_leaves=10,
)


def error_of(text: str, schema: dict[str, Any] = REVIEW) -> str:
    parsed = Contract(schema).read(text)
    assert parsed.error is not None
    assert parsed.values == {}
    return parsed.error


def complaint(schema: dict[str, Any]) -> str:
    with pytest.raises(BadJob) as caught:
        Contract(schema)
    return str(caught.value)


def labels(*names: str) -> Contract:
    contract = contract_of(Job.load(["in.csv"], settings={**MINIMAL, "answer.labels": list(names)}))
    assert contract is not None
    return contract


def test_a_label_is_read_and_any_other_word_is_an_error_at_its_place() -> None:
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


def test_values_that_fit_a_nested_schema_are_read_as_a_whole() -> None:
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


def test_all_errors_are_reported_at_once() -> None:
    errors = error_of('{"stars": 6, "who": {"name": 3}}')
    assert "at /stars: " in errors
    assert "; at /who/name: " in errors


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "Sure! It is positive.",
        '{"stars": 4',
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
def test_a_text_that_is_not_json_is_called_that(text: str) -> None:
    assert error_of(text).startswith("not JSON: ")


def test_a_pair_of_surrogates_is_a_character() -> None:
    assert Contract(REVIEW).read('{"stars": 4, "free": "\\ud83d\\ude42"}').values["free"] == "\U0001f642"


@given(st.text() | st.text('{}[]":,0123456789.eE+-\\untrfalsNI "') | JSON.map(json.dumps))
def test_no_text_raises_and_each_has_values_or_an_error(text: str) -> None:
    parsed = Contract(REVIEW).read(text, is_complete=True)
    if parsed.error is None and not parsed.repair_kind:
        assert parsed.values == json.loads(text)
    elif parsed.error is not None:
        assert parsed.error.startswith(("not JSON", "at /"))


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
def test_a_schema_that_is_no_json_schema_is_a_bad_job_with_the_place_inside(schema: dict[str, Any], place: str) -> None:
    message = complaint(schema)
    assert message.startswith("answer.schema is not a JSON Schema: ")
    assert place in message
    assert message.endswith("Nothing was sent.")


@pytest.mark.parametrize("schema", [{}, {"type": "array"}, {"type": "string"}, {"type": ["object", "null"]}])
def test_a_schema_of_anything_but_an_object_is_refused(schema: dict[str, Any]) -> None:
    assert '"type" must be "object"' in complaint(schema)


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


MOOD = {
    "type": "object",
    "properties": {"mood": {"enum": ["glad", "sad"]}, "why": {"type": "string"}},
    "required": ["mood", "why"],
}
FITS = '{"mood": "glad", "why": "sun"}'
VALUES = {"mood": "glad", "why": "sun"}


@pytest.mark.parametrize(
    ("text", "repair_kind"),
    [
        (FITS, ""),
        (f"  {FITS}\n", ""),
        (f"```json\n{FITS}\n```", "fence"),
        (f"\n```\n{FITS}\n```\n\n", "fence"),
        (f"Sure! Here it is:\n```json\n{FITS}\n```\nAnything else?", "prose"),
        (f"The answer is {FITS}.", "prose"),
        (f"In {{this}} and \\frac{{1}}{{2}}: {FITS}", "prose"),
        (f"{FITS}\n{FITS}", "prose"),
        (f'{{"mood": "meh"}} No, rather: {FITS}', "prose"),
        *(
            (f'{begin}Perhaps {{"mood": "sad", "why": "rain"}}?{end}\n{FITS}', "prose")
            for begin, end in (
                ("<think>", "</think>"),
                ("", "</think>"),
                ("<thinking>", "</thinking>"),
                ("[THINK]", "[/THINK]"),
                ("<reasoning>", "</Reasoning>"),
                ("<seed:think>", "</seed:think>"),
                ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
                ("<|begin_of_thought|>", "<|end_of_thought|>"),
                ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
            )
        ),
        ('{"mood": "Glad", "why": "sun"}', "spelling"),
        ('{"Mood": " GLAD. ", "WHY": "sun"}', "spelling"),
        ('```json\n{"mood": "GLAD", "why": "sun"}\n```', "fence"),
        (f"[{FITS}]", "unwrapped"),
        (json.dumps(FITS), "unwrapped"),
        (json.dumps({"answer": {"Mood": "Glad", "why": "sun"}}), "unwrapped"),
        (json.dumps([json.dumps({"result": VALUES})]), "unwrapped"),
        ("{'mood': 'glad', 'why': 'sun'}", "json-repair"),
        ('{"mood": "glad", "why": "sun",}', "json-repair"),
        ('{"mood": "glad" "why": "sun"}', "json-repair"),
        ('{mood: "glad", why: "sun"', "json-repair"),
        ('```json\n{"mood": "glad", "why": "sun",}\n```', "json-repair"),
        ('Here: {"mood": "glad", // obviously\n "why": "sun"}', "json-repair"),
    ],
)
def test_values_in_a_fence_in_prose_or_in_broken_json_are_read_and_it_is_noted(
    text: str, repair_kind: RepairKind
) -> None:
    parsed = Contract(MOOD).read(text, is_complete=True)
    assert (parsed.values, parsed.error, parsed.repair_kind) == (VALUES, None, repair_kind)


def test_broken_json_is_mended_as_a_whole_and_no_part_is_taken_for_all_of_it() -> None:
    parsed = Contract(REVIEW).read('{"stars": 4, "who": {"name": "Ada", "tags": []},}', is_complete=True)
    assert parsed.values == {"stars": 4, "who": {"name": "Ada", "tags": []}}
    assert parsed.repair_kind == "json-repair"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("I'm sorry, but I can't help with that.", "not JSON"),
        ("", "not JSON"),
        ("{}", "at /: "),
        ("Here: {}", "not JSON"),
        ('{"mood": "meh", "why": "sun"}', "at /mood: "),
        ('```json\n{"mood": "meh", "why": "sun"}\n```', "at /mood: "),
        ('Well: {"mood": "glad"}', 'at /: "why"'),
        ('{"mood": "glad", "why": {"mood": "sad", "why": "rain"}}', "at /why: "),
        (f'{FITS} or else {{"mood": "sad", "why": "rain"}}', "more than one answer"),
        (f"[{FITS}, {FITS}]", "at /: "),
        (json.dumps(json.dumps(json.dumps([[FITS]]))), "at /: "),
        ('{"mood": "gladness", "why": "sun"}', "at /mood: "),
        ('{"MOOD": "glad", "Mood": "sad", "why": "sun"}', "at /: "),
        ("{'mood': 'meh'}", "not JSON"),
        ("glad", "not JSON"),
        ("{" * 5_000, "not JSON"),
        ('{"mood":' * 5_000, "not JSON"),
        ("[" * 5_000 + "{", "not JSON"),
    ],
)
def test_a_text_that_fits_in_no_way_is_an_error_that_says_why(text: str, place: str) -> None:
    parsed = Contract(MOOD).read(text, is_complete=True)
    assert (parsed.values, parsed.repair_kind) == ({}, "")
    assert (parsed.error or "").startswith(place)


def test_broken_json_is_mended_only_if_the_model_finished() -> None:
    assert Contract(MOOD).read('{"mood": "glad", "why": "sun', is_complete=True).repair_kind == "json-repair"
    assert (Contract(MOOD).read('{"mood": "glad", "why": "sun', is_complete=False).error or "").startswith("not JSON")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("positive", "positive"),
        (" Positive.\n", "positive"),
        ('"positive"', "positive"),
        ("**NEGATIVE**", "negative"),
        ("<think>It is positive?</think>negative", "negative"),
        ("It is positive.", None),
        ("positive or negative", None),
        ("posit", None),
        ("", None),
    ],
)
def test_a_bare_label_counts_if_it_is_the_whole_answer(text: str, label: str | None) -> None:
    parsed = labels("positive", "negative").read(text, is_complete=True)
    assert parsed.values == ({} if label is None else {"label": label})
    assert parsed.repair_kind == ("" if label is None else "prose")
    assert labels("positive", "negative").read(text, is_complete=False).values == {}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"label": "Positive"}', "spelling"),
        ('{"LABEL": "POSITIVE"}', "spelling"),
        ('["positive"]', "unwrapped"),
        ('{"sentiment": "Positive"}', "unwrapped"),
        ('[{"label": "positive"}]', "unwrapped"),
        (r'"{\"label\": \"positive\"}"', "unwrapped"),
        ('Maybe negative.</thinking>{"label": "positive"}', "prose"),
        ("[THINK]negative?[/THINK]Positive", "prose"),
    ],
)
def test_a_label_with_one_level_of_dress_is_read(text: str, kind: str) -> None:
    parsed = labels("positive", "negative").read(text, is_complete=True)
    assert (parsed.values, parsed.repair_kind) == ({"label": "positive"}, kind)


@pytest.mark.parametrize(
    "text",
    ['{"not": "positive"}', '{"error": "positive"}', '{"example": {"label": "positive"}}', "[{}]", '{"answer": {}}'],
)
def test_what_stands_under_another_name_is_not_taken_for_the_answer(text: str) -> None:
    assert labels("positive", "negative").read(text, is_complete=True).error is not None
    assert Contract({"type": "object", "properties": {"a": {}}}).read("[{}]", is_complete=True).error is not None


def test_thoughts_behind_an_answer_do_not_hide_it() -> None:
    parsed = labels("positive", "negative").read('{"label": "positive"}\n<reasoning>Why?</reasoning>', is_complete=True)
    assert parsed.values == {"label": "positive"}


def test_broken_json_of_an_answer_that_may_have_been_cut_is_not_mended() -> None:
    read = labels("positive", "negative").read
    assert read("{'label': 'positive'}", is_complete=True).repair_kind == "json-repair"
    assert read("{'label': 'positive'}", is_complete=True, is_mended=False).error is not None


def test_labels_that_differ_only_in_case_are_different_labels() -> None:
    contract = labels("us", "US", "etc.")
    assert [contract.read(text, is_complete=True).values.get("label") for text in ("us", "US.", "Us", "Etc")] == [
        "us",
        "US",
        None,
        "etc.",
    ]


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ('{"labels": ["a", "b"]}', ["a", "b"]),
        ('{"labels": []}', []),
        ("a, b", ["a", "b"]),
        ('["B"]', ["b"]),
        ("a\nb", ["a", "b"]),
        ("a and b", None),
        ("a, c", None),
        ('{"labels": ["c"]}', None),
    ],
)
def test_any_number_of_labels_is_read_as_a_list(text: str, parsed: list[str] | None) -> None:
    job = Job.load(["in.csv"], settings={**MINIMAL, "answer.labels": ["a", "b"], "answer.multi": True})
    contract = contract_of(job)
    assert contract is not None
    assert contract.read(text, is_complete=True).values == ({} if parsed is None else {"labels": parsed})


@pytest.mark.parametrize("part", ['"', "{", "{}", '{"\\"', '\\"', "}{", '{"a":1}', "```\n", "``` ", "</think>"])
@pytest.mark.parametrize("end", ["", "\\", "```"])
def test_no_text_takes_long_to_read(part: str, end: str) -> None:
    text = '{"' + (part * SEARCHED_CHARACTERS_MAX)[: SEARCHED_CHARACTERS_MAX - 5] + end
    began = time.process_time()
    Contract(MOOD).read(text, is_complete=True)
    assert time.process_time() - began < 1  # seconds, on a busy machine


def test_a_text_of_more_values_than_any_model_writes_is_not_read() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "array", "items": {"type": "integer"}}}}
    assert Contract(schema).read('{"n": [' + "1," * 400_000 + "1]}").error is None
    assert Contract(schema).read('{"n": [' + "1," * 500_000 + "1]}").error == "more than 500,000 values"


def test_an_example_whose_answer_does_not_fit_is_reported_before_anything_is_sent() -> None:
    def job(examples: list[dict[str, Any]]) -> Job:
        return Job.load(["in.csv"], settings={**MINIMAL, "answer.schema": MOOD, "prompt.examples": examples})

    fitting = {"text": "x", "mood": "glad", "why": "sun"}
    assert contract_of(job([fitting])) is not None
    with pytest.raises(BadJob, match=r'the answer of example 2 does not fit: at /mood: "meh" is not'):
        contract_of(job([fitting, {**fitting, "mood": "meh"}]))
    with pytest.raises(BadJob, match=r'example 1 does not fit: at /: "why" is a required property'):
        contract_of(job([{"mood": "glad", "why": None}]))
