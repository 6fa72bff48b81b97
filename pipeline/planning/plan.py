"""The plan of a run: which requests of a table's rows it sends.

Every row is rendered to compute its keys, which are looked up in the store. Rows that are asked are rendered again
when their requests are sent, since a key is small and a prompt is not. Planning keeps 16 bytes for each request (a
digest of its key) and one bit for each mark and decision; requests that were followed up take the same again.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl
from msgspec import structs

from ..folder import unfinished_retry
from ..job import Job, ThisRun
from ..prompts import Prompts
from ..records import ANSWERED, FOLLOWED_UP, TEMPORARY, Answer, BadJob, Failure, Record, Request, Status
from ..store import Reader
from ..tables import Table
from ..text import one_line
from .chains import Chain, Chains
from .digests import are_in, digests_of_text, first_of_equals
from .keys import count_errors, key_slices, keys_path, selected_keys, total_bytes, write_draft, write_keys
from .outcomes import StoredOutcomes, find_outcomes
from .reuse import EarlierAnswers


class Plan(Record, frozen=True):
    """What a run sends. Counts are of requests, one for each sample of each row, if they do not say rows or answers.

    `answered`, `to_ask`, `duplicates` and the requests of rows without one add up to all requests.
    """

    rows: int
    samples_per_row: int
    """Number of requests for each row."""
    answered: int
    """Requests whose outcome is known, those equal to them included."""
    to_ask: int
    """Requests that begin or continue a chain in this run: the number of samples that will be settled."""
    asked_again: int
    """Of `to_ask`, those whose stored outcome will be replaced."""
    duplicates: int
    """Requests equal to an earlier one in `to_ask`, whose answer they share."""
    rows_without_request: int
    """Rows that no request can be made of."""
    first_row_error: str
    """Why no request can be made of the first of them; empty if there is none."""
    request_bytes: int
    """Size of all requests in `to_ask` together (`costs.token_bytes`)."""
    stored: int
    """Answers in the job folder."""
    unused: int
    """Answers in the job folder that no row of this table uses."""
    ask: pl.Series
    """A Boolean for each request: whether it is in `to_ask`."""
    continued: pl.Series
    """A Boolean for each request: whether it is in `to_ask` and continues a chain that has outcomes already."""
    reused: int = 0
    """Requests that use an answer to an earlier contract (`answer.keep_old`)."""


def select_rows(this_run: ThisRun, table: Table) -> Table:
    """The rows that a run covers: all, the first ones (`--limit`), or a random sample (`--sample`)."""
    if this_run.limit is not None:
        return table.head(this_run.limit)
    if this_run.sample is not None:
        return table.sample(this_run.sample, this_run.seed)
    return table


def headline(job: Job, plan: Plan) -> str:
    """Number of rows, host and models of a run: `80,000 rows, 2 samples each → api.openai.com, gpt-x + gpt-y`."""
    models = job.endpoint.base_url.removeprefix("local:") if job.endpoint.is_local else " + ".join(job.models)
    rows = f"{plan.rows:,} rows" + (f", {plan.samples_per_row:,} samples each" if plan.samples_per_row > 1 else "")
    return f"{rows} → {one_line(job.endpoint.host)}, {one_line(models)}"


def make_plan(
    job: Job,
    table: Table,
    prompts: Prompts,
    reader: Reader,
    folder: Path,
    on_rows: Callable[[int], None] = lambda _rows: None,
) -> Plan:
    """Compute the keys of all requests, write them to `keys.parquet` in `folder`, and look them up in the store.

    `on_rows` is called with the number of further rows whose keys are known. Raises BadJob if no row can be asked.
    """
    draft = folder / "keys.part.parquet"
    earlier = EarlierAnswers(job, prompts, reader)
    try:
        slices = key_slices(job, table, prompts, earlier)
        digests = write_draft(slices, draft, job.samples_per_row, on_rows)
        first = first_of_equals(digests)
        write_keys(draft, first, keys_path(folder), job.samples_per_row)
        outcomes = find_outcomes(digests, reader)
        lookup = _Lookup(digests, first, outcomes, _done_by_this_retry(job, draft, first, outcomes, reader))
        plan = _decide(job, draft, lookup, _follow_chains(job, draft, lookup, reader))
        return structs.replace(plan, reused=earlier.reused)
    finally:
        draft.unlink(missing_ok=True)


class _Lookup(NamedTuple):
    """What is known of the requests from their keys alone; each series but the last has a value for each request."""

    digests: pl.Series
    first: pl.Series
    """Whether it is the first of equal requests."""
    outcomes: StoredOutcomes
    retried: pl.Series
    """Digests of the requests that need no further retry (`_done_by_this_retry`)."""


class _FollowedChains(NamedTuple):
    """The chains whose first answer may have a follow-up; a chain is named by the digest of its first request."""

    all: pl.Series
    to_ask: pl.Series
    """Those of `all` that this run continues."""
    asked_again: int
    """Number of chains to ask whose last outcome will be replaced."""
    follow_up_answers: int
    """Number of answers to follow-ups."""


def _done_by_this_retry(job: Job, draft: Path, first: pl.Series, outcomes: StoredOutcomes, reader: Reader) -> pl.Series:
    """Digests of requests that the retry which this run goes on with is done with: they are not paid for once more.

    They are known by the id in their outcomes. The time at which they were stored says nothing: clocks are set back.
    """
    retry = unfinished_retry(job.folder, job.this_run.retry)
    if retry is None:
        return digests_of_text([])
    stored = reader.stored_since(retry.since) if retry.since is not None else []
    done = [key for key, mark in stored if mark in ANSWERED]
    if retry.id:
        chains, may_be_done = Chains(job, reader), first & outcomes.marked([*job.this_run.retry, *FOLLOWED_UP])
        for keys in selected_keys(draft, may_be_done):
            followed = chains.follow([Request(key, b"") for key in keys])
            done += [step.request.key for chain in followed for step in chain.steps if step.outcome.retry == retry.id]
    return digests_of_text(done)


def _follow_chains(job: Job, draft: Path, lookup: _Lookup, reader: Reader) -> _FollowedChains:
    chains, retry = Chains(job, reader), job.this_run.retry
    followed, to_ask, asked_again, answers = [digests_of_text([])], [digests_of_text([])], 0, 0
    chosen = selected_keys(draft, lookup.first & lookup.outcomes.marked(FOLLOWED_UP))
    for found in (part for keys in chosen for part in chains.parts([Request(key=key, body=b"") for key in keys])):
        retried = are_in(digests_of_text([chain.next_request.key for chain in found]), lookup.retried)
        asks = [_asks(chain, retry, is_retried=done) for chain, done in zip(found, retried, strict=True)]
        followed.append(digests_of_text([chain.first.key for chain in found]))
        to_ask.append(followed[-1].filter(pl.Series(asks, dtype=pl.Boolean)))
        asked_again += sum(ask and chain.unanswered is None for ask, chain in zip(asks, found, strict=True))
        answers += sum(isinstance(step.outcome, Answer) for chain in found for step in chain.steps[1:])
    return _FollowedChains(pl.concat(followed), pl.concat(to_ask), asked_again, answers)


def _asks(chain: Chain, retry: tuple[Status, ...], *, is_retried: bool) -> bool:
    """Whether a run continues a chain: it is incomplete, failed for a temporary reason, or its status is to be retried.

    `is_retried`: this retry has answered the chain's last request already.
    """
    if chain.unanswered is not None:
        return True
    last = chain.steps[-1].outcome
    is_temporary = isinstance(last, Failure) and not last.lasting
    return is_temporary or (chain.status in retry and not is_retried)


def _decide(job: Job, draft: Path, lookup: _Lookup, chains: _FollowedChains) -> Plan:
    """Decide for each request whether it is asked, and count."""
    digests, first, outcomes, retried = lookup
    has_outcome = outcomes.any_mark()
    is_replaced = outcomes.marked([TEMPORARY, *job.this_run.retry]) & ~are_in(digests, retried)
    is_continued = are_in(digests, chains.to_ask)
    is_open = is_continued | (is_replaced & ~are_in(digests, chains.all))
    is_known = has_outcome & ~is_open
    ask = first & ~is_known
    is_continued &= ask
    errors, first_error = count_errors(draft)
    rows, bad_rows = len(digests) // job.samples_per_row, errors // job.samples_per_row
    if bad_rows and bad_rows == rows:
        raise BadJob(f"None of the {rows:,} rows can be asked. The first: {first_error}.\nNothing was sent.")
    used = int((first & outcomes.marked(ANSWERED)).sum()) + chains.follow_up_answers
    answered, to_ask = int(is_known.sum()), int(ask.sum())
    return Plan(
        rows=rows,
        samples_per_row=job.samples_per_row,
        answered=answered,
        to_ask=to_ask,
        asked_again=int((ask & ~is_continued & has_outcome).sum()) + chains.asked_again,
        duplicates=len(digests) - answered - to_ask - bad_rows * job.samples_per_row,
        rows_without_request=bad_rows,
        first_row_error=first_error,
        request_bytes=total_bytes(draft, ask),
        stored=outcomes.answers,
        unused=max(0, outcomes.answers - used),
        ask=ask,
        continued=is_continued,
    )
