"""What every record is, the numbers and times that records hold, and the process that runs a job."""

import getpass
import os
import socket
from datetime import datetime
from typing import Annotated, Self

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0)]
Amount = Annotated[float, msgspec.Meta(ge=0)]
"""Numbers that are never negative. One that is read from a folder is refused otherwise: a debt would raise the cap."""
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with its zone; one without cannot be compared with the present."""


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """Every record: frozen, compared by value, encoded as JSON without the fields that have their default."""


class Process(Record, frozen=True):
    """The process that runs a job: user, host and process id."""

    user: str
    host: str
    pid: int

    @classmethod
    def this(cls) -> Self:
        """The current process."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # an account without a name, as in some containers
            user = str(os.getuid())
        return cls(user, socket.gethostname(), os.getpid())
