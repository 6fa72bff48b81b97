"""The job file: every mistake in it is told at once, with its place."""

import json
from pathlib import Path

import pytest

from pipeline.runs.preview import preview_requests
from pipeline.job.job import Job, JobFile, duration_seconds, line_of_key, parse_setting, settings
from pipeline.records import BadJob

ROOT = Path(__file__).parent.parent.parent
MINIMAL = {"endpoint.base_url": "http://127.0.0.1:9/v1", "endpoint.model": "m"}


def job_from(text: str, tmp_path: Path, **flags: object) -> Job:
    path = tmp_path / "job.toml"
    path.write_text(text, "utf-8")
    return Job.load(["in.csv"], "out.csv", config=path, settings=flags)


def complaint(text: str, tmp_path: Path) -> str:
    with pytest.raises(BadJob) as caught:
        job_from(text, tmp_path)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_all_mistakes_are_told_at_once_with_their_lines_and_the_near_names(tmp_path: Path) -> None:
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
    told = complaint(text, tmp_path)
    assert "job.toml:3: endpoint.base_url: 'ftp://host' is not a web address" in told
    assert "job.toml:4: endpoint.modle: unknown key; did you mean model?" in told
    assert "job.toml:6: prompt.templat: unknown key; did you mean template?" in told
    assert "job.toml:10: limits.max_cost:" in told
    assert "job.toml:11: limits.max_runtime: '8 hours' is not a duration" in told
    assert "job.toml:12: parameters: model: set by the program itself" in told
    assert "job.toml:14: answr: unknown key; did you mean answer?" in told
    assert told.endswith("Nothing was sent.")


def test_a_key_inside_a_multi_line_string_is_not_mistaken_for_one() -> None:
    text = '[prompt]\ntemplate = """\nsystem = 1\n"""\nsystem = "x"\n'
    assert line_of_key(text, ("prompt", "system")) == 5


def test_dotted_and_quoted_keys_are_found() -> None:
    assert line_of_key('endpoint.model = "x"\n\nprompt."system" = "y"\n', ("prompt", "system")) == 3


def test_toml_that_is_none_is_told_with_its_line(tmp_path: Path) -> None:
    assert "not TOML" in complaint("[endpoint\n", tmp_path)
    assert "line 1" in complaint("[endpoint\n", tmp_path)


def test_a_job_file_that_is_not_there_is_told_with_the_near_name(tmp_path: Path) -> None:
    (tmp_path / "jobs.toml").touch()
    with pytest.raises(BadJob, match=r"no such job file. Did you mean .*jobs\.toml"):
        Job.load(["in.csv"], "out.csv", config=tmp_path / "job.toml")


def test_flags_win_over_the_file_and_their_mistakes_are_called_theirs(tmp_path: Path) -> None:
    text = '[endpoint]\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "file"\n'
    assert job_from(text, tmp_path, **{"endpoint.model": "flag"}).endpoint.model == "flag"
    with pytest.raises(BadJob, match=r"command line: limits\.max_cost"):
        job_from(text, tmp_path, **{"limits.max_cost": "five"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("limits.max_cost=5", ("limits.max_cost", 5)),
        ("endpoint.model=gpt-x", ("endpoint.model", "gpt-x")),
        ('answer.labels=["a", "b"]', ("answer.labels", ["a", "b"])),
        ("prompt.system=a = b", ("prompt.system", "a = b")),
    ],
)
def test_a_set_value_is_toml_or_else_text(text: str, expected: tuple[str, object]) -> None:
    assert parse_setting(text) == expected


@pytest.mark.parametrize(
    "text", ["nonsense", "model=x", "endpoint.headers.x-key=secret", "endpoint.api_key_default=sk-1"]
)
def test_a_set_value_without_a_section_or_with_a_secret_is_refused(text: str) -> None:
    with pytest.raises(BadJob):
        parse_setting(text)


@pytest.mark.parametrize(("text", "seconds"), [("8h", 28800), ("7h30m", 27000), ("90s", 90), ("1d2h", 93600)])
def test_durations(text: str, seconds: int) -> None:
    assert duration_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "8", "h", "8 hours", "-1h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        duration_seconds(text)


def test_a_key_over_plain_http_to_another_host_is_refused_and_the_setting_named(tmp_path: Path) -> None:
    text = '[endpoint]\nbase_url = "http://example.org/v1"\nmodel = "m"\napi_key_env = "SOME_KEY"\n'
    assert "endpoint.plain_http = true" in complaint(text, tmp_path)
    assert job_from(text + "plain_http = true\n", tmp_path).endpoint.plain_http
    assert job_from(text.replace("example.org", "127.0.0.1"), tmp_path)


def test_a_header_that_holds_a_secret_counts_as_a_key(tmp_path: Path) -> None:
    text = '[endpoint]\nbase_url = "http://example.org/v1"\nmodel = "m"\nheaders = { x-api-key = "secret-1234" }\n'
    assert "endpoint.plain_http = true" in complaint(text, tmp_path)
    assert job_from(text.replace("x-api-key", "x-title"), tmp_path)


def test_a_key_in_the_address_is_refused(tmp_path: Path) -> None:
    for address in ("https://h.example/v1?key=abc", "https://user:abc@h.example/v1"):
        assert "does not belong" in complaint(f'[endpoint]\nbase_url = "{address}"\nmodel = "m"\n', tmp_path)


def test_a_key_of_the_job_file_has_one_name_alone(tmp_path: Path) -> None:
    text = '[endpoint]\nbase_url = "https://h.example/v1"\nmodel = "m"\n[answer]\njson_schema = "x.json"\n'
    assert "answer.json_schema: unknown key" in complaint(text, tmp_path)


def test_a_missing_variable_is_named_with_the_line_that_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    job = Job.load(["in.csv"], "out.csv", settings={**MINIMAL, "endpoint.api_key_env": "NO_SUCH_KEY"})
    with pytest.raises(BadJob, match="export NO_SUCH_KEY="):
        job.endpoint.key()


def test_the_key_is_masked_and_in_no_dump(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_KEY", "sk-canary-123")
    flags = {**MINIMAL, "endpoint.api_key_env": "CANARY_KEY", "endpoint.headers": {"x-secret": "canary-header"}}
    job = Job.load(["in.csv"], "out.csv", settings=flags)
    key = job.endpoint.key()
    assert key is not None
    assert "canary" not in f"{key!r} {key} {job!r}".replace("canary-header", "")
    assert "canary" not in json.dumps(job.without_secrets())


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("answer.labels", ["a", "a"], "listed twice: a"),
        ("answer.labels", [], "no label"),
        ("answer.labels", ["a", " "], "a label is blank"),
        ("answer.name", "status", None),
        ("answer.multi", True, "answer.multi is for answer.labels"),
        ("answer.repairs", 11, "answer.repairs"),
        ("output.columns", ["anwser"], "did you mean answer"),
        ("parameters.when", float("nan"), "not fit for JSON"),
        ("prices.input", 1.0, "both prices.input and prices.output"),
        ("limits.concurrency", 0, "concurrency"),
    ],
)
def test_values_that_make_no_sense_are_refused(setting: str, value: object, words: str | None) -> None:
    flags = {**MINIMAL, setting: value}
    if words is None:
        flags["answer.labels"] = ["a", "b"]
        words = "a column of this name is added anyway"
    with pytest.raises(BadJob, match=words):
        Job.load(["in.csv"], "out.csv", settings=flags)


def test_a_schema_file_is_read_relative_to_the_job_file(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"type": "object", "properties": {"stars": {"type": "integer"}}}')
    text = '[endpoint]\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "m"\n[answer]\nschema = "s.json"\n'
    assert list(job_from(text, tmp_path).typed_columns) == ["stars"]
    (tmp_path / "s.json").write_text("{\n  oops\n}")
    assert "s.json:2: not JSON" in complaint(text, tmp_path)


def test_the_schema_for_editors_is_current() -> None:
    kept = json.loads((ROOT / "configs" / "job.schema.json").read_text("utf-8"))
    assert kept == JobFile.model_json_schema(), "python tests/generate.py writes it anew"


def test_a_row_s_own_model_leaves_no_room_for_several() -> None:
    with pytest.raises(BadJob, match=r"give answer\.models or columns\.model"):
        Job.load(["in.csv"], settings={**MINIMAL, "answer.models": ["a", "b"], "columns.model": "m"})


def test_every_key_of_the_job_file_has_a_help_text() -> None:
    assert all(setting.help for setting in settings())


def test_every_shipped_config_is_a_job() -> None:
    configs = sorted((ROOT / "configs").glob("*.toml"))
    assert {path.stem for path in configs} >= {
        "amethyst", "gemini", "ollama", "openai", "openai-batch", "openrouter", "reviews-local", "vllm",
        "sentiment", "topics", "entities", "grading", "translation", "pictures",
    }  # fmt: skip
    for path in configs:
        assert path.read_text("utf-8").startswith("#:schema ./job.schema.json\n"), path
        Job.load(["in.csv"], "out.csv", config=path)


@pytest.mark.parametrize(
    ("config", "table"),
    [
        ("sentiment", "reviews.csv"),
        ("topics", "reviews.csv"),
        ("entities", "letters.csv"),
        ("grading", "essays.csv"),
        ("translation", "reviews.csv"),
        ("pictures", "pictures.csv"),
    ],
)
def test_every_example_of_annotation_can_be_asked_of_its_sample(config: str, table: str) -> None:
    job = Job.load([ROOT / "sample_data" / table], config=ROOT / "configs" / f"{config}.toml")
    told = "\n".join(preview_requests(job, 2))
    assert told.count('"messages"') == 2
    assert "cannot be asked" not in told
    assert '"strict": true' in told or config == "translation"


@pytest.mark.parametrize("value", ["[" * 5_000, "9" * 5_000])
def test_a_value_without_end_is_no_toml_and_no_json(tmp_path: Path, value: str) -> None:
    assert "not TOML" in complaint(f"[parameters]\nx = {value}\n", tmp_path)
    (tmp_path / "s.json").write_text(f'{{"type": {value}')
    text = '[endpoint]\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "m"\n[answer]\nschema = "s.json"\n'
    assert "s.json: not JSON" in complaint(text, tmp_path)
    assert parse_setting(f"parameters.x={value}") == ("parameters.x", value)


@pytest.mark.parametrize("value", ["inf", "nan", "1e999"])
def test_a_setting_without_measure_is_refused(tmp_path: Path, value: str) -> None:
    text = f'[endpoint]\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "m"\ntimeout_seconds = {value}\n'
    assert "endpoint.timeout_seconds: Input should be a finite number" in complaint(text, tmp_path)


def test_what_may_be_a_key_is_not_quoted_where_a_variable_belongs() -> None:
    with pytest.raises(BadJob, match="no name of an environment variable") as caught:
        Job.load(["in.csv"], "out.csv", settings={**MINIMAL, "endpoint.api_key_env": "sk-canary-123"})
    assert "canary" not in str(caught.value)
    job = Job.load(["in.csv"], "out.csv", settings={**MINIMAL, "endpoint.api_key_env": "hf_canary123"})
    with pytest.raises(BadJob, match=r"export NAME=") as caught:
        job.endpoint.key()
    assert "canary" not in str(caught.value)


def test_a_truncated_answer_grows_only_to_more(tmp_path: Path) -> None:
    text = '[endpoint]\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "m"\n[parameters]\nmax_tokens = 64\n'
    assert job_from(f"{text}[answer]\ngrow_on_truncation = 65\n", tmp_path).answer.grow_on_truncation == 65
    told = complaint(f"{text}[answer]\ngrow_on_truncation = 64\n", tmp_path)
    assert "answer.grow_on_truncation of 64 is to be more than the 64 of max_tokens" in told


ENDPOINT = '[endpoint]\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "m"\n'
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
def test_a_pydantic_model_that_is_none_is_told_with_where_it_was_looked_for(
    tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / "more_notes_of_a_test.py").write_text(MODELS)
    (tmp_path / "broken_in_a_test.py").write_text("1 / 0")
    told = complaint(f'{ENDPOINT}[answer]\nschema = "{name}"\n', tmp_path)
    assert words in told
    assert told.endswith("Nothing was sent.")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("e.csv", 'review,label\n"Fine, really.",yes\nBad.,no\nHm.,\n'),
        ("e.tsv", "review\tlabel\nFine, really.\tyes\nBad.\tno\nHm.\t\n"),
        (
            "e.ndjson",
            (
                '{"review": "Fine, really.", "label": "yes"}\n{"review": "Bad.", "label": "no"}\n'
                '{"review": "Hm.", "label": null}\n'
            ),
        ),
    ],
)
def test_examples_are_read_relative_to_the_job_file(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    job = job_from(f'{ENDPOINT}[prompt]\ntemplate = "x"\nexamples = "{file}"\n', tmp_path)
    assert job.prompt.example_rows == [
        {"review": "Fine, really.", "label": "yes"},
        {"review": "Bad.", "label": "no"},
        {"review": "Hm.", "label": None},
    ]
    assert job.seen_by_model()["prompt.examples"] == job.prompt.example_rows


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("none.csv", None, "no such file of examples"),
        ("e.parquet", "PAR1", "examples are read from"),
        ("e.csv", "review,label\n", "no examples"),
        ("e.csv", "review\na,b\n", "no examples"),
        ("e.ndjson", "{oops}\n", "cannot be read"),
        ("e.ndjson", "[1]\n", "no examples"),
    ],
)
def test_a_file_of_examples_that_is_none_is_told(tmp_path: Path, file: str, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / file).write_text(text)
    assert words in complaint(f'{ENDPOINT}[prompt]\ntemplate = "x"\nexamples = "{file}"\n', tmp_path)
