"""Replace keys by `***` in text that a server or a transport's log repeats: plain, JSON-escaped or URL-encoded."""

import logging
import re
from collections.abc import Sequence

HIDDEN = "***"

SECRET_CHARACTERS_MIN = 8
"""The length from which a key is redacted; a shorter one is no secret, and might be a word of an answer."""

ESCAPED = re.compile(rb'\\(?:u00[2-7]|[/"\\])|%[2-7][0-9A-Fa-f]')
"""A printable ASCII character that is JSON-escaped or URL-encoded. In text without one, a key can only stand plain."""


class Redactor(logging.Filter):
    """Redacts secrets in bytes and text; as a filter of a log, redacts each line and lets it pass."""

    def __init__(self, secrets: Sequence[str]) -> None:
        """`secrets` are printable ASCII. The last word of one is redacted by itself, too, as in "Bearer …"."""
        super().__init__()
        words = {word for secret in secrets for word in (secret, secret.split(" ")[-1])}
        # the longest first: one may begin with another
        kept = sorted((word for word in words if len(word) >= SECRET_CHARACTERS_MIN), key=len, reverse=True)
        self._secrets = [word.encode() for word in kept]
        self._escaped = [re.compile("".join(map(_escaped_character, word)).encode()) for word in kept]

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact a log record in place. Always True."""
        record.msg, record.args = self.redact_text(record.getMessage()), ()
        return True

    def redact_text(self, text: str) -> str:
        """Return a text without the secrets."""
        return self.redact_bytes(text.encode(errors="replace")).decode(errors="replace")

    def redact_bytes(self, data: bytes, *, is_cut: bool = False) -> bytes:
        """Return bytes without the secrets.

        `is_cut`: the data was cut short, so the beginning of a secret at its end is redacted, too.
        """
        hidden = HIDDEN.encode()
        for secret in self._secrets:
            data = data.replace(secret, hidden)
        if ESCAPED.search(data):
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
    code = f"{ord(character):02x}"
    encoded = rf"(?i:u00{code})|%(?:25)*(?i:{code})"
    # backslashes before a character are JSON's, except where the character is itself one
    if character == "\\":
        return rf"(?:\\+(?i:u00{code})|{encoded}|\\)"
    return rf"\\*+(?:{encoded}|{re.escape(character)})"
