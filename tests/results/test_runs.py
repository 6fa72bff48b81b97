"""The history of a job: its runs as records and as text, with the settings that changed between them."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from chat_server import ChatServer
from started_job import question_job

from pipeline import ThisRun, run
from pipeline.records import Process
from pipeline.results.runs import RunRecord, history_text, job_history

PIPELINE = (sys.executable, "-m", "pipeline")


def test_no_key_of_the_json_is_removed_or_renamed() -> None:
    """Scripts read it: a key may be added."""
    assert RunRecord.__struct_fields__ == (
        "began", "by", "version", "command", "changed", "ended", "running", "exit_code", "message", "rows", "asked",
        "spent", "seconds",
    )  # fmt: skip


def test_history_lists_the_settings_that_changed_between_the_runs(tmp_path: Path) -> None:
    with ChatServer() as server:
        run(question_job(tmp_path, server.url), command=["run", "in.csv", "-o", "out.csv"])
        changed = question_job(tmp_path, server.url, **{"parameters.temperature": 0, "limits.concurrency": 3})
        run(changed.model_copy(update={"this_run": ThisRun(verbosity=-1, assume_yes=True, limit=5)}))
    first, second = job_history(tmp_path / "out.csv")
    assert first.changed == {}
    assert second.changed == {
        "parameters.temperature": (None, 0), "limits.concurrency": ("auto", 3), "--limit": (None, 5)
    }  # fmt: skip
    assert (second.exit_code, second.asked, second.rows and second.rows["ok"]) == (0, 5, 5)
    lines = list(history_text([first, second]))
    assert lines[0].startswith("1 · ")
    assert "exit 0 after" in lines[0]
    assert lines[1] == "    pipeline run in.csv -o out.csv"
    assert "    limits.concurrency: auto → 3" in lines
    done = subprocess.run([*PIPELINE, "history", tmp_path / "out.csv", "--json"], capture_output=True, check=True)
    assert len(json.loads(done.stdout)) == 2


def test_a_run_without_an_end_is_killed_or_running_and_long_lines_are_clipped() -> None:
    command = ["run", "in.csv", "--prompt", "word " * 30]
    run = RunRecord(
        datetime(2026, 11, 24, 12, tzinfo=UTC), Process("mia", "node7", 12), "1.0", command, {"a.b": (None, [1])}
    )
    first, line, changed = history_text([run])
    assert first.endswith("mia@node7 · version 1.0 · killed")
    assert line == f"    pipeline run in.csv --prompt '{'word ' * 30}"[:103] + "…"
    assert changed == "    a.b: none → [1]"
    assert next(history_text([msgspec.structs.replace(run, running=True)])).endswith("· running")
    assert list(history_text([])) == ["Nothing was ever run here."]
