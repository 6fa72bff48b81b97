"""Stored outcomes: which of a plan's requests have one, by the mark it has in the store.

A mark is the status that an outcome had when it was stored; that of a failure whose cause passes is TEMPORARY.
"""

from collections import Counter
from collections.abc import Iterable
from functools import reduce
from operator import or_

import polars as pl

from ..records import ANSWERED, Record
from ..store import Reader
from .digests import DIGESTS_PER_PART, are_in, digests_of_text


class StoredOutcomes(Record, frozen=True):
    """For each request of a plan whether it has a stored outcome, and how many answers the store has."""

    requests: int
    """Number of requests of the plan."""
    by_mark: dict[str, pl.Series]
    """For each mark a Boolean for each request: whether it has an outcome of that mark."""
    answers: int
    """Number of answers in the store, those to requests of other plans included."""

    def marked(self, marks: Iterable[str]) -> pl.Series:
        """A Boolean for each request: whether it has an outcome of one of these marks."""
        masks = (self.by_mark[mark] for mark in marks if mark in self.by_mark)
        return reduce(or_, masks, pl.repeat(value=False, n=self.requests, eager=True))

    def any_mark(self) -> pl.Series:
        """A Boolean for each request: whether it has an outcome."""
        return self.marked(self.by_mark)


def find_outcomes(digests: pl.Series, reader: Reader) -> StoredOutcomes:
    """Look up the digests of a plan's requests among all outcomes of the store."""
    by_mark: dict[str, pl.Series] = {}
    collected: dict[str, list[pl.Series]] = {}
    counts: Counter[str] = Counter()

    def look_up(mark: str) -> None:
        found = are_in(digests, pl.concat(collected.pop(mark)))
        by_mark[mark] = by_mark[mark] | found if mark in by_mark else found

    for chunk in reader.marks():
        marks = pl.DataFrame(
            {"digest": digests_of_text([key for key, _ in chunk]), "mark": [mark for _, mark in chunk]}
        )
        for (mark,), of_mark in marks.partition_by("mark", as_dict=True).items():
            collected.setdefault(mark, []).append(of_mark["digest"])
            counts[mark] += of_mark.height
            if sum(map(len, collected[mark])) >= DIGESTS_PER_PART:
                look_up(mark)
    for mark in [*collected]:
        look_up(mark)
    return StoredOutcomes(len(digests), by_mark, sum(counts[mark] for mark in ANSWERED))
