"""The file `keys.parquet`: the key of every request of a table's rows, how it is written, reused and read.

It is one flat table of requests in row order: with k samples for each row, sample j of row i is line i * k + j. A run
over the same input and with the same settings as the last one takes over the keys of the last one; it renders only the
first slice of rows to check that they still give the same keys.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from ..costs import token_bytes
from ..folder import last_start, last_summary
from ..job import Job, seen_hash
from ..prompts import Prompts
from ..records import Exit, Failure, NewerVersion
from ..tables import Table, read_parquet_metadata, read_slices, write_table
from ..version import __version__
from .digests import digests_of, digests_of_text
from .reuse import EarlierAnswers

KEYS_SCHEMA = pl.Schema({"key": pl.Binary, "bytes": pl.UInt32, "error": pl.String, "first": pl.Boolean})
"""One line for each request: its key, its size (`costs.token_bytes`), why its row cannot be asked, and whether it is
the first of equal requests. Key and size are null where there is an error."""

DRAFT_SCHEMA = pl.Schema({name: dtype for name, dtype in KEYS_SCHEMA.items() if name != "first"})
"""The columns of the draft: which requests are the first of equals is known only when all keys are."""

SAMPLES_KEY = "pipeline.opinions"
"""The name in the metadata of `keys.parquet` under which the number of samples for each row is kept."""

SECTIONS_WITHOUT_KEYS = {"limits", "output", "prices", "run"}
"""The sections of a job file that no key depends on."""

REQUESTS_PER_SLICE = 5_000
"""Number of requests that are rendered or read at once, or those of one row if it has more."""

KEYS_PER_CHUNK = 1_000
"""The largest number of keys that `selected_keys` gives at once."""


def keys_path(folder: Path) -> Path:
    """The path of `keys.parquet` in a job folder."""
    return folder / "keys.parquet"


def keys_hash(keys: Path) -> str:
    """The sha256 of a `keys.parquet` in hexadecimal: the history names the keys of each run by it."""
    with keys.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def samples_per_row(keys: Path) -> int:
    """The number of requests for each row in a `keys.parquet`. Raises NewerVersion if its columns are not known."""
    missing = KEYS_SCHEMA.items() - _scan(keys).collect_schema().items()
    if missing:
        raise NewerVersion(f"{keys} (it has no column {min(name for name, _ in missing)} as this version knows it)")
    return int(read_parquet_metadata(keys).get(SAMPLES_KEY, "1"))


def rows_per_slice(samples: int) -> int:
    """The number of rows that are rendered at once, for a number of samples for each row."""
    return max(1, REQUESTS_PER_SLICE // samples)


def key_slices(job: Job, table: Table, prompts: Prompts, earlier: EarlierAnswers) -> Iterator[pl.DataFrame]:
    """The keys of all requests in frames of DRAFT_SCHEMA: those of the last run if they are the same, else rendered."""
    last = _keys_of_last_run(job, table, prompts, earlier)
    if last is not None:
        return _read_draft(last, job.samples_per_row)
    return _render(table, prompts, job.samples_per_row, earlier)


def write_draft(slices: Iterator[pl.DataFrame], path: Path, samples: int, on_rows: Callable[[int], None]) -> pl.Series:
    """Write slices of keys to a draft and return the digest of each key.

    `on_rows` is called after each slice with its number of rows.
    """
    digests = [digests_of_text([])]

    def passed_on() -> Iterator[pl.DataFrame]:
        for frame in slices:
            digests.append(digests_of(frame["key"]))
            yield frame
            on_rows(frame.height // samples)

    write_table(passed_on(), DRAFT_SCHEMA, path, {}, private=True)
    return pl.concat(digests)


def write_keys(draft: Path, first: pl.Series, path: Path, samples: int) -> None:
    """Write a `keys.parquet` from its draft and from whether each request is the first of its equals."""

    def complete() -> Iterator[pl.DataFrame]:
        offset = 0
        for frame in read_slices(draft):
            yield frame.with_columns(first.slice(offset, frame.height).alias("first"))
            offset += frame.height

    write_table(complete(), KEYS_SCHEMA, path, {SAMPLES_KEY: str(samples)}, private=True)


def read_digests(keys: Path) -> pl.Series:
    """The digest of every key in a `keys.parquet`; null for a request that cannot be made."""
    return pl.concat([digests_of_text([]), *(digests_of(frame["key"]) for frame in read_slices(keys, ["key"]))])


def selected_keys(keys: Path, wanted: pl.Series) -> Iterator[list[str]]:
    """The keys (hexadecimal) of the requests whose place in `wanted` is true, in chunks of up to KEYS_PER_CHUNK."""
    offset = 0
    for frame in read_slices(keys, ["key"]):
        chosen = frame["key"].filter(wanted.slice(offset, frame.height)).bin.encode("hex").to_list()
        offset += frame.height
        for start in range(0, len(chosen), KEYS_PER_CHUNK):
            yield chosen[start : start + KEYS_PER_CHUNK]


def count_errors(keys: Path) -> tuple[int, str]:
    """The number of requests that cannot be made, and the error of the first; (0, "") if there is none."""
    errors = _scan(keys).filter(pl.col("error").is_not_null()).select(n=pl.len(), why=pl.col("error").first()).collect()
    return errors["n"][0], errors["why"][0] or ""


def total_bytes(keys: Path, wanted: pl.Series) -> int:
    """The sizes of all requests whose place in `wanted` is true, summed."""
    return int(_scan(keys).select(pl.col("bytes").cast(pl.Int64)).collect()["bytes"].filter(wanted).sum())


def keys_and_errors(folder: Path, rows: pl.Series) -> pl.DataFrame:
    """Read from the last plan the rows whose place in `rows` is true.

    Columns: `row` (from 1), `key` of the row's first request in hexadecimal, and `error`; the key is null where there
    is an error.
    """
    keys = keys_path(folder)
    return (
        _scan(keys)
        .select("key", "error")
        .gather_every(samples_per_row(keys))
        .with_row_index("row", 1)
        .filter(rows)
        .with_columns(pl.col("key").bin.encode("hex"))
        .collect()
    )


def _scan(keys: Path) -> pl.LazyFrame:
    return pl.scan_parquet(keys, glob=False, hive_partitioning=False)


def _render(table: Table, prompts: Prompts, samples: int, earlier: EarlierAnswers) -> Iterator[pl.DataFrame]:
    for frame in table.slices(prompts.columns, rows_per_slice(samples)):
        rows = frame.rows(named=True)
        keys: list[str | None] = []
        sizes: list[int | None] = []
        errors: list[str | None] = []
        for requests in map(prompts.requests, rows):
            if isinstance(requests, Failure):
                keys += [None] * samples
                sizes += [None] * samples
                errors += [requests.reason] * samples
            else:
                keys += [request.key for request in requests]
                sizes += [token_bytes(request.body) for request in requests]
                errors += [None] * samples
        key = pl.Series(earlier.keys_to_use(rows, keys), dtype=pl.String).str.decode("hex")
        yield pl.DataFrame({"key": key, "bytes": sizes, "error": errors}, schema=DRAFT_SCHEMA)


def _read_draft(keys: Path, samples: int) -> Iterator[pl.DataFrame]:
    """The slices of a `keys.parquet` as `_render` makes them."""
    return read_slices(keys, list(DRAFT_SCHEMA), rows_per_slice(samples) * samples)


def _keys_of_last_run(job: Job, table: Table, prompts: Prompts, earlier: EarlierAnswers) -> Path | None:
    """The `keys.parquet` of the last run if this run has the same keys, else None."""
    last, end = last_start(job.folder), last_summary(job.folder)
    if last is None or job.prompt.images or job.answer.keep_old:  # keys depend on more than settings and input
        return None
    if end is not None and end.exit_code is Exit.NEEDS_PERSON:  # a row may have given another prompt than planned
        return None
    keys, this_run = keys_path(job.folder), job.this_run
    rows = [last.limit, last.sample, last.seed]
    seen = last.seen_hash or seen_hash(last.seen_by_model)
    before = _fingerprint(last.settings, [last.version, rows, last.table, last.input_hash, seen])
    rows, path = [this_run.limit, this_run.sample, this_run.seed], str(table.path.absolute())
    seen = seen_hash(job.seen_by_model())
    now = _fingerprint(job.without_secrets(), [__version__, rows, path, table.content_hash, seen])
    if before != now or not keys.exists() or keys_hash(keys) != last.keys_hash:
        return None
    # another version of a library may render other prompts: the first rows would show it
    rendered = next(
        _render(table.head(rows_per_slice(job.samples_per_row)), prompts, job.samples_per_row, earlier), None
    )
    found = next(_read_draft(keys, job.samples_per_row), None)
    return keys if rendered is not None and found is not None and rendered.equals(found.head(rendered.height)) else None


def _fingerprint(settings: dict[str, Any], facts: list[object]) -> str:
    """All that a run's keys depend on, as JSON text: unlike Python's `==`, it tells 1 from true.

    The path of the table is one of the facts, since the same bytes with another suffix can be other rows.
    """
    sections = {name: section for name, section in settings.items() if name not in SECTIONS_WITHOUT_KEYS}
    return json.dumps([*facts, sections], sort_keys=True)
