"""Answers against gold: how often right, how sure that is, and what is taken for what. Pure, over columns."""

import contextlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Literal

import polars as pl

from ..records import Record

Kind = Literal["labels", "numbers", "lists"]
"""Texts of which one is right, numbers of which one may be nearer than another, lists of labels in any order."""

Z = NormalDist().inv_cdf(0.975)
"""Every interval is one of 95 %."""
GRADES_MOST = 20
"""Whole numbers of no more different values are scored as labels too: they are marks of a scale."""
LABELS_MOST = 1_000
"""Texts of more different values are no labels: they are right or wrong, and that is all."""
PARTED_BY = re.compile(r"[;|,]")


class Share(Record, frozen=True, omit_defaults=False):
    """So many of so many rows, and the interval of the share that more such rows would show."""

    count: int
    rows: int
    share: float
    low: float
    high: float


class LabelScore(Record, frozen=True, omit_defaults=False):
    """How well one label is found. None where nothing can be divided by."""

    label: str
    support: int
    """Rows whose gold it is."""
    answered: int
    """Rows whose answer it is."""
    precision: float | None
    recall: float | None
    f1: float


class Macro(Record, frozen=True, omit_defaults=False):
    """The plain means over all labels; what is None counts as 0 there, as in scikit-learn."""

    precision: float
    recall: float
    f1: float


class Pair(Record, frozen=True, omit_defaults=False):
    """How many rows have this gold and this answer."""

    gold: str
    answer: str
    rows: int


class Distance(Record, frozen=True, omit_defaults=False):
    """How far numbers are from gold. None where one side does not vary, or is no whole number (kappa)."""

    mean_absolute_error: float
    quadratic_weighted_kappa: float | None
    spearman: float | None


class Score(Record, frozen=True, omit_defaults=False):
    """What a column of answers is worth. What does not apply to its kind is None or empty."""

    kind: Kind
    accuracy: Share
    """Exactly the same; of lists: the same labels, in any order."""
    kappa: float | None
    """Cohen's: agreement beyond what is due to chance."""
    macro: Macro | None
    labels: tuple[LabelScore, ...]
    confusion: tuple[Pair, ...]
    """The commonest first."""
    numbers: Distance | None
    mean_jaccard: float | None
    """Of lists: labels in common over labels in either."""
    near_misses: int
    """Wrong by nothing but case or spaces."""


class PairedTest(Record, frozen=True, omit_defaults=False):
    """Which of two jobs is right more often on the same rows."""

    first_alone: int
    """Rows that the first has right and the second has wrong."""
    second_alone: int
    difference: float
    """Share right of the second less that of the first."""
    low: float
    high: float
    p_value: float
    """McNemar's exact test: how often chance alone would set two equally good jobs so far apart."""


class Bill(Record, frozen=True, omit_defaults=False):
    """What rows took, failed attempts included; a row equal to an earlier one took nothing. None if not known."""

    tokens: float | None
    cost: float | None
    """US dollars."""


class Part(Record, frozen=True, omit_defaults=False):
    """The rows of one value of a column."""

    value: str | None
    accuracy: Share


class Scored(Record, frozen=True, omit_defaults=False):
    """A job's answers against gold: what `score --json` prints."""

    job: str
    gold: str
    answer: str
    """The column that was scored, without the output's prefix."""
    rows: int
    without_gold: int
    without_answer: dict[str, int]
    """Rows with gold that are not scored, by status."""
    score: Score
    accuracy_of_all: Share | None
    """With every row that ended without an answer counted as wrong; None if there is none."""
    by: str | None
    parts: tuple[Part, ...]
    """The accuracy for each value of `by`, the one with most rows first."""
    bill: Bill
    """Of all rows with gold that were asked."""
    tokens_per_right_row: float | None
    cost_per_right_row: float | None
    prompt_shows_gold: bool
    """The column of gold is among those that the prompt is made of."""


class Side(Record, frozen=True, omit_defaults=False):
    """One of two jobs that are compared."""

    job: str
    answer: str
    rows: int
    answered: int
    """Of the rows that are in both jobs."""
    bill: Bill
    """Of the rows that are in both jobs."""
    accuracy: Share | None
    """Over the rows that both answered and that have gold."""


class Change(Record, frozen=True, omit_defaults=False):
    """How many rows have this answer in the first job and that one in the second."""

    first: str
    second: str
    rows: int


class Compared(Record, frozen=True, omit_defaults=False):
    """Two jobs' answers to the same rows: what `compare --json` prints."""

    matched_by: str | None
    """The column that tells rows apart; None if the inputs are the same, row by row."""
    matched: int
    """Rows that are in both jobs."""
    answered: int
    """Of these, rows that both answered."""
    agreement: Share
    kappa: float | None
    changes: tuple[Change, ...]
    """The commonest first, a thousand at most."""
    first: Side
    second: Side
    gold: str | None
    test: PairedTest | None


def score(gold: pl.Series, answer: pl.Series, kind: Kind, order: Sequence[str] = ()) -> Score:
    """Score answers against gold, row by row: both of the dtype of their kind (`as_values`), without nulls, not empty.

    `order`: the labels as they are to be told; those not in it follow, the commonest first.
    """
    if kind == "lists":
        return _score_lists([set(row) for row in gold.to_list()], [set(row) for row in answer.to_list()], order)
    values = pl.concat([gold, answer]).unique()
    if kind == "numbers":
        is_nominal = len(values) <= GRADES_MOST and _are_whole(values)
        order = as_text(values.sort()).to_list() if is_nominal else ()
    else:
        is_nominal = len(values) <= LABELS_MOST
    pairs = pairs_of(gold, answer) if is_nominal else {}
    hit = is_right(gold, answer, kind)
    support, answered = _margins(pairs)
    right = Counter({one: rows for (one, other), rows in pairs.items() if one == other})
    labels = _label_scores(support, answered, right, order)
    return Score(
        kind=kind,
        accuracy=share(int(hit.sum()), len(gold)),
        kappa=kappa(pairs) if pairs else None,
        macro=_macro(labels),
        labels=labels,
        confusion=tuple(Pair(*pair, rows) for pair, rows in pairs.items()),
        numbers=_distance(gold, answer) if kind == "numbers" else None,
        mean_jaccard=None,
        near_misses=_near_misses(gold.filter(~hit), answer.filter(~hit)) if kind == "labels" else 0,
    )


def share(count: int, rows: int) -> Share:
    """A share with Wilson's interval (JASA 22, 1927), which holds for few rows and near 0 and 1 too. `rows` > 0."""
    observed, weight = count / rows, Z * Z / rows
    middle = (observed + weight / 2) / (1 + weight)
    reach = Z / (1 + weight) * math.sqrt(observed * (1 - observed) / rows + weight / (4 * rows))
    low = 0.0 if count == 0 else max(0.0, middle - reach)
    high = 1.0 if count == rows else min(1.0, middle + reach)
    return Share(count, rows, observed, low, high)


def kappa(pairs: Mapping[tuple[str, str], int]) -> float | None:
    """Cohen's kappa (1960) of the counts of pairs; None if chance alone would agree on every row."""
    rows = sum(pairs.values())
    firsts, seconds = _margins(pairs)
    by_chance = sum(number * seconds[label] for label, number in firsts.items())
    agreed = sum(number for (one, other), number in pairs.items() if one == other)
    return None if by_chance == rows * rows else (agreed * rows - by_chance) / (rows * rows - by_chance)


def paired_test(first_right: pl.Series, second_right: pl.Series) -> PairedTest:
    """Two columns of whether a job was right, on the same rows.

    The difference has the interval of Agresti and Min (Statistics in Medicine 24, 2005): half a row is added to each
    of the four kinds of rows.
    """
    rows = len(first_right)
    first_alone, second_alone = int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())
    more, total = second_alone - first_alone, rows + 2
    reach = Z / total * math.sqrt(first_alone + second_alone + 1 - more * more / total)
    return PairedTest(
        first_alone=first_alone,
        second_alone=second_alone,
        difference=more / rows,
        low=max(-1.0, more / total - reach),
        high=min(1.0, more / total + reach),
        p_value=_mcnemar(first_alone, second_alone),
    )


def pairs_of(first: pl.Series, second: pl.Series) -> dict[tuple[str, str], int]:
    """How often which two values stand in the same row, as text; the commonest first."""
    frame = pl.DataFrame([as_text(first).alias("first"), as_text(second).alias("second")])
    counted = frame.group_by("first", "second").agg(rows=pl.len())
    ordered = counted.sort("rows", "first", "second", descending=[True, False, False])
    return {(one, other): rows for one, other, rows in ordered.iter_rows()}


def is_right(gold: pl.Series, answer: pl.Series, kind: Kind) -> pl.Series:
    """Whether each answer is its gold; null where one of them is."""
    if kind == "lists":
        both = zip(gold.to_list(), answer.to_list(), strict=True)
        cells = [None if None in (wanted, given) else set(wanted) == set(given) for wanted, given in both]
        return pl.Series(cells, dtype=pl.Boolean)
    return gold == answer


def how_far(gold: pl.Series, answer: pl.Series, kind: Kind) -> pl.Series:
    """How far each answer is from its gold: numbers by their difference, lists by the share that only one has, 0 to 1.

    Labels are as far from each other as any others: 0. Null where one of both is.
    """
    if kind == "numbers":
        return (gold - answer).abs()
    if kind == "labels":
        return pl.repeat(0.0, len(gold), eager=True)
    both = zip(gold.to_list(), answer.to_list(), strict=True)
    return pl.Series([None if None in cells else 1 - _jaccard(*map(set, cells)) for cells in both], dtype=pl.Float64)


def _jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other) if one | other else 1.0


def as_values(column: pl.Series, kind: Kind, known: Sequence[str] = ()) -> pl.Series:
    """A column as values of its kind, to be compared: String, Float64 or List(String); null where it holds none.

    An empty text is no value. A list may be JSON text, or labels parted by `;`, `|` or `,` (unless all is a label).
    Where `true` and `false` are known, their case is none: pandas writes True.
    """
    if kind == "lists":
        return pl.Series(column.name, [_as_list(cell, known) for cell in column.to_list()], dtype=pl.List(pl.String))
    text = column if column.dtype == pl.String else column.cast(pl.String)
    if kind == "numbers":
        numbers = text.str.strip_chars().cast(pl.Float64, strict=False)
        return numbers.set(~numbers.is_finite(), None)
    text = text.str.to_lowercase() if set(known) == {"true", "false"} else text
    return text.set(text.str.strip_chars() == "", None)


def as_text(column: pl.Series) -> pl.Series:
    """Values as they are told: whole numbers without a point, lists sorted and parted by commas."""
    if column.dtype == pl.List:
        return column.list.unique().list.sort().list.join(", ")
    if column.dtype == pl.Float64:
        texts = [f"{cell:.0f}" if cell is not None and cell.is_integer() else cell for cell in column]
        return pl.Series(column.name, [None if cell is None else str(cell) for cell in texts], dtype=pl.String)
    return column.cast(pl.String)


def folded(text: str) -> str:
    """A text without what case and spaces make of it."""
    return "".join(text.casefold().split())


def _as_list(cell: object, known: Sequence[str]) -> list[str] | None:
    if cell is None:
        return None
    if isinstance(cell, list):
        return [str(each) for each in cell]
    text = str(cell).strip()
    if text.startswith("["):
        with contextlib.suppress(ValueError):
            return [
                each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in json.loads(text)
            ]
    parts = [text] if text in known else [part.strip() for part in PARTED_BY.split(text)]
    return [part for part in parts if part] or None


def _margins(pairs: Mapping[tuple[str, str], int]) -> tuple[Counter[str], Counter[str]]:
    firsts, seconds = Counter[str](), Counter[str]()
    for (one, other), rows in pairs.items():
        firsts[one] += rows
        seconds[other] += rows
    return firsts, seconds


def _label_scores(
    support: Counter[str], answered: Counter[str], right: Counter[str], order: Sequence[str]
) -> tuple[LabelScore, ...]:
    seen = support | answered
    places = {label: at for at, label in enumerate(order)}
    labels = sorted(seen, key=lambda label: (places.get(label, len(places)), -support[label], label))
    return tuple(
        LabelScore(
            label=label,
            support=support[label],
            answered=answered[label],
            precision=right[label] / answered[label] if answered[label] else None,
            recall=right[label] / support[label] if support[label] else None,
            f1=2 * right[label] / (support[label] + answered[label]),
        )
        for label in labels
    )


def _macro(labels: Sequence[LabelScore]) -> Macro | None:
    if not labels:
        return None
    return Macro(
        precision=_mean(each.precision or 0.0 for each in labels),
        recall=_mean(each.recall or 0.0 for each in labels),
        f1=_mean(each.f1 for each in labels),
    )


def _mean(numbers: Iterable[float]) -> float:
    held = list(numbers)
    return math.fsum(held) / len(held)


def _score_lists(gold: list[set[str]], answer: list[set[str]], order: Sequence[str]) -> Score:
    support, answered, right = Counter[str](), Counter[str](), Counter[str]()
    for wanted, given in zip(gold, answer, strict=True):
        support.update(wanted)
        answered.update(given)
        right.update(wanted & given)
    labels = _label_scores(support, answered, right, order)
    both = list(zip(gold, answer, strict=True))
    return Score(
        kind="lists",
        accuracy=share(sum(wanted == given for wanted, given in both), len(both)),
        kappa=None,
        macro=_macro(labels),
        labels=labels,
        confusion=(),
        numbers=None,
        mean_jaccard=_mean(_jaccard(one, other) for one, other in both),
        near_misses=0,
    )


def _distance(gold: pl.Series, answer: pl.Series) -> Distance:
    return Distance(
        mean_absolute_error=_number((gold - answer).abs().mean()) or 0.0,
        quadratic_weighted_kappa=_weighted_kappa(gold, answer) if _are_whole(gold) and _are_whole(answer) else None,
        spearman=_number(pl.select(pl.corr(gold, answer, method="spearman")).item()),
    )


def _are_whole(numbers: pl.Series) -> bool:
    return bool((numbers == numbers.round()).all())


def _weighted_kappa(gold: pl.Series, answer: pl.Series) -> float | None:
    """Cohen's kappa with the squared distance of the numbers as weight, from their moments: no table is needed."""
    mean_gold, mean_answer = _number(gold.mean()) or 0.0, _number(answer.mean()) or 0.0
    spread = (_number(gold.var(ddof=0)) or 0.0) + (_number(answer.var(ddof=0)) or 0.0)
    by_chance = spread + (mean_gold - mean_answer) ** 2
    observed = _number(((gold - answer) ** 2).mean()) or 0.0
    return None if by_chance == 0 else 1 - observed / by_chance


def _number(value: object) -> float | None:
    return value if isinstance(value, float) and math.isfinite(value) else None


def _near_misses(gold: pl.Series, answer: pl.Series) -> int:
    return sum(folded(one) == folded(other) for one, other in zip(gold, answer, strict=True))


def _mcnemar(one: int, other: int) -> float:
    """Two-sided, exact: a binomial test at one half on the pairs that differ (Biometrics, Liddell 1976)."""
    trials, fewer = one + other, min(one, other)
    if one == other:
        return 1.0
    logs = (_log_choose(trials, k) - trials * math.log(2) for k in range(fewer + 1))
    return min(1.0, 2 * math.fsum(math.exp(log) for log in logs))


def _log_choose(total: int, chosen: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)
