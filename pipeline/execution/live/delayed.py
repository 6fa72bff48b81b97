"""The requests of a lane that are to be sent at a given time: retries, and follow-ups, which are due at once."""

import heapq
import math
from itertools import count

from .open_request import OpenRequest


class Delayed:
    """A queue by time; what is due at the same time leaves in the order in which it came."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, OpenRequest]] = []
        self._order = count()
        self.size_bytes = 0
        """The size of all their bodies together."""

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def first_at(self) -> float:
        """When the first is due, in the clock of the run; infinity if there is none."""
        return self._heap[0][0] if self._heap else math.inf

    def add(self, item: OpenRequest, at: float) -> None:
        """Queue a request, to be sent at that time."""
        heapq.heappush(self._heap, (at, next(self._order), item))
        self.size_bytes += len(item.request.body)

    def due(self, now: float) -> OpenRequest | None:
        """The first request whose time has come, not yet removed; those that are superseded are left out."""
        while self.first_at <= now:
            item = self._heap[0][2]
            if not item.is_superseded:
                return item
            self.remove_first()
        return None

    def remove_first(self) -> None:
        """Remove the first request."""
        item = heapq.heappop(self._heap)[2]
        self.size_bytes -= len(item.request.body)
