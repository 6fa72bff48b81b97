"""A score and a comparison as text, for a terminal of any width."""

import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..text import money, one_line
from .metrics import Bill, Compared, Score, Scored, Share, Side

NAME_WIDTH = 20
"""A label's name is cut to so many columns."""
LABELS_MOST = 30
CONFUSIONS_MOST = 10


def scored_text(scored: Scored, width: int) -> Iterator[str]:
    """The lines of a score; tables keep to `width` columns."""
    yield one_line(f"{scored.job} · {scored.answer} against {scored.gold}")
    yield _rows(scored)
    if scored.prompt_shows_gold:
        yield one_line(f"Beware: the prompt shows the model the column {scored.gold}.")
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


def compared_text(compared: Compared, width: int) -> Iterator[str]:
    """The lines of a comparison; its tables keep to `width` columns."""
    one, other = compared.first, compared.second
    by = f"by {compared.matched_by}" if compared.matched_by is not None else "by their place in the same input"
    yield f"{compared.matched:,} rows are in both jobs, matched {one_line(by)}; {compared.answered:,} answered in both"
    for side in (one, other):
        if side.rows > compared.matched:
            yield f"{side.rows - compared.matched:,} rows are in {one_line(side.job)} alone"
    yield ""
    facts = [("agreement", _share(compared.agreement)), ("Cohen's kappa", _number(compared.kappa))]
    facts += [(_cut(side.job, 2 * NAME_WIDTH), _side(side)) for side in (one, other)]
    yield from _pairs(facts)
    if compared.changes:
        changed = compared.agreement.rows - compared.agreement.count
        yield ""
        yield f"{changed:,} rows have another answer in {one_line(other.job)}; the commonest changes:"
        yield from _counted([(each.first, each.second, each.rows) for each in compared.changes], width)
    if compared.test is not None:
        yield ""
        yield from _test(compared)


def review_text(scored: Scored, path: Path, most: int) -> str:
    """What the table of rows to look at holds."""
    wrong = scored.score.accuracy.rows - scored.score.accuracy.count
    cut = f" {most:,} of them are in it; for all: -n {wrong}" if wrong > most else ""
    return f"Wrote {path}: {wrong:,} rows disagree, and come first.{cut}"


def _rows(scored: Scored) -> str:
    told = [f"{scored.rows:,} rows: {scored.score.accuracy.rows:,} scored"]
    told += [
        f"{rows:,} {status}" + (f" with an empty {one_line(scored.answer)}" if status in ("ok", "truncated") else "")
        for status, rows in scored.without_answer.items()
    ]
    if scored.without_gold:
        told.append(f"{scored.without_gold:,} without gold")
    return ", ".join(told)


def _facts(scored: Scored) -> Iterator[str]:
    score = scored.score
    facts = [("accuracy", _share(score.accuracy))]
    if scored.accuracy_of_all is not None:
        facts.append(("no answer as wrong", _share(scored.accuracy_of_all)))
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
        facts.append(("for each right row", _bill(Bill(scored.tokens_per_right_row, scored.cost_per_right_row))))
    yield from _pairs(facts)
    if score.near_misses:
        differ = "differs" if score.near_misses == 1 else "differ"
        yield f"{score.near_misses:,} of the wrong {differ} from gold only in case or spaces."


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
        yield f"and {len(score.labels) - len(shown):,} more labels, which --json tells"


def _confusion(score: Score, width: int) -> Iterator[str]:
    """The whole table where it fits, else the commonest confusions."""
    labels = [each.label for each in score.labels]
    if len(labels) <= LABELS_MOST:
        counts = {(pair.gold, pair.answer): pair.rows for pair in score.confusion}
        head = ["gold ↓ answer →", *labels]
        rows = [(gold, *(f"{counts.get((gold, answer), 0):,}" for answer in labels)) for gold in labels]
        if sum(_widths(head, rows)) + 2 * len(labels) <= width:
            yield from _table(head, rows, width)
            return
    wrong = [(pair.gold, pair.answer, pair.rows) for pair in score.confusion if pair.gold != pair.answer]
    yield "gold → answer, the commonest confusions:" if wrong else "No label was taken for another."
    yield from _counted(wrong, width)


def _counted(pairs: Sequence[tuple[str, str, int]], width: int) -> Iterator[str]:
    room = max(8, (width - 16) // 2)
    for one, other, rows in pairs[:CONFUSIONS_MOST]:
        yield f"  {rows:>8,}  {_cut(one, room)} → {_cut(other, room)}"
    if len(pairs) > CONFUSIONS_MOST:
        yield f"  and {len(pairs) - CONFUSIONS_MOST:,} other pairs, which --json tells"


def _parts(scored: Scored, width: int) -> Iterator[str]:
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
        yield f"and {len(scored.parts) - len(shown):,} more values, which --json tells"


def _test(compared: Compared) -> Iterator[str]:
    test, names = compared.test, (one_line(compared.first.job), one_line(compared.second.job))
    if test is None:
        return
    better = names[test.difference > 0]
    between = sorted((test.low, test.high), reverse=test.difference < 0)
    bounds = " to ".join(f"{100 * bound * (-1 if test.difference < 0 else 1):+.1f}" for bound in between)
    if test.difference:
        yield f"{better} is right more often, by {abs(100 * test.difference):.1f} points (95 % interval {bounds})."
    else:
        yield f"Both are right equally often (95 % interval of the difference {bounds} points)."
    word = "no more than chance may do" if test.p_value >= 0.05 else "more than chance would do"
    yield (
        f"Right in one alone: {test.first_alone:,} and {test.second_alone:,} rows. "
        f"McNemar's exact test: p = {test.p_value:.2g}, {word}."
    )


def _side(side: Side) -> str:
    told = [f"{side.answered:,} answered"]
    if side.accuracy is not None:
        told.append(f"{_percent(side.accuracy.share)} right")
    return " · ".join((*told, _bill(side.bill)))


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
    room = max(_wide(name) for name, _ in facts)
    yield from (f"{_padded(name, room)}  {value}" for name, value in facts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Columns side by side, the first to the left, numbers to the right; names are cut to what `width` leaves."""
    first, *others = _widths(head, rows)
    first = min(first, max(6, width - sum(others) - 2 * len(others)))
    for row in (head, *rows):
        name, *numbers = (_cut(cell, NAME_WIDTH) for cell in row)
        cells = (" " * (room - _wide(cell)) + cell for cell, room in zip(numbers, others, strict=True))
        yield "  ".join((_padded(_cut(name, first), first), *cells))


def _widths(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(_wide(_cut(cell, NAME_WIDTH)) for cell in column) for column in zip(head, *rows, strict=True)]


def _padded(text: str, room: int) -> str:
    return text + " " * (room - _wide(text))


def _cut(text: str, room: int) -> str:
    """A text on one line in no more than so many columns."""
    text = one_line(text)
    if _wide(text) <= room:
        return text
    while _wide(text) > room - 1:
        text = text[: min(len(text) - 1, room)]
    return text + "…"


def _wide(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(0 if unicodedata.combining(each) else 1 + (unicodedata.east_asian_width(each) in "WF") for each in text)
