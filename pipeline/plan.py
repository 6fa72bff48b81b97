"""The requests of each row, and which of them are unanswered.

Each row is rendered once to learn its key; the rows to ask are rendered again when their turn comes, since a key is
small and a prompt is not. What is kept of a row meanwhile is 16 bytes, the first half of its key, and of a stored
outcome the same and its mark.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from . import history
from .job import Job
from .local_model import find_gguf, gguf_sha256
from .prompts import Prompts
from .records import STATUSES, UNSETTLED, BadJob, Failure, Record, Request, Status, Stopped, Tally
from .store import Reader
from .tables import Table, read_slices, write_table

KEYS_SCHEMA = pl.Schema({"key": pl.Binary, "bytes": pl.UInt32, "error": pl.String, "first": pl.Boolean})
"""`keys.parquet`: each row's key, its request's size, why it cannot be asked, whether it is the first of its equals."""

RENDERED_AT_ONCE = 5_000
ANSWERED: tuple[Status, ...] = ("ok", "truncated", "filtered", "refused", "invalid")


class Plan(Record, frozen=True):
    """What a run would ask."""

    rows: int
    answered: int
    """Rows whose outcome is known already."""
    to_ask: int
    """Rows that would be asked, each a request."""
    asked_again: int
    """Of these, such as have an outcome already."""
    equal: int
    """Rows equal to one that would be asked."""
    unaskable: int
    """Rows that no request can be made of."""
    why_unaskable: str
    """Why the first of them cannot be asked."""
    request_bytes: int
    """Of all requests to ask, together."""
    stored: int
    """Answers in the job folder."""
    unused: int
    """Answers in the job folder that fit no row of this table."""
    ask: pl.Series
    """For each row, whether it would be asked."""


def keys_path(folder: Path) -> Path:
    """Where the keys of a job's rows are kept."""
    return folder / "keys.parquet"


def chosen_rows(job: Job, table: Table) -> Table:
    """The rows that this run is about: all, the first few, or a few by chance."""
    wanted = job.this_run
    if wanted.limit is not None:
        return table.head(wanted.limit)
    if wanted.sample is not None:
        return table.sample(wanted.sample, wanted.seed)
    return table


def named_by_weights(job: Job) -> Job:
    """The job as its answers are filed: a model on this machine goes by its weights' hash, wherever the file stands."""
    if not job.endpoint.is_local:
        return job
    weights = gguf_sha256(find_gguf(job.endpoint.base_url, job.home))
    endpoint = job.endpoint.model_copy(update={"name": job.endpoint.name or "local", "model": weights})
    return job.model_copy(update={"endpoint": endpoint})


def make_plan(  # noqa: PLR0913, PLR0917 - what is asked, of what, by what is known, to where
    job: Job,
    table: Table,
    prompts: Prompts,
    reader: Reader | None,
    folder: Path,
    seen: Callable[[int], None] = lambda _rows: None,
) -> Plan:
    """Render every row, write `keys.parquet`, look up what is known. Raises BadJob if no row at all can be asked.

    `reader`: None if there are no answers yet. `seen` is told how many further rows were rendered.
    """
    part = folder / "keys.part.parquet"
    digests: list[pl.Series] = [_digests(pl.Series([], dtype=pl.Binary))]
    try:
        write_table(_keyed(table, prompts, digests, seen), _part_schema(), part, {}, private=True)
        digest = pl.concat(digests)
        digests.clear()
        first = digest.is_first_distinct() & digest.is_not_null()
        write_table(_with_first(part, first), KEYS_SCHEMA, keys_path(folder), {}, private=True)
        return _compare(job, part, digest, first, _marks(reader), _retried(job, reader))
    finally:
        part.unlink(missing_ok=True)


def _retried(job: Job, reader: Reader | None) -> pl.Series:
    """What an unfinished run of the same `--retry` has asked already: what was paid for is not asked once more."""
    since = history.retried_since(job.folder, job.this_run.retry)
    return _hex_digests(reader.stored_since(since) if since is not None and reader is not None else [])


def _compare(  # noqa: PLR0913, PLR0917 - two columns of the rows, two of the store
    job: Job, part: Path, digest: pl.Series, first: pl.Series, marks: pl.DataFrame, retried: pl.Series
) -> Plan:
    asked_again = pl.col("mark").is_in([UNSETTLED, *job.this_run.retry])
    paid_just_now = pl.col("digest").is_in(retried.implode()) & pl.col("mark").is_in(ANSWERED)
    settled = marks.filter(~asked_again | paid_just_now)["digest"]
    known = digest.is_in(settled.implode()).fill_null(value=False)
    ask = first & ~known
    keys = pl.scan_parquet(part, glob=False, hive_partitioning=False)
    errors = keys.filter(pl.col("error").is_not_null()).select(n=pl.len(), why=pl.col("error").first()).collect()
    unaskable = errors["n"][0]
    if unaskable and unaskable == len(digest):
        raise BadJob(f"Not one of {unaskable:,} rows can be asked. The first: {errors['why'][0]}.\nNothing was sent.")
    answers = marks.filter(pl.col("mark").is_in(ANSWERED))["digest"]
    used = answers.is_in(digest.implode()).sum()
    asked_bytes = keys.select(pl.col("bytes").cast(pl.Int64)).collect()["bytes"].filter(ask).sum()
    return Plan(
        rows=len(digest),
        answered=int(known.sum()),
        to_ask=int(ask.sum()),
        asked_again=int((ask & digest.is_in(marks["digest"].implode())).sum()),
        equal=len(digest) - int(known.sum()) - int(ask.sum()) - unaskable,
        unaskable=unaskable,
        why_unaskable=errors["why"][0] or "",
        request_bytes=int(asked_bytes),
        stored=len(answers),
        unused=len(answers) - int(used),
        ask=ask,
    )


async def requests_to_ask(table: Table, prompts: Prompts, ask: pl.Series, keys: Path) -> AsyncIterator[Request]:
    """The request of each row to ask, in order, made when it is wanted.

    Raises Stopped if the input changed, or if a row's request is not the one that was planned (`keys`): its answer
    would be filed where no row finds it.
    """
    offset = 0
    planned = read_slices(keys, ["key"], RENDERED_AT_ONCE)
    for frame, keyed in zip(table.slices(prompts.columns, RENDERED_AT_ONCE), planned, strict=True):
        wanted = ask.slice(offset, frame.height)
        offset += frame.height
        rows = frame.filter(wanted).iter_rows(named=True)
        for row, key in zip(rows, keyed.filter(wanted)["key"], strict=True):
            request = prompts.request(row)
            if isinstance(request, Failure) or bytes.fromhex(request.key) != key:
                raise Stopped(
                    "A row gives another prompt now than when it was planned: the template's output is not the same "
                    "each time.\nSee what it prints with `pipeline preview`. Every answer so far is kept."
                )
            yield request


def keys_hash(keys: Path) -> str:
    """64 hexadecimal digits by which a plan's keys are known again."""
    with keys.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tally_rows(folder: Path, reader: Reader) -> Tally:
    """How many rows of the last plan have which status, without reading an answer; for a run that stopped."""
    counts: dict[str, Any] = dict(row_statuses(folder, reader).value_counts().iter_rows())
    return Tally(**{status: counts.get(status, 0) for status in STATUSES})


def row_statuses(folder: Path, reader: Reader) -> pl.Series:
    """The status of each row of the last plan, in order, as the store marks it."""
    digests = [_digests(pl.Series([], dtype=pl.Binary))]
    digests += [_digests(frame["key"]) for frame in read_slices(keys_path(folder), ["key"])]
    rows = pl.DataFrame({"digest": pl.concat(digests)})
    marked = rows.join(_marks(reader), on="digest", how="left", maintain_order="left").select(
        status=pl.when(pl.col("digest").is_null() | (pl.col("mark") == UNSETTLED))
        .then(pl.lit("failed"))
        .otherwise(pl.col("mark").cast(pl.String).fill_null("pending"))
    )
    return marked["status"]


def keys_and_errors(folder: Path, rows: pl.Series) -> pl.DataFrame:
    """Of the rows of the last plan that are wanted (true): `row` from 1, `key` in hexadecimal, null with an `error`."""
    keys = pl.scan_parquet(keys_path(folder), glob=False, hive_partitioning=False)
    return (
        keys.select("key", "error")
        .with_row_index("row", 1)
        .filter(rows)
        .with_columns(pl.col("key").bin.encode("hex"))
        .collect()
    )


def _part_schema() -> pl.Schema:
    return pl.Schema({name: dtype for name, dtype in KEYS_SCHEMA.items() if name != "first"})


def _keyed(
    table: Table, prompts: Prompts, digests: list[pl.Series], seen: Callable[[int], None]
) -> Iterator[pl.DataFrame]:
    for frame in table.slices(prompts.columns, RENDERED_AT_ONCE):
        keys: list[tuple[bytes | None, int | None, str | None]] = []
        for row in frame.iter_rows(named=True):
            request = prompts.request(row)
            if isinstance(request, Failure):
                keys.append((None, None, request.reason))
            else:
                keys.append((bytes.fromhex(request.key), len(request.body), None))
        keyed = pl.DataFrame(keys, schema=_part_schema(), orient="row")
        digests.append(_digests(keyed["key"]))
        yield keyed
        seen(frame.height)


def _with_first(part: Path, first: pl.Series) -> Iterator[pl.DataFrame]:
    offset = 0
    for frame in read_slices(part):
        yield frame.with_columns(first.slice(offset, frame.height).alias("first"))
        offset += frame.height


def _digests(keys: pl.Series) -> pl.Series:
    """The first 16 bytes of each key, as a number: enough to tell keys apart, and half the size."""
    return keys.bin.slice(0, 16).bin.reinterpret(dtype=pl.Int128).alias("digest")


def _marks(reader: Reader | None) -> pl.DataFrame:
    frames = [pl.DataFrame(schema={"digest": pl.Int128, "mark": pl.Categorical})]
    for chunk in reader.marks() if reader is not None else ():
        marks = pl.Series("mark", [mark for _, mark in chunk], dtype=pl.Categorical)
        frames.append(pl.DataFrame([_hex_digests([key for key, _ in chunk]), marks]))
    return pl.concat(frames)


def _hex_digests(keys: Sequence[str]) -> pl.Series:
    """The digests of keys as the store has them."""
    return _digests(pl.Series("key", keys, dtype=pl.String).str.decode("hex"))
