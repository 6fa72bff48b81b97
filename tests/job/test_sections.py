"""Settings are checked section by section, and a key is never shown."""

from pathlib import Path

import pytest
from job_files import ENDPOINT, complaint, complaint_of

from pipeline.job.sections import Limits
from pipeline.records import BadJob


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("answer.labels", ["a", "a"], "listed twice: a"),
        ("answer.models", ["a", "a"], "listed twice: a"),
        ("answer.labels", [], "no label"),
        ("answer.labels", ["a", " "], "a label is blank"),
        ("answer.multi", True, "answer.multi needs answer.labels"),
        ("answer.repairs", 11, "answer.repairs"),
        ("limits.concurrency", 0, "concurrency"),
    ],
)
def test_values_that_make_no_sense_are_refused(setting: str, value: object, words: str) -> None:
    assert words in complaint_of(**{setting: value})


@pytest.mark.parametrize("value", ["inf", "nan", "1e999"])
def test_a_number_that_is_not_finite_is_refused(tmp_path: Path, value: str) -> None:
    text = f"{ENDPOINT}timeout_seconds = {value}\n"
    assert "endpoint.timeout_seconds: Input should be a finite number" in complaint(text, tmp_path)


def test_tuned_limits_are_a_checked_copy() -> None:
    limits = Limits(max_cost=1.0)
    assert limits.tuned({"concurrency": 64}) == Limits(max_cost=1.0, concurrency=64)
    with pytest.raises(BadJob, match=r"^limits\.max_cost: .*greater than 0\nNothing was changed\.$"):
        limits.tuned({"max_cost": -1})


def test_a_run_begins_with_all_the_requests_in_flight_that_the_job_allows() -> None:
    assert Limits(concurrency=64).width == 64
    assert Limits().width == 8
