"""Paths as people give them: names that every library can spell, and pipes that are not waited for in silence."""

import contextlib
import os
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from .records import BadJob
from .text import printable

SILENT_SECONDS = 1.0
"""After this time, it is said what is being waited for."""
DESCRIPTORS = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
"""How the names of a process's own open files begin, such as the /dev/fd/63 that a shell makes of <(command)."""
KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def check_name(name: str | Path) -> None:
    """Raise BadJob for a name, or a text of the command line, that is not UTF-8: JSON and polars cannot spell it.

    Also for a name of which the locale makes other bytes than UTF-8: polars would open another file than Python.
    """
    text = str(name)
    with contextlib.suppress(UnicodeEncodeError):
        if "\0" not in text and os.fsencode(text) == text.encode():
            return
    try:
        raw = os.fsencode(text)
    except UnicodeEncodeError:
        raw = text.encode("utf-8", "replace")
    shown = printable(raw.decode("utf-8", "backslashreplace"))
    if "\0" in text:
        raise BadJob(f"{shown}: no file has a NUL in its name. Nothing was sent.")
    if shown.encode("utf-8", "replace") == raw:
        raise BadJob(
            f"{shown}: the locale has no such characters. Put PYTHONUTF8=1 before the command, or set LC_ALL=C.UTF-8. "
            "Nothing was sent."
        )
    raise BadJob(
        f"{shown}: a name or text that is not UTF-8. Rename the file or folder (mv), or type the text in a terminal of "
        "UTF-8. Nothing was sent."
    )


def is_stream(path: Path) -> bool:
    """Whether a path names a pipe, or an open file of this process: it can be read once, from its beginning to its end.

    Also if it is a descriptor of an earlier process, and is not there any more.
    """
    if str(path).startswith(DESCRIPTORS):
        return True
    with contextlib.suppress(OSError):  # such as a name that is too long: whoever opens it says so
        return path.is_fifo()
    return False


def special_kind(path: Path) -> str | None:
    """What stands at this path in place of a file, such as "a pipe"; None for a file, and if nothing is there.

    Raises OSError.
    """
    try:
        return KINDS.get(stat.S_IFMT(path.stat().st_mode))
    except FileNotFoundError:
        return None


def read_text(path: Path) -> str:
    """The text of a file or a pipe. Raises OSError, and UnicodeDecodeError if it is not UTF-8."""
    if not is_stream(path):
        return path.read_text(encoding="utf-8")
    with saying_that_it_waits(str(path)):
        return path.read_text(encoding="utf-8")


@contextlib.contextmanager
def saying_that_it_waits(name: str) -> Iterator[None]:
    """If the block takes longer than a second, say on stderr that it waits for the end of a stream of this name."""
    timer = threading.Timer(SILENT_SECONDS, _say, [f"Waiting for {name} to be written and closed. Ctrl-C ends this."])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _say(text: str) -> None:
    from tqdm import tqdm  # noqa: PLC0415 - `pipeline --help` does without it

    with contextlib.suppress(OSError, ValueError):  # a closed terminal does not stop the reading
        if sys.stderr is not None:
            tqdm.write(printable(text), file=sys.stderr)  # above a bar, if there is one
