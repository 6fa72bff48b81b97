"""Signals and the time limit stop a run gently; a second signal stops it at once."""

import signal
import subprocess
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from builders import asked, command_line, job, questions
from chat_server import Canned, ChatServer, Seen

from pipeline import run
from pipeline.records import Exit


def test_max_runtime_stops_and_what_was_answered_is_written(tmp_path: Path) -> None:
    with ChatServer(delay_seconds=0.2) as server:
        source = questions(tmp_path / "in.csv", range(400))
        summary = run(job(server.url, source, tmp_path / "out.parquet", limits__max_runtime="1s"))
    assert summary.exit_code is Exit.AT_LIMIT
    assert summary.rows.ok == server.arrived < 400
    assert pl.read_parquet(tmp_path / "out.parquet").height == 400


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_drains_and_the_same_line_goes_on(tmp_path: Path, number: signal.Signals, code: int) -> None:
    source = questions(tmp_path / "in.csv", range(60))
    with ChatServer(delay_seconds=0.1) as server:
        line = command_line(server.url, source, tmp_path / "out.csv", "--concurrency", "4")
        child = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
        server.wait_for(8)
        child.send_signal(number)
        _, told = child.communicate(timeout=30)
        assert child.returncode == code, told
        assert f"Stopped by {number.name}" in told
        assert "pipeline resume" in told
        assert not (tmp_path / "out.csv").exists()
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert asked(server) == Counter({f"Answer question {n}": 1 for n in range(60)})


def test_a_second_ctrl_c_waits_for_nothing(tmp_path: Path) -> None:
    source = questions(tmp_path / "in.csv", range(10))

    def reply(seen: Seen, _attempt: int) -> Canned | None:
        return Canned(hang=True) if seen.prompt.endswith("question 2") else None

    with ChatServer(reply) as server:
        line = command_line(server.url, source, tmp_path / "out.csv")
        child = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
        server.wait_for(10)
        child.send_signal(signal.SIGINT)
        assert child.stderr is not None
        while "nothing more is sent" not in child.stderr.readline():
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        _, told = child.communicate(timeout=10)
    assert child.returncode == 130
    assert "9 ok, 1 pending" in told
    assert "may be billed" in told
