"""Whether the results of a finished batch account for all its requests: what may have been paid is not asked again.

Pure: files that were downloaded are read, and nothing is called.
"""

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, NamedTuple

from .files import read_results

PARTIAL = frozenset({"expired", "cancelled", "failed"})
"""The final statuses of a batch that need not have asked all its requests."""

FINISHED = PARTIAL | {"completed"}
"""The statuses of a batch that will answer nothing more."""

UNFINISHED = frozenset({"validating", "in_progress", "finalizing", "cancelling"})
"""The statuses of a batch that goes on."""


class Counts(NamedTuple):
    """How many requests the provider counts as completed and as failed; None if it does not say."""

    completed: int | None = None
    failed: int | None = None

    @property
    def done(self) -> int:
        """How many are done."""
        return (self.completed or 0) + (self.failed or 0)


def counts_of(batch: dict[str, Any]) -> Counts:
    """Read the counts of a provider's batch object. A count that is missing or is not a number is None."""
    reported = batch.get("request_counts")
    reported = reported if isinstance(reported, dict) else {}
    completed, failed = (
        n if isinstance(n := reported.get(name), int) and n >= 0 else None for name in ("completed", "failed")
    )
    return Counts(completed, failed)


class Account(NamedTuple):
    """What the files of a batch's results hold."""

    answers: int = 0
    """The requests of the batch with an answer."""
    results: int = 0
    """The requests of the batch with any result: an answer, a rejection, or that it was not asked."""
    unreadable: int = 0
    """The lines that are no results."""
    shared: tuple[bool, ...] = ()
    """Of each file, whether it holds more than results of this batch's requests."""


def account_of(paths: Iterable[Path], keys: AbstractSet[str], parse: Callable[[bytes], object]) -> Account:
    """Count what files of results hold of the requests with these keys. `parse`: see `read_results`."""
    answered: set[str] = set()
    seen: set[str] = set()
    unreadable, shared = 0, []
    for path in paths:
        is_shared = False
        for result in read_results(path, parse):
            if result is None:
                unreadable += 1
            elif result.key in keys:
                seen.add(result.key)
                if result.status == 200:
                    answered.add(result.key)
            is_shared = is_shared or result is None or result.key not in keys
        shared.append(is_shared)
    return Account(len(answered), len(seen), unreadable, tuple(shared))


def what_is_missing(status: str, counts: Counts, requests: int, account: Account) -> str:
    """What is missing in the results of a finished batch that may have been paid for, in words; empty if nothing is.

    A request without a result is not missing if the provider's own count shows that it was not answered.
    """
    has_all_answers = counts.completed is None or account.answers >= min(counts.completed, requests)
    counts_twice = counts.done > requests  # what failed is counted as completed, too
    if account.results >= requests and (has_all_answers or counts_twice):
        return ""
    if account.unreadable:
        return f"{account.unreadable:,} lines of its results cannot be read"
    is_partial = status in PARTIAL and (counts.completed is not None or account.results > 0)
    is_counted = status in FINISHED and bool(account.shared) and counts.completed == account.answers
    if has_all_answers and (is_partial or is_counted):
        return ""
    if not account.shared:
        return "there is no file of its results"
    missing = max(requests - account.results, min(counts.completed or 0, requests) - account.answers)
    others = ", and its files hold results of other requests" if any(account.shared) else ""
    return f"{missing:,} of its {requests:,} results are missing{others}"
