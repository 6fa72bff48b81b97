"""The plan of a run: the requests of a table's rows, and which of them have no answer in the store yet."""

from .chains import Chain, Chains, Step
from .keys import keys_and_errors, keys_hash, keys_path, samples_per_row
from .pending import pending_requests
from .plan import Plan, headline, make_plan, select_rows
from .statuses import STATUS_RANK, row_statuses, tally_statuses

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
