"""The section on gold shows what `score` computes, for labels, numbers and lists."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
from gold_jobs import job_score
from report_pages import LABELS, Page

from pipeline import Summary
from pipeline.evaluation.metrics import score as score_columns
from pipeline.evaluation.metrics import share
from pipeline.evaluation.records import Kind
from pipeline.report.gold import CONFUSIONS_LISTED, LABELS_LISTED, gold_section


def scored(gold: pl.Series, answer: pl.Series, kind: Kind, **changes: Any) -> Mapping[str, Any]:
    """A score as `pipeline score --json` prints it."""
    scored_job = job_score(score_columns(gold, answer, kind), len(gold), **changes)
    found: Mapping[str, Any] = msgspec.to_builtins(scored_job)
    return found


def test_the_page_shows_accuracy_with_its_interval_kappa_and_the_confusion_matrix(
    job: tuple[Path, Summary], page: Path
) -> None:
    read, table = Page(page), pl.read_csv(job[0])
    with_gold = table.filter(pl.col("gold").is_not_null())
    answered = with_gold.filter(pl.col("label").is_not_null())
    right = answered.filter(pl.col("gold") == pl.col("label")).height
    low, high = share(right, answered.height).low, share(right, answered.height).high
    assert read.row("Accuracy") == [
        f"{right / answered.height:.1%}: {right:,} of {answered.height:,} rows, ".replace("%", " %")
        + f"95 % interval {100 * low:.1f} % to {100 * high:.1f} %"
    ]
    assert f": {right:,} of {with_gold.height:,} rows" in read.row("Accuracy, unanswered rows counted as wrong")[0]
    assert 0.6 < float(read.row("Cohen's kappa (agreement beyond chance)")[0]) < 1
    matrix = [row for row in read.rows if len(row) == len(LABELS) + 1 and row[0] in LABELS and row[1].isdigit()][-5:]
    assert [row[0] for row in matrix] == LABELS
    assert sum(int(cell) for row in matrix for cell in row[1:]) == answered.height
    assert sum(int(row[1 + place]) for place, row in enumerate(matrix)) == right
    assert read.row("positive")[0] == str(table.filter(pl.col("label") == "positive").height)
    missing = with_gold.height - answered.height
    assert f"{table.height - with_gold.height} without gold" in read.source
    assert missing == sum(int(part.split()[0]) for part in read.source.split("not scored: ")[1].split(", ")[:2])


def test_each_row_of_the_sample_shows_its_gold(page: Path) -> None:
    assert "<bdi>gold: positive</bdi>" in Page(page).source


def test_labels_have_precision_recall_and_f1_and_their_means() -> None:
    section = gold_section(scored(pl.Series(["a", "a", "b"]), pl.Series(["a", "b", "b"]), "labels"))
    assert section.labels == (
        ("a", "2", "1", "1.00", "0.50", "0.67"),
        ("b", "1", "2", "0.50", "1.00", "0.67"),
        ("mean of all labels", "", "", "0.75", "0.75", "0.67"),
    )
    assert section.matrix == (("a", (1, 1)), ("b", (0, 1)))
    assert section.accuracy == "66.7 %"
    assert (section.confusions, section.more_confusions) == ((), 0)


def test_many_labels_have_a_list_of_confusions_in_place_of_a_matrix() -> None:
    gold = pl.Series([f"label {number}" for number in range(LABELS_LISTED + 50)])
    section = gold_section(scored(gold, pl.concat([gold[1:], gold[:1]]), "labels"))
    assert section.matrix == ()
    assert len(section.confusions) == CONFUSIONS_LISTED
    assert section.more_confusions == LABELS_LISTED + 50 - CONFUSIONS_LISTED
    assert len(section.labels) == LABELS_LISTED + 1
    assert section.more_labels == 50


def test_rows_that_were_not_scored_are_counted_with_the_reason() -> None:
    score = scored(
        pl.Series(["a"]),
        pl.Series(["A"]),
        "labels",
        without_gold=1200,
        without_answer={"failed": 3, "ok": 2},
        accuracy_of_all=share(0, 6),
    )
    section = gold_section(score)
    assert section.unscored == ("3 failed", "2 ok with an empty label", "1,200 without gold")
    assert [name for name, _ in section.measures][1] == "Accuracy, unanswered rows counted as wrong"
    assert section.near_misses == 1


def test_numbers_have_an_error_and_a_rank_correlation_and_lists_a_jaccard_index() -> None:
    numbers = gold_section(scored(pl.Series([1.0, 2.0, 3.0]), pl.Series([1.0, 2.0, 4.0]), "numbers"))
    assert dict(numbers.measures)["Mean absolute error"] == "0.333"
    assert dict(numbers.measures)["Spearman's rank correlation"] == "1.00"
    lists = gold_section(scored(pl.Series([["a", "b"]]), pl.Series([["a"]]), "lists"))
    assert dict(lists.measures)["Mean Jaccard index (labels in common)"] == "0.50"
    assert "Cohen's kappa (agreement beyond chance)" not in dict(lists.measures)
    assert (lists.matrix, lists.confusions) == ((), ())
