"""The status of every row of the last plan, found by reading only the answers that may have a follow-up."""

from pathlib import Path
from typing import Any, cast

import polars as pl

from ..job import Job
from ..records import FOLLOWED_UP, STATUSES, TEMPORARY, Request, Status, Tally
from ..store import Reader
from .chains import Chains
from .keys import keys_path, read_digests, samples_per_row, selected_keys
from .outcomes import find_outcomes

STATUS_RANK: dict[Status, int] = {status: rank for rank, status in enumerate(("pending", *STATUSES[:-1]))}
"""The rank of each status, from 0: a row has the status of its sample with the lowest rank.

So a row is pending while one of its samples is, and else has the best status of its samples.
"""


def tally_statuses(job: Job, folder: Path, reader: Reader) -> Tally:
    """Count the rows of the last plan by status; tokens and costs of the tally are left at 0."""
    counts: dict[str, Any] = dict(row_statuses(job, folder, reader).value_counts().iter_rows())
    return Tally(**{status: counts.get(status, 0) for status in STATUSES})


def row_statuses(job: Job, folder: Path, reader: Reader) -> pl.Series:
    """The status of each row of the last plan, in row order, as an Enum of all statuses.

    The mark in the store is the status, except of an answer that may have a follow-up: there the chain is followed.
    """
    keys = keys_path(folder)
    chains, samples = Chains(job, reader), samples_per_row(keys)
    digests = read_digests(keys)
    ranks = pl.repeat(STATUS_RANK["pending"], len(digests), dtype=pl.UInt8, eager=True)
    ranks = ranks.zip_with(digests.is_not_null(), _rank("failed"))
    outcomes = find_outcomes(digests, reader)
    for mark, marked in outcomes.by_mark.items():
        ranks = ranks.zip_with(~marked, _rank("failed" if mark == TEMPORARY else cast("Status", mark)))
    followed_up = outcomes.marked(FOLLOWED_UP)
    found = [
        STATUS_RANK[chain.status]
        for chunk in selected_keys(keys, followed_up)
        for chain in chains.follow([Request(key=key, body=b"") for key in chunk])
    ]
    ranks = ranks.scatter(followed_up.arg_true(), found) if found else ranks
    if samples > 1:
        by_row = ranks.to_frame("rank").group_by(pl.int_range(pl.len()) // samples, maintain_order=True)
        ranks = by_row.min()["rank"]
    return ranks.cat.to(pl.Enum([*STATUS_RANK])).alias("status")


def _rank(status: Status) -> pl.Series:
    """The rank of a status as a series of length 1, which polars extends to any length."""
    return pl.Series([STATUS_RANK[status]], dtype=pl.UInt8)
