"""The key goes only where the job says, and is never shown."""

from pathlib import Path

import pytest
from job_files import MINIMAL, complaint, complaint_of, job_from

from pipeline.job.job import Job
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
