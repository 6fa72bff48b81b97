"""Read JSON from a reply's body: also where it is slightly malformed, nested in a string, or amid other text."""

import json
import re
from collections.abc import Callable
from contextlib import suppress

import msgspec

SEARCHED_CHARACTERS = 64_000
"""How much of a body that does not parse is searched for JSON objects and fields."""

BRACES_TRIED = 4
"""At how many opening braces an object is looked for; each try may read the rest of the text."""

_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")
_FIELD = re.compile(r'"(message|detail|code|type)"\s*:\s*(?:"((?:[^"\\]|\\.){0,2000})|([0-9]{3})\b)', re.DOTALL)

_decode: Callable[[bytes], object] = msgspec.json.Decoder().decode


def parse_json(body: bytes) -> object:
    """Decode a JSON value, or return None where there is none. Never raises.

    Strict parsers reject some bodies whose meaning is still unambiguous. Accepted here: a byte order mark, UTF-16 and
    UTF-32, NaN and Infinity, raw control characters in strings, and invalid UTF-8 and lone surrogates, both of which
    become U+FFFD, so that every string can be stored.
    """
    try:
        return _decode(body)
    except (ValueError, RecursionError):
        pass
    try:
        value: object = json.loads(body.decode(json.detect_encoding(body), "replace"), strict=False)
        text = json.dumps(value, ensure_ascii=False)
        return json.loads(_LONE_SURROGATE.sub("\ufffd", text)) if _LONE_SURROGATE.search(text) else value
    except (ValueError, RecursionError):
        return None


def parse_nested(value: object) -> object:
    """Decode a string that itself holds a JSON object or array; return any other value as it is.

    Gateways pass a provider's error on as JSON within a JSON string.
    """
    if isinstance(value, str) and value.lstrip()[:1] in {"{", "["}:
        inner = parse_json(value.encode("utf-8", "replace"))
        return value if inner is None else inner
    return value


def find_objects(body: bytes) -> list[dict[str, object]]:
    """Find JSON objects amid other text: after comment lines or a stray brace, as in `{ {"error": …}}`."""
    text = body[:SEARCHED_CHARACTERS].decode("utf-8", "replace")
    read = json.JSONDecoder(strict=False).raw_decode
    found, start = [], text.find("{")
    for _ in range(BRACES_TRIED):
        if start < 0:
            break
        with suppress(ValueError, RecursionError):
            found.append(parse_json(text[start : read(text, start)[1]].encode()))
        start = text.find("{", start + 1)
    return [value for value in found if isinstance(value, dict)]


def find_fields(body: bytes) -> dict[str, object]:
    """Find the first `message`, `detail`, `code` and `type` in text that no parser reads, such as a body cut short.

    A field within a string is not found, since its quotation marks are escaped there.
    """
    fields: dict[str, object] = {}
    for name, quoted, number in _FIELD.findall(body[:SEARCHED_CHARACTERS].decode("utf-8", "replace")):
        value = parse_json(f'"{quoted}"'.encode())
        fields.setdefault(name, number or (value if isinstance(value, str) else quoted))
    return fields
