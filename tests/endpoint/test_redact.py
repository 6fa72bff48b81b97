"""Keys are redacted in text where they stand plain, JSON-escaped or URL-encoded, and nothing else is."""

import json
import logging
import random
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.endpoint.redact import SECRET_CHARACTERS_MIN, Redactor

KEY = 'sk-1/aZ+"09=\\<&%x'
PRINTABLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=SECRET_CHARACTERS_MIN, max_size=60)


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(letter):04x}" for letter in text)


ESCAPES = {
    "as it is": str,
    "JSON": lambda key: json.dumps(key)[1:-1],
    "JSON in JSON": lambda key: json.dumps(json.dumps(key))[1:-1],
    "PHP's JSON": lambda key: json.dumps(key)[1:-1].replace("/", "\\/"),
    "Go's JSON": lambda key: json.dumps(key)[1:-1].replace("<", "\\u003c").replace("&", "\\u0026"),
    "every letter escaped": escaped,
    "in capitals": lambda key: escaped(key).upper().replace("\\U", "\\u"),
    "a URL": lambda key: quote(key, safe=""),
    "a form": quote_plus,
    "a URL in a URL": lambda key: quote(quote(key, safe=""), safe=""),
}


@pytest.mark.parametrize("name", ESCAPES)
@given(key=PRINTABLE, around=st.text(max_size=20))
def test_a_key_is_redacted_however_it_is_escaped(name: str, key: str, around: str) -> None:
    around = around.encode(errors="replace").decode()
    if key in around:
        return
    spelled = ESCAPES[name](key)
    assert spelled not in Redactor([key]).redact_text(f"before {spelled} after {around}")


def test_a_key_of_which_each_character_is_escaped_in_its_own_way_is_redacted_amid_codes_and_digits() -> None:
    rng, characters = random.Random(1), 'abu0%25417/"-_xE'
    ways: list[Callable[[str], str]] = [
        str,
        lambda letter: f"\\u{ord(letter):04x}",
        lambda letter: f"%{ord(letter):02X}",
        lambda letter: "\\" + letter if letter in '/"' else letter,
    ]
    for _ in range(1_500):
        key = "".join(rng.choices(characters, k=rng.randint(SECRET_CHARACTERS_MIN, 24)))
        around = ["".join(rng.choices(characters, k=rng.randint(0, 5))) for _ in range(2)]
        spelled = "".join(rng.choice(ways)(letter) for letter in key)
        assert "***" in Redactor([key]).redact_text(spelled.join(around)), (key, spelled, around)


@pytest.mark.parametrize("name", ESCAPES)
def test_only_the_key_is_redacted(name: str) -> None:
    spelled = ESCAPES[name](KEY)
    redacted = Redactor([KEY]).redact_text(f"a 100%25 {spelled} \\u00e9 [{spelled}]")
    quotes = '\\"' if name == "JSON in JSON" else ""
    assert redacted == f"a 100%25 {quotes}***{quotes} \\u00e9 [{quotes}***{quotes}]"


def test_the_second_word_of_a_header_is_a_secret_by_itself() -> None:
    redactor = Redactor(["Bearer abcdefgh12", "Token wxyz9876"])
    assert redactor.redact_text("abcdefgh12, wxyz9876, Bearer abcdefgh12") == "***, ***, ***"


def test_the_beginning_of_a_key_at_the_end_of_data_that_was_cut_is_redacted() -> None:
    for length in range(SECRET_CHARACTERS_MIN, len(KEY) + 1):
        assert Redactor([KEY]).redact_bytes(b"provided: " + KEY[:length].encode(), is_cut=True) == b"provided: ***"
    assert Redactor([KEY]).redact_bytes(b"provided: sk-1/aZ", is_cut=True) == b"provided: sk-1/aZ"
    assert Redactor([KEY]).redact_bytes(KEY[:12].encode()) == KEY[:12].encode()


def test_of_two_keys_the_longer_is_redacted_first() -> None:
    assert Redactor(["abcdefgh", "abcdefgh-more"]).redact_text("abcdefgh-more abcdefgh") == "*** ***"


def test_a_short_word_is_no_secret() -> None:
    assert Redactor(["secret", "Bearer secret"]).redact_text("no secret") == "no secret"
    assert Redactor([]).redact_text("anything") == "anything"


def test_a_line_of_a_log_passes_without_the_key() -> None:
    record = logging.LogRecord("httpcore", logging.DEBUG, "", 0, "headers=%r", ([("x", KEY)],), None)
    assert Redactor([KEY]).filter(record)
    assert record.getMessage() == "headers=[('x', '***')]"


def test_a_redactor_does_not_show_its_secrets() -> None:
    assert KEY not in repr(Redactor([KEY]))
