"""Hide the secrets in texts that are kept or shown: command lines, prompts, settings. The time is linear in the text.

A text holds a secret where a word looks like one, where a word is said to be one (`password=…`, `Bearer …`), and in
the user part of an address. A variable of the shell (`$NAME`) or of a template is none.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any
from urllib.parse import quote

from .look import HIDDEN, PREFIX, SECRET_CHARACTERS_MIN, is_secret, randomness
from .sources import SECRET_NAME

PREFIXED = re.compile(rf"(?<![A-Za-z0-9])(?=[A-Zabcdefghjlmnprstuxy])(?:{PREFIX.pattern})[\w\-./+=~]+", re.ASCII)
USER_PART = re.compile(r"(://)([^\s/?#@'\"]+)(?=@)")

NAMED = (
    r"(?=[abckpst])(?<!cache[_-])(?:key|token|secret|passwd|password|passphrase|pwd|authorization|auth|credentials?|signature"
    r"|cookie|session|bearer|basic)"
)
SCHEMES = r"(?:bearer|basic|token|apikey|api-key|key|digest)\s"
SCHEME = rf"(?:{SCHEMES}\s*)?"
VALUE = rf"(?!{SCHEMES})[^\s\"'&;,<>|(){{}}\[\]$`]"
SAID = re.compile(rf"({NAMED}[\"']?(?:\s*[:=]\s*|\s+is\s+|\s+)[\"']?{SCHEME})({VALUE}{{8,}})", re.IGNORECASE)
"""A word that the text calls a key, a token or a password."""
GIVEN = re.compile(
    rf"({NAMED}[\"']?\s*[:=]\s*[\"']?{SCHEME}|--?{NAMED}\s+[\"']?|(?:-u|--user)[\s=]+[\"']?[^\s\"'$:]+:)({VALUE}{{4,}})",
    re.IGNORECASE,
)
"""What a shell command gives as a password, in a header, an assignment or an option, whatever it looks like."""

WEAK_RANDOMNESS_MIN = 6
"""The least randomness of a word that the text around it names a secret. Lower than RANDOMNESS_MIN for that; not zero,
as prompts may talk about keys, and the keys of local servers may be plain words."""

CHUNK = re.compile(r"[^\s\"'`;|&<>(),]+")
"""What a shell or a reader takes for one word: of paths and addresses, the whole."""
BARE = re.compile(r"[A-Za-z0-9_-]{20,}")
BASE64 = re.compile(r"[A-Za-z0-9+/]{32,}={0,2}")
HEXADECIMAL = re.compile(r"[0-9a-fA-F-]+")
CODE = re.compile(r"(\{\{[^{}]*\}\}|\{%[^{}]*%\})")
"""An expression or a statement of a template."""

IN_PROMPTS = ("prompt.system", "prompt.template")
COMMAND = "endpoint.api_key_command"
PARAMETERS = "parameters"
IDENTIFYING = re.compile(r"(?:.*\.)?(?:\w*cache_key|user|\w*identifier|\w*_id)")
"""Parameters that are often random and no secrets: the provider files requests under them."""
UNTOUCHED = ("answer", "prompt.column", "prompt.images", "columns")
"""Settings that name columns and labels: answers are read by them, so they are kept to the letter."""


def hidden_in_text(text: str, known: Iterable[str] = (), *, is_command: bool = False) -> str:
    """A text for people, such as a prompt, without its secrets. `is_command`: the text is a line for the shell.

    `known`: secrets that are hidden wherever they stand, unless they look like placeholders.
    """
    text = hidden_in_name(text, known)
    if is_command:
        text = GIVEN.sub(lambda found: found[1] + HIDDEN, text)
    text = SAID.sub(_hide_said, text)
    return CHUNK.sub(lambda found: _hide_bare(found[0]), text)


def hidden_in_program(command: str | Sequence[str], known: Iterable[str] = ()) -> str:
    """The line of a program that is started without a shell, without secrets. An option's name tells of its value."""
    try:
        words = shlex.split(command) if isinstance(command, str) else list(command)
    except ValueError:  # a quote is left open
        return hidden_in_text(str(command), known, is_command=True)
    shown = []
    for word in _hidden_words(words, known):
        plain = word.replace(HIDDEN, "x")
        shown.append(word if shlex.quote(plain) == plain else shlex.quote(word))
    return " ".join(shown)


def _hidden_words(words: Sequence[str], known: Iterable[str]) -> list[str]:
    """The words of such a line without secrets."""
    hidden = []
    for before, word in pairwise(["", *words]):
        option = f"{before} " if before.startswith("-") and not word.startswith("-") else ""
        hidden.append(hidden_in_text(option + word, known, is_command=True).removeprefix(option))
    return hidden


def hidden_in_name(text: str, known: Iterable[str] = ()) -> str:
    """A path, an address or an identifier without secrets. They may be random: only what is surely one is hidden."""
    for secret in sorted(set(known), key=len, reverse=True):
        if len(secret) >= SECRET_CHARACTERS_MIN and (is_secret(secret) or randomness(secret) >= WEAK_RANDOMNESS_MIN):
            text = text.replace(secret, HIDDEN).replace(quote(secret, safe=""), HIDDEN)
    text = PREFIXED.sub(lambda found: HIDDEN if is_secret(found[0]) else found[0], text)
    return USER_PART.sub(lambda found: found[1] + _without_password(found[2]), text)


def hidden_in_setting(name: str, value: Any, known: Iterable[str] = ()) -> Any:  # noqa: ANN401 - a setting has any type
    """The value of a setting (`name` is dotted) without secrets; labels, schemas and names of columns as they are."""
    if name.startswith(UNTOUCHED):
        return value
    if name == COMMAND:
        # a list stays one: the settings are read again for `export` and `report`
        return hidden_in_program(value, known) if isinstance(value, str) else _hidden_words(value, known)
    if name in IN_PROMPTS and isinstance(value, str):
        parts = CODE.split(value)  # code is every second part; columns are named in it
        return "".join((hidden_in_name if at % 2 else hidden_in_text)(part, known) for at, part in enumerate(parts))
    section, _, key = name.partition(".")
    return _in_strings(key, value, hidden_in_text if section == PARAMETERS else hidden_in_name, list(known))


def _in_strings(name: str, value: Any, hide: Callable[..., str], known: list[str]) -> Any:  # noqa: ANN401 - any JSON value
    """Hide secrets in every string of a JSON value; one under the name of a secret is said to be one."""
    if isinstance(value, str):
        if IDENTIFYING.fullmatch(name):
            return hidden_in_name(value, known)
        label = f"{name}=" if SECRET_NAME.search(name) else ""
        return hide(label + value, known).removeprefix(label)
    if isinstance(value, list | tuple):
        return [_in_strings(name, each, hide, known) for each in value]
    if isinstance(value, dict):
        return {key: _in_strings(key, each, hide, known) for key, each in value.items()}
    return value


def _without_password(user_part: str) -> str:
    user, colon, password = user_part.partition(":")
    if colon and password and password[0] not in "${":
        return f"{user}:{HIDDEN}"
    return HIDDEN if is_secret(user_part) else user_part


def _hide_said(found: re.Match[str]) -> str:
    word = found[2].rstrip(".:!?")
    if "/" in word or not (is_secret(word) or randomness(word) >= WEAK_RANDOMNESS_MIN):
        return found[0]
    return found[1] + HIDDEN + found[2][len(word) :]


def _hide_bare(chunk: str) -> str:
    """Hide what looks random in a word; not the hexadecimal digits in the path of a file, which are often a hash."""
    is_address = "://" in chunk
    is_path = not is_address and ("/" in chunk or "." in chunk)

    def hide(found: re.Match[str]) -> str:
        is_name = is_path and HEXADECIMAL.fullmatch(found[0])
        return HIDDEN if not is_name and is_secret(found[0]) else found[0]

    if not is_address and chunk[0] not in "/.~":
        chunk = BASE64.sub(lambda found: HIDDEN if _is_base64(found[0]) and is_secret(found[0]) else found[0], chunk)
    return BARE.sub(hide, chunk)


def _is_base64(text: str) -> bool:
    return any(map(str.isupper, text)) and any(map(str.islower, text)) and any(map(str.isdigit, text))
