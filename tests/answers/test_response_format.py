"""A contract is added to a request in each response format, and nothing else of the request changes."""

import json
from typing import Any

import pytest

from pipeline.answers.response_format import RESPONSE_FORMATS, ContractEncoder

MOOD: dict[str, Any] = {
    "type": "object",
    "properties": {"mood": {"enum": ["glad", "sad"]}, "why": {"type": "string"}},
    "required": ["mood", "why"],
}
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Well?"}], "max_tokens": 8}).encode()


def encoded(form: Any, messages: list[Any] | None = None, schema: dict[str, Any] = MOOD) -> dict[str, Any]:
    body = BODY if messages is None else json.dumps({**json.loads(BODY), "messages": messages}).encode()
    sent: dict[str, Any] = json.loads(ContractEncoder(schema).encode(body, form))
    return sent


def test_a_schema_is_sent_to_be_enforced_and_strictly_where_it_can_be() -> None:
    sent = encoded("json_schema")
    assert {name: sent[name] for name in ("model", "messages", "max_tokens")} == json.loads(BODY)
    form = sent["response_format"]
    assert (form["type"], form["json_schema"]["name"], form["json_schema"]["strict"]) == ("json_schema", "answer", True)
    assert form["json_schema"]["schema"]["additionalProperties"] is False
    loose = {**MOOD, "properties": {**MOOD["properties"], "more": {"type": "object"}}}
    form = encoded("json_schema", schema=loose)["response_format"]
    assert form["json_schema"] == {"name": "answer", "strict": False, "schema": loose}


@pytest.mark.parametrize("form", RESPONSE_FORMATS[1:])
def test_as_an_instruction_the_schema_stands_at_the_end_of_the_last_user_message(form: str) -> None:
    parts = [{"type": "image_url", "image_url": {"url": "https://h.example/a.png"}}]
    for content in ("Well?", parts):
        chat = [
            {"role": "system", "content": "S"},
            {"role": "user", "content": content},
            {"role": "assistant", "content": "So"},
        ]
        sent = encoded(form, chat)
        assert sent.get("response_format") == ({"type": "json_object"} if form == "json_object" else None)
        assert [sent["messages"][0], sent["messages"][2]] == [chat[0], chat[2]]
        content_sent = sent["messages"][1]["content"]
        text = content_sent if isinstance(content_sent, str) else content_sent[-1]["text"]
        assert json.loads(text[text.index("{") :]) == MOOD
        assert content_sent[: len(content)] == content


def test_a_chat_without_a_user_message_gets_one_with_the_schema() -> None:
    sent = encoded("instruction", [{"role": "system", "content": "S"}])
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]


def test_free_text_is_sent_as_it_is() -> None:
    free = ContractEncoder(None)
    assert [free.encode(BODY, form) for form in RESPONSE_FORMATS] == [BODY] * 3
