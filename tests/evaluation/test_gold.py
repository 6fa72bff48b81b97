"""A column of gold that cannot be right is refused, with the rows to correct, before any figure is shown."""

import pytest
from gold_jobs import ANSWERS, FOUR, LABELS, Ran, label

from pipeline import BadJob
from pipeline.evaluation.score import score_job


def test_gold_that_cannot_be_an_answer_is_refused_with_its_rows_and_near_labels(ran: Ran) -> None:
    rows = {"q": list("abcdefgh"), "gold": ["Yes", "yes", "no", "nno", "Yes", "Yes", "Yes", "Yes"]}
    job = ran(rows, dict.fromkeys(rows["q"], label("yes")), **LABELS)
    with pytest.raises(BadJob) as refused:
        score_job(job, gold="gold")
    assert str(refused.value).splitlines()[:3] == [
        "--gold gold: these values cannot be answers, because label is one of yes, no:",
        "  'Yes' in 5 rows (1, 5, 6, 7, …); did you mean 'yes'?",
        "  'nno' in 1 row (4); did you mean 'no'?",
    ]
    assert f"`pipeline resume {job}`" in str(refused.value)


def test_columns_that_do_not_exist_are_refused_with_the_near_name(ran: Ran) -> None:
    job = ran({**FOUR, "none": [None] * 4, "odd": [{"a": 1}] * 4}, ANSWERS, **LABELS)
    with pytest.raises(BadJob, match=r"--gold glod: the input has no such column; did you mean 'gold'\?"):
        score_job(job, gold="glod")
    with pytest.raises(BadJob, match=r"--by god: there is no such column; did you mean 'gold'\?"):
        score_job(job, gold="gold", by="god")
    with pytest.raises(BadJob, match="empty in all of 4 rows"):
        score_job(job, gold="none")
    with pytest.raises(BadJob, match="Gold is a text, a number or a list of labels"):
        score_job(job, gold="odd")
