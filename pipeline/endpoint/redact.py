"""Keys are `***` in all that a server says and in all that its transport logs, however they are spelled there."""

import base64
import html
import logging
import re
from collections.abc import Iterator, Sequence

HIDDEN = "***"
SECRET_CHARACTERS_MIN = 8
"""A shorter key is no secret, and might be a word of an answer."""
SPELLED = re.compile(rb'\\\\*(?:u00[2-7]|[/"\\])|%[2-7][0-9A-Fa-f]|%25|&(?:#|amp|quot|lt|gt)')
"""Where JSON, a URL or HTML has spelled a plain character: without it, a key stands as it is or not at all."""


class Redactor(logging.Filter):
    """Hides some secrets: as they are, as JSON, URLs and HTML spell them, in base64 and in UTF-16.

    As a filter of a log, it lets every line pass, without them.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        """`secrets`: of printable ASCII. Of "Bearer …" the second word is one as well; what is too short is none."""
        super().__init__()
        words = {word for secret in secrets for word in (secret, secret.split(" ")[-1])}
        self._secrets = [word.encode() for word in sorted(words, key=len, reverse=True) if _is_secret(word)]
        self._forms = [form for secret in self._secrets for form in _forms(secret)]
        self._spellings = [_spelling(secret) for secret in self._secrets]

    def filter(self, record: logging.LogRecord) -> bool:
        """True, always."""
        record.msg, record.args = self.text(record.getMessage()), ()
        return True

    def text(self, said: str) -> str:
        """What was said, without the secrets."""
        return self.body(said.encode(errors="replace")).decode(errors="replace")

    def body(self, said: bytes, *, broke_off: bool = False) -> bytes:
        """What was said, without the secrets; nor, where it broke off, the beginning of one at its end."""
        for form, hidden in self._forms:
            said = said.replace(form, hidden)
        if SPELLED.search(said):
            for spelling in self._spellings:
                said = spelling.sub(HIDDEN.encode(), said)
        if broke_off:
            for secret in self._secrets:
                lengths = range(len(secret) - 1, SECRET_CHARACTERS_MIN - 1, -1)
                known = next((length for length in lengths if said.endswith(secret[:length])), 0)
                said = said[: len(said) - known] + HIDDEN.encode() if known else said
        return said


def _is_secret(word: str) -> bool:
    return len(word) >= SECRET_CHARACTERS_MIN


def _forms(secret: bytes) -> Iterator[tuple[bytes, bytes]]:
    """A secret letter by letter, and what stands in its place."""
    yield secret, HIDDEN.encode()
    yield base64.b64encode(secret).rstrip(b"="), HIDDEN.encode()
    for encoding in ("utf-16-le", "utf-16-be"):
        yield secret.decode().encode(encoding), HIDDEN.encode(encoding)


def _spelling(secret: bytes) -> re.Pattern[bytes]:
    r"""A secret of which each letter may be spelled: `/` as `\/`, `\u002f`, `%2F`, `&#47;` or `&#x2f;`, and as `/`."""
    return re.compile("".join(map(_letter, secret.decode())).encode())


def _letter(letter: str) -> str:
    code, named = ord(letter), html.escape(letter)
    spelled = [
        rf"(?i:u00{code:02x})",
        rf"%(?:25)*(?i:{code:02x})",
        rf"&(?:amp;)*#(?:0*{code}|[xX]0*(?i:{code:x}));",
        rf"&(?:amp;)*{re.escape(named[1:])}" if named != letter else "",
        re.escape(letter),
    ]
    # JSON's own strokes before it, one or, in JSON within JSON, more; those of a key are letters of it
    any_of = "|".join(filter(None, spelled))
    return rf"\\*+(?:{any_of})" if letter != "\\" else rf"(?:\\+{spelled[0]}|{any_of})"
