"""A job's rows are shown as text, running, stopped or dead, and nothing in them can harm a terminal."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from started_job import ASKED, GOOD, LONG, StartedJob, shown

from pipeline.records import Answer

Start = Callable[..., StartedJob]


def test_rows_are_shown_with_prompt_answer_and_numbers(start: Start, reviews: str) -> None:
    job = start(reviews, **ASKED)
    job.record(GOOD, LONG)
    why = "the template prints a null; write {{ column or '' }} where a cell may be null"
    assert shown(job) == [
        "row 1 · ok · 12 tokens · $0.0042 · 0.2 s\n    Is this good?\n    Lovely.\n  → yes\n",
        "row 2 · failed\n    Is this good?\n    Dreadful.\n  ! too_long: 4,097 tokens are too many\n",
        "row 3 · pending\n    Is this good?\n    So so.\n",
        f"row 4 · failed\n    ({why})\n  ! prompt: {why}\n",
    ]


def test_rows_of_one_status_are_shown_up_to_the_number_asked_for(start: Start, reviews: str) -> None:
    job = start(reviews, **ASKED)
    job.record(GOOD, LONG, GOOD)
    assert [text.split(" · ")[0] for text in shown(job, "ok")] == ["row 1", "row 3"]
    assert [text.split(" · ")[0].split("\n")[0] for text in shown(job, "failed")] == ["row 2", "row 4"]
    assert len(shown(job, "ok", most=1)) == 1
    assert len(shown(job, most=2)) == 2
    assert shown(job, "pending") == ["None of 4 rows is pending."]


def test_one_row_is_shown_by_its_number(start: Start, reviews: str) -> None:
    job = start(reviews, **ASKED)
    job.record(GOOD, LONG)
    [text] = shown(job, row=2)
    assert text.startswith("row 2 · failed")
    assert shown(job, "failed", row=2) == [text]
    assert shown(job, "ok", row=2) == ["Row 2 is not ok."]
    assert shown(job, row=5) == ["There is no row 5: the table has 4."]


def test_a_table_without_rows_is_reported_as_empty(start: Start, tmp_path: Path) -> None:
    pl.DataFrame({"prompt": []}, schema={"prompt": pl.String}).write_parquet(tmp_path / "in.parquet")
    assert shown(start("in.parquet")) == ["The input has no rows."]


def test_what_could_harm_a_terminal_is_not_shown(start: Start, tmp_path: Path) -> None:
    pl.DataFrame({"prompt": ["bell\x07 \x1b[2J"]}).write_parquet(tmp_path / "in.parquet")
    job = start("in.parquet")
    job.record(Answer(text="\x1b]0;title\x07 \u202eflipped\r\nnext"))
    [text] = shown(job)
    assert text == "row 1 · ok\n    bell� �\n  → � �flipped\n    next\n"


@pytest.mark.parametrize("prefix", ["m_", ""])
def test_a_row_is_shown_with_all_its_columns_whatever_the_output_has(start: Start, tmp_path: Path, prefix: str) -> None:
    pl.DataFrame({"prompt": ["a"], "status": ["theirs"]}).write_parquet(tmp_path / "in.parquet")
    job = start("in.parquet", **{"output.prefix": prefix, "output.columns": ["answer"]})
    job.record(GOOD)
    assert shown(job) == ["row 1 · ok · 12 tokens · $0.0042 · 0.2 s\n    a\n  → yes\n"]


@pytest.mark.parametrize(
    ("content", "prompt"),
    [
        ("Good?", "Good?"),
        ([{"type": "text", "text": "Größe?"}], '[{"type":"text","text":"Größe?"}]'),
    ],
)
def test_a_job_over_whole_chats_shows_the_last_message(
    start: Start, tmp_path: Path, content: object, prompt: str
) -> None:
    chat = [{"role": "system", "content": content}, {"role": "user", "content": content}]
    pl.DataFrame({"messages": [chat]}).write_parquet(tmp_path / "in.parquet")
    job = start("in.parquet")
    job.record(GOOD)
    assert f"\n    {prompt}\n" in shown(job)[0]


def test_an_answer_that_does_not_fit_is_shown_with_what_is_wrong(start: Start, reviews: str) -> None:
    job = start(reviews, **ASKED, **{"answer.labels": ["yes", "no"], "answer.repairs": 0})
    job.record(Answer(text="Yes, I think."))
    [text] = shown(job, "invalid")
    assert "  → Yes, I think.\n  ! invalid: not JSON" in text
