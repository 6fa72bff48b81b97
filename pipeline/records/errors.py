"""How a job can end: the exit codes, and the exceptions that say the remedy."""

from enum import IntEnum

from ..version import __version__


class Exit(IntEnum):
    """The exit codes of `run` and `resume`. After all but USAGE and INCOMPLETE, the same line goes on with the job."""

    DONE = 0
    NEEDS_PERSON = 1
    USAGE = 2
    INCOMPLETE = 3
    AT_LIMIT = 4
    LOCKED = 5
    TRY_LATER = 75
    SIGHUP = 129
    SIGINT = 130
    SIGTERM = 143


class BadJob(Exception):
    """The job cannot begin, and nothing was sent. The message says why, and what to do."""


class Stopped(Exception):
    """The job cannot go on: rows without an outcome stay pending. `exit_code` says whether a person is needed."""

    def __init__(self, message: str, exit_code: Exit = Exit.NEEDS_PERSON) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class NewerVersion(Stopped):
    """A newer version of pipeline wrote what this one does not understand. Nothing was sent, and nothing changed."""

    def __init__(self, what: str) -> None:
        """`what`: the file, and in brackets what in it is not understood."""
        super().__init__(
            f"{what} was written by a newer version of pipeline; this is {__version__}. Nothing was sent and nothing "
            "was changed. Update pipeline, then type the same command again."
        )
