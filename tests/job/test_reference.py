"""Every key of the job file for people, and how `--set` writes it."""

import pytest

from pipeline.job.reference import Setting, parse_setting, setting_help, settings
from pipeline.records import BadJob


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


def test_every_key_of_the_job_file_has_a_help_text() -> None:
    assert all(setting.help for setting in settings())


@pytest.mark.parametrize("value", ["[" * 5_000, "9" * 5_000])
def test_a_set_value_too_deep_or_too_long_for_toml_is_text(value: str) -> None:
    assert parse_setting(f"parameters.x={value}") == ("parameters.x", value)


def test_the_table_of_keys_says_types_and_defaults_in_words() -> None:
    table = {setting.name: setting for setting in settings()}
    assert table["endpoint.base_url"][1:3] == ("text", "required")
    assert table["limits.concurrency"][1:3] == ("text or whole number", '"auto"')
    assert table["answer.multi"][1:3] == ("true or false", "false")
    assert table["prompt.examples"][1:3] == ("text or list", "[]")
    assert table["answer.schema"][1:3] == ("text or table", "")
    assert table["parameters.*"].kind == "any"
    assert table["limits.max_cost"] == Setting("limits.max_cost", "number", "", setting_help("limits.max_cost"))


def test_the_names_of_variables_that_hold_headers_may_stand_in_a_command_line() -> None:
    assert parse_setting('endpoint.headers_env={api-key="MY_KEY"}') == ("endpoint.headers_env", {"api-key": "MY_KEY"})
