"""Scores and comparisons fit any terminal, for labels of any length and script."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from gold_jobs import job_score

from pipeline.evaluation.metrics import paired_test, score, share
from pipeline.evaluation.records import Bill, Change, ComparedJob, Comparison, JobScore, Part
from pipeline.evaluation.text import compared_text, review_text, scored_text


def scored(gold: list[str], answer: list[str], **changes: object) -> JobScore:
    given: dict[str, Any] = {"rows": len(gold), "bill": Bill(1234, 0.5), "tokens_per_right_row": 12.4, **changes}
    return job_score(score(pl.Series(gold), pl.Series(answer), "labels"), **given)


def compared(first: list[bool], second: list[bool], *changes: Change) -> Comparison:
    side = ComparedJob("one.csv", "label", len(first), len(first), Bill(None, 1.0), share(sum(first), len(first)))
    other = ComparedJob("other.csv", "label", 99, len(first), Bill(5, None), share(sum(second), len(second)))
    return Comparison(
        matched_by="id",
        matched=len(first),
        answered=len(first),
        agreement=share(1, len(first)),
        kappa=None,
        changes=changes,
        first=side,
        second=other,
        gold="gold",
        test=paired_test(pl.Series(first), pl.Series(second)),
    )


def test_every_line_of_a_score() -> None:
    held = scored(
        ["yes", "yes", "no"],
        ["yes", "Yes", "no"],
        rows=9,
        without_gold=2,
        without_answer={"invalid": 3, "ok": 1},
        accuracy_of_all=share(2, 7),
        by="lang",
        parts=(Part("en", share(2, 2)), Part(None, share(0, 1))),
        prompt_shows_gold=True,
    )
    assert "\n".join(scored_text(held, 80)) == (
        """\
out.csv · label against gold
9 rows: 3 scored, 3 invalid, 1 ok with an empty label, 2 without gold
Warning: the prompt contains the column gold, so the model sees the right answer.

accuracy             66.7 %  2 of 3, 95 % interval 20.8 % to 93.9 %
unanswered as wrong  28.6 %  2 of 7, 95 % interval 8.2 % to 64.1 %
Cohen's kappa        0.50
all rows with gold   1,234 tokens · $0.50
per right row        12 tokens · cost unknown
1 wrong answer differs from gold only in case or spaces.

label           gold  precision  recall    F1
yes                2       1.00    0.50  0.67
no                 1       1.00    1.00  1.00
Yes                0       0.00       -  0.00
mean of labels             0.67    0.50  0.56

gold ↓ answer →  yes  no  Yes
yes                1   0    1
no                 0   1    0
Yes                0   0    0

lang     rows  accuracy      95 % interval
en          2   100.0 %  34.2 % to 100.0 %
(empty)     1     0.0 %    0.0 % to 79.3 %"""
    )


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_tables_keep_to_the_width_and_list_only_the_first_labels(width: int) -> None:
    names = [f"label number {number} of a very long name\x1b[2J" for number in range(200)]
    lines = list(scored_text(scored(names, names[1:] + names[:1]), width))
    table = lines[lines.index("") + 1 :]
    assert len(lines) < 70
    assert "\x1b" not in "".join(lines)
    if width >= 40:
        assert max(len(line) for line in table) <= max(width, 70)
    assert "and 170 more labels: see --json" in lines
    assert lines[-1] == "  and 190 other pairs: see --json"


def test_columns_are_aligned_in_scripts_of_double_width() -> None:
    lines = list(scored_text(scored(["好", "bad"], ["好", "好"]), 80))
    at = lines.index("gold ↓ answer →  bad  好")
    assert lines[at + 1 : at + 3] == ["bad                0   1", "好                 0   1"]


def test_a_comparison_says_which_job_is_better_by_how_much_and_whether_that_may_be_chance() -> None:
    worse, better = [False] * 20 + [True], [True] * 21
    lines = list(compared_text(compared(worse, better, Change("a", "b", 12)), 80))
    assert lines[0] == "21 rows are in both jobs, matched by id; 21 answered in both"
    assert lines[1] == "78 rows are only in other.csv"
    assert "one.csv        21 answered · 4.8 % right · tokens unknown · $1.00" in lines
    assert "20 rows have a different answer in other.csv; the most frequent changes:" in lines
    assert "        12  a → b" in lines
    assert lines[-3:] == [
        "other.csv is right more often, by 95.2 percentage points (95 % interval +70.8 to +100.0).",
        "Rows that only one.csv has right: 0; only other.csv: 20.",
        "McNemar's exact test: p = 1.9e-06, so the difference is unlikely to be due to chance.",
    ]
    [line] = [line for line in compared_text(compared(better, worse), 80) if "more often" in line]
    assert line == "one.csv is right more often, by 95.2 percentage points (95 % interval +70.8 to +100.0)."
    assert list(compared_text(compared(better, better), 80))[-1].endswith("the difference may be due to chance.")
    assert any("equally often" in line for line in compared_text(compared(better, better), 80))


def test_a_review_that_was_cut_says_how_to_get_all_rows() -> None:
    held = scored(["a", "a", "b"], ["b", "b", "b"])
    assert review_text(held, Path("r.csv"), 9) == "Wrote r.csv: 2 rows differ from gold; they come first."
    assert review_text(held, Path("r.csv"), 1).endswith(" The table holds only 1 of them; for all of them: -n 2")
    assert review_text(scored(["a"], ["a"]), Path("r.csv"), 9) == "Wrote r.csv: no row differs from gold."
