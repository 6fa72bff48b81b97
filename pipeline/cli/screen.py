"""What commands print: results on stdout, messages on stderr."""

import contextlib
import json
import re
import shutil
import sys
from collections.abc import Iterable
from io import TextIOWrapper

import click

NO_ASCII = re.compile(r"[^\x00-\x7f]+")


def replace_what_the_screen_lacks() -> None:
    """From now on, print "?" for a character that the encoding of stdout or stderr lacks, as in a locale of Latin-1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def print_lines(texts: Iterable[str]) -> None:
    """Print each text on stdout as soon as it is made."""
    for text in texts:
        click.echo(text)


def print_message(text: str) -> None:
    """Print on stderr; a closed terminal or a full disk does not change how a run ended."""
    from ..text import printable

    with contextlib.suppress(OSError):
        click.echo(printable(text), err=True)  # names of files and columns may hold control characters


def json_text(record: object) -> str:
    """A record, or a list of them, as JSON."""
    import msgspec

    return exact_json(msgspec.json.encode(record).decode())


def exact_json(text: str) -> str:
    """JSON that a script can read whole from stdout: characters that its encoding may lack are escaped."""
    if (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf"):
        return text
    return NO_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text)  # outside of strings, JSON is ASCII


def terminal_width() -> int:
    """The terminal's columns; 80 without a terminal."""
    return shutil.get_terminal_size().columns
