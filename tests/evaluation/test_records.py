"""The keys of the JSON that `score` and `compare` print are a public contract."""

import json

import pytest
from gold_jobs import ANSWERS, FOUR, LABELS, Ran

from pipeline.evaluation.compare import compare_jobs
from pipeline.evaluation.score import score_job
from pipeline.evaluation.text import as_json


def test_the_json_of_a_score_and_of_a_comparison_keeps_its_keys(ran: Ran) -> None:
    job = ran(FOUR, ANSWERS, **LABELS)
    scored = json.loads("".join(as_json(score_job(job, gold="gold", by="gold"))))
    assert list(scored) == [
        *("job", "gold", "answer", "rows", "without_gold", "without_answer", "score", "accuracy_of_all", "by", "parts"),
        *("bill", "tokens_per_right_row", "cost_per_right_row", "prompt_shows_gold"),
    ]
    assert list(scored["score"]) == [
        *("kind", "accuracy", "kappa", "macro", "labels", "confusion", "numbers", "mean_jaccard", "near_misses"),
    ]
    assert scored["score"]["accuracy"] == {
        "count": 2,
        "rows": 3,
        "share": 2 / 3,
        "low": pytest.approx(0.208, abs=1e-3),
        "high": pytest.approx(0.939, abs=1e-3),
    }
    assert list(scored["score"]["labels"][0]) == ["label", "support", "answered", "precision", "recall", "f1"]
    assert list(scored["score"]["macro"]) == ["precision", "recall", "f1"]
    assert scored["score"]["confusion"][0] == {"gold": "no", "answer": "no", "rows": 1}
    assert list(scored["parts"][0]) == ["value", "accuracy"]
    assert list(scored["bill"]) == ["tokens", "cost"]
    compared = json.loads("".join(as_json(compare_jobs(job, job, gold="gold"))))
    assert list(compared) == [
        *("matched_by", "matched", "answered", "agreement", "kappa", "changes", "first", "second", "gold", "test"),
    ]
    assert list(compared["first"]) == ["job", "answer", "rows", "answered", "bill", "accuracy"]
    assert list(compared["test"]) == ["first_alone", "second_alone", "difference", "low", "high", "p_value"]
