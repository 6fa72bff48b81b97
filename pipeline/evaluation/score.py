"""Score a job's answers against gold, and write a table of the rows that a person should review."""

from collections.abc import Collection, Iterator
from pathlib import Path

import polars as pl

from ..prompts import Prompts
from ..records import BadJob
from ..results import OpenJob
from ..tables import check_output, write_table
from .answers import AnswerColumn, answer_column, bill_of, certainty_column, opened_job, row_slices
from .gold import check_gold_column, impossible_gold, refuse_impossible_gold, with_gold
from .metrics import distance, share
from .metrics import score as score_columns
from .records import JobScore, Kind, Part


def score_job(
    name: str | Path,
    *,
    gold: str,
    answer: str | None = None,
    by: str | None = None,
    review: Path | None = None,
    most: int = 1000,
) -> JobScore:
    """Score a job's answers against a column of its input. Nothing is asked.

    `name`: an output or its job folder. `gold`: the input's column of right answers. `answer`: the column of answers,
    see `answer_column`. `by`: a column, of the input or added, for whose values the accuracy is computed separately.
    `review`: a table to write, with at most `most` rows: first the wrong ones, those farthest from gold and then those
    with the most certain answer first; then right ones and ones without gold, the least certain first.

    Raises BadJob for a column that does not exist, for gold that cannot be an answer, if there is nothing to score, and
    if `review` is the job's own output or its input. Raises Stopped if `review` cannot be written.
    """
    with opened_job(name) as opened:
        column = answer_column(opened, answer)
        check_gold_column(gold, opened)
        if review is not None:
            _check_review(review, opened)
        slices: list[pl.DataFrame] = []
        impossible: list[pl.DataFrame] = []
        to_review = ReviewTable(opened, column, gold, most)
        for frame, each in row_slices(opened, column, {"gold_cell": gold, "by": by}):
            facts = with_gold(each, column)
            impossible.append(impossible_gold(facts, column))
            slices.append(facts.select("status", "answer", "gold", "right", "by", "tokens", "cost"))
            if review is not None:
                to_review.add(frame, facts)
        if not slices:
            raise BadJob("The input has no rows: there is nothing to score.")
        refuse_impossible_gold(pl.concat(impossible), column, gold, name)
        scored = _scored(pl.concat(slices), column, gold, by, opened)
        if review is not None:
            to_review.write(review)
        return scored


def _check_review(path: Path, opened: OpenJob) -> None:
    check_output(path, opened.inputs)
    if path.resolve() == opened.job.output_path.resolve():
        raise BadJob(f"{path} is the job's own output. Name another table for the review.")


def _scored(facts: pl.DataFrame, column: AnswerColumn, gold: str, by: str | None, opened: OpenJob) -> JobScore:
    with_gold = facts.filter(pl.col("gold").is_not_null())
    if with_gold.is_empty():
        raise BadJob(f"--gold {gold}: it is empty in all of {facts.height:,} rows.")
    scored = with_gold.filter(pl.col("right").is_not_null())
    missing = dict(with_gold.filter(pl.col("right").is_null())["status"].value_counts(sort=True).iter_rows())
    if scored.is_empty():
        counts = ", ".join(f"{rows:,} {status}" for status, rows in missing.items())
        raise BadJob(f"None of the {with_gold.height:,} rows with gold has an answer to score: {counts}.")
    right, finished = int(scored["right"].sum()), with_gold.height - missing.get("pending", 0)
    bill = bill_of(with_gold)
    prompts = Prompts(opened.job, list(opened.table.schema))
    return JobScore(
        job=opened.job.output_path.name,
        gold=gold,
        answer=column.name,
        rows=facts.height,
        without_gold=facts.height - with_gold.height,
        without_answer=missing,
        score=score_columns(scored["gold"], scored["answer"], column.kind, column.known),
        accuracy_of_all=share(right, finished) if finished > scored.height else None,
        by=by,
        parts=() if by is None else tuple(_parts(scored)),
        bill=bill,
        tokens_per_right_row=None if bill.tokens is None or not right else bill.tokens / right,
        cost_per_right_row=None if bill.cost is None or not right else bill.cost / right,
        prompt_shows_gold=gold in prompts.columns,
    )


def _parts(scored: pl.DataFrame) -> Iterator[Part]:
    counted = scored.group_by(pl.col("by").cast(pl.String)).agg(right=pl.col("right").sum(), rows=pl.len())
    for value, right, rows in counted.sort("rows", "by", descending=[True, False]).iter_rows():
        yield Part(value, share(right, rows))


class ReviewTable:
    """The rows that a person should review, in the order of `score_job`.

    Slices are added one by one; no more rows are kept than will be written.
    """

    def __init__(self, opened: OpenJob, column: AnswerColumn, gold: str, most: int) -> None:
        inputs = list(opened.table.schema)
        certainty = certainty_column(opened)
        sources = {"row": "row", column.name: "answer", "answer": "text"}
        if column.name == "answer":
            sources["answer"] = "answer"
        if certainty is not None:
            sources[certainty] = "certainty"
        self._sources = {_free_name(name, inputs): source for name, source in sources.items()}
        row, *others = self._sources
        self._columns = [row, gold, *others, *(name for name in inputs if name != gold)]
        self._most: int = most
        self._kind: Kind = column.kind
        self._ranks: list[pl.DataFrame] = []
        self._rows: list[pl.DataFrame] = []

    def add(self, frame: pl.DataFrame, facts: pl.DataFrame) -> None:
        """Take the next slice: its output, and its facts with gold."""
        wrong = ~pl.col("right").fill_null(value=True)
        uncertain = pl.col("answer").is_not_null() & (pl.col("certainty") < 1)
        ranks = facts.select(
            "row",
            right=~wrong,
            distance=distance(facts["gold"], facts["answer"], self._kind).fill_null(0.0),
            order=pl.when(wrong).then(-pl.col("certainty").fill_null(0.0)).otherwise("certainty"),
            is_wanted=(wrong | uncertain).fill_null(value=False),
        )
        copies = (facts[source].alias(name) for name, source in self._sources.items())
        rows = frame.with_columns(copies).select(self._columns)
        is_wanted = ranks["is_wanted"]
        ranks = pl.concat([*self._ranks, ranks.filter(is_wanted)])
        rows = pl.concat([*self._rows, rows.filter(is_wanted)])
        best = ranks.with_row_index("at").sort("right", -pl.col("distance"), "order", "row")["at"].head(self._most)
        self._ranks, self._rows = [ranks[best]], [rows[best]]

    def write(self, path: Path) -> None:
        """Write the table in the format of the path's suffix; at least one slice was added. Raises Stopped."""
        write_table(self._rows, self._rows[0].schema, path, {})


def _free_name(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_"
    return name
