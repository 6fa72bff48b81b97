"""Replace keys by `***` in text that a server or a transport's log repeats: plain, JSON-escaped or URL-encoded.

What a model said is the user's data: in an answer, only what looks like a secret is replaced (`secrecy.is_secret`), so
that a placeholder such as `not-needed` alters nothing. Everywhere else, whatever is used as a key is replaced.
"""

import logging
import re
from collections.abc import Sequence

import msgspec

from ..records import Rejection, Reply
from ..secrecy import HIDDEN, SECRET_CHARACTERS_MIN, is_secret
from .replies import read_reply

ESCAPED = re.compile(rb'\\(?:u00[2-7]|[/"\\])|%[2-7][0-9A-Fa-f]')
"""A printable ASCII character that is JSON-escaped or URL-encoded. In text without one, a key can only stand plain."""

ESCAPED_ANY = re.compile(rb'\\(?:u[0-9A-Fa-f]{4}|[/"\\])|%[0-9A-Fa-f]{2}')
"""The same for any character: passwords may have others."""


class Redactor(logging.Filter):
    """Redacts secrets in bytes and text; as a filter of a log, redacts each line and lets it pass."""

    def __init__(self, secrets: Sequence[str]) -> None:
        """`secrets` are printable. The last word of one is redacted by itself, too, as in "Bearer …"."""
        super().__init__()
        words = {word for secret in secrets for word in (secret, secret.split(" ")[-1])}
        # the longest first: one may begin with another
        kept = sorted((word for word in words if len(word) >= SECRET_CHARACTERS_MIN), key=len, reverse=True)
        self._secrets = [word.encode() for word in kept]
        self._has_escapes = ESCAPED if all(map(str.isascii, kept)) else ESCAPED_ANY
        self._escaped = [re.compile("".join(map(_escaped_character, word)).encode()) for word in kept]
        unlikely = [word for word in kept if is_secret(word)]
        self._in_answers = self if len(unlikely) == len(kept) else Redactor(unlikely)

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact a log record in place. Always True."""
        record.msg, record.args = self.redact_text(record.getMessage()), ()
        return True

    def redact_text(self, text: str) -> str:
        """Return a text without the secrets."""
        return self.redact_bytes(text.encode(errors="replace")).decode(errors="replace")

    def redact_reply(self, reply: Reply) -> Reply:
        """Return a reply without the secrets; an answer keeps the words that are no secret by their look."""
        header_text = "\n".join(reply.headers.values())
        headers = reply.headers
        if self.redact_text(header_text) != header_text:
            headers = {name: self.redact_text(value) for name, value in headers.items()}
        body = self.redact_bytes(reply.body, is_cut=bool(reply.fault))
        if body != reply.body and self._in_answers is not self:
            answer = msgspec.structs.replace(reply, body=self._in_answers.redact_bytes(reply.body))
            if not isinstance(read_reply(answer), Rejection):
                body = answer.body
        return msgspec.structs.replace(reply, headers=headers, body=body, detail=self.redact_text(reply.detail))

    def redact_bytes(self, data: bytes, *, is_cut: bool = False) -> bytes:
        """Return bytes without the secrets.

        `is_cut`: the data was cut short, so the beginning of a secret at its end is redacted, too.
        """
        hidden = HIDDEN.encode()
        for secret in self._secrets:
            data = data.replace(secret, hidden)
        if self._secrets and self._has_escapes.search(data):
            for escaped in self._escaped:
                data = escaped.sub(hidden, data)
        if is_cut:
            for secret in self._secrets:
                lengths = range(len(secret) - 1, SECRET_CHARACTERS_MIN - 1, -1)
                known = next((length for length in lengths if data.endswith(secret[:length])), 0)
                data = data[: len(data) - known] + hidden if known else data
        return data


def _escaped_character(character: str) -> str:
    r"""Make the pattern of a character that may be escaped, also repeatedly: `/`, `\/`, `\u002f`, `%2F` or `%252F`."""
    if not character.isascii():
        octets = "".join(f"%(?:25)*(?i:{octet:02x})" for octet in character.encode())
        return rf"(?:\\+(?i:u{ord(character):04x})|{octets}|{re.escape(character)})"
    code = f"{ord(character):02x}"
    encoded = rf"(?i:u00{code})|%(?:25)*(?i:{code})"
    # backslashes before a character are JSON's, except where the character is itself one
    if character == "\\":
        return rf"(?:\\+(?i:u00{code})|{encoded}|\\)"
    return rf"\\*+(?:{encoded}|{re.escape(character)})"
