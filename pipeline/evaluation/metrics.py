"""Metrics of answers against gold, as pure functions over columns: accuracy, kappa, precision and recall, tests."""

import contextlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist

import polars as pl

from .records import Confusion, Distance, Kind, LabelScore, Macro, PairedTest, Score, Share

Z = NormalDist().inv_cdf(0.975)
"""Quantile of the normal distribution for intervals of 95 %."""
GRADES_MOST = 20
"""Whole numbers with at most this many different values are taken for grades and scored as labels, too."""
LABELS_MOST = 1_000
"""Texts with more different values than this are not labels: only their accuracy is computed."""
LIST_SEPARATOR = re.compile(r"[;|,]")


def score(gold: pl.Series, answer: pl.Series, kind: Kind, order: Sequence[str] = ()) -> Score:
    """Score answers against gold, row by row.

    Both columns must come from `as_values` for this kind, have the same length, and hold no nulls and at least one row.
    `order`: labels that come first in the result, in this order; all others follow, the most frequent first.
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
    right = is_right(gold, answer, kind)
    support, answered = _margins(pairs)
    found = Counter({one: rows for (one, other), rows in pairs.items() if one == other})
    labels = _label_scores(support, answered, found, order)
    return Score(
        kind=kind,
        accuracy=share(int(right.sum()), len(gold)),
        kappa=kappa(pairs) if pairs else None,
        macro=_macro(labels),
        labels=labels,
        confusion=tuple(Confusion(*pair, rows) for pair, rows in pairs.items()),
        numbers=_distance(gold, answer) if kind == "numbers" else None,
        mean_jaccard=None,
        near_misses=_near_misses(gold.filter(~right), answer.filter(~right)) if kind == "labels" else 0,
    )


def share(count: int, rows: int) -> Share:
    """Compute `count / rows` with Wilson's score interval. `rows` must be positive.

    The interval is valid for few rows and for shares near 0 and 1, too (Wilson, JASA 22, 1927).
    """
    observed, weight = count / rows, Z * Z / rows
    center = (observed + weight / 2) / (1 + weight)
    margin = Z / (1 + weight) * math.sqrt(observed * (1 - observed) / rows + weight / (4 * rows))
    low = 0.0 if count == 0 else max(0.0, center - margin)
    high = 1.0 if count == rows else min(1.0, center + margin)
    return Share(count, rows, observed, low, high)


def kappa(pairs: Mapping[tuple[str, str], int]) -> float | None:
    """Compute Cohen's kappa (1960) from the row counts of pairs of values.

    None if the agreement expected by chance is 1: both sides hold one and the same value.
    """
    rows = sum(pairs.values())
    firsts, seconds = _margins(pairs)
    by_chance = sum(number * seconds[label] for label, number in firsts.items())
    agreed = sum(number for (one, other), number in pairs.items() if one == other)
    return None if by_chance == rows * rows else (agreed * rows - by_chance) / (rows * rows - by_chance)


def paired_test(first_right: pl.Series, second_right: pl.Series) -> PairedTest:
    """Compare two jobs by whether each row is right: two Boolean columns over the same rows, not empty.

    The p-value is that of McNemar's exact test. The interval of the difference is that of Agresti and Min (Statistics
    in Medicine 24, 2005): Wald's, after half a row is added to each of the four cells.
    """
    rows = len(first_right)
    first_alone, second_alone = int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())
    more, total = second_alone - first_alone, rows + 2
    margin = Z / total * math.sqrt(first_alone + second_alone + 1 - more * more / total)
    return PairedTest(
        first_alone=first_alone,
        second_alone=second_alone,
        difference=more / rows,
        low=max(-1.0, more / total - margin),
        high=min(1.0, more / total + margin),
        p_value=_mcnemar(first_alone, second_alone),
    )


def pairs_of(first: pl.Series, second: pl.Series) -> dict[tuple[str, str], int]:
    """Count the rows of each pair of values, as text; the most frequent pair first."""
    frame = pl.DataFrame([as_text(first).alias("first"), as_text(second).alias("second")])
    counted = frame.group_by("first", "second").agg(rows=pl.len())
    ordered = counted.sort("rows", "first", "second", descending=[True, False, False])
    return {(one, other): rows for one, other, rows in ordered.iter_rows()}


def is_right(gold: pl.Series, answer: pl.Series, kind: Kind) -> pl.Series:
    """Whether each answer equals its gold; null where one of the two is null."""
    if kind == "lists":
        pairs = zip(gold.to_list(), answer.to_list(), strict=True)
        cells = [None if None in (right, given) else set(right) == set(given) for right, given in pairs]
        return pl.Series(cells, dtype=pl.Boolean)
    return gold == answer


def distance(gold: pl.Series, answer: pl.Series, kind: Kind) -> pl.Series:
    """How far each answer is from its gold; null where one of the two is null.

    For numbers the absolute difference, for lists the Jaccard distance (0 to 1). All labels are equally far: 0.
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
    """Convert a column to values of its kind: String, Float64 or List(String); null where a cell holds no such value.

    An empty text is null. A list may be JSON text, or labels separated by `;`, `|` or `,`, unless the whole text is a
    known label. If the known values are `true` and `false`, case is ignored, since pandas writes True.
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
    """Convert values to text for a person: whole numbers without a point, lists sorted and joined by commas."""
    if column.dtype == pl.List:
        return column.list.unique().list.sort().list.join(", ")
    if column.dtype == pl.Float64:
        texts = [f"{cell:.0f}" if cell is not None and cell.is_integer() else cell for cell in column]
        return pl.Series(column.name, [None if cell is None else str(cell) for cell in texts], dtype=pl.String)
    return column.cast(pl.String)


def folded(text: str) -> str:
    """Normalize case and remove spaces, so that near misses become equal."""
    return "".join(text.casefold().split())


def _as_list(cell: object, known: Sequence[str]) -> list[str] | None:
    if cell is None:
        return None
    if isinstance(cell, list):
        return [str(each) for each in cell]
    text = str(cell).strip()
    if text.startswith("["):
        with contextlib.suppress(ValueError, RecursionError):
            return [
                each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in json.loads(text)
            ]
    parts = [text] if text in known else [part.strip() for part in LIST_SEPARATOR.split(text)]
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
    values = list(numbers)
    return math.fsum(values) / len(values)


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
    """Cohen's kappa with squared differences as weights, from means and variances: the matrix is not needed."""
    mean_gold, mean_answer = _number(gold.mean()) or 0.0, _number(answer.mean()) or 0.0
    spread = (_number(gold.var(ddof=0)) or 0.0) + (_number(answer.var(ddof=0)) or 0.0)
    by_chance = spread + (mean_gold - mean_answer) ** 2
    observed = _number(((gold - answer) ** 2).mean()) or 0.0
    return None if by_chance == 0 else 1 - observed / by_chance


def _number(value: object) -> float | None:
    return value if isinstance(value, float) and math.isfinite(value) else None


def _near_misses(gold: pl.Series, answer: pl.Series) -> int:
    return sum(folded(one) == folded(other) for one, other in zip(gold, answer, strict=True))


def _mcnemar(first_alone: int, second_alone: int) -> float:
    """McNemar's test, exact and two-sided: a binomial test on the discordant pairs (Liddell, Biometrics, 1976)."""
    trials, fewer = first_alone + second_alone, min(first_alone, second_alone)
    if first_alone == second_alone:
        return 1.0
    logs = (_log_choose(trials, k) - trials * math.log(2) for k in range(fewer + 1))
    return min(1.0, 2 * math.fsum(math.exp(log) for log in logs))


def _log_choose(total: int, chosen: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)
