"""Replace keys by `***` in text that a server or a transport's log repeats: plain, JSON-escaped or URL-encoded."""

import logging
import re
from collections.abc import Sequence

HIDDEN = "***"

SECRET_CHARACTERS_MIN = 8
"""The length from which a key is redacted; a shorter one is no secret, and might be a word of an answer."""

ESCAPED = re.compile(rb'\\(?:u00[2-7]|[/"\\])|%[2-7][0-9A-Fa-f]')
"""A printable ASCII character that is JSON-escaped or URL-encoded. In text without one, a key can only stand plain."""

CODE = re.compile(rb"(?:u00|%)([2-7][0-9A-Fa-f])")
"""A code of a printable ASCII character, as it stands without the backslash before it."""

REPEATED_PERCENT = re.compile(rb"%(?:25)+")
"""A percent sign that is URL-encoded, also repeatedly."""

EDGE_CHARACTERS = 4
"""How many characters at either end of a key may seem to be a part of a code, together with what stands beside it."""


class Redactor(logging.Filter):
    """Redacts secrets in bytes and text; as a filter of a log, redacts each line and lets it pass."""

    def __init__(self, secrets: Sequence[str]) -> None:
        """`secrets` are printable ASCII. The last word of one is redacted by itself, too, as in "Bearer …"."""
        super().__init__()
        words = {word for secret in secrets for word in (secret, secret.split(" ")[-1])}
        # the longest first: one may begin with another
        kept = sorted((word for word in words if len(word) >= SECRET_CHARACTERS_MIN), key=len, reverse=True)
        self._secrets = [word.encode() for word in kept]
        self._escaped = [re.compile(_escaped_word(word).encode()) for word in kept]
        self._cores = [_core(word) for word in self._secrets]

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
        if self._secrets and ESCAPED.search(data):
            plain = _without_escapes(data)
            for escaped, core in zip(self._escaped, self._cores, strict=True):
                if core in plain:  # looked for first, as matching takes ten times as long
                    data = escaped.sub(hidden, data)
        if is_cut:
            for secret in self._secrets:
                lengths = range(len(secret) - 1, SECRET_CHARACTERS_MIN - 1, -1)
                known = next((length for length in lengths if data.endswith(secret[:length])), 0)
                data = data[: len(data) - known] + hidden if known else data
        return data


def _without_escapes(data: bytes) -> bytes:
    """The data without backslashes, and with characters in place of their codes."""
    bare = _with_plain_percents(data.translate(None, b"\\"))
    codes = {code[1] for code in CODE.finditer(bare)}  # one by one, so that other threads have their turns
    for code in sorted(codes):  # there are few, and to replace each of them is quicker than to call a function for each
        character = bytes([int(code, 16)])
        bare = bare.replace(b"u00" + code, character).replace(b"%" + code, character)
    return bare.translate(None, b"\\") if codes else bare


def _with_plain_percents(data: bytes) -> bytes:
    """The data with a percent sign in place of each that is URL-encoded, also repeatedly."""
    parts, place = [], 0
    for found in REPEATED_PERCENT.finditer(data):
        parts.append(data[place : found.start()])
        place = found.end()
    return b"%".join([*parts, data[place:]])


def _core(secret: bytes) -> bytes:
    """A part of a secret that data which holds it, escaped in any way, has without escapes; empty if there is none."""
    if b"%" in secret or b"u0" in secret:
        return b""
    return secret.replace(b"\\", b"")[EDGE_CHARACTERS:-EDGE_CHARACTERS]


def _escaped_word(word: str) -> str:
    r"""Make the pattern of a word whose characters may be escaped, also repeatedly: `\/`, `\u002f`, `%252F`.

    Its time is in proportion to the text: a row of backslashes is taken as a whole, and only from its beginning.
    """
    rows = [found[0] for found in re.finditer(r"\\+|[^\\]", word)]
    return "".join(_escaped_row(row, before="" if at else r"(?<!\\)") for at, row in enumerate(rows))


def _escaped_row(row: str, before: str) -> str:
    """Make the pattern of a character, or of a row of backslashes. `before`: what must hold where backslashes begin."""
    code = f"{ord(row[0]):02x}"
    encoded = rf"%(?:25)*(?i:{code})"
    if row[0] == "\\":  # any row of backslashes will do, as each may be escaped by others
        return rf"(?:{before}\\++(?i:u00{code})?|{encoded}){{1,{len(row)}}}"
    # backslashes before any other character are JSON's
    return rf"(?:{before}\\++)?(?:(?i:u00{code})|{encoded}|{re.escape(row)})"
