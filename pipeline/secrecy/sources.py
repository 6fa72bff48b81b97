"""The secrets that a header, or a name and a password, hold: whole, and in each part that a server may repeat."""

import binascii
import re
from base64 import b64decode, b64encode
from urllib.parse import unquote

from .look import is_secret

SECRET_NAME = re.compile("auth|key|token|secret|cookie|passw|credential|signature", re.IGNORECASE)
"""A header, or an environment variable, whose name matches is taken to hold a secret."""

BASIC = re.compile(r"basic\s+(\S+)", re.IGNORECASE)
PARTS = re.compile(r"[^\s;,\"'()<>{}\[\]]+")
"""The words of a header's value: of cookies, of a scheme with parameters, of a list."""
NAME = re.compile(r"[\w.-]{1,40}")


def secrets_of_header(name: str, value: str) -> list[str]:
    """The secrets in a header: its whole value and its parts if its name says so, else the parts that look like one.

    Of a Basic header, name and password, and the password alone, are secrets too.
    """
    basic = BASIC.fullmatch(value.strip())
    login = _decoded(basic[1]) if basic is not None else None
    if login is not None:
        return [value, *login_secrets(*login)]
    parts, assigned = _parts(value)
    by_look = [part for part in (*parts, *assigned) if is_secret(part)]
    if not SECRET_NAME.search(name):
        return by_look
    # the other words of a value may be words that every error says
    return [value, value.rpartition(" ")[2], *assigned, *by_look]


def login_secrets(name: str, password: str) -> list[str]:
    """The spellings of a name and a password that a server may repeat. A name alone is none, unless it looks so."""
    pair = f"{name}:{password}"
    encoded = b64encode(pair.encode()).decode()
    alone = [name] if is_secret(name) else []
    return [pair, *([password] if password else []), encoded, encoded.rstrip("="), *alone]


def _parts(value: str) -> tuple[list[str], list[str]]:
    """The words of a value with the parts of addresses in it, and what stands behind the `=` of its `name=value`."""
    words: list[str] = []
    assigned: list[str] = []
    for word in PARTS.findall(value):
        words.append(word)
        name, _, rest = word.partition("=")
        if rest.strip("=") and NAME.fullmatch(name):  # else it is the padding of base64
            assigned.append(rest)
        if "://" in word or "@" in word:
            words += re.split(r"[/?&=:@#]", word)
    return [*words, *map(unquote, words)], [*assigned, *map(unquote, assigned)]


def _decoded(encoded: str) -> tuple[str, str] | None:
    """Name and password of a Basic header; None if it is none."""
    try:
        name, colon, password = b64decode(encoded + "=" * (-len(encoded) % 4), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (name, password) if colon and (name + password).isprintable() else None
