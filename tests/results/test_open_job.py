"""A job is opened for reading from its folder, and refused if its rows are not those of the last run."""

import io
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from started_job import ASKED, GOOD, StartedJob, shown

from pipeline.job.job import ThisRun
from pipeline.records import BadJob
from pipeline.results.export import export_table
from pipeline.results.open_job import open_job

Start = Callable[..., StartedJob]


def test_a_csv_that_is_gone_is_read_from_its_snapshot(start: Start, reviews: str, tmp_path: Path) -> None:
    job = start(reviews, **ASKED)
    job.record(GOOD)
    (tmp_path / reviews).unlink()
    assert export_table(job.job.folder, None)[1].ok == 1
    assert len(shown(job)) == 4


def test_a_job_from_standard_input_is_shown_and_exported(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"prompt\nGood?\n")))
    job = start("-")
    job.record(GOOD)
    assert "    Good?\n" in shown(job)[0]
    assert export_table(job.job.folder, tmp_path / "other.csv")[1].ok == 1


def test_a_parquet_that_has_changed_since_is_refused(start: Start, tmp_path: Path) -> None:
    pl.DataFrame({"prompt": ["a"]}).write_parquet(tmp_path / "in.parquet")
    job = start("in.parquet")
    pl.DataFrame({"prompt": ["b"]}).write_parquet(tmp_path / "in.parquet")
    with pytest.raises(BadJob, match=r"in\.parquet has changed since the last run"):
        shown(job)
    with pytest.raises(BadJob, match="has changed"):
        export_table(job.job.folder, None)
    assert not (tmp_path / "out.csv").exists()


def test_a_folder_in_which_nothing_was_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out.csv.job").mkdir()
    (tmp_path / "out.csv.job" / "history.jsonl").write_bytes(b"")
    with pytest.raises(BadJob, match="nothing was ever run here"):
        export_table(tmp_path / "out.csv", None)


def test_a_job_whose_last_run_was_killed_before_its_keys_were_in_place_is_refused(start: Start, reviews: str) -> None:
    job = start(reviews, **ASKED)
    job.keys.write_bytes(b"those of another run")
    with pytest.raises(BadJob, match=r"was killed as it started\. Every answer so far is kept\. Run the job again"):
        open_job(job.job.output_path)


def test_an_open_job_has_the_settings_and_rows_of_its_last_run_and_names_its_inputs(
    start: Start, reviews: str, tmp_path: Path
) -> None:
    job = start(reviews, this_run=ThisRun(limit=2), **ASKED)
    job.record(GOOD)
    opened = open_job(tmp_path / "out.csv")
    with closing(opened.reader):
        assert opened.job.prompt.template == ASKED["prompt.template"]
        assert opened.table.rows == 2
        assert opened.inputs == [str(opened.table.path), str(tmp_path / "in.csv")]
        assert opened.reader.last_stored() is not None
