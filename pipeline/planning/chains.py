"""What became of an opinion: found by walking from its first request through all that was asked after it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..answers import AnswerChecker, ParsedAnswer
from ..job import Job
from ..records import FOLLOWED_UP, STATUSES, Answer, Outcome, Request, Status
from ..store import Reader, read_outcome
from ..tables import read_parquet_metadata

STATUS_RANK: dict[Status, int] = {status: at for at, status in enumerate(("pending", *STATUSES[:-1]))}
"""Of a row's opinions the one that stands lowest decides its status: one that is pending, else the best.

The numbers are places, from 0 on: a column of them is an Enum of these names.
"""

SAMPLES_KEY = "pipeline.opinions"
"""By this name the metadata of a `keys.parquet` tell how many requests a row has."""


def samples_per_row(keys: Path) -> int:
    """How many requests each row has in a `keys.parquet`."""
    return int(read_parquet_metadata(keys).get(SAMPLES_KEY, "1"))


class Step(NamedTuple):
    """One request of a walk that has an outcome."""

    request: Request
    outcome: Outcome
    status: Status
    parsed: ParsedAnswer | None


class Chain:
    """The requests of one opinion, as far as they have outcomes, and the one that is to be asked next."""

    __slots__ = ("steps", "unanswered")

    def __init__(self, first: Request) -> None:
        self.steps: list[Step] = []
        self.unanswered: Request | None = first
        """Asked next, if it is asked at all; None if nothing is to follow."""

    @property
    def result(self) -> Step | None:
        """The step whose outcome is the opinion's: a failure never takes an answer's place. None if it is pending."""
        if self.unanswered is not None:
            return None
        for step in reversed(self.steps):
            if isinstance(step.outcome, Answer):
                return step
        return self.steps[-1]

    @property
    def status(self) -> Status:
        """What became of the opinion, so far."""
        return "pending" if self.result is None else self.result.status

    @property
    def next_request(self) -> Request:
        """What would be asked: what is missing, or the last step once more."""
        return self.unanswered if self.unanswered is not None else self.steps[-1].request


class Chains:
    """The walks through one store. Only what has an answer that may have been followed up is looked up further."""

    def __init__(self, job: Job, reader: Reader) -> None:
        self._reader, self._checker = reader, AnswerChecker(job)

    def follow(self, firsts: Sequence[Request]) -> list[Chain]:
        """The walk from each of these requests, in their order; without a body they give the keys all the same."""
        chains = [Chain(first) for first in firsts]
        going_on = list(zip(chains, firsts, strict=True))
        while going_on:
            stored = self._reader.get_many([request.key for _, request in going_on])
            going_on = [
                (chain, following)
                for (chain, request), value in zip(going_on, stored, strict=True)
                if value is not None and (following := self._go(chain, request, value)) is not None
            ]
        return chains

    def _go(self, chain: Chain, request: Request, stored: bytes) -> Request | None:
        """One step on, and what is to follow."""
        outcome = read_outcome(stored)
        status, held = self._checker.check(outcome)
        chain.steps.append(Step(request, outcome, status, held))
        chain.unanswered = self._checker.follow_up(request, outcome) if status in FOLLOWED_UP else None
        return chain.unanswered
