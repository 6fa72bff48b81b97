"""Chains: follow a sample's requests (first ask, repairs, re-ask with more tokens) through the store.

The last answer of a chain decides the status of its sample.
"""

from collections.abc import Iterator, Sequence
from itertools import chain as chained
from typing import NamedTuple

from ..answers import AnswerChecker, ParsedAnswer
from ..job import Job
from ..records import FOLLOWED_UP, Answer, Outcome, Request, Status
from ..store import Reader, read_outcome


class Step(NamedTuple):
    """One request of a chain with its outcome."""

    request: Request
    outcome: Outcome
    status: Status
    parsed: ParsedAnswer | None
    """The answer read by the job's contract; None for a failure, a refusal, and a job without a contract."""


class Chain:
    """One sample's requests: those with an outcome, in order, and the next one if it has none yet."""

    __slots__ = ("steps", "unanswered")

    def __init__(self, first: Request) -> None:
        self.steps: list[Step] = []
        self.unanswered: Request | None = first
        """The next request, which has no outcome yet; None if the chain is complete."""

    @property
    def first(self) -> Request:
        """The request that the chain begins with."""
        return self.steps[0].request if self.steps else self.next_request

    @property
    def result(self) -> Step | None:
        """The step whose outcome is the sample's: the last answer, or the last failure if there is no answer.

        None while a request is unanswered. A failed follow-up never replaces an answer.
        """
        if self.unanswered is not None:
            return None
        for step in reversed(self.steps):
            if isinstance(step.outcome, Answer):
                return step
        return self.steps[-1]

    @property
    def status(self) -> Status:
        """The status of the sample; pending while a request is unanswered."""
        result = self.result
        return "pending" if result is None else result.status

    @property
    def next_request(self) -> Request:
        """The request that is sent to go on: the unanswered one, or the last one again."""
        return self.unanswered if self.unanswered is not None else self.steps[-1].request


class Chains:
    """The chains of one job's samples, read from its store."""

    def __init__(self, job: Job, reader: Reader) -> None:
        self._reader, self._checker = reader, AnswerChecker(job)

    def follow(self, firsts: Sequence[Request]) -> Iterator[Chain]:
        """Follow the chain that begins with each of these requests; the chains come in the same order.

        A request needs no body: without one, its follow-ups have the right keys and no body either. Only the outcomes
        of one part (`parts`) are in memory, if the caller keeps none.
        """
        return chained.from_iterable(self.parts(firsts))

    def parts(self, firsts: Sequence[Request], together: int = 1) -> Iterator[list[Chain]]:
        """The chains of `follow` in lists whose outcomes take a bounded amount of memory.

        A list ends where the first outcomes have `store.PART_BYTES`, or those of the second requests, and so on; it
        holds a multiple of `together` chains, at least that number. `firsts` has a multiple of it.
        """
        at = 0
        while at < len(firsts):
            chains = self._first_chains(firsts[at:], together)
            at += len(chains)
            yield chains
            del chains  # so that it is not in memory beside the next part

    def _first_chains(self, firsts: Sequence[Request], together: int) -> list[Chain]:
        """The next part. The store is queried once for each length of chain, and only where an answer has a follow-up.

        Where the follow-ups have no room, the part is cut short; what was read of the rest is read again for the next.
        """
        chains = [Chain(first) for first in firsts]
        growing = list(enumerate(firsts))
        while growing:
            stored = self._reader.get_first([request.key for _, request in growing], together)
            if len(stored) < len(growing):
                del chains[growing[len(stored)][0] // together * together :]
            growing = [
                (at, following)
                for (at, request), value in zip(growing, stored, strict=False)
                if at < len(chains)
                and value is not None
                and (following := self._add_step(chains[at], request, value)) is not None
            ]
        return chains

    def _add_step(self, chain: Chain, request: Request, stored: bytes) -> Request | None:
        """Add a request with its stored outcome to the chain; returns its follow-up, if it has one."""
        outcome = read_outcome(stored)
        checked = status, parsed = self._checker.check(outcome)
        chain.steps.append(Step(request, outcome, status, parsed))
        chain.unanswered = self._checker.follow_up(request, outcome, checked) if status in FOLLOWED_UP else None
        return chain.unanswered
