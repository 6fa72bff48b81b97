"""Errors of polars and of the disk, put into words: what happened to which file, what is safe, what to do next."""

import errno
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polars.exceptions import PanicException, PolarsError

from ..records import Stopped
from ..text import clip

UNREADABLE = (PolarsError, PanicException, OSError, EOFError)
"""What polars, gzip and the operating system raise for a file that cannot be read."""
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Error numbers for a full disk, a used-up quota, and a file at its size limit."""
QUOTED_CHARACTERS = 200
"""Longest part of a library's own error message that is repeated in ours."""


def brief(error: BaseException) -> str:
    """The first line of an error's message, without its full stop; the name of its class if it has no message."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return clip(first, QUOTED_CHARACTERS).rstrip(".:")


def is_disk_full(error: BaseException) -> bool:
    """Whether the disk, or the user's quota on it, is full. Polars keeps the error number only in its message."""
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return True
    return any(f"(os error {number})" in str(error) for number in DISK_FULL)


@contextmanager
def reporting_disk_errors(path: Path) -> Iterator[None]:
    """Raise Stopped, naming `path`, for a full disk or any other OSError in the block."""
    try:
        yield
    except (PolarsError, OSError) as error:
        if is_disk_full(error):
            raise Stopped(
                f"No space left on the disk for {path}. No file was changed, and all stored answers are kept.\n"
                f"Make room (df -h {shlex.quote(str(path.parent))}), then run the same command again."
            ) from error
        if isinstance(error, OSError):
            raise Stopped(
                f"{path} could not be written: {brief(error)}. Its old content is unchanged, and all stored answers "
                "are kept."
            ) from error
        raise
