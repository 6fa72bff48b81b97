"""Loading a job file: every mistake in it is reported at once, with its place."""

from pathlib import Path

import pytest
from job_files import ENDPOINT, complaint, job_from

from pipeline.job.job import Job
from pipeline.job.load import line_of_key
from pipeline.records import BadJob

MODELS = """
from enum import Enum
from pydantic import BaseModel, Field

class Mood(Enum):
    glad = "glad"
    sad = "sad"

class Note(BaseModel):
    "What a note says."
    mood: Mood = Field(description="as a whole")
    stars: int | None = None

nothing = 3
"""


def test_all_mistakes_are_reported_at_once_with_their_lines_and_the_near_names(tmp_path: Path) -> None:
    text = '''
[endpoint]
base_url = "ftp://host"
modle = "x"
[prompt]
templat = """
system = 3
"""
[limits]
max_cost = -1
max_runtime = "8 hours"
[parameters]
model = "x"
[answr]
'''
    refused = complaint(text, tmp_path)
    assert "job.toml:3: endpoint.base_url: 'ftp://host' is not a web address" in refused
    assert "job.toml:4: endpoint.modle: unknown key in [endpoint]; did you mean 'model'?" in refused
    assert "job.toml:6: prompt.templat: unknown key in [prompt]; did you mean 'template'?" in refused
    assert "job.toml:10: limits.max_cost:" in refused
    assert "job.toml:11: limits.max_runtime: '8 hours' is not a duration" in refused
    assert "job.toml:12: parameters: model: set by the program itself" in refused
    assert "job.toml:14: answr: unknown key in the job file; did you mean 'answer'?" in refused
    assert refused.endswith("Nothing was sent.")


def test_a_key_inside_a_multi_line_string_is_not_mistaken_for_one() -> None:
    text = '[prompt]\ntemplate = """\nsystem = 1\n"""\nsystem = "x"\n'
    assert line_of_key(text, ("prompt", "system")) == 5


def test_dotted_and_quoted_keys_are_found() -> None:
    assert line_of_key('endpoint.model = "x"\n\nprompt."system" = "y"\n', ("prompt", "system")) == 3


def test_text_that_is_not_toml_is_reported_with_its_line(tmp_path: Path) -> None:
    assert "not TOML" in complaint("[endpoint\n", tmp_path)
    assert "line 1" in complaint("[endpoint\n", tmp_path)


def test_a_missing_job_file_is_reported_with_the_near_name(tmp_path: Path) -> None:
    (tmp_path / "jobs.toml").touch()
    with pytest.raises(BadJob, match=r"no such job file. Did you mean .*jobs\.toml"):
        Job.load(["in.csv"], "out.csv", config=tmp_path / "job.toml")


def test_flags_win_over_the_file_and_their_mistakes_are_reported_as_the_command_line_s(tmp_path: Path) -> None:
    text = '[endpoint]\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "file"\n'
    assert job_from(text, tmp_path, **{"endpoint.model": "flag"}).endpoint.model == "flag"
    with pytest.raises(BadJob, match=r"command line: limits\.max_cost"):
        job_from(text, tmp_path, **{"limits.max_cost": "five"})


def test_a_key_far_from_every_known_one_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    assert "columns.zzz: unknown key in [columns]; it has model, max_tokens." in complaint(
        f"{ENDPOINT}[columns]\nzzz = 1\n", tmp_path
    )


def test_an_unknown_key_of_a_single_model_s_prices_is_refused_with_the_near_name(tmp_path: Path) -> None:
    refused = complaint(f'{ENDPOINT}[prices.models."gpt-x"]\ninptu = 1.0\n', tmp_path)
    assert "job.toml:5: prices.models: unknown key in [prices.models.gpt-x]; did you mean 'input'?" in refused


def test_the_key_schema_has_no_second_name(tmp_path: Path) -> None:
    text = '[endpoint]\nbase_url = "https://h.example/v1"\nmodel = "m"\n[answer]\njson_schema = "x.json"\n'
    assert "answer.json_schema: unknown key" in complaint(text, tmp_path)


def test_a_schema_file_is_read_relative_to_the_job_file(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"type": "object", "properties": {"stars": {"type": "integer"}}}')
    text = f'{ENDPOINT}[answer]\nschema = "s.json"\n'
    assert list(job_from(text, tmp_path).typed_columns) == ["stars"]
    (tmp_path / "s.json").write_text("{\n  oops\n}")
    assert "s.json:2: not JSON" in complaint(text, tmp_path)


@pytest.mark.parametrize("value", ["[" * 5_000, "9" * 5_000])
def test_a_value_too_deep_or_too_long_is_refused_as_no_toml_and_no_json(tmp_path: Path, value: str) -> None:
    assert "not TOML" in complaint(f"[parameters]\nx = {value}\n", tmp_path)
    (tmp_path / "s.json").write_text(f'{{"type": {value}')
    text = f'{ENDPOINT}[answer]\nschema = "s.json"\n'
    assert "s.json: not JSON" in complaint(text, tmp_path)


def test_a_pydantic_model_beside_the_job_file_is_a_schema(tmp_path: Path) -> None:
    (tmp_path / "notes_of_a_test.py").write_text(MODELS)
    job = job_from(f'{ENDPOINT}[answer]\nschema = "notes_of_a_test:Note"\n', tmp_path)
    contract = job.answer.contract
    assert contract is not None
    assert list(job.typed_columns) == ["mood", "stars"]
    assert (contract["title"], contract["description"]) == ("Note", "What a note says.")
    assert contract["properties"]["mood"]["description"] == "as a whole"
    assert not (tmp_path / "__pycache__").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module:Note", "no_such_module:Note cannot be imported: ModuleNotFoundError"),
        ("broken_in_a_test:Note", "broken_in_a_test:Note cannot be imported: ZeroDivisionError"),
        ("more_notes_of_a_test:Nota", "more_notes_of_a_test has no Pydantic model 'Nota'"),
        ("more_notes_of_a_test:nothing", "more_notes_of_a_test has no Pydantic model 'nothing'"),
    ],
)
def test_a_pydantic_model_that_is_not_found_is_reported_with_where_it_was_looked_for(
    tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / "more_notes_of_a_test.py").write_text(MODELS)
    (tmp_path / "broken_in_a_test.py").write_text("1 / 0")
    refused = complaint(f'{ENDPOINT}[answer]\nschema = "{name}"\n', tmp_path)
    assert words in refused
    assert refused.endswith("Nothing was sent.")
