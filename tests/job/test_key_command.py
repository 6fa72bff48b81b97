"""A command gives the key: run without a shell, and nothing that it prints is shown."""

import time
from pathlib import Path

import pytest
from job_files import MINIMAL, complaint_of
from keys import invented_key

from pipeline.job.job import Job
from pipeline.job.key_command import KeyCommand, command_words
from pipeline.job.load import uses_of
from pipeline.records import BadJob


def shell(script: str) -> KeyCommand:
    return KeyCommand(["sh", "-c", script])


def failure(command: KeyCommand, timeout_seconds: float = 20.0) -> str:
    with pytest.raises(BadJob) as caught:
        command.run(timeout_seconds)
    return str(caught.value)


@pytest.mark.parametrize(
    "printed",
    ["ya29.key\\n", "  ya29.key \\r\\n\\n", '"ya29.key"\\n', "Bearer ya29.key", "bearer  ya29.key\\n"],
)
def test_the_key_is_what_the_command_prints_without_spaces_quotes_and_the_word_bearer(printed: str) -> None:
    assert KeyCommand(["printf", printed]).run().get_secret_value() == "ya29.key"


def test_a_command_is_a_list_or_a_text_and_no_shell_reads_it() -> None:
    assert command_words("echo 'two words' $HOME") == ["echo", "two words", "$HOME"]
    assert command_words(["echo", "a | b"]) == ["echo", "a | b"]
    assert KeyCommand(command_words("echo $HOME")).run().get_secret_value() == "$HOME"


@pytest.mark.parametrize(
    "command",
    ["gcloud auth print-access-token | tr -d x", "a && b", "echo $(cat key)", "echo `cat key`", "a 2>/dev/null"],
)
def test_a_text_that_only_a_shell_understands_is_refused_with_the_way_to_write_it(command: str) -> None:
    assert '["sh", "-c", "…"]' in complaint_of(endpoint__api_key_command=command)


@pytest.mark.parametrize("command", ["'open", [""], ["a\0b"]])
def test_a_command_that_cannot_be_run_is_refused_as_the_job_is_read(command: object) -> None:
    assert "endpoint.api_key_command: " in complaint_of(endpoint__api_key_command=command)


@pytest.mark.parametrize("other", ["api_key_env", "api_key_default"])
def test_a_key_has_one_origin_and_both_are_named_where_two_are_given(other: str) -> None:
    refused = complaint_of(endpoint__api_key_command="echo k", **{f"endpoint__{other}": "KEY"})
    assert f"give endpoint.api_key_command or endpoint.{other}, not both" in refused


def test_the_command_counts_as_a_key_over_plain_http() -> None:
    refused = complaint_of(endpoint__base_url="http://example.org/v1", endpoint__api_key_command="echo k")
    assert "endpoint.plain_http = true" in refused


def test_a_command_that_fails_is_told_with_its_own_words_and_without_secrets() -> None:
    key = invented_key("OpenAI")
    said = failure(shell(f"echo 'not logged in; password=hunter2hunter {key}' >&2; echo {key}; exit 3"))
    assert "ended with exit code 3. It said: not logged in; password=" in said
    assert key not in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("exit 0", "printed nothing"),
        ("echo; echo 'no account' >&2", "printed nothing. It said: no account"),
        ("echo 'please log in'", "printed something else than a key alone"),
        ("echo one; echo two", "printed something else"),
        ('printf \'{\\n "accessToken": "ya29"\\n}\'', "It printed JSON"),
        ("printf 'k\\303\\251y'", "printed something else"),
    ],
)
def test_what_is_no_key_is_refused_and_not_repeated(script: str, told: str) -> None:
    said = failure(shell(script))
    assert told in said
    assert "ya29" not in said.partition("  printed")[2]


def test_a_slow_command_is_killed_with_all_that_it_started() -> None:
    began = time.monotonic()
    assert "did not end within 0.2 s" in failure(shell("sleep 30 & sleep 30"), 0.2)
    assert time.monotonic() - began < 10


def test_a_command_that_is_missing_is_named_and_nothing_is_sent() -> None:
    job = Job.load(["in.csv"], "out.csv", settings={**MINIMAL, "endpoint.api_key_command": "no-such-program --x"})
    with pytest.raises(BadJob, match=r"no-such-program --x .*cannot be started.*[\s\S]*Nothing was sent"):
        job.endpoint.key()


def test_the_command_is_run_once_for_all_copies_of_a_job_and_again_for_a_new_run(tmp_path: Path) -> None:
    script = f"echo run >> {tmp_path}/runs; wc -l < {tmp_path}/runs"
    settings = {**MINIMAL, "endpoint.api_key_command": ["sh", "-c", script]}
    endpoint = Job.load(["in.csv"], "out.csv", settings=settings).endpoint
    copy = endpoint.model_copy(update={"name": "other"})
    assert not (tmp_path / "runs").exists()
    keys = [
        each.key(is_new_run=new) for each, new in ((endpoint, True), (copy, False), (copy, True), (endpoint, False))
    ]
    assert [key and key.get_secret_value() for key in keys] == ["1", "1", "2", "2"]
    assert endpoint.secrets == ["1", "2"]
    assert endpoint.key_command is copy.key_command


def test_secrets_in_the_command_are_hidden_where_the_settings_are_kept() -> None:
    key = invented_key("OpenAI")
    command = ["vault", "read", f"--token={key}", "--password", "hunter2hunter"]
    job = Job.load(["in.csv"], "out.csv", settings={**MINIMAL, "endpoint.api_key_command": command})
    kept = job.without_secrets()["endpoint"]["api_key_command"]
    assert kept == ["vault", "read", "--token=***", "--password", "***"]
    assert job.endpoint.key_origin == "vault read --token=*** --password ***"


def test_what_a_job_would_run_is_told_in_full(tmp_path: Path) -> None:
    settings = {**MINIMAL, "endpoint.api_key_command": ["print key", "--now"]}
    assert "runs the command 'print key' --now for the key" in uses_of(None, settings, tmp_path)


def test_the_variables_whose_values_are_sent_as_headers_are_named(tmp_path: Path) -> None:
    settings = {"endpoint.base_url": "https://h.example/v1", "endpoint.headers_env": {"x-key": "SECRET_THING"}}
    assert "sends the rows to https://h.example/v1, with the key in SECRET_THING" in uses_of(None, settings, tmp_path)
