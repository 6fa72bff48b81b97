"""What commands print: results on stdout, messages on stderr."""

import contextlib
import shutil
from collections.abc import Iterable

import click


def print_lines(texts: Iterable[str]) -> None:
    """Print each text on stdout as soon as it is made."""
    for text in texts:
        click.echo(text)


def print_message(text: str) -> None:
    """Print on stderr, without keys; a closed terminal or a full disk does not change how a run ended."""
    from ..secrecy import hidden_in_name
    from ..text import printable

    with contextlib.suppress(OSError):
        # names of files and columns may hold control characters; a key may have been typed in the wrong place
        click.echo(printable(hidden_in_name(text)), err=True)


def json_text(record: object) -> str:
    """A record, or a list of them, as JSON."""
    import msgspec

    return msgspec.json.encode(record).decode()


def terminal_width() -> int:
    """The terminal's columns; 80 without a terminal."""
    return shutil.get_terminal_size().columns
