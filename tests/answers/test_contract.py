"""What is wrong with a text is told with its place, whatever the text is."""

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.answers.contract import (
    MENDED_CHARACTERS_MAX,
    REPAIRED_BRACKETS_MAX,
    REPAIRED_CHARACTERS_MAX,
    REPEATED_CHARACTERS_MAX,
    AnswerChecker,
    Contract,
    RepairKind,
    contract_of,
)
from pipeline.job.job import Job
from pipeline.records import Answer, BadJob, Failure, Outcome, Request, Status

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
    held = Contract(REVIEW).read(text, whole=True)
    if held.error is None and not held.repair_kind:
        assert held.values == json.loads(text)
    elif held.error is not None:
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
        (f'<think>Perhaps {{"mood": "sad", "why": "rain"}}?</think>\n{FITS}', "prose"),
        ("{'mood': 'glad', 'why': 'sun'}", "json-repair"),
        ('{"mood": "glad", "why": "sun",}', "json-repair"),
        ('{"mood": "glad" "why": "sun"}', "json-repair"),
        ('{mood: "glad", why: "sun"', "json-repair"),
        ('```json\n{"mood": "glad", "why": "sun",}\n```', "json-repair"),
        ('Here: {"mood": "glad", // obviously\n "why": "sun"}', "json-repair"),
    ],
)
def test_what_fits_but_for_its_dress_is_held_and_says_how(text: str, repair_kind: RepairKind) -> None:
    held = Contract(MOOD).read(text, whole=True)
    assert (held.values, held.error, held.repair_kind) == (VALUES, None, repair_kind)


def test_of_broken_json_the_whole_is_mended_and_no_part_of_it_taken_for_all() -> None:
    held = Contract(REVIEW).read('{"stars": 4, "who": {"name": "Ada", "tags": []},}', whole=True)
    assert held.values == {"stars": 4, "who": {"name": "Ada", "tags": []}}
    assert held.repair_kind == "json-repair"


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
        (f"[{FITS}]", "at /: "),
        ("{'mood': 'meh'}", "not JSON"),
        ("glad", "not JSON"),
        ("{" * 5_000, "not JSON"),
        ('{"mood":' * 5_000, "not JSON"),
        ("[" * 5_000 + "{", "not JSON"),
    ],
)
def test_what_does_not_fit_in_any_dress_is_an_error_that_says_why(text: str, place: str) -> None:
    held = Contract(MOOD).read(text, whole=True)
    assert (held.values, held.repair_kind) == ({}, "")
    assert (held.error or "").startswith(place)


def test_broken_json_is_mended_only_when_the_model_came_to_its_end() -> None:
    assert Contract(MOOD).read('{"mood": "glad", "why": "sun', whole=True).repair_kind == "json-repair"
    assert (Contract(MOOD).read('{"mood": "glad", "why": "sun', whole=False).error or "").startswith("not JSON")


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
        ('["positive"]', None),
    ],
)
def test_a_bare_label_is_one_if_it_is_all_that_was_said(text: str, label: str | None) -> None:
    held = labels("positive", "negative").read(text, whole=True)
    assert held.values == ({} if label is None else {"label": label})
    assert held.repair_kind == ("" if label is None else "prose")
    assert labels("positive", "negative").read(text, whole=False).values == {}


def test_labels_that_differ_in_case_alone_are_told_apart() -> None:
    contract = labels("us", "US", "etc.")
    assert [contract.read(text, whole=True).values.get("label") for text in ("us", "US.", "Us", "Etc")] == [
        "us",
        "US",
        None,
        "etc.",
    ]


@pytest.mark.parametrize(
    ("text", "held"),
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
def test_any_number_of_labels_are_held_as_a_list(text: str, held: list[str] | None) -> None:
    job = Job.load(["in.csv"], settings={**MINIMAL, "answer.labels": ["a", "b"], "answer.multi": True})
    contract = contract_of(job)
    assert contract is not None
    assert contract.read(text, whole=True).values == ({} if held is None else {"labels": held})


BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Well?"}], "max_tokens": 8}).encode()
FIRST = Request(key="0" * 64, body=BODY)


def checker(**settings: Any) -> AnswerChecker:
    given = {"answer.schema": MOOD, "parameters.max_tokens": 8, **settings}
    return AnswerChecker(
        Job.load(["in.csv"], settings={**MINIMAL, **{k.replace("__", "."): v for k, v in given.items()}})
    )


def said(text: str, finish_reason: str = "stop") -> Answer:
    return Answer(text=text, finish_reason=finish_reason)


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (said(FITS), "ok"),
        (said(f"```\n{FITS}\n```"), "ok"),
        (said("{'mood': 'glad', 'why': 'sun'}"), "ok"),
        (said("I'm sorry, but I can't."), "invalid"),
        (said('{"mood": "meh", "why": ""}'), "invalid"),
        (said('{"mood": "glad"}'), "invalid"),
        (said('{"mood": "glad", "why": "s', "length"), "truncated"),
        (said(FITS, "length"), "truncated"),
        (said("", "content_filter"), "filtered"),
        (Answer(text="No.", finish_reason="stop", refusal="No."), "refused"),
        (Failure(kind="too_long", reason="9"), "failed"),
        (Failure(kind="filtered", reason="9"), "filtered"),
    ],
)
def test_what_became_of_an_answer_and_whether_it_is_asked_for_again(outcome: Outcome, status: Status) -> None:
    steps = checker()
    assert steps.check(outcome)[0] == status
    assert (steps.follow_up(FIRST, outcome) is not None) == (status == "invalid")
    assert checker(answer__repairs=0).follow_up(FIRST, outcome) is None


def test_an_answer_that_does_not_fit_is_asked_for_again_with_what_is_wrong_so_often_and_no_more() -> None:
    steps, request, keys = checker(), FIRST, {FIRST.key}
    for number in (1, 2):
        following = steps.follow_up(request, said('{"mood": "meh", "why": ""}'))
        assert following is not None
        assert following.repair == number
        request = following
        keys.add(request.key)
    assert steps.follow_up(request, said('{"mood": "meh", "why": ""}')) is None
    assert len(keys) == 3
    body = json.loads(request.body)
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user", "assistant", "user"]
    assert body["messages"][1]["content"] == '{"mood": "meh", "why": ""}'
    assert 'at /mood: "meh" is not one of "glad" or "sad"' in body["messages"][2]["content"]
    assert body["max_tokens"] == 8


def test_a_truncated_answer_is_asked_for_once_more_with_more_room_if_that_is_wanted() -> None:
    cut = said('{"mood": "gl', "length")
    assert checker().follow_up(FIRST, cut) is None
    steps = checker(answer__grow_on_truncation=64)
    grown = steps.follow_up(FIRST, cut)
    assert grown is not None
    assert (grown.grown, grown.max_tokens, grown.repair) == (True, 64, 0)
    assert json.loads(grown.body) == {**json.loads(BODY), "max_tokens": 64}
    assert steps.follow_up(grown, cut) is None
    repaired = steps.follow_up(grown, said("meh"))
    assert repaired is not None
    assert (repaired.grown, repaired.max_tokens, repaired.repair) == (True, 64, 1)
    assert steps.follow_up(FIRST, said(FITS, "length")) is None


def test_free_text_that_was_cut_off_grows_under_the_name_that_the_job_has_for_it() -> None:
    settings = {**MINIMAL, "parameters": {"max_completion_tokens": 8}, "answer.grow_on_truncation": 16}
    body = BODY.replace(b'"max_tokens"', b'"max_completion_tokens"')
    grown = AnswerChecker(Job.load(["in.csv"], settings=settings)).follow_up(
        Request("0", body), said("Once upon", "length")
    )
    assert grown is not None
    assert json.loads(grown.body)["max_completion_tokens"] == 16


def test_a_row_that_has_more_room_already_is_not_asked_with_less() -> None:
    roomy = Request("0", BODY, max_tokens=100)
    assert checker(answer__grow_on_truncation=64).follow_up(roomy, said("{", "length")) is None


def test_a_follow_up_is_found_without_its_body() -> None:
    steps = checker(answer__grow_on_truncation=64)
    for outcome in (said("meh"), said("{", "length")):
        with_body, bare = steps.follow_up(FIRST, outcome), steps.follow_up(Request(FIRST.key, b""), outcome)
        assert with_body is not None
        assert bare is not None
        assert (bare.key, bare.body) == (with_body.key, b"")


def test_the_golden_keys_of_follow_ups() -> None:
    # If one changes, every answer that was asked for again is paid for again.
    steps = checker(answer__grow_on_truncation=64)
    keys = [following.key for o in (said("meh"), said("{", "length")) if (following := steps.follow_up(FIRST, o))]
    assert keys == [
        "651fca5309f30fd90436ee3b46fbc50a7e1104ee42fa1b0f13f15dd84c04d6da",
        "d057e19abd2e8f885bd5c3d4c51e1b0a864e887e468a4c5a82284a19bff718f7",
    ]


def test_another_answer_is_followed_by_another_request() -> None:
    one, other = (checker().follow_up(FIRST, said(text)) for text in ("meh", "hm"))
    assert one is not None
    assert other is not None
    assert one.key != other.key


def test_of_a_long_bad_answer_the_ends_are_shown_again() -> None:
    following = checker().follow_up(FIRST, said("[" + '"x", ' * 10_000 + "0]"))
    assert following is not None
    shown = json.loads(following.body)["messages"][1]["content"]
    assert len(shown) < REPEATED_CHARACTERS_MAX + 10
    assert shown.startswith('["x"')
    assert shown.endswith("0]")
    assert len(following.body) < 2 * REPEATED_CHARACTERS_MAX + 5_000


BRACKETED = "{'" * REPAIRED_BRACKETS_MAX


@pytest.mark.parametrize(
    "text",
    [
        *(
            (part * MENDED_CHARACTERS_MAX)[:MENDED_CHARACTERS_MAX]
            for part in ('"', "{", "{}", '{"\\"', "}{", '{"a":1}')
        ),
        *(
            (BRACKETED + part * REPAIRED_CHARACTERS_MAX)[:REPAIRED_CHARACTERS_MAX]
            for part in ('"', "'", "'\"", "\\", ",:")
        ),
    ],
)
def test_no_text_holds_up_the_others(text: str) -> None:
    began = time.process_time()
    Contract(MOOD).read(text, whole=True)
    assert time.process_time() - began < 3  # seconds, on a busy machine


def test_an_example_whose_answer_does_not_fit_is_told_before_anything_is_sent() -> None:
    fitting = {"text": "x", "mood": "glad", "why": "sun"}
    assert checker(prompt__examples=[fitting]).contract is not None
    with pytest.raises(BadJob, match=r'the answer of example 2 does not fit: at /mood: "meh" is not'):
        checker(prompt__examples=[fitting, {**fitting, "mood": "meh"}])
    with pytest.raises(BadJob, match=r'example 1 does not fit: at /: "why" is a required property'):
        checker(prompt__examples=[{"mood": "glad", "why": None}])


def test_the_cells_of_an_example_are_read_by_their_shapes() -> None:
    row = {"stars": "4", "who": '{"name": "Ada", "tags": []}', "free": "as it is"}
    job = Job.load(["in.csv"], settings={**MINIMAL, "answer.schema": REVIEW, "prompt.examples": [row]})
    assert json.loads(job.answer_of(row)) == {"stars": 4, "who": {"name": "Ada", "tags": []}, "free": "as it is"}
    settings = {**MINIMAL, "answer.labels": ["a", "b"], "answer.multi": True, "answer.name": "topics"}
    job = Job.load(["in.csv"], settings=settings)
    assert job.answer_of({"labels": "a"}) == job.answer_of({"topics": "a"})  # a new name needs no new examples
    assert [job.answer_of({"topics": cell}) for cell in ("a, b", '["b"]')] == [
        '{"labels": ["a", "b"]}',
        '{"labels": ["b"]}',
    ]
