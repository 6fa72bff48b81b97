"""A job's answers judged, against gold or another job's: they are read as they stand, and nothing is asked."""

import contextlib
import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import polars as pl

from ..planning import keys_path
from ..prompts import Prompts
from ..records import USABLE, BadJob
from ..results import OpenJob, OutputTable, open_job, output_schema, with_all_columns
from ..tables import check_output, write_table
from ..text import did_you_mean, one_line
from .metrics import (
    LABELS_MOST,
    Bill,
    Change,
    Compared,
    Kind,
    Part,
    Scored,
    Side,
    as_values,
    folded,
    how_far,
    is_right,
    kappa,
    paired_test,
    pairs_of,
    share,
)
from .metrics import score as score_columns

SURE = ("confidence", "agreement")
"""The columns that say how sure an answer is, from 0 to 1: the first that is there counts."""
TOLD_MOST = 10


class AnswerColumn(NamedTuple):
    """Which column of answers is judged, and what it holds."""

    name: str
    """Without the output's prefix."""
    kind: Kind
    known: tuple[str, ...]
    """The values that it may hold, if they are known."""


def score_job(
    name: str | Path,
    *,
    gold: str,
    answer: str | None = None,
    by: str | None = None,
    review: Path | None = None,
    most: int = 1000,
) -> Scored:
    """Score a job's answers against a column of its input, and write the rows that a person should look at.

    `by`: a column, of the input or added, for each of whose values the accuracy is told. `review`: a table for the at
    most `most` worst rows: those that disagree, the farthest off and the surest first, then the others, the least sure
    first.

    Raises BadJob for columns that are not there, gold that no answer could be, and where there is nothing to score.
    """
    with _opened(name) as opened:
        judged = _judged(opened, answer)
        _check_gold_is_there(gold, opened)
        if review is not None:
            _check_review(review, opened)
        held: list[pl.DataFrame] = []
        strange: list[pl.DataFrame] = []
        worst = _Worst(opened, judged, gold, most)
        for frame, each in _slices(opened, judged, {"told": gold, "by": by}):
            facts = _against_gold(each, judged)
            strange.append(_strange(facts, judged))
            held.append(facts.select("status", "answer", "gold", "right", "by", "tokens", "cost"))
            if review is not None:
                worst.add(frame, facts)
        if not held:
            raise BadJob("The input has no rows: there is nothing to score.")
        _refuse_strange(pl.concat(strange), judged, gold, name)
        scored = _scored(pl.concat(held), judged, gold, by, opened)
        if review is not None:
            worst.write(review)
        return scored


def compare_jobs(
    first: str | Path, second: str | Path, *, gold: str | None = None, answer: str | None = None, key: str | None = None
) -> Compared:
    """Compare two jobs' answers, row by row.

    Rows are the same if they stand at the same place of the same input, or have the same value in the column `key`.
    Raises BadJob if rows cannot be matched, and as `score`.
    """
    with _opened(first) as one, _opened(second) as other:
        if key is None and one.input_hash != other.input_hash:
            shared = [name for name in one.table.schema if name in other.table.schema]
            raise BadJob(
                f"{first} and {second} are not about the same input, so no row is known to be the same in both.\n"
                f"Name a column that tells rows apart: --key COLUMN. Both have {', '.join(shared) or 'none in common'}."
            )
        if gold is not None and gold not in one.table.schema:
            _check_gold_is_there(gold, other)
        names, jobs = (first, second), (one, other)
        judged = [_judged(each, answer) for each in jobs]
        sides = [_side(*each, gold, key) for each in zip(names, jobs, judged, strict=True)]
        both = sides[0].join(sides[1], on="id", how="inner", suffix="2", maintain_order="left")
        told = both["told" if gold in one.table.schema else "told2"]
        matched = [
            both.select(**{each: each + end for each in ("row", "status", "answer", "tokens", "cost")}, told=told)
            for end in ("", "2")
        ]
        return _compared(names, jobs, judged, matched, gold, key)


def as_json(judged: Scored | Compared) -> Iterator[str]:
    """All figures as one JSON object; its shape is that of the record."""
    yield msgspec.json.format(msgspec.json.encode(judged), indent=2).decode()


@contextlib.contextmanager
def _opened(name: str | Path) -> Iterator[OpenJob]:
    opened = open_job(name)
    with contextlib.closing(opened.reader):
        yield opened


def _judged(opened: OpenJob, wanted: str | None) -> AnswerColumn:
    """The column of answers that is meant: the one that is named, the label, the only typed one, or the text."""
    job, typed = opened.job, opened.job.typed_columns
    names = [*typed, "answer"]
    if wanted is None and len(typed) > 1:
        raise BadJob(f"The answers have the columns {', '.join(typed)}. Name the one to judge: --answer {names[0]}")
    name = names[0] if wanted is None else wanted if wanted in names else wanted.removeprefix(job.output.prefix)
    if name not in names:
        raise BadJob(f"--answer {wanted}: there is no such column of answers{did_you_mean(name, names)}")
    whole = with_all_columns(job, opened.table)
    dtype = output_schema(whole, opened.table)[whole.output.prefix + name]
    schema = typed.get(name, {})
    inner = dtype.inner if isinstance(dtype, pl.List) else dtype
    if isinstance(inner, pl.Struct) or inner == pl.List:
        raise BadJob(f"--answer {name}: it holds objects, which no column of gold can be held against.")
    is_list = dtype == pl.List or schema.get("type") == "array"
    if job.answer.labels is not None and name == job.answer.name:
        known = list(job.answer.labels)
    elif isinstance(inner, pl.Enum):
        known = inner.categories.to_list()
    else:
        known = ["true", "false"] if dtype == pl.Boolean else _words(schema.get("items"))
    return AnswerColumn(name, "lists" if is_list else "numbers" if dtype.is_numeric() else "labels", tuple(known))


def _words(schema: object) -> list[str]:
    """The labels that a list's schema names."""
    words = schema.get("enum") if isinstance(schema, dict) else None
    return [word for word in words if isinstance(word, str)] if isinstance(words, list) else []


def _check_gold_is_there(gold: str, opened: OpenJob) -> None:
    if gold not in opened.table.schema:
        raise BadJob(f"--gold {gold}: the input has no such column{did_you_mean(gold, opened.table.schema)}")
    if (dtype := opened.table.schema[gold]) in (pl.Struct, pl.Binary, pl.Object, pl.Array):
        raise BadJob(f"--gold {gold}: its cells are {dtype}. Gold is a text, a number or a list of labels.")


def _check_review(path: Path, opened: OpenJob) -> None:
    if path.resolve() == opened.job.output_path.resolve():
        raise BadJob(f"{path} is the job's own output. Name another table for the review.")
    check_output(path, opened.inputs)


def _slices(
    opened: OpenJob, judged: AnswerColumn, columns: Mapping[str, str | None]
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """The rows in slices: all their cells, those added under free names; and what judging takes of them.

    That is `row` (from 1), `status`, `answer` (as values; null if there is none to judge), `raw`, `sure`, `tokens` and
    `cost` (0 in a row that is equal to an earlier one); and `columns`, each under its name here, null where it is None.
    """
    job, table = with_all_columns(opened.job, opened.table), opened.table
    prefix = job.output.prefix
    sure = _sure(opened)
    tokens = pl.coalesce(
        prefix + "total_tokens", pl.col(prefix + "prompt_tokens") + pl.col(prefix + "completion_tokens")
    )
    taken = {
        "status": pl.col(prefix + "status"),
        "raw": pl.col(prefix + "answer"),
        "sure": pl.col(prefix + sure).cast(pl.Float64) if sure else pl.lit(None, dtype=pl.Float64),
        "tokens": pl.when(pl.col(prefix + "attempts") == 0).then(0).otherwise(tokens),
        "cost": pl.col(prefix + "cost"),
        **{name: _column(opened, column, prefix) for name, column in columns.items()},
    }
    row = 1
    for frame in OutputTable(job, table, keys_path(job.folder), opened.reader).frames():
        facts = frame.select(row=pl.int_range(row, row + frame.height, dtype=pl.UInt32), **taken)
        answer = as_values(frame[prefix + judged.name], judged.kind)
        yield frame, facts.with_columns(answer=pl.when(pl.col("status").is_in(USABLE)).then(answer))
        row += frame.height


def _sure(opened: OpenJob) -> str | None:
    """The added column that says how sure an answer is, if there is one."""
    job = with_all_columns(opened.job, opened.table)
    schema = output_schema(job, opened.table)
    return next((name for name in SURE if schema.get(job.output.prefix + name, pl.Null()).is_numeric()), None)


def _column(opened: OpenJob, name: str | None, prefix: str) -> pl.Expr:
    """A column of the input, or an added one."""
    if name is None:
        return pl.lit(None, dtype=pl.String)
    if name in opened.table.schema:
        return pl.col(name)
    if name not in opened.job.added_columns:
        columns = [*opened.table.schema, *opened.job.added_columns]
        raise BadJob(f"--by {name}: there is no such column{did_you_mean(name, columns)}")
    return pl.col(prefix + name)


def _against_gold(facts: pl.DataFrame, judged: AnswerColumn) -> pl.DataFrame:
    """The same with `gold` as values, and whether each answer is `right`: null where one of both is not there."""
    facts = facts.with_columns(gold=as_values(facts["told"], judged.kind, judged.known))
    return facts.with_columns(right=is_right(facts["gold"], facts["answer"], judged.kind))


def _strange(facts: pl.DataFrame, judged: AnswerColumn) -> pl.DataFrame:
    """The `value` and `row` of gold that no answer could be."""
    if judged.kind == "numbers":
        told = facts.select("row", "gold", value=pl.col("told").cast(pl.String))
        return told.filter(pl.col("gold").is_null() & (pl.col("value").str.strip_chars() != "")).select("value", "row")
    values = facts.select(value="gold", row="row")
    values = values.explode("value") if judged.kind == "lists" else values
    known = pl.col("value").is_in(judged.known) if judged.known else pl.lit(value=True)
    return values.filter(pl.col("value").is_not_null() & ~known)


def _refuse_strange(strange: pl.DataFrame, judged: AnswerColumn, gold: str, name: str | Path) -> None:
    """Raise BadJob if there is such gold: with one slip in it, every figure is wrong."""
    if strange.is_empty():
        return
    found = strange.group_by("value").agg(rows=pl.len(), first=pl.col("row").head(4))
    found = found.sort("rows", pl.col("first").list.first(), descending=[True, False])
    wanted = f"one of {', '.join(judged.known[:20])}" if judged.known else "a number"
    lines = [f"--gold {gold}: values that no answer can be, since {judged.name} is {one_line(wanted)}:"]
    spelled = {folded(word): word for word in judged.known}
    for value, rows, first in found.head(TOLD_MOST).iter_rows():
        near = difflib.get_close_matches(folded(value), spelled, 1)
        numbers = ", ".join(f"{row:,}" for row in first) + (", …" if rows > len(first) else "")
        hint = f"; did you mean {spelled[near[0]]!r}?" if near else ""
        lines.append(f"  {one_line(value)!r} in {rows:,} {'rows' if rows > 1 else 'row'} ({numbers}){hint}")
    if found.height > TOLD_MOST:
        lines.append(f"  and {found.height - TOLD_MOST:,} other values")
    lines.append(
        "Every figure would be wrong, so none is told. Correct that column of the input, or empty the cells that"
    )
    lines.append(f"hold no gold; then `pipeline resume {name}` (what is answered is not asked again), and score.")
    raise BadJob("\n".join(lines))


def _scored(facts: pl.DataFrame, judged: AnswerColumn, gold: str, by: str | None, opened: OpenJob) -> Scored:
    graded = facts.filter(pl.col("gold").is_not_null())
    if graded.is_empty():
        raise BadJob(f"--gold {gold}: it is empty in all of {facts.height:,} rows.")
    scored = graded.filter(pl.col("right").is_not_null())
    missing = dict(graded.filter(pl.col("right").is_null())["status"].value_counts(sort=True).iter_rows())
    if scored.is_empty():
        told = ", ".join(f"{rows:,} {status}" for status, rows in missing.items())
        raise BadJob(f"None of the {graded.height:,} rows with gold has an answer to score: {told}.")
    right, ended = int(scored["right"].sum()), graded.height - missing.get("pending", 0)
    bill = _bill(graded)
    prompts = Prompts(opened.job, list(opened.table.schema))
    return Scored(
        job=opened.job.output_path.name,
        gold=gold,
        answer=judged.name,
        rows=facts.height,
        without_gold=facts.height - graded.height,
        without_answer=missing,
        score=score_columns(scored["gold"], scored["answer"], judged.kind, judged.known),
        accuracy_of_all=share(right, ended) if ended > scored.height else None,
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


def _bill(facts: pl.DataFrame) -> Bill:
    """What the rows took that were asked; a failure has no tokens to tell."""
    asked = facts.filter(pl.col("status") != "pending")
    tokens, cost = asked["tokens"], asked["cost"]
    return Bill(
        tokens=int(tokens.sum()) if tokens.count() else None,
        cost=float(cost.sum()) if cost.count() == len(cost) else None,
    )


class _Worst:
    """The rows that a person should look at, the worst first; no more of them are held than are wanted."""

    def __init__(self, opened: OpenJob, judged: AnswerColumn, gold: str, most: int) -> None:
        inputs = list(opened.table.schema)
        sure = _sure(opened)
        added = {"row": "row", judged.name: "answer", "answer": "raw", **({sure: "sure"} if sure else {})}
        if judged.name == "answer":
            added["answer"] = "answer"
        self._added = {_free(name, inputs): place for name, place in added.items()}
        row, *others = self._added
        self._order = [row, gold, *others, *(name for name in inputs if name != gold)]
        self._most, self._kind = most, judged.kind
        self._ranks: list[pl.DataFrame] = []
        self._rows: list[pl.DataFrame] = []

    def add(self, frame: pl.DataFrame, facts: pl.DataFrame) -> None:
        """Look at a slice: all its cells, and its facts."""
        wrong = ~pl.col("right").fill_null(value=True)
        unsure = pl.col("answer").is_not_null() & (pl.col("sure") < 1)
        ranks = facts.select(
            "row",
            right=~wrong,
            far=how_far(facts["gold"], facts["answer"], self._kind).fill_null(0.0),
            order=pl.when(wrong).then(-pl.col("sure").fill_null(0.0)).otherwise("sure"),
            is_wanted=(wrong | unsure).fill_null(value=False),
        )
        rows = frame.with_columns(facts[place].alias(name) for name, place in self._added.items()).select(self._order)
        is_wanted = ranks["is_wanted"]
        ranks, rows = (
            pl.concat([*self._ranks, ranks.filter(is_wanted)]),
            pl.concat([*self._rows, rows.filter(is_wanted)]),
        )
        best = ranks.with_row_index("at").sort("right", -pl.col("far"), "order", "row")["at"].head(self._most)
        self._ranks, self._rows = [ranks[best]], [rows[best]]

    def write(self, path: Path) -> None:
        """Write them. Raises Stopped if that cannot be done."""
        write_table(self._rows, self._rows[0].schema, path, {})


def _free(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _side(name: str | Path, opened: OpenJob, judged: AnswerColumn, gold: str | None, key: str | None) -> pl.DataFrame:
    """A job's rows: `id`, by which they are known in the other, and their facts, `told` the gold as it stands."""
    if key is not None and key not in opened.table.schema:
        raise BadJob(f"--key {key}: the input of {name} has no such column{did_you_mean(key, opened.table.schema)}")
    columns = {"told": gold if gold in opened.table.schema else None, "id": key}
    slices = [
        facts.select("row", "id", "status", "answer", "told", "tokens", "cost")
        for _, facts in _slices(opened, judged, columns)
    ]
    if not slices:
        raise BadJob(f"{name}: the input has no rows: there is nothing to compare.")
    rows = pl.concat(slices)
    if key is None:
        chosen = opened.table.chosen
        return rows.with_columns(id=pl.int_range(pl.len(), dtype=pl.UInt32) if chosen is None else chosen)
    if rows["id"].null_count() or rows["id"].is_duplicated().any():
        twice = rows.filter(pl.col("id").is_null() | pl.col("id").is_duplicated())
        raise BadJob(
            f"--key {key}: in the input of {name} it does not tell {twice.height:,} rows apart, such as row "
            f"{twice['row'][0]:,} ({'empty' if twice['id'][0] is None else one_line(str(twice['id'][0]))})."
        )
    return rows


def _compared(
    names: Sequence[str | Path],
    jobs: Sequence[OpenJob],
    judged: Sequence[AnswerColumn],
    matched: Sequence[pl.DataFrame],
    gold: str | None,
    key: str | None,
) -> Compared:
    if gold is not None:
        matched = [_against_gold(rows, each) for rows, each in zip(matched, judged, strict=True)]
        for name, rows, each in zip(names, matched, judged, strict=True):
            _refuse_strange(_strange(rows, each), each, gold, name)
    is_answered = matched[0]["answer"].is_not_null() & matched[1]["answer"].is_not_null()
    first, second = (rows.filter(is_answered) for rows in matched)
    if first.is_empty():
        raise BadJob(f"Of {is_answered.len():,} rows that are in both jobs, none is answered in both.")
    pairs = pairs_of(first["answer"], second["answer"])
    rights: list[pl.Series] = []
    if gold is not None:
        is_graded = first["right"].is_not_null() & second["right"].is_not_null()
        rights = [rows["right"].filter(is_graded) for rows in (first, second)]
        if not is_graded.any():
            raise BadJob(f"--gold {gold}: it is empty in all {first.height:,} rows that both jobs answered.")
    sides = [
        Side(
            job=str(name),
            answer=each.name,
            rows=opened.table.rows,
            answered=rows["answer"].count(),
            bill=_bill(rows),
            accuracy=share(int(rights[at].sum()), rights[at].len()) if rights else None,
        )
        for at, (name, opened, each, rows) in enumerate(zip(names, jobs, judged, matched, strict=True))
    ]
    return Compared(
        matched_by=key,
        matched=is_answered.len(),
        answered=first.height,
        agreement=share(sum(rows for (one, other), rows in pairs.items() if one == other), first.height),
        kappa=kappa(pairs) if len(pairs) <= LABELS_MOST else None,
        changes=tuple(Change(*pair, rows) for pair, rows in pairs.items() if pair[0] != pair[1])[:LABELS_MOST],
        first=sides[0],
        second=sides[1],
        gold=gold,
        test=paired_test(*rights) if rights else None,
    )
