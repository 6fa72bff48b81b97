"""Keys are hidden in whatever spelling a server says them."""

import base64
import html
import json
import logging
import re
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.endpoint.redact import SECRET_CHARACTERS_MIN, Redactor

KEY = 'sk-1/aZ+"09=\\<&%x'
PRINTABLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=SECRET_CHARACTERS_MIN, max_size=60)


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(letter):04x}" for letter in text)


SPELLINGS = {
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
    "HTML": html.escape,
    "HTML in HTML": lambda key: html.escape(html.escape(key)),
    "HTML by numbers": lambda key: "".join(f"&#{ord(letter)};" for letter in key),
    "HTML by hexadecimal numbers": lambda key: "".join(f"&#x{ord(letter):X};" for letter in key),
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
}


@pytest.mark.parametrize("name", SPELLINGS)
@given(key=PRINTABLE, around=st.text(max_size=20))
def test_a_key_is_hidden_however_it_is_spelled(name: str, key: str, around: str) -> None:
    around = around.encode(errors="replace").decode()
    if key in around:
        return
    spelled = SPELLINGS[name](key)
    assert spelled not in Redactor([key]).text(f"before {spelled} after {around}")


@pytest.mark.parametrize("name", SPELLINGS)
def test_only_the_key_is_hidden(name: str) -> None:
    spelled = SPELLINGS[name](KEY)
    masked = Redactor([KEY]).text(f"a 100%25 {spelled} \\u00e9 [{spelled}]")
    assert re.sub(r'[\\"=]', "", masked) == "a 100%25 *** u00e9 [***]"  # the quotes of JSON, the end of base64


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_key_in_utf_16_is_hidden(encoding: str) -> None:
    assert Redactor([KEY]).body(f"é {KEY}.".encode(encoding)).decode(encoding) == "é ***."


def test_the_second_word_of_a_header_is_a_secret_by_itself() -> None:
    mask = Redactor(["Bearer abcdefgh12", "Token wxyz9876"])
    assert mask.text("abcdefgh12, wxyz9876, Bearer abcdefgh12") == "***, ***, ***"


def test_the_beginning_of_a_key_at_the_end_of_what_broke_off_is_hidden() -> None:
    for length in range(SECRET_CHARACTERS_MIN, len(KEY) + 1):
        assert Redactor([KEY]).body(b"provided: " + KEY[:length].encode(), broke_off=True) == b"provided: ***"
    assert Redactor([KEY]).body(b"provided: sk-1/aZ", broke_off=True) == b"provided: sk-1/aZ"
    assert Redactor([KEY]).body(KEY[:12].encode()) == KEY[:12].encode()


def test_of_two_keys_the_longer_is_hidden_first() -> None:
    assert Redactor(["abcdefgh", "abcdefgh-more"]).text("abcdefgh-more abcdefgh") == "*** ***"


def test_a_short_word_is_no_secret() -> None:
    assert Redactor(["secret", "Bearer secret"]).text("no secret") == "no secret"
    assert Redactor([]).text("anything") == "anything"


def test_a_line_of_a_log_passes_without_the_key() -> None:
    record = logging.LogRecord("httpcore", logging.DEBUG, "", 0, "headers=%r", ([("x", KEY)],), None)
    assert Redactor([KEY]).filter(record)
    assert record.getMessage() == "headers=[('x', '***')]"


def test_a_mask_does_not_show_what_it_hides() -> None:
    assert KEY not in repr(Redactor([KEY]))
