"""What an earlier line would do is told from its words and its job file alone."""

from pathlib import Path

import pytest

from pipeline.cli.earlier import ask_before, uses_of_line
from pipeline.cli.start import run
from pipeline.records import BadJob

URL = ("--base-url", "https://there.example/v1", "-m", "m")


def uses(folder: Path, *words: str) -> list[str]:
    with run.make_context("run", list(words)) as line:
        return uses_of_line(line, folder, "/j/input.parquet")


def test_everything_that_a_line_reads_runs_and_writes_is_named(here: Path) -> None:
    found = uses(here, "in.csv", "-", "-o", "out.csv", "-p", "@p.txt", "--system", "@/etc/s", "--on-finish", "id", *URL)
    assert found == [
        "runs the command id",
        f"reads {here}/in.csv",
        "reads /j/input.parquet",
        f"reads {here}/p.txt",
        "reads /etc/s",
        "sends the rows to https://there.example/v1",
        f"writes {here}/out.csv",
    ]


def test_what_the_job_file_names_is_named_too_and_a_flag_goes_before_it(here: Path) -> None:
    (here / "sub").mkdir()
    (here / "sub" / "job.toml").write_text(
        '[endpoint]\nbase_url = "https://first.example"\napi_key_env = "A_KEY"\n[answer]\nschema = "code.of:Answer"\n'
        '[prompt]\nexamples = "../e.csv"\nimages = ["photo"]\n[run]\nhow = "ray"\naddress = "head:6379"\n'
    )
    found = uses(here, "in.csv", "-o", "out.csv", "-c", "sub/job.toml", *URL)
    assert found[2:] == [
        f"imports the Python code code.of:Answer, looked for in {here}/sub",
        f"reads {here}/sub/../e.csv",
        "reads the pictures that the rows name",
        "sends the rows to https://there.example/v1, with the key in A_KEY",
        "works on the Ray cluster at head:6379",
        f"writes {here}/out.csv",
    ]
    set_over = uses(here, "in.csv", "-o", "out.csv", *URL, "--set", "answer.schema=other:Answer")
    assert f"imports the Python code other:Answer, looked for in {here}" in set_over
    assert f"reads {here}/w.gguf" in uses(here, "in.csv", "-o", "out.csv", "--set", "endpoint.base_url=local:w.gguf")


def test_off_a_terminal_it_is_refused_and_with_yes_it_is_shown_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    given = ("Whose.", ["run", "in.csv"], ["runs the command id"])
    with pytest.raises(BadJob, match=r"pipeline run in.csv\n  · runs the command id\n.*add --yes"):
        ask_before(*given, None, assume_yes=False)
    with pytest.raises(BadJob, match="Not started"):
        ask_before(*given, lambda _question: False, assume_yes=False)
    ask_before(*given, lambda question: "runs the command id" in question, assume_yes=False)
    ask_before(*given, None, assume_yes=True)
    assert "runs the command id" in capsys.readouterr().err
