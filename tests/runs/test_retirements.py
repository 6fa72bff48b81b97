"""Before a run or an estimate, models that have ended or end soon are spoken of; the run is not stopped."""

from datetime import date
from pathlib import Path

import pytest
from builders import NOWHERE, job, questions

from pipeline import Job, ThisRun
from pipeline.records import BadJob
from pipeline.runs.estimate import estimate_job, estimate_text
from pipeline.runs.prepare import prepare_run
from pipeline.runs.retirements import retirement_notes
from pipeline.tables import open_table

OPENAI = "https://api.openai.com/v1"
TODAY = date(2026, 11, 29)


def notes(job: Job, folder: Path) -> list[str]:
    return retirement_notes(job, open_table(job.inputs, folder), TODAY)


def test_every_model_of_the_job_is_looked_at_and_the_setting_that_names_it_is_told(tmp_path: Path) -> None:
    source = questions(tmp_path / "in.csv", range(3))
    one = notes(job(OPENAI, source, endpoint__model="gpt-4.1-mini"), tmp_path)
    assert [note.split(", in")[0] for note in one] == [
        "OpenAI retires gpt-4.1-mini (endpoint.model) on 2027-01-14",
    ]
    several = notes(job(OPENAI, source, answer__models=["gpt-5", "gpt-6-luna", "gpt-4"]), tmp_path)
    assert [note.split(" on ")[0] for note in several] == [
        "OpenAI retires gpt-5 (answer.models)",
        "OpenAI retired gpt-4 (answer.models)",
    ]
    assert notes(job(NOWHERE, source, endpoint__model="gpt-4"), tmp_path) == []


def test_the_models_of_the_rows_are_looked_at_once_each(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("q,m\n" + "a,gpt-6-luna\nb,gpt-5-mini\nc,\nd,o3\n" * 50)
    found = notes(job(OPENAI, source, endpoint__model="gpt-6-luna", columns__model="m"), tmp_path)
    assert [note.split(" on ")[0] for note in found] == [
        "OpenAI retires gpt-5-mini (columns.model)",
        "OpenAI retires o3 (columns.model)",
    ]
    with pytest.raises(BadJob):  # a column that is not there is refused with the plan, not here
        estimate_job(job(OPENAI, source, None, columns__model="nowhere"))


def test_an_estimate_and_a_plan_speak_of_it_and_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    ended = job(
        OPENAI, questions(tmp_path / "in.csv", range(3)), tmp_path / "out.csv", ThisRun(),
        endpoint__model="gpt-4-0613", endpoint__api_key_env="OPENAI_API_KEY",
    )  # fmt: skip
    told = "OpenAI retired gpt-4-0613 (endpoint.model) on 2026-10-23"
    assert list(estimate_text(ended, estimate_job(ended)))[-1].startswith(told)
    with prepare_run(ended, None, None) as ready:  # nothing is sent yet
        assert ready.plan.to_ask == 3
    printed = capsys.readouterr().err
    assert printed.index("3 to ask") < printed.index(told)
