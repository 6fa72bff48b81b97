"""What a message holds beside its text is kept as it came, and read in the words of every provider."""

import json
import random
import zlib
from typing import Any

import pytest

from pipeline.records import Answer, MessageParts, message_parts, pack_message, unpack_message


def parts_of(message: dict[str, Any], text: str = "yes", **document: Any) -> MessageParts:
    return message_parts(Answer(text=text, message=pack_message(message, document, text)[0]))


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "yes"},
        {"role": "assistant", "content": "yes", "refusal": None, "annotations": [], "tool_calls": []},
    ],
)
def test_a_message_that_is_only_its_text_takes_no_room(message: dict[str, Any]) -> None:
    assert pack_message(message, {}, "yes") == (b"", ())


def test_what_a_message_holds_is_kept_as_it_came() -> None:
    message = {"role": "assistant", "content": "yes", "reasoning": "Hm.", "audio": {"id": "a"}, "new": [1, "é", None]}
    packed, fills = pack_message(message, {"citations": ["https://a.example"], "id": "x"}, "yes")
    assert fills == ("reasoning", "citations")
    kept = {"reasoning": "Hm.", "audio": {"id": "a"}, "new": [1, "é", None], "citations": ["https://a.example"]}
    assert unpack_message(packed) == kept


def test_a_long_message_is_compressed_and_a_message_that_repeats_itself_not_too_much() -> None:
    rng = random.Random(1)
    thoughts = " ".join(rng.choice(["the", "word", "good", "bad", "suggests", "because"]) for _ in range(5_000))
    packed, _ = pack_message({"reasoning": thoughts}, {}, "yes")
    assert len(packed) < 0.5 * len(thoughts)
    loop, _ = pack_message({"reasoning": "the " * 500_000}, {}, "yes")
    assert len(loop) > 2_000_000
    assert unpack_message(loop) == {"reasoning": "the " * 500_000}


@pytest.mark.parametrize(
    ("message", "reasoning"),
    [
        ({"reasoning_content": "Hm."}, "Hm."),  # DeepSeek, vLLM, SGLang, llama.cpp
        ({"reasoning": "Hm."}, "Hm."),  # OpenRouter, Groq, newer vLLM
        ({"thinking": "Hm."}, "Hm."),  # Ollama
        ({"reasoning": "Hm.", "reasoning_content": "Hm."}, "Hm."),
        ({"content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "yes"}]}, "Hm."),
        (  # Mistral
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"text": "yes"}]},
            "Hm.",
        ),
        ({"reasoning_details": [{"type": "reasoning.summary", "summary": "Hm."}]}, "Hm."),
        ({"reasoning_details": [{"type": "reasoning.encrypted", "data": "xyz"}]}, None),
        ({"reasoning": ""}, None),
        ({"content": [{"foo": 1}, {"type": ["thinking"], "text": "no"}]}, None),
        ({"reasoning": {"effort": "low"}}, None),
    ],
)
def test_reasoning_is_found_in_every_field(message: dict[str, Any], reasoning: str | None) -> None:
    assert parts_of({"role": "assistant", "content": "yes", **message}).reasoning == reasoning


@pytest.mark.parametrize(
    ("text", "reasoning"),
    [
        ("<think>Hm.</think>yes", "Hm."),
        ("\n<THINKING>\nHm.\n</THINKING>\nyes", "Hm."),
        ("[THINK]Hm.[/THINK]yes", "Hm."),
        ("<think></think>yes", None),
        ("<think>never ended", None),
        ("I <think>Hm.</think> so", None),
    ],
)
def test_reasoning_at_the_beginning_of_a_text_is_found(text: str, reasoning: str | None) -> None:
    assert message_parts(Answer(text=text)).reasoning == reasoning


def test_a_text_that_was_taken_from_the_reasoning_is_shown_as_such() -> None:
    assert message_parts(Answer(text="Hm.", taken_from="reasoning_content")).reasoning == "Hm."


def test_tool_calls_are_json() -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}]
    assert json.loads(parts_of({"tool_calls": calls}).tool_calls or "") == calls
    assert parts_of({"tool_calls": []}).tool_calls is None


@pytest.mark.parametrize(
    ("message", "document", "citations"),
    [
        ({}, {"citations": ["https://a.example", "https://b.example", "https://a.example"]}, 2),  # Perplexity, xAI
        ({}, {"search_results": [{"title": "A", "url": "https://a.example"}]}, 1),
        ({"annotations": [{"type": "url_citation", "url_citation": {"url": "https://a.example"}}]}, {}, 1),  # OpenAI
        ({"citations": [{"url": "https://a.example"}, {"title": "no address"}]}, {}, 2),
        ({"citations": "none"}, {}, 0),
        ({"annotations": [None, 5]}, {}, 0),
    ],
)
def test_sources_are_given_by_their_addresses(message: dict[str, Any], document: Any, citations: int) -> None:
    found = parts_of(message, **document).citations
    assert len(found or ()) == citations
    assert not citations or (found or [])[0] == "https://a.example"


@pytest.mark.parametrize("packed", [b"", b"x", zlib.compress(b"[1]"), zlib.compress(b"{")])
def test_what_cannot_be_read_is_nothing(packed: bytes) -> None:
    assert unpack_message(packed) == {}
    assert message_parts(Answer(text="a", message=packed)) == MessageParts()
