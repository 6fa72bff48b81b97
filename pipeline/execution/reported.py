"""Which added columns the answers of a job folder fill: the output leaves out some of those that nothing fills."""

from collections.abc import Iterable

from ..records import Answer, thoughts_in

PLAIN_TIERS = frozenset({"", "default", "standard", "auto", "on_demand"})
"""Service tiers that need no column, as all rows have them; except in a job that asks for the half-price tier."""


class ReportedColumns:
    """The added columns that at least one answer fills, of those that stand in an output only then."""

    def __init__(self, known: Iterable[str] = (), *, has_tiers: bool = False) -> None:
        """`known`: those that answers of earlier runs fill. `has_tiers`: the job asks for the half-price tier."""
        self.names = set(known)
        self._plain_tiers = frozenset({""}) if has_tiers else PLAIN_TIERS

    def add(self, answer: Answer) -> bool:
        """Add the columns that an answer fills; True if none has filled one of them before."""
        found = set(answer.message_fills)
        if answer.usage.tier not in self._plain_tiers:
            found.add("tier")
        if answer.usage.cache_write_tokens:
            found.add("cache_write_tokens")
        if answer.served_by:
            found.add("served_by")
        if "reasoning" not in self.names and (answer.taken_from or thoughts_in(answer.text)):
            found.add("reasoning")
        if found <= self.names:
            return False
        self.names |= found
        return True
