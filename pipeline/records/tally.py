"""The numbers of a run: tallies of requests and rows, and the summary of how it ended."""

from operator import add
from typing import Self

import msgspec

from .errors import Exit
from .record import Amount, Count, Record
from .statuses import STATUSES, UNUSABLE, Status
from .usage import Usage


class Tally(Record, frozen=True, omit_defaults=False):
    """The numbers that bar, budget, plan, summary and history show; tallies add with `+`.

    A tally counts requests while they are asked, and rows in a table.
    """

    ok: Count = 0
    truncated: Count = 0
    filtered: Count = 0
    refused: Count = 0
    invalid: Count = 0
    failed: Count = 0
    pending: Count = 0
    usage: Usage = Usage()
    cost: Amount = 0.0
    """US dollars, without attempts of unknown cost."""
    unpriced: Count = 0
    """Attempts (in a table: rows) of unknown cost."""
    attempts: Count = 0
    held: Amount = 0.0
    """The most, in US dollars, that attempts may have cost which nobody reported; counts against a cap."""
    aside: Amount = 0.0
    """The most, in US dollars, that requests in flight may cost; after a kill it is added to `held`."""
    maybe_paid: Count = 0
    """Attempts that gave no answer and may be billed all the same."""
    answers: Count = 0
    """Number of answers from the endpoint."""
    request_bytes: Count = 0
    """The sum of the sizes of the requests of these answers (`costs.token_bytes`)."""
    seconds: Amount = 0.0
    """The sum of the latencies of these answers."""
    in_outcomes: Amount = 0.0
    """The part of `cost` that recorded outcomes name; the rest was spent on attempts without one."""

    def __add__(self, other: Self) -> Self:
        return type(self)(*map(add, msgspec.structs.astuple(self), msgspec.structs.astuple(other)))

    def plus(self, status: Status, count: int = 1) -> Self:
        """The tally with one more of that status, or with `count` more."""
        return msgspec.structs.replace(self, **{status: getattr(self, status) + count})

    @property
    def rows(self) -> int:
        """The number of all that were counted, of any status."""
        return sum(getattr(self, status) for status in STATUSES)

    @property
    def tokens(self) -> int:
        """Prompt and output tokens, with hidden reasoning, as far as they are known."""
        return (self.usage.prompt_tokens or 0) + (self.usage.billed_output_tokens or 0)

    @property
    def unanswered(self) -> int:
        """The number that ended without a usable answer."""
        return sum(getattr(self, status) for status in UNUSABLE)


class Summary(Record, frozen=True, omit_defaults=False):
    """How a run ended: returned by `run`, and written to `summary.json` and the history."""

    exit_code: Exit
    message: str
    """Why the run stopped; empty if it finished."""
    output: str
    rows: Tally
    """The rows of the table by status, with their usage and cost."""
    run: Tally
    """The requests of this run alone, with their usage and cost."""
    spent: float
    """US dollars over the life of the job folder."""
    seconds: float
    wrote: bool
    """Whether the output was written."""
    elsewhere: float = 0.0
    """The part of `spent` for rows that are not in the table, and for attempts without an outcome."""
    served: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    """Which models answered, by the name that was asked for: their names, and the numbers of their answers over the
    life of the job folder."""
