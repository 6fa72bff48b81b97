"""Room for large bodies: however many are read at once, together they take a bounded amount of memory.

What finds no room is not read any further for now, so that its sender waits. The body that began first always finds
room, up to the size limit of one: so there is always one that comes to its end, and nobody waits for ever.
"""

import asyncio
from types import TracebackType
from typing import Self

BODY_BYTES_MAX = 32 * 1024 * 1024
"""The largest body that is read, after decompression."""
FREE_BYTES = 512 * 1024
"""Up to this size a body needs no room: an answer of a usual size never waits for another."""
ROOM_BYTES = 96 * 1024 * 1024
"""How much all larger bodies may take together, from their reading until their outcome is on disk."""


class BodyRoom:
    """The room of one client. Not for several event loops."""

    def __init__(self, room_bytes: int = ROOM_BYTES) -> None:
        self._beside_first_bytes = room_bytes - BODY_BYTES_MAX
        self._used_bytes = 0
        self._shares: dict[RoomShare, None] = {}
        """The shares in use, in the order in which they began."""
        self._change = asyncio.Event()

    def share(self) -> "RoomShare":
        """A share for one attempt. It grows with the body; the end of its `with` block gives it back."""
        return RoomShare(self)

    def take(self, share: "RoomShare", more_bytes: int) -> bool:
        """Take more room for a share; False if there is not enough."""
        self._shares.setdefault(share)
        if share is not next(iter(self._shares)) and self._used_bytes + more_bytes > self._beside_first_bytes:
            return False
        self._used_bytes += more_bytes
        return True

    def give_back(self, share: "RoomShare", its_bytes: int) -> None:
        """Give a whole share back."""
        if share in self._shares:
            del self._shares[share]
            self._used_bytes -= its_bytes
            self._change.set()
            self._change = asyncio.Event()

    async def change(self) -> None:
        """Return once a share was given back."""
        await self._change.wait()


class RoomShare:
    """What one attempt's body takes of the room."""

    def __init__(self, room: BodyRoom) -> None:
        self._room = room
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._room.give_back(self, self._bytes)

    async def grow(self, to_bytes: int, deadline: asyncio.Timeout) -> None:
        """Return once there is room for a body of this size. The wait for it is not counted against the deadline."""
        if to_bytes <= max(self._bytes, FREE_BYTES):
            return
        loop, due, waited_since = asyncio.get_running_loop(), deadline.when(), None
        while not self._room.take(self, to_bytes - self._bytes):
            if waited_since is None:
                waited_since = loop.time()
                deadline.reschedule(None)
            await self._room.change()
        self._bytes = to_bytes
        if waited_since is not None and due is not None:
            deadline.reschedule(due + loop.time() - waited_since)
