"""The columns that a run adds are declared once, and each job has those that it needs."""

from typing import get_args

import pytest
from job_files import MINIMAL

from pipeline.job.added_columns import ADDED_COLUMNS, Kind, When
from pipeline.job.job import Job

ALWAYS = [
    "answer", "status", "error", "finish_reason", "model", "prompt_tokens", "completion_tokens", "reasoning_tokens",
    "cached_tokens", "total_tokens", "cost", "latency_seconds", "attempts", "asked_at", "settings",
]  # fmt: skip


def test_each_added_column_has_one_name_a_kind_and_an_explanation() -> None:
    names = [column.name for column in ADDED_COLUMNS]
    assert len(set(names)) == len(names)
    assert all(column.description and column.kind in get_args(Kind) for column in ADDED_COLUMNS)
    assert {column.when for column in ADDED_COLUMNS} == set(get_args(When))


def test_every_output_has_these_columns_in_this_order() -> None:
    assert [column.name for column in ADDED_COLUMNS if column.when == "always"] == ALWAYS
    assert list(Job.load(["in.csv"], settings=MINIMAL).added_columns) == ALWAYS


@pytest.mark.parametrize(
    ("settings", "after_answer"),
    [
        ({"answer.samples": 2}, ["agreement", "opinions"]),
        ({"answer.models": ["a", "b"]}, ["agreement", "opinions"]),
        ({"answer.logprobs": True}, ["confidence"]),
        ({"answer.labels": ["yes", "no"], "answer.name": "good"}, ["good", "repaired"]),
        (
            {"answer.labels": ["yes", "no"], "answer.samples": 2, "answer.logprobs": True},
            ["label", "agreement", "opinions", "confidence", "repaired"],
        ),
    ],
)
def test_a_job_adds_what_it_has_something_to_say_of(settings: dict[str, object], after_answer: list[str]) -> None:
    added = Job.load(["in.csv"], settings={**MINIMAL, **settings}).added_columns
    assert list(added) == ["answer", *after_answer, *ALWAYS[1:]]
