"""Scores and comparisons as text for a terminal, and as JSON."""

import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from ..text import money, one_line
from .records import Bill, ComparedJob, Comparison, JobScore, Score, Share

NAME_WIDTH = 20
"""Columns of the terminal that a label's name may take; a longer one is cut."""
LABELS_MOST = 30
CONFUSIONS_MOST = 10


def as_json(result: JobScore | Comparison) -> Iterator[str]:
    """Give all figures as one JSON object whose keys are the record's fields."""
    yield msgspec.json.format(msgspec.json.encode(result), indent=2).decode()


def scored_text(scored: JobScore, width: int) -> Iterator[str]:
    """Give a score as lines of text. `width`: columns of the terminal, which tables keep to."""
    yield one_line(f"{scored.job} · {scored.answer} against {scored.gold}")
    yield _rows(scored)
    if scored.prompt_shows_gold:
        yield one_line(f"Warning: the prompt contains the column {scored.gold}, so the model sees the right answer.")
    yield ""
    yield from _facts(scored)
    if scored.score.labels:
        yield ""
        yield from _label_table(scored.score, width)
    if scored.score.confusion:
        yield ""
        yield from _confusion(scored.score, width)
    if scored.by is not None:
        yield ""
        yield from _parts(scored, width)


def compared_text(compared: Comparison, width: int) -> Iterator[str]:
    """Give a comparison as lines of text. `width`: columns of the terminal, which tables keep to."""
    one, other = compared.first, compared.second
    by = f"by {compared.matched_by}" if compared.matched_by is not None else "by their position in the same input"
    yield f"{compared.matched:,} rows are in both jobs, matched {one_line(by)}; {compared.answered:,} answered in both"
    for job in (one, other):
        if job.rows > compared.matched:
            yield f"{job.rows - compared.matched:,} rows are only in {one_line(job.job)}"
    yield ""
    facts = [("agreement", _share(compared.agreement)), ("Cohen's kappa", _number(compared.kappa))]
    facts += [(_cut(job.job, 2 * NAME_WIDTH), _compared_job(job)) for job in (one, other)]
    yield from _pairs(facts)
    if compared.changes:
        changed = compared.agreement.rows - compared.agreement.count
        yield ""
        yield f"{changed:,} rows have a different answer in {one_line(other.job)}; the most frequent changes:"
        yield from _counted([(each.first, each.second, each.rows) for each in compared.changes], width)
    if compared.test is not None:
        yield ""
        yield from _test(compared)


def review_text(scored: JobScore, path: Path, most: int) -> str:
    """Say what the review table holds, and how to get all wrong rows if it was cut to `most` rows."""
    wrong = scored.score.accuracy.rows - scored.score.accuracy.count
    if not wrong:
        return f"Wrote {path}: no row differs from gold."
    cut = f" The table holds only {most:,} of them; for all of them: -n {wrong}" if wrong > most else ""
    return f"Wrote {path}: {wrong:,} {'row differs' if wrong == 1 else 'rows differ'} from gold; they come first.{cut}"


def _rows(scored: JobScore) -> str:
    counts = [f"{scored.rows:,} rows: {scored.score.accuracy.rows:,} scored"]
    counts += [
        f"{rows:,} {status}" + (f" with an empty {one_line(scored.answer)}" if status in ("ok", "truncated") else "")
        for status, rows in scored.without_answer.items()
    ]
    if scored.without_gold:
        counts.append(f"{scored.without_gold:,} without gold")
    return ", ".join(counts)


def _facts(scored: JobScore) -> Iterator[str]:
    score = scored.score
    facts = [("accuracy", _share(score.accuracy))]
    if scored.accuracy_of_all is not None:
        facts.append(("unanswered as wrong", _share(scored.accuracy_of_all)))
    if score.kind == "labels" or score.kappa is not None:
        facts.append(("Cohen's kappa", _number(score.kappa)))
    if score.mean_jaccard is not None:
        facts.append(("mean Jaccard", _number(score.mean_jaccard)))
    if score.numbers is not None:
        facts.append(("mean absolute error", f"{score.numbers.mean_absolute_error:.4g}"))
        facts.append(("quadratic kappa", _number(score.numbers.quadratic_weighted_kappa)))
        facts.append(("Spearman's rho", _number(score.numbers.spearman)))
    facts.append(("all rows with gold", _bill(scored.bill)))
    if score.accuracy.count:
        facts.append(("per right row", _bill(Bill(scored.tokens_per_right_row, scored.cost_per_right_row))))
    yield from _pairs(facts)
    if score.near_misses:
        differ = "answer differs" if score.near_misses == 1 else "answers differ"
        yield f"{score.near_misses:,} wrong {differ} from gold only in case or spaces."


def _label_table(score: Score, width: int) -> Iterator[str]:
    shown = score.labels[:LABELS_MOST]
    rows = [
        (each.label, f"{each.support:,}", _number(each.precision), _number(each.recall), _number(each.f1))
        for each in shown
    ]
    if score.macro is not None:
        macro = score.macro
        rows.append(("mean of labels", "", _number(macro.precision), _number(macro.recall), _number(macro.f1)))
    yield from _table(("label", "gold", "precision", "recall", "F1"), rows, width)
    if len(score.labels) > len(shown):
        yield f"and {len(score.labels) - len(shown):,} more labels: see --json"


def _confusion(score: Score, width: int) -> Iterator[str]:
    """The confusion matrix if it fits the width, else its largest cells."""
    labels = [each.label for each in score.labels]
    if len(labels) <= LABELS_MOST:
        counts = {(pair.gold, pair.answer): pair.rows for pair in score.confusion}
        head = ["gold ↓ answer →", *labels]
        rows = [(gold, *(f"{counts.get((gold, answer), 0):,}" for answer in labels)) for gold in labels]
        if sum(_widths(head, rows)) + 2 * len(labels) <= width:
            yield from _table(head, rows, width)
            return
    wrong = [(pair.gold, pair.answer, pair.rows) for pair in score.confusion if pair.gold != pair.answer]
    yield "gold → answer, the most frequent confusions:" if wrong else "No label was confused with another."
    yield from _counted(wrong, width)


def _counted(pairs: Sequence[tuple[str, str, int]], width: int) -> Iterator[str]:
    room = max(8, (width - 16) // 2)
    for one, other, rows in pairs[:CONFUSIONS_MOST]:
        yield f"  {rows:>8,}  {_cut(one, room)} → {_cut(other, room)}"
    if len(pairs) > CONFUSIONS_MOST:
        yield f"  and {len(pairs) - CONFUSIONS_MOST:,} other pairs: see --json"


def _parts(scored: JobScore, width: int) -> Iterator[str]:
    shown = scored.parts[:LABELS_MOST]
    rows = [
        (
            "(empty)" if part.value is None else part.value,
            f"{part.accuracy.rows:,}",
            _percent(part.accuracy.share),
            f"{_percent(part.accuracy.low)} to {_percent(part.accuracy.high)}",
        )
        for part in shown
    ]
    yield from _table((scored.by or "", "rows", "accuracy", "95 % interval"), rows, width)
    if len(scored.parts) > len(shown):
        yield f"and {len(scored.parts) - len(shown):,} more values: see --json"


def _test(compared: Comparison) -> Iterator[str]:
    test, names = compared.test, (one_line(compared.first.job), one_line(compared.second.job))
    if test is None:
        return
    better, sign = names[test.difference > 0], -1 if test.difference < 0 else 1
    low, high = sorted((100 * sign * test.low, 100 * sign * test.high))
    interval = f"{low:+.1f} to {high:+.1f}"
    if test.difference:
        points = abs(100 * test.difference)
        yield f"{better} is right more often, by {points:.1f} percentage points (95 % interval {interval})."
    else:
        yield f"Both are right equally often (95 % interval of the difference: {interval} percentage points)."
    yield f"Rows that only {names[0]} has right: {test.first_alone:,}; only {names[1]}: {test.second_alone:,}."
    word = "may be" if test.p_value >= 0.05 else "is unlikely to be"
    yield f"McNemar's exact test: p = {test.p_value:.2g}, so the difference {word} due to chance."


def _compared_job(job: ComparedJob) -> str:
    facts = [f"{job.answered:,} answered"]
    if job.accuracy is not None:
        facts.append(f"{_percent(job.accuracy.share)} right")
    return " · ".join((*facts, _bill(job.bill)))


def _share(share: Share) -> str:
    low, high = _percent(share.low), _percent(share.high)
    return f"{_percent(share.share)}  {share.count:,} of {share.rows:,}, 95 % interval {low} to {high}"


def _bill(bill: Bill) -> str:
    tokens = "tokens unknown" if bill.tokens is None else f"{bill.tokens:,.0f} tokens"
    return f"{tokens} · {'cost unknown' if bill.cost is None else money(bill.cost)}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _number(number: float | None) -> str:
    return "-" if number is None else f"{number:.2f}"


def _pairs(facts: Sequence[tuple[str, str]]) -> Iterator[str]:
    room = max(_width_of(name) for name, _ in facts)
    yield from (f"{_padded(name, room)}  {value}" for name, value in facts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Align a table: the first column left, numbers right. The first column is cut to the width that is left."""
    first, *others = _widths(head, rows)
    first = min(first, max(6, width - sum(others) - 2 * len(others)))
    for row in (head, *rows):
        name, *numbers = (_cut(cell, NAME_WIDTH) for cell in row)
        cells = (" " * (room - _width_of(cell)) + cell for cell, room in zip(numbers, others, strict=True))
        yield "  ".join((_padded(_cut(name, first), first), *cells))


def _widths(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(_width_of(_cut(cell, NAME_WIDTH)) for cell in column) for column in zip(head, *rows, strict=True)]


def _padded(text: str, room: int) -> str:
    return text + " " * (room - _width_of(text))


def _cut(text: str, room: int) -> str:
    """Cut a text, put on one line, to this width in columns of the terminal (`clip` counts characters instead)."""
    text = one_line(text)
    if _width_of(text) <= room:
        return text
    while _width_of(text) > room - 1:
        text = text[: min(len(text) - 1, room)]
    return text + "…"


def _width_of(text: str) -> int:
    """The width of a text in columns of a terminal: an East Asian wide character takes two."""
    return sum(0 if unicodedata.combining(each) else 1 + (unicodedata.east_asian_width(each) in "WF") for each in text)
