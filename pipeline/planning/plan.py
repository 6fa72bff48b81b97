"""The requests of each row, and which of them are unanswered.

Each row is rendered once to learn its keys; the rows to ask are rendered again when their turn comes, since a key is
small and a prompt is not. A run over the same input with the same settings as the last has the keys of the last, and
renders only the first rows, to see that they are the same. What is kept of a request meanwhile is 16 bytes, the first
half of its key, and a bit for each mark and decision; of the few that were followed up the same once more. A row of k
opinions is k requests, and `keys.parquet` one flat table of them: opinion j of row i stands at i * k + j.
"""

import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, cast

import polars as pl
from msgspec import structs

from ..costs import token_bytes
from ..folder import last_start, last_summary, retried_since
from ..job import Job, ThisRun
from ..prompts import Prompts
from ..records import (
    ANSWERED,
    FOLLOWED_UP,
    STATUSES,
    TEMPORARY,
    Answer,
    BadJob,
    Exit,
    Failure,
    Record,
    Request,
    Status,
    Stopped,
    Tally,
)
from ..store import Reader
from ..tables import Table, read_slices, write_table
from ..text import one_line
from ..version import __version__
from .chains import SAMPLES_KEY, STATUS_RANK, Chain, Chains, samples_per_row
from .digests import AT_ONCE, are_in, digests_of, digests_of_text, first_of_equals
from .reuse import EarlierAnswers

KEYS_SCHEMA = pl.Schema({"key": pl.Binary, "bytes": pl.UInt32, "error": pl.String, "first": pl.Boolean})
"""`keys.parquet`: of each request its key, its size, why it cannot be asked, whether it is the first of its equals."""

PART_SCHEMA = pl.Schema({name: dtype for name, dtype in KEYS_SCHEMA.items() if name != "first"})

BESIDE_THE_KEYS = {"limits", "output", "prices", "run"}
"""The sections of a job file that no key hangs on."""

RENDERED_AT_ONCE = 5_000
"""Requests; at least one row's."""
WALKED_AT_ONCE = 1_000


class Plan(Record, frozen=True):
    """What a run would ask. All but rows counts requests, the first of each opinion: as many as rows where k is 1."""

    rows: int
    samples_per_row: int
    """Requests a row has: k."""
    answered: int
    """Those whose outcome is known already."""
    to_ask: int
    """Those that would be asked, or asked further: so many opinions will be settled."""
    asked_again: int
    """Of these, such as have an outcome already."""
    duplicates: int
    """Those equal to one that would be asked."""
    rows_without_request: int
    """Rows that no request can be made of."""
    first_row_error: str
    """Why the first of them cannot be asked."""
    request_bytes: int
    """Of all requests to ask, together."""
    stored: int
    """Answers in the job folder."""
    unused: int
    """Answers in the job folder that fit no row of this table."""
    ask: pl.Series
    """For each request, whether its opinion would be asked."""
    continued: pl.Series
    """For each of these, whether it has an outcome that is gone on from."""
    reused: int = 0
    """Requests that are answered by what was said to an earlier contract."""


def keys_path(folder: Path) -> Path:
    """Where the keys of a job's rows are kept."""
    return folder / "keys.parquet"


def select_rows(this_run: ThisRun, table: Table) -> Table:
    """The rows that this run is about: all, the first few, or a few by chance."""
    if this_run.limit is not None:
        return table.head(this_run.limit)
    if this_run.sample is not None:
        return table.sample(this_run.sample, this_run.seed)
    return table


def headline(job: Job, plan: Plan) -> str:
    """How many rows go where, and to whom: `80,000 rows, 2 opinions each → api.openai.com, gpt-x + gpt-y`."""
    models = job.endpoint.base_url.removeprefix("local:") if job.endpoint.is_local else " + ".join(job.models)
    rows = f"{plan.rows:,} rows" + (f", {plan.samples_per_row:,} opinions each" if plan.samples_per_row > 1 else "")
    return f"{rows} → {one_line(job.endpoint.host)}, {one_line(models)}"


def make_plan(  # noqa: PLR0913, PLR0917 - what is asked, of what, by what is known, to where
    job: Job,
    table: Table,
    prompts: Prompts,
    reader: Reader,
    folder: Path,
    seen: Callable[[int], None] = lambda _rows: None,
) -> Plan:
    """Learn every row's keys, write `keys.parquet`, look up what is known. Raises BadJob if no row at all can be asked.

    `seen` is told of how many further rows the keys are known.
    """
    part = folder / "keys.part.parquet"
    digests = [digests_of_text([])]
    old = EarlierAnswers(job, prompts, reader)
    try:
        last = _keys_of_last(job, table, prompts, old)
        keyed = (
            _keyed(table, prompts, job.samples_per_row, old) if last is None else _slices_of(last, job.samples_per_row)
        )
        write_table(_digested(keyed, digests, job.samples_per_row, seen), PART_SCHEMA, part, {}, private=True)
        digest = pl.concat(digests)
        digests.clear()
        first = first_of_equals(digest)
        told = {SAMPLES_KEY: str(job.samples_per_row)}
        write_table(_with_first(part, first), KEYS_SCHEMA, keys_path(folder), told, private=True)
        stored, paid = _stored(digest, reader), _paid(job, reader)
        walked = _walked(job, part, first & stored.has(FOLLOWED_UP), paid, reader)
        plan = _compare(job, part, digest, first, stored, paid, walked)
        return structs.replace(plan, reused=old.taken)
    finally:
        part.unlink(missing_ok=True)


class _Stored(Record, frozen=True):
    """What the store holds, of the requests of a plan and in all."""

    requests: int
    marked: dict[str, pl.Series]
    """By mark: for each request, whether it has an outcome of that mark."""
    answers: int

    def has(self, marks: Iterable[str]) -> pl.Series:
        """For each request, whether it has an outcome of such a mark."""
        marked = (self.marked[mark] for mark in marks if mark in self.marked)
        return reduce(or_, marked, pl.repeat(value=False, n=self.requests, eager=True))


def _compare(  # noqa: PLR0913, PLR0917 - two columns of the requests, what is stored and paid, what walking found
    job: Job, part: Path, digest: pl.Series, first: pl.Series, stored: _Stored, paid: pl.Series, walked: "_Walked"
) -> Plan:
    asked_again = stored.has([TEMPORARY, *job.this_run.retry]) & ~are_in(digest, paid)
    goes_on = are_in(digest, walked.to_ask)
    is_open = goes_on | (asked_again & ~are_in(digest, walked.all))
    has_outcome = stored.has(stored.marked)
    known = has_outcome & ~is_open
    ask = first & ~known
    goes_on &= ask
    keys = pl.scan_parquet(part, glob=False, hive_partitioning=False)
    errors = keys.filter(pl.col("error").is_not_null()).select(n=pl.len(), why=pl.col("error").first()).collect()
    unaskable, rows = errors["n"][0] // job.samples_per_row, len(digest) // job.samples_per_row
    if unaskable and unaskable == rows:
        raise BadJob(f"Not one of {rows:,} rows can be asked. The first: {errors['why'][0]}.\nNothing was sent.")
    used = (first & stored.has(ANSWERED)).sum() + walked.followed
    asked_bytes = keys.select(pl.col("bytes").cast(pl.Int64)).collect()["bytes"].filter(ask).sum()
    return Plan(
        rows=rows,
        samples_per_row=job.samples_per_row,
        answered=int(known.sum()),
        to_ask=int(ask.sum()),
        asked_again=int((ask & ~goes_on & has_outcome).sum()) + walked.again,
        duplicates=len(digest) - int(known.sum()) - int(ask.sum()) - unaskable * job.samples_per_row,
        rows_without_request=unaskable,
        first_row_error=errors["why"][0] or "",
        request_bytes=int(asked_bytes),
        stored=stored.answers,
        unused=max(0, stored.answers - int(used)),
        ask=ask,
        continued=goes_on,
    )


class _Walked(Record, frozen=True):
    """What was found of the opinions whose first answer may have been followed up, by the digests of first keys."""

    all: pl.Series
    to_ask: pl.Series
    again: int
    """Of those to ask, such as have an outcome that is to be replaced."""
    followed: int
    """Answers beyond the first."""


def _walked(job: Job, part: Path, wanted: pl.Series, paid: pl.Series, reader: Reader) -> _Walked:
    chains = Chains(job, reader)
    walked, to_ask, again, followed = [digests_of_text([])], [digests_of_text([])], 0, 0
    for keys in _chosen(part, wanted):
        found = chains.follow([Request(key=key, body=b"") for key in keys])
        last = are_in(digests_of_text([chain.next_request.key for chain in found]), paid)
        asked = [_is_to_ask(chain, job, is_paid=is_paid) for chain, is_paid in zip(found, last, strict=True)]
        walked.append(digests_of_text(keys))
        to_ask.append(walked[-1].filter(pl.Series(asked, dtype=pl.Boolean)))
        again += sum(ask and chain.unanswered is None for ask, chain in zip(asked, found, strict=True))
        followed += sum(isinstance(step.outcome, Answer) for chain in found for step in chain.steps[1:])
    return _Walked(pl.concat(walked), pl.concat(to_ask), again, followed)


def _is_to_ask(chain: Chain, job: Job, *, is_paid: bool) -> bool:
    """What is missing is asked; what passes is asked again; what is settled only if the user wants it, and once."""
    if chain.unanswered is not None:
        return True
    last = chain.steps[-1].outcome
    passes = isinstance(last, Failure) and not last.lasting
    return passes or (chain.status in job.this_run.retry and not is_paid)


def _chosen(part: Path, wanted: pl.Series) -> Iterator[list[str]]:
    """The wanted keys, a slice at a time."""
    offset = 0
    for frame in read_slices(part, ["key"]):
        keys = frame["key"].filter(wanted.slice(offset, frame.height)).bin.encode("hex").to_list()
        offset += frame.height
        for start in range(0, len(keys), WALKED_AT_ONCE):
            yield keys[start : start + WALKED_AT_ONCE]


async def pending_requests(
    table: Table, prompts: Prompts, plan: Plan, keys: Path, chains: Chains
) -> AsyncIterator[Request]:
    """What is to be asked first of each opinion to ask, in order, made when it is wanted.

    Of one that has an answer already that is what follows on it. Raises Stopped if the input changed, or if a row's
    requests are not those that were planned (`keys`): their answers would be filed where no row finds them.
    """
    size, at = _rows_at_once(plan.samples_per_row), 0
    planned = read_slices(keys, ["key"], size * plan.samples_per_row)
    for frame, keyed in zip(table.slices(prompts.columns, size), planned, strict=True):
        ask = plan.ask.slice(at, keyed.height)
        goes_on = plan.continued.slice(at, keyed.height).to_list()
        at += keyed.height
        rows = ask.reshape((-1, plan.samples_per_row)).arr.any()
        is_asked, planned_keys = ask.to_list(), keyed["key"].to_list()
        for number, row in zip(rows.arg_true(), frame.filter(rows).iter_rows(named=True), strict=True):
            for place, request in enumerate(_as_planned(prompts.requests(row)), number * plan.samples_per_row):
                if not is_asked[place]:
                    continue
                if bytes.fromhex(request.key) != planned_keys[place]:
                    raise _other_prompt()
                yield chains.follow([request])[0].next_request if goes_on[place] else request


def _as_planned(requests: list[Request] | Failure) -> list[Request]:
    if isinstance(requests, Failure):
        raise _other_prompt()
    return requests


def _other_prompt() -> Stopped:
    return Stopped(
        "A row gives another prompt now than when it was planned: the template's output is not the same "
        "each time, or an image\nwas changed. See what is sent with `pipeline preview`. Every answer so far is kept."
    )


def keys_hash(keys: Path) -> str:
    """64 hexadecimal digits by which a plan's keys are known again."""
    with keys.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tally_statuses(job: Job, folder: Path, reader: Reader) -> Tally:
    """How many rows of the last plan have which status; for a run that stopped."""
    counts: dict[str, Any] = dict(row_statuses(job, folder, reader).value_counts().iter_rows())
    return Tally(**{status: counts.get(status, 0) for status in STATUSES})


def row_statuses(job: Job, folder: Path, reader: Reader) -> pl.Series:
    """The status of each row of the last plan, in order, without reading what is answered well.

    A row's status is that of its best opinion, and it is pending if one of them is.
    """
    keys = keys_path(folder)
    chains, opinions = Chains(job, reader), samples_per_row(keys)
    digest = pl.concat([digests_of_text([]), *(digests_of(frame["key"]) for frame in read_slices(keys, ["key"]))])
    standing = pl.repeat(STATUS_RANK["pending"], len(digest), dtype=pl.UInt8, eager=True)
    standing = standing.zip_with(digest.is_not_null(), pl.Series([STATUS_RANK["failed"]], dtype=pl.UInt8))
    stored = _stored(digest, reader)
    for mark, marked in stored.marked.items():
        status = "failed" if mark == TEMPORARY else cast("Status", mark)
        standing = standing.zip_with(~marked, pl.Series([STATUS_RANK[status]], dtype=pl.UInt8))
    walked = stored.has(FOLLOWED_UP)
    found = [
        STATUS_RANK[chain.status]
        for chosen in _chosen(keys, walked)
        for chain in chains.follow([Request(key=key, body=b"") for key in chosen])
    ]
    standing = standing.scatter(walked.arg_true(), found) if found else standing
    if opinions > 1:
        by_row = standing.to_frame("standing").group_by(pl.int_range(pl.len()) // opinions, maintain_order=True)
        standing = by_row.min()["standing"]
    return standing.cat.to(pl.Enum([*STATUS_RANK])).alias("status")


def keys_and_errors(folder: Path, rows: pl.Series) -> pl.DataFrame:
    """Of the rows of the last plan that are wanted (true): `row` from 1, its first `key` in hexadecimal, its `error`.

    The key is null where there is an error.
    """
    keys = keys_path(folder)
    return (
        pl.scan_parquet(keys, glob=False, hive_partitioning=False)
        .select("key", "error")
        .gather_every(samples_per_row(keys))
        .with_row_index("row", 1)
        .filter(rows)
        .with_columns(pl.col("key").bin.encode("hex"))
        .collect()
    )


def _rows_at_once(opinions: int) -> int:
    return max(1, RENDERED_AT_ONCE // opinions)


def _keys_of_last(job: Job, table: Table, prompts: Prompts, old: EarlierAnswers) -> Path | None:
    """The `keys.parquet` of the last run, if this one has the same keys; None if they are to be made."""
    last, end = last_start(job.folder), last_summary(job.folder)
    if last is None or job.prompt.images or job.answer.keep_old:  # whose keys hang on more than settings and input
        return None
    if end is not None and end.exit_code is Exit.NEEDS_PERSON:  # perhaps as a row gave another prompt than was planned
        return None
    keys, this_run = keys_path(job.folder), job.this_run
    pilot = (last.limit, last.sample, last.seed)
    before = _told(last.version, pilot, last.table, last.input_hash, last.seen_by_model, settings=last.settings)
    pilot, path = (this_run.limit, this_run.sample, this_run.seed), str(table.path.absolute())
    now = _told(__version__, pilot, path, table.content_hash, job.seen_by_model(), settings=job.without_secrets())
    if before != now or not keys.exists() or keys_hash(keys) != last.keys_hash:
        return None
    # another version of what renders may give other prompts: it would to these
    made = next(_keyed(table.head(_rows_at_once(job.samples_per_row)), prompts, job.samples_per_row, old), None)
    found = next(_slices_of(keys, job.samples_per_row), None)
    return keys if made is not None and found is not None and made.equals(found.head(made.height)) else None


def _slices_of(keys: Path, opinions: int) -> Iterator[pl.DataFrame]:
    """As `_keyed` makes them."""
    return read_slices(keys, list(PART_SCHEMA), _rows_at_once(opinions) * opinions)


def _told(*facts: object, settings: dict[str, Any]) -> str:
    """All that a run's keys hang on, as text: to Python 1 is true. The same bytes by another ending are other rows."""
    sections = {name: section for name, section in settings.items() if name not in BESIDE_THE_KEYS}
    return json.dumps([*facts, sections], sort_keys=True)


def _digested(
    keyed: Iterator[pl.DataFrame], digests: list[pl.Series], opinions: int, seen: Callable[[int], None]
) -> Iterator[pl.DataFrame]:
    for frame in keyed:
        digests.append(digests_of(frame["key"]))
        yield frame
        seen(frame.height // opinions)


def _keyed(table: Table, prompts: Prompts, opinions: int, old: EarlierAnswers) -> Iterator[pl.DataFrame]:
    for frame in table.slices(prompts.columns, _rows_at_once(opinions)):
        rows = frame.rows(named=True)
        keys: list[str | None] = []
        sizes: list[int | None] = []
        errors: list[str | None] = []
        for requests in map(prompts.requests, rows):
            if isinstance(requests, Failure):
                keys += [None] * opinions
                sizes += [None] * opinions
                errors += [requests.reason] * opinions
            else:
                keys += [request.key for request in requests]
                sizes += [token_bytes(request.body) for request in requests]
                errors += [None] * opinions
        key = pl.Series(old.keys(rows, keys), dtype=pl.String).str.decode("hex")
        yield pl.DataFrame({"key": key, "bytes": sizes, "error": errors}, schema=PART_SCHEMA)


def _with_first(part: Path, first: pl.Series) -> Iterator[pl.DataFrame]:
    offset = 0
    for frame in read_slices(part):
        yield frame.with_columns(first.slice(offset, frame.height).alias("first"))
        offset += frame.height


def _stored(digest: pl.Series, reader: Reader) -> _Stored:
    """Look up all outcomes of the store."""
    marked: dict[str, pl.Series] = {}
    waiting: dict[str, list[pl.Series]] = {}
    counts: Counter[str] = Counter()

    def look_up(mark: str) -> None:
        found = are_in(digest, pl.concat(waiting.pop(mark)))
        marked[mark] = marked[mark] | found if mark in marked else found

    for chunk in reader.marks():
        marks = pl.DataFrame(
            {"digest": digests_of_text([key for key, _ in chunk]), "mark": [mark for _, mark in chunk]}
        )
        for (mark,), of_mark in marks.partition_by("mark", as_dict=True).items():
            waiting.setdefault(mark, []).append(of_mark["digest"])
            counts[mark] += of_mark.height
            if sum(map(len, waiting[mark])) >= AT_ONCE:
                look_up(mark)
    for mark in [*waiting]:
        look_up(mark)
    return _Stored(len(digest), marked, sum(counts[mark] for mark in ANSWERED))


def _paid(job: Job, reader: Reader) -> pl.Series:
    """Digests of what an unfinished run of the same `--retry` has answered already: it is not paid once more."""
    since = retried_since(job.folder, job.this_run.retry)
    again = reader.stored_since(since) if since is not None else []
    return digests_of_text([key for key, mark in again if mark in ANSWERED])
