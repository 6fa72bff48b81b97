"""A cell as a chat: a prompt's text, a list of messages, or such a list as JSON."""

import json
from typing import Any

import pytest

from pipeline.prompts.chats import chat_of, not_blank
from pipeline.prompts.templates import UnaskableRow

CHAT = [{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}]


def test_text_is_one_message_of_the_user() -> None:
    assert chat_of("Hi", as_json=False) == [{"role": "user", "content": "Hi"}]
    assert chat_of(7, as_json=False) == [{"role": "user", "content": "7"}]
    assert chat_of("[]", as_json=False) == [{"role": "user", "content": "[]"}]


def test_a_chat_is_a_list_or_its_json() -> None:
    assert chat_of(CHAT, as_json=False) == chat_of(CHAT, as_json=True) == CHAT
    assert chat_of(json.dumps(CHAT), as_json=True) == CHAT


def test_a_message_without_text_may_call_tools() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    assert chat_of([call], as_json=False) == [{"role": "assistant", "tool_calls": [{"id": "1"}]}]


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        (None, "the prompt is null"),
        ("", "the prompt is empty"),
        (" \n", "the prompt is empty"),
        ([], "the chat is empty"),
        ("[]", "the chat is empty"),
        ("{oops", "the chat is not JSON"),
        ("[" * 9_999, "the chat is not JSON"),
        ('{"role": "user"}', "the chat is not a list"),
        ({"role": "user"}, "neither text nor a list"),
        (b"Hi", "neither text nor a list"),
        (["x"], "message 1 of the chat has no role"),
        ([CHAT[0], {"content": "x"}], "message 2 of the chat has no role"),
        ([{"role": "user", "content": None}], "message 1 of the chat is empty"),
    ],
)
def test_a_cell_that_is_no_chat_is_refused_with_the_reason(cell: Any, why: str) -> None:
    with pytest.raises(UnaskableRow, match=why):
        chat_of(cell, as_json=True)


def test_a_blank_prompt_is_refused() -> None:
    assert not_blank(" x") == " x"
    with pytest.raises(UnaskableRow, match="the prompt is empty"):
        not_blank("\t")
