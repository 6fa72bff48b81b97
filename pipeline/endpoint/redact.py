"""Replace keys by `***` in text that a server or a transport's log repeats: plain, JSON-escaped or URL-encoded.

What a model said is the user's data: in an answer, only what looks like a secret is replaced (`secrecy.is_secret`), so
that a placeholder such as `not-needed` alters nothing. Everywhere else, whatever is used as a key is replaced.
"""

import logging
import re
from collections.abc import Iterator, Sequence

import msgspec

from ..records import Rejection, Reply
from ..secrecy import HIDDEN, SECRET_CHARACTERS_MIN, is_secret
from .replies import read_reply

ESCAPED = re.compile(rb'\\(?:u00[2-7]|[/"\\])|%[2-7][0-9A-Fa-f]')
"""A printable ASCII character that is JSON-escaped or URL-encoded. In text without one, a key can only stand plain."""

ESCAPED_ANY = re.compile(rb'\\(?:u[0-9A-Fa-f]{4}|[/"\\])|%[0-9A-Fa-f]{2}')
"""The same for any character: passwords may have others."""

CODE = re.compile(rb"(?:u00|%)([2-7][0-9A-Fa-f])")
"""A code of a printable ASCII character, as it stands without the backslash before it."""

PIECE_BYTES = 256 * 1024
"""How much is searched at once: a search holds up all other threads, up to 25 ms for this size."""

CODE_BYTES_MAX = 6
"""The longest match of the patterns above, as `\\u002f`."""

ESCAPED_WORD_BYTES_MAX = 64 * 1024
"""The longest form of an escaped key that is surely found at the edge of two pieces."""

REPEATED_PERCENT = re.compile(rb"%(?:25)+")
"""A percent sign that is URL-encoded, also repeatedly."""

EDGE_CHARACTERS = 4
"""How many characters at each end of a key are not searched for: with the text beside them they may look like a code,
as the `41` of a key after a `u00`."""


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
        self._escaped = [re.compile(_escaped_word(word).encode()) for word in kept]
        self._cores = [_core(word) for word in self._secrets]
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
        if not self._secrets:
            return reply
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
        if self._secrets and any(_found(self._has_escapes, data, CODE_BYTES_MAX)):
            plain = _without_escapes(data)
            for escaped, core in zip(self._escaped, self._cores, strict=True):
                if core in plain:  # looked for first, as matching takes ten times as long
                    data = _replaced(escaped, hidden, data)
        if is_cut:
            for secret in self._secrets:
                lengths = range(len(secret) - 1, SECRET_CHARACTERS_MIN - 1, -1)
                known = next((length for length in lengths if data.endswith(secret[:length])), 0)
                data = data[: len(data) - known] + hidden if known else data
        return data


def _found(pattern: re.Pattern[bytes], data: bytes, longest_bytes: int) -> Iterator[re.Match[bytes]]:
    """Find a pattern in pieces of the data, so that other threads have their turns.

    `longest_bytes`: a match of up to this size is found, too, where it begins in one piece and ends in the next. It may
    be found twice then, the second time as a whole or in part.
    """
    for start in range(0, len(data), PIECE_BYTES):
        yield from pattern.finditer(data, start, start + PIECE_BYTES + longest_bytes)


def _replaced(pattern: re.Pattern[bytes], replacement: bytes, data: bytes) -> bytes:
    """The data with a replacement in place of each match of up to ESCAPED_WORD_BYTES_MAX bytes."""
    parts, place = [], 0
    for found in _found(pattern, data, ESCAPED_WORD_BYTES_MAX):
        if found.end() > place:  # else it was found before
            parts += [data[place : found.start()], replacement]
            place = found.end()
    return b"".join([*parts, data[place:]])


def _without_escapes(data: bytes) -> bytes:
    """The data without backslashes, and with characters in place of their codes."""
    bare = _with_plain_percents(data.translate(None, b"\\"))
    codes = {code[1] for code in _found(CODE, bare, CODE_BYTES_MAX)}
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
    if b"%" in secret or b"u0" in secret or not secret.isascii():
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
    if not row.isascii():
        octets = "".join(f"%(?:25)*(?i:{octet:02x})" for octet in row.encode())
        return rf"(?:{before}\\++(?i:u{ord(row):04x})|{octets}|{re.escape(row)})"
    code = f"{ord(row[0]):02x}"
    encoded = rf"%(?:25)*(?i:{code})"
    if row[0] == "\\":  # any row of backslashes will do, as each may be escaped by others
        return rf"(?:{before}\\++(?i:u00{code})?|{encoded}){{1,{len(row)}}}"
    # backslashes before any other character are JSON's
    return rf"(?:{before}\\++)?(?:(?i:u00{code})|{encoded}|{re.escape(row)})"
