"""A Ray that tests share."""

from typing import NamedTuple


class RayHere(NamedTuple):
    """A Ray that all tests share, as its start takes half a minute: runs in this process find it, others by address."""

    address: str
    logs: str
    key_variable: str
    """Of the environment in which it was started."""
