"""The requests of a run, taken one by one by whoever sends them, without waiting for those that come late."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from ..records import Request

AHEAD_REQUESTS = 16
"""How many requests are drawn ahead, so that few of them wait for a turn of the event loop."""
AHEAD_BYTES = 256 * 1024
"""No more are drawn ahead once their bodies together have this size."""


class RequestStream:
    """Takes requests from an async iterator. A task of its own draws them ahead: no worker waits for the iterator.

    Only `close` cancels a draw: the iterator may just have made a request, and that would be lost.
    """

    def __init__(self, requests: AsyncIterator[Request], on_change: Callable[[], None]) -> None:
        """`on_change` is called when `take` may return a request or raise an error after it returned None."""
        self._requests, self._on_change = requests, on_change
        self._ahead: deque[Request] = deque()
        self._drawing: asyncio.Task[None] | None = None
        """The latest draw, which may be over."""
        self._is_wanted = False
        """Whether a request was asked for while there was none."""
        self._is_exhausted = False

    @property
    def is_over(self) -> bool:
        """Whether `take` will bring no more requests."""
        return self._is_exhausted and not self._ahead

    def take(self) -> Request | None:
        """The next request; None if there is none at the moment, or none ever again (`is_over`).

        Raises what the iterator raised, once all requests that it made before are taken.
        """
        if self._ahead:
            return self._ahead.popleft()
        if self._drawing is not None and self._drawing.done():
            self._drawing.result()
            self._drawing = None
        if self._drawing is None and not self._is_exhausted:
            self._drawing = asyncio.create_task(self._draw())
        self._is_wanted = True
        return None

    async def _draw(self) -> None:
        size_bytes = 0
        try:
            while len(self._ahead) < AHEAD_REQUESTS and size_bytes < AHEAD_BYTES:
                request = await anext(self._requests, None)
                if request is None:
                    self._is_exhausted = True
                    break
                self._ahead.append(request)
                size_bytes += len(request.body)
                self._report()
        finally:
            self._report()

    def _report(self) -> None:
        if self._is_wanted:
            self._is_wanted = False
            self._on_change()

    async def close(self) -> None:
        """Draw nothing more. What was drawn and not taken is dropped."""
        if self._drawing is not None:
            self._drawing.cancel()
            await asyncio.gather(self._drawing, return_exceptions=True)
