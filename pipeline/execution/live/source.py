"""What a lane needs to know of its run: where its requests come from, and what all lanes share."""

from typing import Protocol

from ...records import Request


class RequestSource(Protocol):
    """Where a lane's requests come from, and what it needs to know of all lanes of the run together."""

    def draw(self, model: str) -> Request | None:
        """The next request of a model; None if there is none at the moment, or none ever again (`is_over`).

        After None the lane is woken (`Lane.changed`) as soon as there may be one.
        """
        ...

    def is_over(self, model: str) -> bool:
        """Whether no more requests of this model will come."""
        ...

    @property
    def in_flight(self) -> int:
        """The number of requests in flight, of all lanes."""
        ...

    @property
    def has_answers(self) -> bool:
        """Whether any model of the run has answered."""
        ...

    def wake_all(self) -> None:
        """Wake the workers of all lanes: a stop was requested, or money or room became free."""
        ...
