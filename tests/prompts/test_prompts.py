"""A row and a template become a Request: what is in it, what is in its key, and what cannot be asked."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.job.job import Job
from pipeline.prompts.prompts import Prompts
from pipeline.records import BadJob, Failure, Request

BASE = {"endpoint.base_url": "https://api.example.org/v1", "endpoint.model": "model-x"}


def prompts(columns: list[str], **flags: Any) -> Prompts:
    dotted = {name.replace("__", "."): value for name, value in flags.items()}
    return Prompts(Job.load(["in.csv"], "out.csv", settings={**BASE, **dotted}), columns)


def asked(row: dict[str, Any], **flags: Any) -> Request:
    return request_of(prompts(list(row), **flags), row)


def request_of(made: Prompts, row: dict[str, Any]) -> Request:
    [request] = made.requests(row)
    assert isinstance(request, Request)
    return request


def body(row: dict[str, Any], **flags: Any) -> dict[str, Any]:
    return json.loads(asked(row, **flags).body)


def reason(row: dict[str, Any], **flags: Any) -> str:
    failure = prompts(list(row), **flags).requests(row)
    assert isinstance(failure, Failure)
    return failure.reason


def test_the_golden_key() -> None:
    # If this changes, every answer that anyone ever paid for is asked again.
    request = asked(
        {"review": "Naïve 🙂"},
        prompt__template="Is this good?\n{{ review }}",
        prompt__system="You label.",
        parameters={"temperature": 0.0, "max_tokens": 8},
        answer__labels=["yes", "no"],
    )
    assert request.key == "41fc91c8ad75ea35f4c9a8ecf5d780070efd5478315d2c2732a85ccfdcac48ef"


def test_the_body_holds_model_messages_and_parameters() -> None:
    made = body({"q": "Hi"}, prompt__template="{{ q }}", prompt__system="Be {{ q }}.", parameters={"temperature": 0})
    assert made == {
        "model": "model-x",
        "messages": [{"role": "system", "content": "Be Hi."}, {"role": "user", "content": "Hi"}],
        "temperature": 0,
        "stream": False,
    }


def test_the_example_request_of_the_amethyst_page_is_reproduced() -> None:
    flags = {"endpoint__base_url": "https://free.amethyst.ltd/v1", "endpoint__model": "gemini-2.5-pro"}
    expected = {"model": "gemini-2.5-pro", "messages": [{"role": "user", "content": "你好，世界！"}]}
    assert body({"prompt": "你好，世界！"}, **flags) == expected | {"stream": False}


@pytest.mark.parametrize(
    "change",
    [
        {"endpoint__model": "other"},
        {"endpoint__revision": "2"},
        {"endpoint__name": "other"},
        {"endpoint__base_url": "https://elsewhere.example.org/v1"},
        {"parameters": {"temperature": 1}},
        {"prompt__system": "x"},
        {"prompt__template": "{{ q }}!"},
        {"answer__labels": ["a", "b"]},
    ],
)
def test_what_the_model_would_see_is_in_the_key(change: dict[str, Any]) -> None:
    plain = {"prompt__template": "{{ q }}"}
    assert asked({"q": "x"}, **plain).key != asked({"q": "x"}, **{**plain, **change}).key


@pytest.mark.parametrize(
    "change",
    [
        {"endpoint__headers": {"x": "y"}},
        {"limits__concurrency": 3},
        {"output__prefix": "m_"},
        {"endpoint__api_key_env": "SOME_KEY"},
        {"endpoint__api_key_command": ["gcloud", "auth", "print-access-token"]},
        {"endpoint__timeout_seconds": 3},
    ],
)
def test_what_the_model_does_not_see_is_not_in_the_key(change: dict[str, Any]) -> None:
    plain = {"prompt__template": "{{ q }}"}
    assert asked({"q": "x"}, **plain).key == asked({"q": "x"}, **{**plain, **change}).key


def test_a_server_that_moves_keeps_its_answers_under_its_name() -> None:
    flags = {"prompt__template": "{{ q }}", "endpoint__name": "ours"}
    moved = {**flags, "endpoint__base_url": "http://127.0.0.1:9/v1"}
    assert asked({"q": "x"}, **flags).key == asked({"q": "x"}, **moved).key


def test_renaming_the_label_column_keeps_the_key() -> None:
    flags = {"prompt__template": "{{ q }}", "answer__labels": ["a", "b"]}
    assert asked({"q": "x"}, **flags).key == asked({"q": "x"}, **flags, answer__name="verdict").key


def test_a_whole_number_is_the_same_however_it_is_written() -> None:
    one = asked({"q": "x"}, prompt__template="{{ q }}", parameters={"temperature": 0})
    other = asked({"q": "x"}, prompt__template="{{ q }}", parameters={"temperature": 0.0})
    assert one.key == other.key


def test_a_row_becomes_a_request_for_each_sample_of_each_model() -> None:
    flags = {"prompt__template": "{{ q }}", "parameters": {"seed": 7}}
    made = prompts(["q"], answer__samples=2, answer__models=["a", "b"], **flags).requests({"q": "x"})
    assert isinstance(made, list)
    bodies = [json.loads(request.body) for request in made]
    assert [(each["model"], each["seed"]) for each in bodies] == [("a", 7), ("b", 7), ("a", 8), ("b", 8)]
    assert [request.model for request in made] == ["a", "b", "a", "b"]
    assert len({request.key for request in made}) == 4


def test_the_first_opinion_of_several_is_that_of_a_job_of_one() -> None:
    flags = {"prompt__template": "{{ q }}", "endpoint__model": "a"}
    several = prompts(["q"], answer__samples=3, answer__models=["a", "b"], **flags).requests({"q": "x"})
    assert isinstance(several, list)
    assert (several[0].key, several[0].body) == (asked({"q": "x"}, **flags).key, asked({"q": "x"}, **flags).body)


def test_probabilities_are_asked_for_under_a_key_of_their_own() -> None:
    plain, told = (asked({"q": "x"}, prompt__template="{{ q }}", answer__logprobs=each) for each in (False, True))
    assert json.loads(told.body)["logprobs"] is True
    assert "logprobs" not in json.loads(plain.body)
    assert plain.key != told.key


def test_the_form_of_a_contract_is_in_no_body() -> None:
    made = body({"q": "x"}, prompt__template="{{ q }}", answer__labels=["a", "b"])
    assert set(made) == {"model", "messages", "stream"}


def test_a_missing_column_is_reported_before_anything_is_sent_with_the_near_name() -> None:
    with pytest.raises(BadJob, match="no column 'reviev'; did you mean 'review'"):
        prompts(["review"], prompt__template="{{ reviev }}")
    with pytest.raises(BadJob, match=r"prompt\.system: the input has no column 'x'"):
        prompts(["review"], prompt__template="{{ review }}", prompt__system="{{ x }}")
    with pytest.raises(BadJob, match=r"no column 'prompt'[\s\S]*prompt\.column"):
        prompts(["text"])


def test_a_broken_template_is_reported_with_its_line() -> None:
    with pytest.raises(BadJob, match=r"prompt\.template, line 2"):
        prompts(["q"], prompt__template="{{ q }}\n{% if %}")


@pytest.mark.parametrize("name", ["for", "two words", "naïve-é", "self", "row"])
def test_a_column_of_any_name_can_be_read(name: str) -> None:
    made = body({name: "seen"}, prompt__template="{{ row['" + name + "'] }}" if name != "row" else "{{ row }}")
    assert made["messages"][0]["content"] == "seen"


def test_only_the_columns_in_use_are_read() -> None:
    assert prompts(["a", "b", "c"], prompt__template="{{ a }}", prompt__system="{{ c }}").columns == ("a", "c")
    assert prompts(["a", "b"], prompt__template="{{ row.a }}").columns == ("a", "b")


@pytest.mark.parametrize(("value", "why"), [(None, "null"), ("", "empty"), (" \n", "empty")])
def test_an_empty_or_null_prompt_is_a_row_error(value: str | None, why: str) -> None:
    assert why in reason({"prompt": value})


def test_a_null_that_the_template_prints_is_a_row_error_and_one_it_handles_is_not() -> None:
    assert "prints a null" in reason({"a": None}, prompt__template="Say {{ a }}")
    assert body({"a": None}, prompt__template="Say {{ a or '' }}.")["messages"][0]["content"] == "Say ."


def test_a_rows_text_is_never_itself_a_template() -> None:
    made = body({"a": "{{ 7 * 7 }}"}, prompt__template="{{ a }}")
    assert made["messages"][0]["content"] == "{{ 7 * 7 }}"


def test_a_template_cannot_choose_at_random() -> None:
    with pytest.raises(BadJob, match="random"):
        prompts(["a"], prompt__template="{{ [1, 2] | random }} {{ a }}")


def test_tojson_is_not_escaped_for_html() -> None:
    made = body({"a": "<it's & é>"}, prompt__template="{{ a | tojson }}")
    assert made["messages"][0]["content"] == '"<it\'s & é>"'


CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Go"}]


def test_a_chat_comes_as_a_list_or_as_json_text() -> None:
    assert body({"messages": CHAT})["messages"] == CHAT
    assert asked({"messages": CHAT}).key == asked({"messages": json.dumps(CHAT)}).key


def test_the_job_s_system_message_stands_before_a_chat_that_has_none() -> None:
    system = {"role": "system", "content": "S"}
    assert body({"messages": CHAT}, prompt__system="S")["messages"] == [system, *CHAT]
    own = [{"role": "system", "content": "own"}, *CHAT]
    assert body({"messages": own}, prompt__system="S")["messages"] == own


def test_null_fields_of_a_struct_are_left_out() -> None:
    chat = [{"role": "user", "content": "Hi", "name": None}]
    assert body({"messages": chat})["messages"] == [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    "chat",
    [
        [],
        "[]",
        "no json",
        '{"role": "user"}',
        [{"content": "x"}],
        [{"role": "user", "content": None}],
        ["x"],
        "[" * 9999,
    ],
)
def test_a_cell_that_is_no_chat_is_a_row_error(chat: Any) -> None:
    assert reason({"messages": chat})


def test_half_a_surrogate_pair_is_a_row_error() -> None:
    assert reason({"messages": '[{"role": "user", "content": "\\ud800"}]'})


def test_the_same_row_always_gives_the_same_request() -> None:
    made = prompts(["a", "b"], prompt__template="{{ a }} {{ row.b }}")
    assert made.requests({"a": "1", "b": "2"}) == made.requests({"b": "2", "a": "1"})


LABELLED = {"prompt__template": "Good? {{ review }}", "answer__labels": ["yes", "no"]}
EXAMPLES = [{"review": "Fine.", "label": "yes"}, {"review": "Bad.", "label": "no"}]


def test_examples_are_asked_as_rows_are_and_answered_as_the_contract_wants() -> None:
    made = body({"review": "So so."}, **LABELLED, prompt__system="S", prompt__examples=EXAMPLES)["messages"]
    assert made == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Good? Fine."},
        {"role": "assistant", "content": '{"label": "yes"}'},
        {"role": "user", "content": "Good? Bad."},
        {"role": "assistant", "content": '{"label": "no"}'},
        {"role": "user", "content": "Good? So so."},
    ]


def test_examples_are_in_the_key() -> None:
    keys = {asked({"review": "x"}, **LABELLED, prompt__examples=EXAMPLES[:number]).key for number in range(3)}
    assert len(keys) == 3


def test_examples_stand_after_the_system_message_that_a_chat_brings() -> None:
    chat = [{"role": "system", "content": "own"}, *CHAT]
    shown = [{"messages": '[{"role": "user", "content": "Q"}]', "answer": "A"}]
    made = body({"messages": chat}, prompt__examples=shown)["messages"]
    assert [message["content"] for message in made] == ["own", "Q", "A", *(message["content"] for message in CHAT)]


def test_an_example_that_lacks_what_the_template_reads_is_reported_before_anything_is_sent() -> None:
    with pytest.raises(BadJob, match=r"example 1 has no column 'review'.*did you mean 'reviews'"):
        prompts(["review"], **LABELLED, prompt__examples=[{"reviews": "Fine.", "label": "yes"}])
    with pytest.raises(BadJob, match="example 2: the template prints a null"):
        prompts(["review"], **LABELLED, prompt__examples=[EXAMPLES[0], {"review": None, "label": "yes"}])
    with pytest.raises(BadJob, match="no answer in label: "):
        prompts(["review"], **LABELLED, prompt__examples=[{"review": "Fine."}])


PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 16


def test_images_lie_beside_the_input_and_are_keyed_by_what_they_hold(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(PNG + (b"other" if name == "c.png" else b""))
    settings = {**BASE, "prompt.template": "What is it?", "prompt.images": ["photo"]}
    pictured = Prompts(Job.load([tmp_path / "in.csv"], "out.csv", settings=settings), ["id", "photo"])
    assert pictured.columns == ("photo",)
    one, same, other = (request_of(pictured, {"photo": name}) for name in ("a.png", "b.png", "c.png"))
    assert one == same
    assert other.key != one.key
    parts = json.loads(one.body)["messages"][0]["content"]
    assert parts[0] == {"type": "text", "text": "What is it?"}
    assert parts[1]["image_url"]["url"].startswith("data:image/png;base64,iVBORw0KGgo")
    several = request_of(pictured, {"photo": ["a.png", "https://h.example/d.png"]})
    assert [part["type"] for part in json.loads(several.body)["messages"][0]["content"]] == [
        "text", "image_url", "image_url",
    ]  # fmt: skip
    missing = pictured.requests({"photo": "none.png"})
    assert isinstance(missing, Failure)
    assert "none.png: there is no such file" in missing.reason
    assert pictured.messages({"photo": "none.png"}) == [{"role": "user", "content": "What is it?"}]


def test_images_of_inputs_in_several_folders_are_refused() -> None:
    settings = {**BASE, "prompt.template": "x", "prompt.images": ["photo"]}
    with pytest.raises(BadJob, match="these inputs lie in several"):
        Prompts(Job.load(["a/in.csv", "b/in.csv"], "out.csv", settings=settings), ["photo"])
    with pytest.raises(BadJob, match=r"prompt\.images\[0\]: the input has no column 'photo'; did you mean 'photos'"):
        Prompts(Job.load(["in.csv"], "out.csv", settings=settings), ["photos"])


OWN = {
    "prompt__template": "{{ q }}",
    "columns__model": "m",
    "columns__max_tokens": "n",
    "parameters": {"max_tokens": 8},
}


def test_a_row_may_have_its_own_model_and_its_own_max_tokens_and_null_is_the_job_s() -> None:
    own = asked({"q": "x", "m": "other", "n": "64"}, **OWN)
    assert (own.model, own.max_tokens) == ("other", 64)
    made = json.loads(own.body)
    assert (made["model"], made["max_tokens"]) == ("other", 64)
    plain = asked({"q": "x", "m": None, "n": None}, **OWN)
    assert (plain.model, plain.max_tokens) == ("", None)
    assert plain.key == asked({"q": "x"}, prompt__template="{{ q }}", parameters={"max_tokens": 8}).key
    assert plain.key == asked({"q": "x", "m": "model-x", "n": 8}, **OWN).key
    other = {"prompt__template": "{{ q }}", "parameters": {"max_tokens": 64}, "endpoint__model": "other"}
    assert own.key == asked({"q": "x"}, **other).key


def test_a_row_s_max_tokens_goes_by_the_name_that_the_job_uses_for_it() -> None:
    flags = {**OWN, "parameters": {"max_completion_tokens": 8}}
    assert body({"q": "x", "m": None, "n": 64}, **flags)["max_completion_tokens"] == 64


@pytest.mark.parametrize(
    ("m", "n", "why"),
    [
        ("", None, "is not the name of a model"),
        (3, None, "is not the name of a model"),
        (None, "many", "is not a number of tokens"),
        (None, 0, "is not a number of tokens"),
        (None, "-1", "is not a number of tokens"),
        (None, 1.5, "is not a number of tokens"),
        (None, True, "is not a number of tokens"),
    ],
)
def test_a_bad_value_of_a_row_s_own_setting_is_that_row_s_failure(m: Any, n: Any, why: str) -> None:
    assert why in reason({"q": "x", "m": m, "n": n}, **OWN)


def test_a_missing_column_of_settings_is_reported() -> None:
    with pytest.raises(BadJob, match=r"columns\.model: the input has no column 'm'"):
        prompts(["q", "n"], **OWN)
