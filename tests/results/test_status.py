"""The status of any job, running, stopped or dead, is read from its folder."""

import json
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from chat_server import Canned, ChatServer, Seen, completion, problem
from started_job import question_job

from pipeline import BadJob, run
from pipeline.execution.local_context import LocalContext
from pipeline.folder.folder import make_job_folder
from pipeline.folder.history import record_start
from pipeline.folder.lock import hold_lock
from pipeline.planning.keys import keys_hash, keys_path
from pipeline.planning.plan import make_plan
from pipeline.progress import Pause, Progress
from pipeline.prompts.prompts import Prompts
from pipeline.records import STATUSES, Exit, Process, Tally, Usage
from pipeline.results.runs import history_text, job_history
from pipeline.results.status import Batch, ErrorCount, JobStatus, job_status, status_text
from pipeline.store.reader import Reader
from pipeline.store.writer import Store
from pipeline.tables.open import open_table

PIPELINE = (sys.executable, "-m", "pipeline")
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def answer_some(seen: Seen, _attempt: int) -> Canned | None:
    """Three kinds of trouble, and an answer to all other rows."""
    number = int(seen.prompt.rpartition(" ")[2])
    if number < 3:
        return Canned(400, problem("This model's maximum context length is 10 tokens", code="context_length_exceeded"))
    if number == 3:
        return Canned(body=completion("", refusal="I would rather not."))
    return None


def test_a_finished_job_is_shown_with_its_most_frequent_errors_and_an_example_of_each(tmp_path: Path) -> None:
    with ChatServer(answer_some) as server:
        summary = run(question_job(tmp_path, server.url))
    assert summary.exit_code is Exit.INCOMPLETE
    status = job_status(tmp_path / "out.csv")
    assert (status.state, status.exit_code) == ("finished", 3)
    assert status.rows == {
        "ok": 8, "truncated": 0, "filtered": 0, "refused": 1, "invalid": 0, "failed": 3, "pending": 0
    }  # fmt: skip
    assert (status.to_ask, status.asked) == (12, 12)
    assert status.prompt_tokens == summary.run.usage.prompt_tokens
    assert [(each.kind, each.rows, each.row) for each in status.errors] == [("too_long", 3, 1), ("refused", 1, 4)]
    assert "maximum context length" in status.errors[0].message
    assert status.errors[1].message == "I would rather not."
    text = status_text(status)
    assert "8 ok, 1 refused, 3 failed = 12" in text
    assert f"Look: pipeline show {tmp_path / 'out.csv'} --status failed" in text


def test_rows_that_cannot_be_asked_are_errors_and_rows_of_an_older_table_are_not(tmp_path: Path) -> None:
    with ChatServer(answer_some) as server:
        asked = question_job(tmp_path, server.url)
        run(asked)
        (tmp_path / "in.csv").write_text("q\nquestion 7\n\nquestion 2\n")
        run(asked)
    status = job_status(tmp_path / "out.csv.job")
    assert [(each.kind, each.rows, each.row) for each in status.errors] == [("prompt", 1, 2), ("too_long", 1, 3)]
    assert "prints a null" in status.errors[0].message


def test_a_running_job_is_seen_from_another_process_and_a_killed_one_is_dead(tmp_path: Path) -> None:
    with ChatServer(delay_seconds=0.05) as server:
        asked = question_job(tmp_path, server.url, rows=2000)
        words = ["run", "in.csv", "-o", "out.csv", "--base-url", server.url, "-m", "m", "-p", "Say {{ q }}"]
        line = [*PIPELINE, *words, "--concurrency", "4"]
        with subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
            server.wait_for(100)
            done = subprocess.run(
                [*PIPELINE, "status", "out.csv", "--json"], cwd=tmp_path, capture_output=True, check=True
            )
            seen = json.loads(done.stdout)
            assert seen["state"] == "running"
            assert seen["by"]["pid"] == process.pid
            assert seen["to_ask"] == 2000
            assert seen["rows"]["ok"] > 50
            assert 0 < seen["rows_per_second"] < 200
            assert 0 < seen["seconds_left"] < 2000
            assert seen["limits"]["concurrency"] == 4
            assert job_history(asked.folder)[-1].running
            process.kill()
    status = job_status(asked.folder)
    assert status.state == "dead"
    assert "killed" in status_text(status)
    assert f"Go on: pipeline resume {tmp_path / 'out.csv'}" in status_text(status)
    assert status.rows is not None
    assert status.rows["ok"] >= 90
    (killed,) = job_history(asked.folder)
    assert (killed.ended, killed.running) == (None, False)
    assert next(history_text([killed])).endswith("· killed")


def test_watch_ends_with_the_run_and_quietly_at_ctrl_c(tmp_path: Path) -> None:
    with ChatServer() as server:
        asked = question_job(tmp_path, server.url)
        run(asked)
    watch = [*PIPELINE, "status", "out.csv", "--watch"]
    seen = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with hold_lock(asked.folder), subprocess.Popen(watch, cwd=tmp_path, **seen) as left:  # type: ignore[call-overload]
        assert "preparing" in left.stdout.readline()
        left.send_signal(signal.SIGINT)
        assert left.communicate(timeout=20)[1] == ""
        assert left.returncode == 0
    with hold_lock(asked.folder):
        kept = subprocess.Popen(watch, cwd=tmp_path, **seen)  # type: ignore[call-overload]
        assert "preparing" in kept.stdout.readline()
    with kept:
        output, errors = kept.communicate(timeout=20)
    assert "finished" in output
    assert (kept.returncode, errors) == (0, "")


def make(folder: Path) -> Path:
    (folder / "out.csv.job").mkdir()
    return folder / "out.csv.job"


def test_there_is_no_job_of_a_wrong_name(tmp_path: Path) -> None:
    done = subprocess.run([*PIPELINE, "status", "nowhere.csv"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 2
    with pytest.raises(BadJob, match="no job of this name"):
        job_history(tmp_path / "nowhere.csv")


def test_a_pause_and_the_cap_of_a_running_job_are_shown(tmp_path: Path) -> None:
    waiting = question_job(
        tmp_path, **{"limits.max_cost": 5.0, "parameters.max_tokens": 5, "prices.input": 1, "prices.output": 1}
    )
    make_job_folder(waiting.folder)
    table = open_table(waiting.inputs, waiting.folder)
    store = Store(waiting.folder / "store")
    reader = Reader(waiting.folder / "store")
    with hold_lock(waiting.folder):
        make_plan(waiting, table, Prompts(waiting, ["q"]), reader, waiting.folder)
        record_start(waiting, ["run"], table.content_hash, table.path, keys_hash(keys_path(waiting.folder)))
        context = LocalContext(waiting, store, Tally(cost=1.25, held=0.5, usage=Usage(1000, 200)))
        context.begin(12, waiting.limits, Progress(quiet=True))
        context.show_progress(Pause(90.0, "after HTTP 503"))
        context.count_attempt(0.25)
        store.close()
        status = job_status(waiting.folder)
    reader.close()
    assert status.state == "running"
    assert 80 < status.wait_seconds <= 90
    text = status_text(status)
    assert "paused 90 s: after HTTP 503" in text or "paused 89 s: after HTTP 503" in text
    assert "$1.50 in all · up to $0.50 more may be billed · cap $5.00" in text
    assert "12 pending = 12" in text


def test_a_folder_that_is_locked_on_another_host_is_reported_as_such(tmp_path: Path) -> None:
    folder = make(tmp_path)
    name = {"user": "mia", "host": "node7", "pid": 12, "since": "2026-11-24 11:00:00+00:00", "boot": "another"}
    (folder / "lock.json").write_text(json.dumps(name))
    status = job_status(folder)
    assert status.state == "unknown"
    assert "locked for 60 min by mia@node7, process 12, which cannot be checked from here" in status_text(status, NOON)


def test_the_status_as_text(tmp_path: Path) -> None:
    status = JobStatus(
        state="running",
        folder=str(tmp_path / "out.csv.job"),
        output=str(tmp_path / "out.csv"),
        by=Process("mia", "node7", 12),
        since=NOON - timedelta(minutes=12),
        rows={**dict.fromkeys(STATUSES, 0), "ok": 75_300, "failed": 3, "pending": 4_697},
        to_ask=4_415,
        asked=1_810,
        rows_per_second=3.14,
        rows_per_second_overall=2.9,
        seconds_left=840,
        prompt_tokens=800_000,
        output_tokens=100_000,
        spent=37.4,
        spent_this_run=0.86,
        max_cost=50.0,
        limits={"concurrency": "auto", "requests_per_minute": 600.0},
        errors=[ErrorCount("timeout", 3, 17, "no whole answer\nwithin 600 s")],
    )
    assert status_text(status, NOON).splitlines() == [
        f"{tmp_path / 'out.csv'} · running, started 12 min ago by mia@node7, process 12",
        "  asked  1,810 of 4,415 (41%) · 3.1 rows/s in the last minute · 2.9 rows/s overall · 14 min left",
        "  rows   75,300 ok, 3 failed, 4,697 pending = 80,000",
        "  tokens 0.8M in, 100k out · $0.86 this run, $37.40 in all · cap $50.00",
        "  limits concurrency auto · 600 requests/min",
        "  errors 3 timeout; row 17: no whole answer within 600 s",
        f"  Look: pipeline show {tmp_path / 'out.csv'} --status failed",
    ]


def test_no_key_of_the_json_is_removed_or_renamed() -> None:
    """Scripts read it: a key may be added."""
    assert JobStatus.__struct_fields__ == (
        "state", "folder", "output", "by", "since", "ended", "exit_code", "message", "rows", "to_ask", "asked",
        "rows_per_second", "rows_per_second_overall", "seconds_left", "last_stored", "prompt_tokens", "output_tokens",
        "spent", "held", "unpriced", "spent_this_run", "max_cost", "limits", "learnt", "wait_seconds", "cause",
        "batches", "errors",
    )  # fmt: skip


def test_reading_a_status_writes_nothing_but_the_index_shared_by_readers_of_sqlite(tmp_path: Path) -> None:
    with ChatServer() as server:
        run(question_job(tmp_path, server.url))

    def stamps() -> dict[Path, int]:
        files = [path for path in (tmp_path / "out.csv.job").rglob("*") if path.is_file()]
        return {path: path.stat().st_mtime_ns for path in files if not path.name.endswith(("-shm", "-wal"))}

    before = stamps()
    job_status(tmp_path / "out.csv")
    job_history(tmp_path / "out.csv")
    assert stamps() == before


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ({"state": "preparing"}, "preparing: reading its input for 5 min (a@b, process 7)"),
        ({"state": "stopping"}, "stopping, started 5 min ago by a@b, process 7"),
        (
            {"state": "unknown", "last_stored": NOON - timedelta(seconds=30)},
            "locked for 5 min by a@b, process 7, which cannot be checked from here; its latest answer came 30 s ago",
        ),
        (
            {"state": "dead"},
            "killed: the run started 5 min ago by a@b, process 7 did not end, and its process is gone",
        ),
        (
            {"state": "stopped", "ended": NOON - timedelta(minutes=2), "exit_code": 4},
            "stopped 2 min ago, exit code 4 (a@b, process 7)",
        ),
    ],
)
def test_each_state_has_its_headline(status: dict[str, Any], line: str) -> None:
    by, since = Process("a", "b", 7), NOON - timedelta(minutes=5)
    text = status_text(JobStatus(folder="/jobs/a.job", by=by, since=since, **status), NOON)
    assert text.splitlines()[0] == f"/jobs/a.job · {line}"
    assert ("Go on: pipeline resume /jobs/a.job" in text) == (status["state"] in ("dead", "stopped"))


def test_limits_batches_and_unknown_prices_are_shown() -> None:
    status = JobStatus(
        state="running", folder="/jobs/a.job", spent=1.0, unpriced=3, wait_seconds=12.0,
        limits={"concurrency": 8, "tokens_per_minute": 90_000, "max_runtime": "8h"},
        batches=[Batch("b1", 1_000, 250, None), Batch("b2", 500, 0, None)],
    )  # fmt: skip
    assert status_text(status, NOON).splitlines()[1:] == [
        "  batch  2 with the provider, 250 of 1,500 requests done",
        "  paused 12 s: the endpoint asked to wait",
        "  tokens 0 in, 0 out · $1.00 in all, without 3 requests at an unknown price",
        "  limits concurrency 8 · 90,000 tokens/min · at most 8h",
    ]
