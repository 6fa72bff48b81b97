"""What the sections of a job file decide together: checks across sections, columns, and what the model sees."""

import json
from pathlib import Path

import pytest
from job_files import ENDPOINT, MINIMAL, complaint, complaint_of, job_from

from pipeline.job.file import JobFile
from pipeline.job.job import Job

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("output.columns", ["anwser"], "no added column 'anwser'; did you mean 'answer'?"),
        ("parameters.when", float("nan"), "cannot be written as JSON"),
        ("parameters.model", "x", "parameters: model: set by the program itself"),
    ],
)
def test_values_that_make_no_sense_together_are_refused(setting: str, value: object, words: str) -> None:
    assert words in complaint_of(**{setting: value})


def test_a_typed_column_cannot_take_the_name_of_an_added_one() -> None:
    refused = complaint_of(answer__name="status", answer__labels=["a", "b"])
    assert "answer.name: status: a column of this name is added anyway" in refused
    schema = {"type": "object", "properties": {"cost": {"type": "number"}}}
    assert "answer.schema: cost: a column of this name" in complaint_of(answer__schema=schema)


def test_a_contract_and_a_response_format_of_ones_own_exclude_each_other() -> None:
    refused = complaint_of(answer__labels=["a", "b"], parameters__response_format={"type": "json_object"})
    assert "give [answer] or parameters.response_format, not both" in refused


def test_a_row_s_own_model_leaves_no_room_for_several() -> None:
    refused = complaint_of(answer__models=["a", "b"], columns__model="m")
    assert "give answer.models or columns.model" in refused


def test_several_models_need_no_model_of_the_endpoint() -> None:
    settings = {"endpoint.base_url": "http://127.0.0.1:9/v1", "answer.models": ["a", "b"], "answer.samples": 3}
    job = Job.load(["in.csv"], settings=settings)
    assert (job.endpoint.model, job.models, job.samples_per_row) == ("a", ("a", "b"), 6)


def test_a_truncated_answer_grows_only_to_more(tmp_path: Path) -> None:
    text = f"{ENDPOINT}[parameters]\nmax_tokens = 64\n"
    assert job_from(f"{text}[answer]\ngrow_on_truncation = 65\n", tmp_path).answer.grow_on_truncation == 65
    refused = complaint(f"{text}[answer]\ngrow_on_truncation = 64\n", tmp_path)
    assert "answer.grow_on_truncation of 64 must be more than the 64 of max_tokens" in refused


def test_an_answer_s_length_is_bounded_by_the_name_that_the_job_uses() -> None:
    for parameters, caps, capped in (
        ({}, {}, {"max_tokens": 9}),
        ({"max_completion_tokens": 64}, {"max_completion_tokens": 64}, {"max_completion_tokens": 9}),
        ({"max_tokens": -1}, {}, {"max_tokens": 9}),
        ({"max_tokens": True}, {}, {"max_tokens": 9}),
    ):
        job = Job.load(["in.csv"], settings={**MINIMAL, "parameters": parameters})
        assert (job.output_caps, job.capped(9)) == (caps, capped)


def test_the_key_is_masked_and_in_no_dump(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_KEY", "sk-canary-123")
    flags = {**MINIMAL, "endpoint.api_key_env": "CANARY_KEY", "endpoint.headers": {"x-secret": "canary-header"}}
    job = Job.load(["in.csv"], "out.csv", settings=flags)
    key = job.endpoint.key()
    assert key is not None
    assert "canary" not in f"{key!r} {key} {job!r}".replace("canary-header", "")
    assert "canary" not in json.dumps(job.without_secrets())


def test_only_what_the_model_sees_is_among_the_settings_that_it_sees() -> None:
    seen = Job.load(["in.csv"], settings=MINIMAL).seen_by_model()
    for unseen in ({"limits.max_cost": 1.0}, {"output.prefix": "m_"}, {"answer.name": "good"}, {"endpoint.name": ""}):
        assert Job.load(["in.csv"], settings={**MINIMAL, **unseen}).seen_by_model() == seen
    for change in ({"endpoint.model": "n"}, {"parameters.temperature": 1}, {"answer.labels": ["a", "b"]}):
        assert Job.load(["in.csv"], settings={**MINIMAL, **change}).seen_by_model() != seen


def test_the_schema_for_editors_is_current() -> None:
    kept = json.loads((ROOT / "configs" / "job.schema.json").read_text("utf-8"))
    assert kept == JobFile.model_json_schema(), "python tests/support/generate.py writes it anew"
