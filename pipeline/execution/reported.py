"""Which added columns the answers of a job folder fill: the output leaves out some of those that nothing fills."""

from collections.abc import Iterable

from ..records import Answer, message_parts

PLAIN_TIERS = frozenset({"", "default", "standard", "auto", "on_demand"})
"""Service tiers that need no column: all rows have them."""

OF_MESSAGE = frozenset({"reasoning", "tool_calls", "citations"})
"""The columns that are read from the whole message, or from an answer's text."""

MARKS = ("<think", "<thought", "<reason", "[think")
"""How reasoning within an answer's text begins, in small letters."""


class ReportedColumns:
    """The added columns that at least one answer fills, of those that stand in an output only then."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        """`known`: those that answers of earlier runs fill."""
        self.names = set(known)

    def see(self, answer: Answer) -> bool:
        """Take note of an answer; True if it fills a column that none has filled before."""
        found = set()
        if answer.usage.tier not in PLAIN_TIERS:
            found.add("tier")
        if answer.usage.cache_write_tokens:
            found.add("cache_write_tokens")
        if answer.served_by:
            found.add("served_by")
        if not self.names >= OF_MESSAGE and _may_have_parts(answer):
            parts = message_parts(answer)
            found |= {name for name in OF_MESSAGE if getattr(parts, name)}
        if found <= self.names:
            return False
        self.names |= found
        return True


def _may_have_parts(answer: Answer) -> bool:
    return bool(answer.message or answer.taken_from) or answer.text[:40].lstrip().lower().startswith(MARKS)
