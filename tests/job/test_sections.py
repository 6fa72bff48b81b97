"""Settings are checked section by section, and a key is never shown."""

from pathlib import Path

import pytest
from job_files import ENDPOINT, MINIMAL, complaint, complaint_of, job_from

from pipeline.job.job import Job
from pipeline.job.sections import Limits
from pipeline.records import BadJob

SOMEWHERE = '[endpoint]\nbase_url = "http://example.org/v1"\nmodel = "m"\n'


def test_a_key_over_plain_http_to_another_host_is_refused_and_the_setting_named(tmp_path: Path) -> None:
    text = f'{SOMEWHERE}api_key_env = "SOME_KEY"\n'
    assert "endpoint.plain_http = true" in complaint(text, tmp_path)
    assert job_from(text + "plain_http = true\n", tmp_path).endpoint.plain_http
    assert job_from(text.replace("example.org", "127.0.0.1"), tmp_path)


def test_a_header_that_holds_a_secret_counts_as_a_key(tmp_path: Path) -> None:
    text = f'{SOMEWHERE}headers = {{ x-api-key = "secret-1234" }}\n'
    assert "endpoint.plain_http = true" in complaint(text, tmp_path)
    assert job_from(text.replace("x-api-key", "x-title"), tmp_path)


def test_a_key_in_the_address_is_refused_and_not_repeated(tmp_path: Path) -> None:
    for address in ("https://h.example/v1?key=abc", "https://user:abc@h.example/v1"):
        refused = complaint(f'[endpoint]\nbase_url = "{address}"\nmodel = "m"\n', tmp_path)
        assert "does not belong" in refused
        assert "abc" not in refused


def test_a_missing_variable_is_named_with_the_line_that_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    job = Job.load(["in.csv"], "out.csv", settings={**MINIMAL, "endpoint.api_key_env": "NO_SUCH_KEY"})
    with pytest.raises(BadJob, match="export NO_SUCH_KEY="):
        job.endpoint.key()


def test_what_may_be_a_key_is_not_quoted_where_a_variable_belongs() -> None:
    refused = complaint_of(endpoint__api_key_env="sk-canary-123")
    assert "not the name of an environment variable" in refused
    assert "canary" not in refused
    job = Job.load(["in.csv"], "out.csv", settings={**MINIMAL, "endpoint.api_key_env": "hf_canary123"})
    with pytest.raises(BadJob, match=r"export NAME=") as caught:
        job.endpoint.key()
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("answer.labels", ["a", "a"], "listed twice: a"),
        ("answer.models", ["a", "a"], "listed twice: a"),
        ("answer.labels", [], "no label"),
        ("answer.labels", ["a", " "], "a label is blank"),
        ("answer.multi", True, "answer.multi needs answer.labels"),
        ("answer.repairs", 11, "answer.repairs"),
        ("prices.input", 1.0, "both prices.input and prices.output"),
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
