"""What a model's message holds beside its text: it is stored as it came, and read when columns are made from it.

Everything that was paid for is kept, so that a later version can make more of it without asking again.
"""

import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from .outcomes import Answer
from .record import Record

REASONING_FIELDS = ("reasoning_content", "reasoning", "reasoning_text", "thinking")
"""Where servers put a model's reasoning; some put the whole answer there (vLLM with a reasoning parser)."""

THOUGHT_TYPES = frozenset({"thinking", "reasoning", "reasoning_text"})
"""The types of a content's parts that hold reasoning."""

BESIDE = ("citations", "search_results", "provider_metadata")
"""What stands beside the choices and belongs to the answer: sources (Perplexity, xAI), and who served it (Vercel)."""

EMPTY: tuple[Any, ...] = (None, "", [], {})

EXPANSION_MAX = 8
"""A message that is compressed more strongly is stored as it is: what is read at once is bounded by its stored size."""

THOUGHTS = re.compile(
    r"\s*(?:<(?:think(?:ing)?|thoughts?|reason(?:ing)?)>|\[THINK\])(.*?)"
    r"(?:</(?:think(?:ing)?|thoughts?|reason(?:ing)?)>|\[/THINK\])",
    re.DOTALL | re.IGNORECASE,
)
"""Reasoning at the beginning of an answer's text, between the usual marks."""

THOUGHTS_CHARACTERS_MAX = 1_000_000
"""How much of a text is searched for the end of such reasoning."""


class MessageParts(Record, frozen=True):
    """What a message holds beside its text; None where it holds nothing of the kind."""

    reasoning: str | None = None
    """The model's visible thoughts."""
    tool_calls: str | None = None
    """The tool calls as JSON."""
    citations: list[str] | None = None
    """The addresses of its sources, or their JSON where they have no address."""


def pack_message(message: Mapping[str, Any], document: Mapping[str, Any], text: str) -> tuple[bytes, tuple[str, ...]]:
    """What a reply's message holds beside its `text`, compressed, and which fields of MessageParts that fills.

    Both are empty if it holds nothing. `document`: the whole reply, in which sources may stand beside the choices.
    """
    kept = {name: value for name, value in message.items() if name != "role" and value not in EMPTY and value != text}
    for name in BESIDE:
        if name in document and document[name] not in EMPTY:
            kept.setdefault(name, document[name])
    if not kept:
        return b"", ()
    plain = json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    packed = zlib.compress(plain, 1)
    if len(packed) * EXPANSION_MAX < len(plain):
        packed = zlib.compress(plain, 0)
    parts = _parts(kept)
    return packed, tuple(name for name in MessageParts.__struct_fields__ if getattr(parts, name))


def unpack_message(packed: bytes) -> dict[str, Any]:
    """What `pack_message` packed; empty if it cannot be read."""
    try:
        found = json.loads(zlib.decompress(packed)) if packed else {}
    except (ValueError, zlib.error, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def message_parts(answer: Answer) -> MessageParts:
    """What the message of an answer holds beside its text; a text that was taken from its reasoning is that, too."""
    parts = _parts(unpack_message(answer.message))
    if parts.reasoning is not None:
        return parts
    return replace(parts, reasoning=answer.text if answer.taken_from else thoughts_in(answer.text))


def _parts(message: Mapping[str, Any]) -> MessageParts:
    calls = message.get("tool_calls")
    return MessageParts(
        reasoning=_reasoning(message),
        tool_calls=_as_json(calls) if isinstance(calls, list) and calls else None,
        citations=_citations(message) or None,
    )


def text_of_parts(value: object, types: frozenset[str] | None = None) -> str:
    """The texts of a field: a text itself, or the texts of a list's parts, of these types only if any are given."""
    if isinstance(value, str):
        return "" if types is not None else value
    if isinstance(value, dict):
        value = [value]
    texts = []
    for part in value if isinstance(value, list) else ():
        if isinstance(part, str) and types is None:
            texts.append(part)
        elif isinstance(part, dict) and (types is None or str(part.get("type")) in types):
            names = ("text", "thinking", "reasoning", "summary")
            texts.append(next((text_of_parts(part[name]) for name in names if part.get(name)), ""))
    return "".join(texts)


def _reasoning(message: Mapping[str, Any]) -> str | None:
    fields = (text_of_parts(message.get(name)) for name in REASONING_FIELDS)
    found = next((text for text in fields if text.strip()), "")
    details = message.get("reasoning_details")  # OpenRouter
    return found or text_of_parts(message.get("content"), THOUGHT_TYPES) or text_of_parts(details) or None


def thoughts_in(text: str) -> str | None:
    """The reasoning at the beginning of an answer's text, between the usual marks; None if there is none."""
    found = THOUGHTS.match(text[:THOUGHTS_CHARACTERS_MAX]) if "<" in text[:200] or "[" in text[:200] else None
    return found[1].strip() or None if found is not None else None


def _citations(message: Mapping[str, Any]) -> list[str]:
    """The sources of an answer, each once: lists of addresses or of objects, or the annotations of the text."""
    found = [_source(each) for name in ("citations", "annotations", "search_results") for each in _list(message, name)]
    return list(dict.fromkeys(source for source in found if source))


def _list(message: Mapping[str, Any], name: str) -> list[Any]:
    value = message.get(name)
    return value if isinstance(value, list) else []


def _source(value: object) -> str:
    """The address of a source, or its JSON."""
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        return ""
    inner = value.get("url_citation")
    holder = inner if isinstance(inner, dict) else value
    address = next((holder[name] for name in ("url", "uri", "link") if isinstance(holder.get(name), str)), "")
    return address or _as_json(value)


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
