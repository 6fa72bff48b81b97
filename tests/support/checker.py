"""What must hold of a job when it has come to its end, whatever it met: the history against the store and the output.

acknowledged ⊆ store ⊆ sent; the output is a function of the store; each row has what is due to its own prompt; the sums
agree; nothing was asked again but for a reason.
"""

import math
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
import polars as pl
from fault_script import ANSWERS, Script, Sent

from pipeline.job.job import Job
from pipeline.prompts.prompts import Prompts
from pipeline.records import STATUSES, Answer, Summary
from pipeline.results.export import export_table
from pipeline.store.notes import read_ledger
from pipeline.store.outcomes import read_outcome
from pipeline.store.reader import Reader
from pipeline.tables.open import open_table


@dataclass(frozen=True)
class Finding:
    """What a check came to; it raises AssertionError before it gives one that is not good."""

    rows: int
    requests: int
    faults: int
    paid_again: int
    """Answers that were sent, lost in a kill, and so sent once more."""


def check_kept(folder: Path, acknowledged: Iterable[str]) -> None:
    """Right after a kill: what was acknowledged is in the store."""
    try:
        with closing(Reader(folder / "store")) as reader:
            stored = {key for chunk in reader.marks() for key, _ in chunk}
    except FileNotFoundError:
        stored = set()
    assert set(acknowledged) <= stored


def check(job: Job, script: Script, kills: int, width: int, turned_away: int = 0) -> Finding:
    """Hold a finished job against its history. `turned_away`: requests outside the script, which were not billed.

    A kill may cost what was in flight and one group that was not committed, which is no larger than the width.
    """
    prompts = _prompts_by_key(job)
    output = pl.read_parquet(job.output_path)
    with closing(Reader(job.folder / "store")) as reader:
        stored = {key for chunk in reader.marks() for key, _ in chunk}
        outcomes = {
            key: read_outcome(value) for key, value in zip(stored, reader.get_many(list(stored)), strict=True) if value
        }
        ledger = read_ledger(reader)
    sent = {entry.prompt for entry in script.history}

    # store ⊆ sent, and each row has its own
    assert {prompts[key] for key in stored} <= sent
    for row in output.iter_rows(named=True):
        assert (row["status"], row["answer"]) == script.due(row["q"]), row
    for key, outcome in outcomes.items():
        assert (outcome.text if isinstance(outcome, Answer) else None) == script.due(prompts[key]).answer

    # the output: every row once, in order, all its columns; and it is what the store says
    source = pl.read_csv(job.inputs[0], infer_schema=False)
    assert output.select(source.columns).equals(source)
    for name in ("again.csv", "once more.csv"):
        export_table(job.folder, job.folder.parent / name)
    assert (job.folder.parent / "again.csv").read_bytes() == (job.folder.parent / "once more.csv").read_bytes()
    export_table(job.folder, job.folder.parent / "again.parquet")
    assert pl.read_parquet(job.folder.parent / "again.parquet").equals(output)

    # the sums
    summary = msgspec.json.decode((job.folder / "summary.json").read_bytes(), type=Summary)
    counted = Counter(output["status"].to_list())
    assert {name: getattr(summary.rows, name) for name in STATUSES if getattr(summary.rows, name)} == counted
    assert sum(counted.values()) == output.height == source.height
    told = sum(output[name].fill_null(0).sum() for name in ("prompt_tokens", "completion_tokens"))
    assert summary.rows.tokens == told
    billed = sum(cost_of(entry, job) for entry in script.history)
    in_table = float(output["cost"].fill_null(0).sum())
    assert math.isclose(summary.spent, ledger.cost)
    assert math.isclose(summary.rows.cost, in_table, abs_tol=1e-9)
    assert in_table <= ledger.cost + 1e-9 <= billed + 2e-9, (in_table, ledger, billed)
    assert ledger.attempts <= len(script.history) + turned_away

    # what was asked again, and why
    answered = Counter(entry.prompt for entry in script.history if entry.met in ANSWERS)
    paid_again = sum(times - 1 for times in answered.values())
    assert paid_again <= kills * 2 * width
    if not kills:
        assert ledger.attempts == len(script.history) + turned_away
        assert math.isclose(ledger.cost, billed)
        assert math.isclose(in_table, billed)
    faults = sum(entry.met not in ANSWERS for entry in script.history)
    return Finding(output.height, len(script.history), faults, paid_again)


def cost_of(entry: Sent, job: Job) -> float:
    """US dollars that the endpoint bills for a request."""
    prompt_tokens, completion_tokens = entry.tokens
    return 1e-6 * (prompt_tokens * (job.prices.input or 0) + completion_tokens * (job.prices.output or 0))


def _prompts_by_key(job: Job) -> dict[str, str]:
    table = open_table(job.inputs, job.folder)
    prompts = Prompts(job, list(table.schema))
    found = {}
    for frame in table.slices():
        for row in frame.iter_rows(named=True):
            requests = prompts.requests(row)
            assert isinstance(requests, list)
            found.update((request.key, row["q"]) for request in requests)
    return found


def acknowledged_in(path: Path) -> list[str]:
    """The keys that `crashing_run.py` wrote down."""
    return path.read_text().split() if path.exists() else []
