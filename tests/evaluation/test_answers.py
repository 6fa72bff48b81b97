"""The right column of answers is evaluated, with its kind, and with what its rows cost."""

import json

import pytest
from gold_jobs import ANSWERS, DOLLARS_A_ROW, FOUR, LABELS, PRICES, Ran

from pipeline import BadJob
from pipeline.evaluation.score import score_job

SCHEMA = {
    "type": "object",
    "properties": {
        "grade": {"type": "integer"},
        "is_ad": {"type": "boolean"},
        "topics": {"type": "array", "items": {"type": "string", "enum": ["price", "size"]}},
    },
    "required": ["grade", "is_ad", "topics"],
}


def typed(grade: int, is_ad: bool, *topics: str) -> str:
    return json.dumps({"grade": grade, "is_ad": is_ad, "topics": topics})


def test_each_typed_column_is_scored_by_its_kind(ran: Ran) -> None:
    rows = {
        "q": ["a", "b", "c"],
        "grade_gold": ["5", "3", " 1"],
        "ad_gold": ["True", "false", "FALSE"],
        "topics_gold": ["price; size", '["size"]', "[]"],
    }
    answers = {"a": typed(5, True, "size", "price"), "b": typed(1, True, "price"), "c": typed(1, False)}
    job = ran(rows, answers, **{"answer.schema": SCHEMA})
    grade = score_job(job, gold="grade_gold", answer="grade").score
    assert grade.numbers is not None
    assert (grade.kind, grade.accuracy.count, grade.numbers.mean_absolute_error) == ("numbers", 2, pytest.approx(2 / 3))
    assert score_job(job, gold="ad_gold", answer="is_ad").score.accuracy.count == 2
    topics = score_job(job, gold="topics_gold", answer="topics").score
    assert (topics.kind, topics.accuracy.count, topics.mean_jaccard) == ("lists", 2, pytest.approx(2 / 3))
    assert [(each.label, each.support) for each in topics.labels] == [("price", 1), ("size", 2)]
    with pytest.raises(BadJob, match="Choose one of them: --answer grade"):
        score_job(job, gold="grade_gold")
    with pytest.raises(BadJob, match=r"the answers have no such column; did you mean 'grade'"):
        score_job(job, gold="grade_gold", answer="grad")
    with pytest.raises(BadJob, match=r"because grade is a number:\n  'True' in 1 row \(1\)\n  'false'"):
        score_job(job, gold="ad_gold", answer="grade")
    with pytest.raises(BadJob, match=r"one of price, size:\n  'True' in 1 row"):
        score_job(job, gold="ad_gold", answer="topics")


def test_a_prefix_and_left_out_columns_change_no_figure(ran: Ran) -> None:
    settings = {**LABELS, "output.prefix": "m_", "output.columns": ["status"]}
    job = ran({**FOUR, "label": ["theirs"] * 4}, ANSWERS, **settings)
    assert score_job(job, gold="gold").score.accuracy.count == 2
    assert score_job(job, gold="gold", answer="m_label").score.accuracy.count == 2


def test_a_row_equal_to_an_earlier_one_is_scored_and_cost_nothing(ran: Ran) -> None:
    scored = score_job(
        ran({"q": ["a", "a", "b"], "gold": ["yes", "no", "no"]}, ANSWERS, **LABELS, **PRICES), gold="gold"
    )
    assert (scored.score.accuracy.count, scored.score.accuracy.rows) == (1, 3)
    assert scored.bill.tokens == 2 * 18
    assert scored.bill.cost == pytest.approx(2 * DOLLARS_A_ROW)
