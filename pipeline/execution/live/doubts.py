"""Answers that may be another request's, since the endpoint sent too many: taken back, and asked again."""

from msgspec.structs import replace

from ...records import Failure
from ..context import RunContext
from .open_request import OpenRequest

DOUBTFUL = Failure(
    kind="doubtful",
    reason="its answer may have been another row's: the endpoint sent a response that nobody had asked for",
    lasting=False,
)
"""What is recorded in place of a doubtful answer, until its request is answered again."""


class Doubts:
    """The requests of a lane whose recorded outcomes are doubtful."""

    def __init__(self) -> None:
        self._requests: list[OpenRequest] = []

    def add(self, item: OpenRequest, attempt: int) -> bool:
        """Mark the reply to an attempt as doubtful; True if an outcome was recorded from it.

        If that reply is only being read, the lane finds `is_doubtful` set.
        """
        if attempt != item.tries.sent or item.is_superseded:
            return False  # it decided nothing
        item.is_doubtful = True
        if item.outcome is None:
            return False
        self._requests.append(item)
        return True

    async def take_back(self, context: RunContext) -> list[OpenRequest]:
        """Replace the doubtful outcomes by temporary failures, so that no kill leaves them; returns what to ask again.

        Where the context cannot ask again, the next run does, and nothing is returned. Raises Stopped if an outcome
        cannot be written.
        """
        to_ask = []
        while self._requests:
            item = self._requests.pop()
            if item.is_superseded:
                continue
            outcome = item.outcome
            assert outcome is not None  # noqa: S101 - `add` saw to it
            failure = replace(DOUBTFUL, asked_at=outcome.asked_at, attempts=outcome.attempts)
            if context.asks_again:
                self._uncount(item, context)
            await context.record(item.request, failure, counts=False, replaces=outcome)
            if context.asks_again:
                again = OpenRequest(item.request)
                again.replaces = replace(failure, cost=outcome.cost)
                item.following = again
                to_ask.append(again)
        return to_ask

    def _uncount(self, item: OpenRequest, context: RunContext) -> None:
        """Take the sample out of the counts: now if its chain has ended, else when its last outcome is recorded."""
        last = item
        while last.following is not None:
            last = last.following
            last.is_superseded = True
        if last.outcome is not None:
            context.uncount(last.request, last.outcome)
