"""A stream is put together to the reply that the server would have sent in one piece."""

import json
from typing import Any

import pytest

from pipeline.endpoint.event_stream import is_event_stream, put_together
from pipeline.endpoint.replies import read_reply
from pipeline.records import Answer, Rejection, Reply, Usage

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "c1", "object": "chat.completion.chunk", "model": "m-1", "choices": choices, **more}


def stream(*chunks: dict[str, Any], end: str = "data: [DONE]\n\n", line_end: str = "\n") -> bytes:
    text = "".join(f"data: {json.dumps(each)}\n\n" for each in chunks) + end
    return text.replace("\n", line_end).encode()


def read(body: bytes) -> Answer | Rejection:
    return read_reply(Reply(200, {"content-type": "text/event-stream"}, body, 0.1))


USUAL = (chunk({"role": "assistant", "content": ""}), chunk({"content": "po"}), chunk({"content": "sitive"}, "stop"))


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "begin", ["", ": OPENROUTER PROCESSING\n\n", "\n", "\ufeff", "event: message\nid: 1\n", "retry: 5\n"]
)
def test_a_stream_is_an_answer_with_its_usage(begin: str, line_end: str) -> None:
    body = begin.replace("\n", line_end).encode() + stream(*USUAL, chunk(usage=USAGE), line_end=line_end)
    assert read(body) == Answer(text="positive", finish_reason="stop", model="m-1", usage=Usage(7, 3, None, None, 10))


def test_reasoning_tool_calls_log_probabilities_and_parts_come_together() -> None:
    call = {"index": 0, "id": "t1", "type": "function", "function": {"name": "label", "arguments": '{"la'}}
    body = stream(
        chunk({"reasoning_content": "Let me "}),
        chunk({"reasoning_content": "see."}),
        chunk({"tool_calls": [call]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": 'bel": 1}'}}]}),
        chunk({"tool_calls": [{"index": 1, "id": "t2", "function": {"name": "other", "arguments": ""}}]}, "tool_calls"),
    )
    whole = put_together(body)
    assert whole is not None
    message = whole["choices"][0]["message"]
    assert message["reasoning_content"] == "Let me see."
    assert [each["function"]["arguments"] for each in message["tool_calls"]] == ['{"label": 1}', ""]
    assert [each["id"] for each in message["tool_calls"]] == ["t1", "t2"]

    parts = stream(chunk({"content": [{"type": "text", "text": "po"}]}), chunk({"content": "sitive"}, "stop"))
    answer = read(parts)
    assert isinstance(answer, Answer)
    assert answer.text == "positive"

    tokens = [chunk({"content": text}) for text in ("po", "sitive")]
    for each in tokens:
        content = each["choices"][0]["delta"]["content"]
        each["choices"][0]["logprobs"] = {"content": [{"token": content, "logprob": -0.5}]}
    answer = read(stream(*tokens, chunk({}, "stop")))
    assert isinstance(answer, Answer)
    assert answer.logprobs == (("po", -0.5), ("sitive", -0.5))


@pytest.mark.parametrize("end", ["", 'data: {"choices": [{"del'])
def test_a_stream_that_ends_before_its_answer_is_no_answer(end: str) -> None:
    result = read(stream(*USUAL[:2], end=end))
    assert isinstance(result, Rejection)
    assert result.kind == "broken"


def test_a_finish_reason_or_done_is_the_end() -> None:
    assert isinstance(read(stream(*USUAL, end="")), Answer)
    assert isinstance(read(stream(*USUAL[:2])), Answer)


@pytest.mark.parametrize("where", ["alone", "after some text"])
def test_an_error_in_a_stream_takes_the_place_of_the_answer(where: str) -> None:
    error = {"error": {"message": "Rate limit reached", "code": 429}}
    result = read(stream(*(() if where == "alone" else USUAL[:2]), error, end=""))
    assert isinstance(result, Rejection)
    assert result.kind == ("rate" if where == "alone" else "broken")
    assert result.message == "Rate limit reached"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"data: ": 1}', b"data", b"<html>", b" [1]", b"null"])
def test_what_is_no_stream_is_not_taken_for_one(body: bytes) -> None:
    assert not is_event_stream(body)


def test_a_stream_without_any_object_is_no_reply() -> None:
    assert put_together(b"data: [DONE]\n\n") is None
    assert put_together(b": nothing\n\ndata: hello\n\ndata: [1]\n\n") is None
    assert put_together(b'data: {"id":\ndata: "x"}\n\n') == {"id": "x"}


def test_a_last_chunk_that_repeats_the_whole_message_doubles_nothing() -> None:
    whole = {"choices": [{"message": {"content": "positive"}, "finish_reason": "stop"}]}
    answer = read(stream(*USUAL[:2], whole))
    assert isinstance(answer, Answer)
    assert answer.text == "positive"


def test_a_tool_call_without_a_function_or_an_index_is_read() -> None:
    begun = {"tool_calls": [{"id": "a", "function": None}, {"id": "b", "function": {"name": "f", "arguments": "{"}}]}
    more = {"tool_calls": [{"id": "a", "function": {"arguments": "1"}}, {"id": "b", "function": {"arguments": "}"}}]}
    whole = put_together(stream(chunk(begun), chunk(more, "tool_calls")))
    assert whole is not None
    calls = whole["choices"][0]["message"]["tool_calls"]
    assert [call["function"]["arguments"] for call in calls] == ["1", "{}"]


def test_events_with_one_line_end_between_them_are_read_one_by_one() -> None:
    body = "".join(f"data: {json.dumps(each)}\n" for each in USUAL).encode() + b"data: [DONE]\n"
    answer = read(body)
    assert isinstance(answer, Answer)
    assert answer.text == "positive"


def test_a_stream_that_is_complete_is_an_answer_though_its_connection_stayed_open() -> None:
    assert isinstance(read_reply(Reply(200, {}, stream(*USUAL), 0.1, "timeout", "nothing came")), Answer)
    assert isinstance(read_reply(Reply(200, {}, stream(*USUAL, end=""), 0.1, "timeout", "nothing came")), Rejection)
