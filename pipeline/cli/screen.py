"""What commands print: results on stdout, messages on stderr."""

import contextlib
import json
import math
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from typing import TextIO, cast

import click

from ..screen import Screen

NO_ASCII = re.compile(r"[^\x00-\x7f]+")


def replace_what_the_screen_lacks() -> None:
    """From now on, print "?" for a character that the encoding of stdout or stderr lacks, as in a locale of Latin-1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


@contextlib.contextmanager
def patient_stderr() -> Iterator[None]:
    """Until the block ends, nobody who writes to `sys.stderr` waits until it is read, whoever they are."""
    before = cast("TextIO | None", sys.stderr)  # None: closed by the parent process
    screen = Screen(before)
    sys.stderr = cast("TextIO", screen)
    try:
        yield
    finally:
        screen.drain()
        sys.stderr = before or screen.stream


@contextlib.contextmanager
def patient_stdout() -> Iterator[None]:
    """The same for `sys.stdout`, but nothing is dropped: the end of the block waits for the reader of a pipe."""
    before = sys.stdout
    screen = Screen(before, bytes_max=math.inf)
    sys.stdout = cast("TextIO", screen)
    try:
        yield
        screen.drain(for_ever=not screen.isatty())
    finally:
        sys.stdout = before


def print_lines(texts: Iterable[str]) -> None:
    """Print each text on stdout as soon as it is made."""
    _drain()
    for text in texts:
        click.echo(text)


def print_message(text: str) -> None:
    """Print on stderr, without keys; a closed terminal, one that nobody reads, or a full disk changes no run's end."""
    from ..secrecy import hidden_in_name
    from ..text import printable

    _drain()
    with contextlib.suppress(OSError):
        # names of files and columns may hold control characters; a key may have been typed in the wrong place
        click.echo(printable(hidden_in_name(text)), err=True)
    _drain()


def confirm(question: str) -> bool:
    """Ask a person on the terminal; this waits until it was read and answered."""
    _drain()
    stream = sys.stderr.stream if isinstance(sys.stderr, Screen) else sys.stderr
    with contextlib.redirect_stderr(stream):
        return click.confirm(question, err=True)


def _drain() -> None:
    """Wait for what is on its way to the screen, so that all appears in the order in which it was said."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Screen):
            stream.drain()


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
