"""Token counts and costs."""

from collections.abc import Sequence
from typing import Self

from .record import Count, Record


def add_costs(a: float | None, b: float | None) -> float | None:
    """The sum of two costs in US dollars; None if either is unknown."""
    return None if a is None or b is None else a + b


def _sum(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else a + b


class Usage(Record, frozen=True):
    """Token counts as the endpoint reported them; a count that it did not report is None, never 0.

    The prompt's tokens include those that were read from a cache or written to one.
    """

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    reasoning_tokens: Count | None = None
    cached_tokens: Count | None = None
    total_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    """Prompt tokens that were written to the endpoint's cache, which may cost more than others."""
    long_cache_write_tokens: Count | None = None
    """The part of them that the cache keeps for an hour or more."""
    tier: str = ""
    """The service tier that was used; empty if the endpoint named none, and in a sum."""
    is_billed: bool = True
    """False if the endpoint reports tokens that it does not charge for."""
    untrue: str = ""
    """A reported count that cannot be one, such as `prompt_tokens: -1`; it is left out above."""

    @classmethod
    def of(cls, counts: Sequence[int | None]) -> Self:
        """The usage with these counts, in the order of TOKEN_COUNTS."""
        prompt, completion, reasoning, cached, total, written, long_written = counts
        return cls(prompt, completion, reasoning, cached, total, written, long_written)

    def __add__(self, other: Self) -> Self:
        """Add count by count; one that only one side knows is that count."""
        if other is UNKNOWN or other == UNKNOWN:
            return self
        return type(self)(
            _sum(self.prompt_tokens, other.prompt_tokens),
            _sum(self.completion_tokens, other.completion_tokens),
            _sum(self.reasoning_tokens, other.reasoning_tokens),
            _sum(self.cached_tokens, other.cached_tokens),
            _sum(self.total_tokens, other.total_tokens),
            _sum(self.cache_write_tokens, other.cache_write_tokens),
            _sum(self.long_cache_write_tokens, other.long_cache_write_tokens),
        )

    @property
    def billed_output_tokens(self) -> int | None:
        """Output tokens that are billed. A total above prompt + completion counts hidden reasoning, too."""
        if self.total_tokens is None or self.prompt_tokens is None:
            return self.completion_tokens
        return max(self.completion_tokens or 0, self.total_tokens - self.prompt_tokens)


TOKEN_COUNTS = Usage.__struct_fields__[:7]
"""The names of the token counts in a Usage."""

UNKNOWN = Usage()
"""The usage of a reply that reported none."""
