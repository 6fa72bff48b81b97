"""The answers of few-shot examples are read from the cells of their rows."""

import json

import pytest
from job_files import MINIMAL, REVIEW

from pipeline.answers.few_shot import example_answer
from pipeline.job.job import Job
from pipeline.records import BadJob


def test_the_cells_of_an_example_are_read_by_their_shapes() -> None:
    row = {"stars": "4", "who": '{"name": "Ada", "tags": []}', "free": "as it is"}
    job = Job.load(["in.csv"], settings={**MINIMAL, "answer.schema": REVIEW, "prompt.examples": [row]})
    assert json.loads(example_answer(job, row)) == {"stars": 4, "who": {"name": "Ada", "tags": []}, "free": "as it is"}
    settings = {**MINIMAL, "answer.labels": ["a", "b"], "answer.multi": True, "answer.name": "topics"}
    job = Job.load(["in.csv"], settings=settings)
    assert example_answer(job, {"labels": "a"}) == example_answer(job, {"topics": "a"})  # either name
    assert [example_answer(job, {"topics": cell}) for cell in ("a, b", '["b"]')] == [
        '{"labels": ["a", "b"]}',
        '{"labels": ["b"]}',
    ]


def test_without_a_contract_the_answer_is_the_text_in_the_column_answer() -> None:
    job = Job.load(["in.csv"], settings=MINIMAL)
    assert example_answer(job, {"text": "x", "answer": "Fine."}) == "Fine."


def test_a_row_without_an_answer_is_a_bad_job_that_shows_the_row() -> None:
    job = Job.load(["in.csv"], settings={**MINIMAL, "answer.labels": ["a", "b"], "answer.name": "topic"})
    with pytest.raises(BadJob, match=r"no answer in label or topic: .{199}…\nNothing was sent"):
        example_answer(job, {"text": "x" * 1000, "topic": ""})


def test_a_cell_that_cannot_be_read_stays_text_for_the_contract_to_reject() -> None:
    job = Job.load(["in.csv"], settings={**MINIMAL, "answer.schema": REVIEW})
    assert json.loads(example_answer(job, {"stars": "four"})) == {"stars": "four"}
