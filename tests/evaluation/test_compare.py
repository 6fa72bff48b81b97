"""Two jobs are compared on the rows that both have, and rows that cannot be matched are refused."""

from pathlib import Path

import polars as pl
import pytest
from gold_jobs import ANSWERS, DOLLARS_A_ROW, FOUR, LABELS, PRICES, Two, label, run_job

from pipeline import BadJob
from pipeline.evaluation.compare import compare_jobs


def test_two_jobs_over_the_same_input_are_compared_row_by_row(two: Two) -> None:
    jobs = two(ANSWERS, {**ANSWERS, "b": label("no"), "d": "Hm."}, FOUR, **PRICES)
    found = compare_jobs(*jobs, gold="gold")
    assert (found.matched, found.answered, found.agreement.count, found.matched_by) == (4, 3, 2, None)
    assert [(each.first, each.second, each.rows) for each in found.changes] == [("yes", "no", 1)]
    assert found.kappa == pytest.approx(0.4)
    assert (found.first.answered, found.second.answered) == (4, 3)
    assert found.first.bill.cost == pytest.approx(4 * DOLLARS_A_ROW)
    assert found.first.accuracy is not None
    assert found.second.accuracy is not None
    assert (found.first.accuracy.count, found.second.accuracy.count) == (2, 3)
    assert found.test is not None
    assert (found.test.first_alone, found.test.second_alone, found.test.p_value) == (0, 1, 1.0)
    assert found.test.difference == pytest.approx(1 / 3)


def test_a_pilot_is_compared_on_the_rows_that_it_has(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    pl.DataFrame({"q": list("abcd")}).write_parquet(source)
    whole = run_job(source, ANSWERS, tmp_path / "whole.csv", LABELS)
    answers = {q: label("no") for q in "abcd"}
    pilot = run_job(source, answers, tmp_path / "pilot.csv", LABELS, sample=2, seed=4)
    drawn = pl.read_csv(pilot)["q"].to_list()
    assert drawn != ["a", "b"]
    found = compare_jobs(whole, pilot)
    assert (found.matched, found.first.rows, found.second.rows) == (2, 4, 2)
    assert found.agreement.count == sum(ANSWERS[q] == label("no") for q in drawn)


def test_rows_of_different_inputs_are_matched_only_by_a_key(two: Two) -> None:
    moved = {"q": ["c", "b", "z"], "id": [3, 2, 9], "gold": ["no", "no", "no"]}
    jobs = two(
        ANSWERS, {**ANSWERS, "c": label("yes"), "z": label("no")}, {"q": list("abcd"), "id": [1, 2, 3, 4]}, moved
    )
    with pytest.raises(BadJob, match=r"--key COLUMN\. Both have q, id\."):
        compare_jobs(*jobs)
    found = compare_jobs(*jobs, key="id", gold="gold")
    assert (found.matched, found.agreement.count, found.matched_by) == (2, 1, "id")
    assert found.first.accuracy is not None
    assert (found.first.accuracy.count, found.first.accuracy.rows) == (1, 2)
    with pytest.raises(BadJob, match=r"--key ID: the input of .* has no such column"):
        compare_jobs(*jobs, key="ID")


def test_a_key_that_does_not_identify_every_row_is_refused(two: Two) -> None:
    jobs = two(ANSWERS, ANSWERS, {"q": ["a", "b", "c"], "id": ["x", "y", "x"], "part": [None, "1", "2"]})
    with pytest.raises(BadJob, match=r"empty or repeated in 2 rows, such as row 1 \(x\)"):
        compare_jobs(*jobs, key="id")
    with pytest.raises(BadJob, match=r"empty or repeated in 1 row, such as row 1 \(empty\)"):
        compare_jobs(*jobs, key="part")


def test_jobs_without_a_common_answer_or_without_gold_are_refused(two: Two) -> None:
    jobs = two(
        ANSWERS,
        {"a": '{"label": "hm"}', "b": '{"label": "hm"}'},
        {"q": ["a", "b"], "gold": [None, None], "odd": ["Yes", "no"]},
    )
    with pytest.raises(BadJob, match="None of the 2 rows that are in both jobs is answered in both"):
        compare_jobs(*jobs)
    with pytest.raises(BadJob, match="--gold gld: the input has no such column"):
        compare_jobs(*jobs, gold="gld")
    with pytest.raises(BadJob, match="'Yes' in 1 row"):
        compare_jobs(jobs[0], jobs[0], gold="odd")
    with pytest.raises(BadJob, match="empty in all 2 rows"):
        compare_jobs(jobs[0], jobs[0], gold="gold")
