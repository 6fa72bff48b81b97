"""The page's section on gold: how often the answers are right, as `pipeline score --json` has computed it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..records import Record
from .text import VALUE_BYTES, clipped, number, percent

LABELS_LISTED = 200
MATRIX_LABELS = 10
"""With more labels than this, the most frequent confusions are listed in place of a matrix."""
CONFUSIONS_LISTED = 20


class GoldSection(Record, frozen=True):
    """What the section shows, ready to print."""

    gold: str
    """Name of the input's column of right answers."""
    answer: str
    """Name of the column that was scored."""
    accuracy: str
    measures: tuple[tuple[str, str], ...]
    """Name and value of each measure: accuracy with its interval, kappa, and those of the column's kind."""
    unscored: tuple[str, ...]
    """Counts of the rows that were not scored, each with the reason."""
    near_misses: int
    prompt_shows_gold: bool
    labels: tuple[tuple[str, ...], ...]
    """Rows of the table by label: label, rows with this gold, rows with this answer, precision, recall, F1."""
    more_labels: int
    matrix: tuple[tuple[str, tuple[int, ...]], ...]
    """For each label as gold, the rows with each label as the answer, in the same order; empty if too large."""
    confusions: tuple[tuple[str, str, int], ...]
    """(gold, answer, rows), the most frequent first; filled if there is no matrix."""
    more_confusions: int


def gold_section(score: Mapping[str, Any]) -> GoldSection:
    """Lay out a score. `score`: the object that `pipeline score --json` prints, as plain dicts and lists."""
    figures = score["score"]
    labels = [each["label"] for each in figures["labels"]]
    wrong = [pair for pair in figures["confusion"] if pair["gold"] != pair["answer"]]
    has_matrix = bool(figures["confusion"]) and len(labels) <= MATRIX_LABELS
    listed = [] if has_matrix else wrong[:CONFUSIONS_LISTED]
    return GoldSection(
        gold=score["gold"],
        answer=score["answer"],
        accuracy=percent(figures["accuracy"]["share"]),
        measures=tuple(_measures(score)),
        unscored=tuple(_unscored(score)),
        near_misses=figures["near_misses"],
        prompt_shows_gold=score["prompt_shows_gold"],
        labels=tuple(_label_rows(figures)),
        more_labels=max(0, len(labels) - LABELS_LISTED),
        matrix=_matrix(labels, figures["confusion"]) if has_matrix else (),
        confusions=tuple((_clipped(pair["gold"]), _clipped(pair["answer"]), pair["rows"]) for pair in listed),
        more_confusions=0 if has_matrix else len(wrong) - len(listed),
    )


def _measures(score: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    figures = score["score"]
    yield "Accuracy", _share(figures["accuracy"])
    if score["accuracy_of_all"] is not None:
        yield "Accuracy, unanswered rows counted as wrong", _share(score["accuracy_of_all"])
    if figures["kind"] == "labels" or figures["kappa"] is not None:
        yield "Cohen's kappa (agreement beyond chance)", _decimal(figures["kappa"])
    if figures["mean_jaccard"] is not None:
        yield "Mean Jaccard index (labels in common)", _decimal(figures["mean_jaccard"])
    if figures["numbers"] is not None:
        yield "Mean absolute error", number(figures["numbers"]["mean_absolute_error"])
        yield "Quadratic weighted kappa", _decimal(figures["numbers"]["quadratic_weighted_kappa"])
        yield "Spearman's rank correlation", _decimal(figures["numbers"]["spearman"])


def _unscored(score: Mapping[str, Any]) -> Iterator[str]:
    for status, rows in score["without_answer"].items():
        yield f"{rows:,} {status}" + (f" with an empty {score['answer']}" if status in ("ok", "truncated") else "")
    if score["without_gold"]:
        yield f"{score['without_gold']:,} without gold"


def _label_rows(figures: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for each in figures["labels"][:LABELS_LISTED]:
        shares = (_decimal(each[name]) for name in ("precision", "recall", "f1"))
        yield _clipped(each["label"]), f"{each['support']:,}", f"{each['answered']:,}", *shares
    if figures["macro"] is not None:
        yield (
            "mean of all labels",
            "",
            "",
            *(_decimal(figures["macro"][name]) for name in ("precision", "recall", "f1")),
        )


def _matrix(labels: Sequence[str], confusion: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    rows = {(pair["gold"], pair["answer"]): pair["rows"] for pair in confusion}
    return tuple((_clipped(gold), tuple(rows.get((gold, answer), 0) for answer in labels)) for gold in labels)


def _share(share: Mapping[str, Any]) -> str:
    return (
        f"{percent(share['share'])}: {share['count']:,} of {share['rows']:,} rows, "
        f"95 % interval {percent(share['low'])} to {percent(share['high'])}"
    )


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _clipped(label: str) -> str:
    return clipped(label, VALUE_BYTES)
