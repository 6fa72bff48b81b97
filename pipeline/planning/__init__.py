"""The requests of a table's rows, and which of them are unanswered."""

from .chains import STATUS_RANK, Chain, Chains, Step, samples_per_row
from .plan import (
    Plan,
    headline,
    keys_and_errors,
    keys_hash,
    keys_path,
    make_plan,
    pending_requests,
    row_statuses,
    select_rows,
    tally_statuses,
)

__all__ = [
    "STATUS_RANK",
    "Chain",
    "Chains",
    "Plan",
    "Step",
    "headline",
    "keys_and_errors",
    "keys_hash",
    "keys_path",
    "make_plan",
    "pending_requests",
    "row_statuses",
    "samples_per_row",
    "select_rows",
    "tally_statuses",
]
