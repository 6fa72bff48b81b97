"""The requests of a run, taken one by one by whoever sends them, without waiting for those that come late."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from ..records import Request

AHEAD_REQUESTS = 64
"""How many requests are drawn ahead. More are drawn once half of them are taken, so that no worker waits for one."""
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
        self._ahead_bytes = 0
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
        if len(self._ahead) <= AHEAD_REQUESTS // 2 and self._ahead_bytes <= AHEAD_BYTES // 2:
            self._draw_more()
        if not self._ahead:
            self._is_wanted = True
            return None
        request = self._ahead.popleft()
        self._ahead_bytes -= len(request.body)
        return request

    def _draw_more(self) -> None:
        """Begin to draw, unless a draw goes on or there is nothing left. An error is raised once nothing is ahead."""
        if self._drawing is not None:
            if not self._drawing.done() or (self._ahead and self._drawing.exception() is not None):
                return
            self._drawing.result()
        if not self._is_exhausted:
            self._drawing = asyncio.create_task(self._draw())

    async def _draw(self) -> None:
        try:
            while len(self._ahead) < AHEAD_REQUESTS and self._ahead_bytes < AHEAD_BYTES:
                request = await anext(self._requests, None)
                if request is None:
                    self._is_exhausted = True
                    break
                self._ahead.append(request)
                self._ahead_bytes += len(request.body)
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
