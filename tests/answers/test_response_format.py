"""A contract reaches the model in whatever form its endpoint takes, and nothing else of the request changes."""

import json
from typing import Any

import pytest

from pipeline.answers.response_format import RESPONSE_FORMATS, ContractEncoder
from pipeline.job.job import Job

MINIMAL = {"endpoint.base_url": "http://127.0.0.1:9/v1", "endpoint.model": "m"}
MOOD: dict[str, Any] = {
    "type": "object",
    "properties": {"mood": {"enum": ["glad", "sad"]}, "why": {"type": "string"}},
    "required": ["mood", "why"],
}
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Well?"}], "max_tokens": 8}).encode()


def forms(**settings: Any) -> ContractEncoder:
    given = {"answer.schema": MOOD, **{name.replace("__", "."): value for name, value in settings.items()}}
    return ContractEncoder(Job.load(["in.csv"], settings={**MINIMAL, **given}))


def conveyed(form: Any, messages: list[Any] | None = None, **settings: Any) -> dict[str, Any]:
    body = BODY if messages is None else json.dumps({**json.loads(BODY), "messages": messages}).encode()
    sent: dict[str, Any] = json.loads(forms(**settings).conveyed(body, form))
    return sent


def test_a_schema_goes_along_as_one_that_is_enforced_strictly_where_it_can_be() -> None:
    sent = conveyed("json_schema")
    assert {name: sent[name] for name in ("model", "messages", "max_tokens")} == json.loads(BODY)
    form = sent["response_format"]
    assert (form["type"], form["json_schema"]["name"], form["json_schema"]["strict"]) == ("json_schema", "answer", True)
    assert form["json_schema"]["schema"]["additionalProperties"] is False
    loose = {**MOOD, "properties": {**MOOD["properties"], "more": {"type": "object"}}}
    form = conveyed("json_schema", answer__schema=loose)["response_format"]
    assert form["json_schema"] == {"name": "answer", "strict": False, "schema": loose}


@pytest.mark.parametrize("form", RESPONSE_FORMATS[1:])
def test_in_words_the_schema_stands_after_what_the_user_said_last(form: str) -> None:
    parts = [{"type": "image_url", "image_url": {"url": "https://h.example/a.png"}}]
    for content in ("Well?", parts):
        chat = [
            {"role": "system", "content": "S"},
            {"role": "user", "content": content},
            {"role": "assistant", "content": "So"},
        ]
        sent = conveyed(form, chat)
        assert sent.get("response_format") == ({"type": "json_object"} if form == "json_object" else None)
        assert [sent["messages"][0], sent["messages"][2]] == [chat[0], chat[2]]
        told = sent["messages"][1]["content"]
        text = told if isinstance(told, str) else told[-1]["text"]
        assert json.loads(text[text.index("{") :]) == MOOD
        assert told[: len(content)] == content


def test_a_chat_in_which_no_user_speaks_is_told_all_the_same() -> None:
    sent = conveyed("instruction", [{"role": "system", "content": "S"}])
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]


def test_free_text_is_sent_as_it_is() -> None:
    free = ContractEncoder(Job.load(["in.csv"], settings=MINIMAL))
    assert [free.conveyed(BODY, form) for form in RESPONSE_FORMATS] == [BODY] * 3
