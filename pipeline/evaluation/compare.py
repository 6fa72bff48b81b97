"""Compare two jobs' answers to the same rows: how often they agree, what changed, and which is right more often."""

from pathlib import Path
from typing import NamedTuple

import polars as pl

from ..records import BadJob
from ..results import OpenJob
from ..text import did_you_mean, one_line
from .answers import AnswerColumn, answer_column, bill_of, opened_job, row_slices
from .gold import check_gold_column, impossible_gold, refuse_impossible_gold, with_gold
from .metrics import LABELS_MOST, kappa, paired_test, pairs_of, share
from .records import Change, ComparedJob, Comparison


class JobRows(NamedTuple):
    """One of the two jobs, with the facts of its rows."""

    name: str | Path
    """As the user typed it."""
    column: AnswerColumn
    rows: int
    """Number of rows of the job, matched or not."""
    facts: pl.DataFrame


def compare_jobs(
    first: str | Path, second: str | Path, *, gold: str | None = None, answer: str | None = None, key: str | None = None
) -> Comparison:
    """Compare two jobs' answers, row by row. Nothing is asked.

    `first`, `second`: outputs or job folders. `gold`: a column of right answers in either input. `answer`: the column
    of answers, see `answer_column`. `key`: a column of both inputs whose values identify rows; without it both jobs
    must have the same input, and rows are matched by their position.

    Raises BadJob if rows cannot be matched, if no row is answered in both jobs, and as `score_job` does for columns.
    """
    with opened_job(first) as one, opened_job(second) as other:
        if key is None and one.input_hash != other.input_hash:
            shared = [name for name in one.table.schema if name in other.table.schema]
            raise BadJob(
                f"{first} and {second} have different inputs, so rows cannot be matched by their position.\n"
                f"Name a column that identifies rows: --key COLUMN. Both have {', '.join(shared) or 'none in common'}."
            )
        has_gold = one if gold in one.table.schema else other
        if gold is not None:
            check_gold_column(gold, has_gold)
        jobs = [_read(*each, gold, answer, key) for each in ((first, one), (second, other))]
        both = jobs[0].facts.join(jobs[1].facts, on="id", how="inner", suffix="2", maintain_order="left")
        gold_cell = both["gold_cell" if has_gold is one else "gold_cell2"]
        names = ("row", "status", "answer", "tokens", "cost")
        matched = [both.select(**{each: each + end for each in names}, gold_cell=gold_cell) for end in ("", "2")]
        pair = [job._replace(facts=facts) for job, facts in zip(jobs, matched, strict=True)]
        return _comparison(pair[0], pair[1], gold, key)


def _read(name: str | Path, opened: OpenJob, gold: str | None, answer: str | None, key: str | None) -> JobRows:
    """Read a job's facts with two more columns: `id`, which identifies a row in both jobs, and `gold_cell`."""
    if key is not None and key not in opened.table.schema:
        raise BadJob(f"--key {key}: the input of {name} has no such column{did_you_mean(key, opened.table.schema)}")
    column = answer_column(opened, answer)
    extra = {"gold_cell": gold if gold in opened.table.schema else None, "id": key}
    slices = [
        facts.select("row", "id", "status", "answer", "gold_cell", "tokens", "cost")
        for _, facts in row_slices(opened, column, extra)
    ]
    if not slices:
        raise BadJob(f"{name}: the input has no rows: there is nothing to compare.")
    facts = pl.concat(slices)
    if key is None:
        chosen = opened.table.chosen
        facts = facts.with_columns(id=pl.int_range(pl.len(), dtype=pl.UInt32) if chosen is None else chosen)
    else:
        _check_unique(facts, key, name)
    return JobRows(name, column, opened.table.rows, facts)


def _check_unique(facts: pl.DataFrame, key: str, name: str | Path) -> None:
    unclear = facts.filter(pl.col("id").is_null() | pl.col("id").is_duplicated())
    if unclear.is_empty():
        return
    value = unclear["id"][0]
    raise BadJob(
        f"--key {key}: it must identify each row, but in the input of {name} it is empty or repeated in "
        f"{unclear.height:,} {'row' if unclear.height == 1 else 'rows'}, such as row {unclear['row'][0]:,} "
        f"({'empty' if value is None else one_line(str(value))})."
    )


def _comparison(first: JobRows, second: JobRows, gold: str | None, key: str | None) -> Comparison:
    """Compare the facts of the matched rows, which stand in the same order in both."""
    jobs = [first, second]
    if gold is not None:
        jobs = [job._replace(facts=with_gold(job.facts, job.column)) for job in jobs]
        for job in jobs:
            refuse_impossible_gold(impossible_gold(job.facts, job.column), job.column, gold, job.name)
    is_answered = jobs[0].facts["answer"].is_not_null() & jobs[1].facts["answer"].is_not_null()
    answered = [job.facts.filter(is_answered) for job in jobs]
    if answered[0].is_empty():
        raise BadJob(f"None of the {is_answered.len():,} rows that are in both jobs is answered in both.")
    right = _right(answered, gold) if gold is not None else None
    pairs = pairs_of(answered[0]["answer"], answered[1]["answer"])
    compared = [
        ComparedJob(
            job=str(job.name),
            answer=job.column.name,
            rows=job.rows,
            answered=job.facts["answer"].count(),
            bill=bill_of(job.facts),
            accuracy=share(int(right[at].sum()), right[at].len()) if right is not None else None,
        )
        for at, job in enumerate(jobs)
    ]
    return Comparison(
        matched_by=key,
        matched=is_answered.len(),
        answered=answered[0].height,
        agreement=share(sum(rows for (one, other), rows in pairs.items() if one == other), answered[0].height),
        kappa=kappa(pairs) if len(pairs) <= LABELS_MOST else None,
        changes=tuple(Change(*pair, rows) for pair, rows in pairs.items() if pair[0] != pair[1])[:LABELS_MOST],
        first=compared[0],
        second=compared[1],
        gold=gold,
        test=paired_test(*right) if right is not None else None,
    )


def _right(answered: list[pl.DataFrame], gold: str) -> tuple[pl.Series, pl.Series]:
    """For each job, whether it is right, over the rows that have gold."""
    first, second = (facts["right"] for facts in answered)
    has_gold = first.is_not_null() & second.is_not_null()
    if not has_gold.any():
        raise BadJob(f"--gold {gold}: it is empty in all {len(first):,} rows that both jobs answered.")
    return first.filter(has_gold), second.filter(has_gold)
