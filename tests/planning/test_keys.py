"""keys.parquet holds the key of every request, and only a run whose keys may differ renders all rows again."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
from job_files import MINIMAL
from planned_table import PlannedTable

from pipeline.folder import history
from pipeline.folder.folder import make_job_folder
from pipeline.job.job import Job, ThisRun
from pipeline.planning.keys import (
    KEYS_PER_CHUNK,
    KEYS_SCHEMA,
    REQUESTS_PER_SLICE,
    count_errors,
    keys_and_errors,
    keys_hash,
    keys_path,
    samples_per_row,
    selected_keys,
    total_bytes,
)
from pipeline.planning.plan import Plan, make_plan, select_rows
from pipeline.prompts.prompts import Prompts
from pipeline.prompts.templates import Row
from pipeline.records import Exit, Failure, Request, Summary, Tally
from pipeline.store.reader import Reader
from pipeline.store.writer import Store
from pipeline.tables.open import open_table


def test_the_key_size_and_error_of_every_request_are_written(tmp_path: Path, make: Callable[..., PlannedTable]) -> None:
    rows = make("a", None, "b", "a")
    rows.plan()
    keys = pl.read_parquet(keys_path(tmp_path))
    a, b = rows.request("a"), rows.request("b")
    assert keys.schema == KEYS_SCHEMA
    assert keys["key"].to_list() == [bytes.fromhex(a.key), None, bytes.fromhex(b.key), bytes.fromhex(a.key)]
    assert keys["bytes"].to_list() == [len(a.body), None, len(b.body), len(a.body)]
    assert keys["error"].to_list() == [None, "the prompt is null", None, None]
    assert keys["first"].to_list() == [True, False, True, False]
    assert not (tmp_path / "keys.part.parquet").exists()


def test_the_selected_keys_come_in_order_and_in_chunks(tmp_path: Path, make: Callable[..., PlannedTable]) -> None:
    prompts = [str(row) for row in range(KEYS_PER_CHUNK + 10)]
    rows = make(*prompts)
    rows.plan()
    wanted = pl.Series([row != 3 for row in range(len(prompts))])
    chunks = list(selected_keys(keys_path(tmp_path), wanted))
    assert [len(chunk) for chunk in chunks] == [KEYS_PER_CHUNK, 9]
    assert [key for chunk in chunks for key in chunk] == [
        rows.request(prompt).key for prompt in prompts if prompt != "3"
    ]
    assert list(selected_keys(keys_path(tmp_path), ~wanted)) == [[rows.request("3").key]]


def test_a_row_is_read_with_its_number_and_the_key_of_its_first_request_or_its_error(
    tmp_path: Path, make: Callable[..., PlannedTable]
) -> None:
    rows = make("a", None, "b", **{"answer.samples": 3})
    rows.plan()
    assert samples_per_row(keys_path(tmp_path)) == 3
    assert keys_and_errors(tmp_path, pl.Series([False, True, True])).rows() == [
        (2, None, "the prompt is null"),
        (3, rows.request("b").key, None),
    ]
    assert count_errors(keys_path(tmp_path)) == (3, "the prompt is null")
    b = pl.Series([False] * 6 + [True] * 3)
    assert total_bytes(keys_path(tmp_path), b) == sum(len(rows.request("b", sample).body) for sample in range(3))


class Counted(Prompts):
    """Prompts that count the rows they were rendered from, and put `prefix` before each."""

    rows, prefix = 0, ""

    def requests(self, row: Row) -> list[Request] | Failure:
        self.rows += 1
        return super().requests({**row, "prompt": self.prefix + row["prompt"]})


def plan_anew(source: Path, prefix: str = "", this_run: ThisRun | None = None, **settings: Any) -> tuple[int, Plan]:
    """The number of rows that a run renders to make its plan, and the plan; the start of the run is recorded."""
    output = source.with_name("out.csv")
    job = Job.load([source], output, settings={**MINIMAL, **settings}, this_run=this_run or ThisRun())
    make_job_folder(job.folder)
    whole = open_table(job.inputs, job.folder)
    prompts = Counted(job, ["prompt"])
    prompts.prefix = prefix
    Store(job.folder / "store").close()
    with closing(Reader(job.folder / "store")) as reader:
        plan = make_plan(job, select_rows(job.this_run, whole), prompts, reader, job.folder)
    history.record_start(job, ["run"], whole.content_hash, whole.path, keys_hash(keys_path(job.folder)))
    return prompts.rows, plan


def test_only_a_run_that_could_have_other_keys_than_the_last_renders_all_rows(tmp_path: Path) -> None:
    count, table, keys = REQUESTS_PER_SLICE + 10, tmp_path / "in.csv", tmp_path / "out.csv.job" / "keys.parquet"
    pl.DataFrame({"prompt": [f"{row // 2}" for row in range(count)]}).write_csv(table)
    made, first = plan_anew(table)
    assert made == count
    known = pl.read_parquet(keys)

    made, again = plan_anew(table, **{"limits.concurrency": 7, "output.prefix": "x"})
    assert made == REQUESTS_PER_SLICE
    assert (again.to_ask, again.duplicates, again.request_bytes) == (
        first.to_ask,
        first.duplicates,
        first.request_bytes,
    )
    assert known.equals(pl.read_parquet(keys))

    for changed in ({"endpoint.model": "n"}, {"parameters.x": 1}, {"parameters.x": True}, {"prompt.system": "Hm."}):
        assert plan_anew(table, **changed)[0] == count, changed
    assert plan_anew(table)[0] == count
    assert plan_anew(table, this_run=ThisRun(limit=count - 1))[0] == count - 1
    assert plan_anew(table)[0] == count
    assert plan_anew(table, prefix="Another version says: ")[0] == REQUESTS_PER_SLICE + count
    keys.write_bytes(b"cut")
    assert plan_anew(table)[0] == count
    # a run that needs a person may have met a row with another prompt than planned: the keys are wrong
    history.record_end(keys.parent, Summary(Exit.NEEDS_PERSON, "", "", Tally(), Tally(), 0.0, 0.0, wrote=False))
    assert plan_anew(table)[0] == count
    assert plan_anew(table)[0] == REQUESTS_PER_SLICE
    # the same bytes with another suffix may be other rows
    assert plan_anew(table.rename(tmp_path / "in.tsv"))[0] == count
    pl.DataFrame({"prompt": [f"{row // 3}" for row in range(count)]}).write_csv(tmp_path / "in.tsv")
    assert plan_anew(tmp_path / "in.tsv")[0] == count
