"""Caps, failures and silence stop a job where the user said, with everything kept."""

import subprocess
from pathlib import Path

import polars as pl
import pytest
from builders import asked, command_line, counts, job, questions
from chat_server import Canned, ChatServer, Seen, completion

from pipeline import run
from pipeline.records import Exit


def test_an_endpoint_that_is_not_there_stops_the_job_to_be_tried_later(tmp_path: Path) -> None:
    with ChatServer() as server:
        url = server.url
    summary = run(job(url, questions(tmp_path / "in.csv", range(9)), tmp_path / "out.csv"))
    assert summary.exit_code is Exit.TRY_LATER
    assert counts(summary) == {"pending": 9}
    assert not (tmp_path / "out.csv").exists()


def test_the_budget_is_never_passed_and_what_was_answered_is_written(tmp_path: Path, server: ChatServer) -> None:
    flags = {"prices__input": 10.0, "prices__output": 10.0, "parameters": {"max_tokens": 10}, "limits__max_cost": 0.02}
    source, out = questions(tmp_path / "in.csv", range(200)), tmp_path / "out.parquet"
    summary = run(job(server.url, source, out, **flags))
    assert summary.exit_code is Exit.AT_LIMIT
    assert 0.01 < summary.spent <= 0.02
    assert summary.rows.pending == 200 - summary.rows.ok > 0
    assert pl.read_parquet(out)["status"].value_counts(name="n").filter(status="ok")["n"].item() == summary.rows.ok
    sent = server.arrived
    again = run(job(server.url, source, out, **flags))
    assert again.exit_code is Exit.AT_LIMIT
    assert again.spent <= 0.02
    assert server.arrived - sent <= 1
    more = run(job(server.url, source, out, **{**flags, "limits__max_cost": 10.0}))
    assert counts(more) == {"ok": 200}
    assert max(asked(server).values()) == 1


def test_a_cap_without_max_tokens_is_held_by_the_tokens_that_the_user_sets_aside(
    tmp_path: Path, server: ChatServer
) -> None:
    source, out = questions(tmp_path / "in.csv", range(200)), tmp_path / "out.parquet"
    flags = {"prices__input": 10.0, "prices__output": 10.0, "limits__max_cost": 0.02, "limits__reserve_tokens": 10}
    summary = run(job(server.url, source, out, **flags))
    assert summary.exit_code is Exit.AT_LIMIT
    assert 0.01 < summary.spent <= 0.02


@pytest.mark.parametrize(("limit", "failed"), [(3, 4), (0.1, 11), (0, 1)])
def test_more_failures_than_allowed_stop_the_job_and_the_table_is_written(
    tmp_path: Path, limit: float, failed: int
) -> None:
    """A share is of the rows so far, and of a hundred at least."""
    source, out = questions(tmp_path / "in.csv", range(40)), tmp_path / "out.csv"

    def reply(seen: Seen, _attempt: int) -> Canned | None:
        return None if seen.prompt == "Answer question 0" else Canned(status=413, body=b"{}")

    with ChatServer(reply) as server:
        line = job(server.url, source, out, limits__max_failures=limit, limits__concurrency=1)
        summary = run(line)
        assert summary.exit_code is Exit.AT_LIMIT
        assert "limits.max_failures" in summary.message
        assert failed <= summary.rows.failed <= failed + 1  # one more may have left while the last was stored
        assert summary.rows.pending == 39 - summary.rows.failed
        assert pl.read_csv(out)["status"].to_list().count("failed") == summary.rows.failed
        assert run(line).rows.failed > summary.rows.failed  # each run is allowed as many


def test_an_endpoint_that_is_waited_for_may_come_up_late(tmp_path: Path) -> None:
    source, out = questions(tmp_path / "in.csv", range(5)), tmp_path / "out.csv"
    with ChatServer(delay_seconds=0.1) as first:
        port = int(first.url.split(":")[2].split("/")[0])
    line = command_line(first.url, source, out, "--wait-for-endpoint", "-v")
    child = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    for _ in range(2):
        while "connect:" not in child.stderr.readline():
            assert child.poll() is None
    with ChatServer(port=port):
        _, told = child.communicate(timeout=60)
    assert child.returncode == 0, told


def test_an_endpoint_that_answers_nobody_is_given_up_to_be_tried_later(tmp_path: Path) -> None:
    source, out = questions(tmp_path / "in.csv", range(5)), tmp_path / "out.csv"
    with ChatServer(lambda _seen, _attempt: Canned(status=503, body=b"{}", headers={"retry-after": "0.2"})) as server:
        summary = run(job(server.url, source, out, limits__give_up_after="1s"))
    assert summary.exit_code is Exit.TRY_LATER
    assert "limits.give_up_after" in summary.message
    assert counts(summary) == {"pending": 5}
    assert not out.exists()


def test_a_cap_is_remembered_over_resumes_where_no_usage_is_told(tmp_path: Path) -> None:
    priced = {"prices__input": 1000.0, "prices__output": 1000.0, "parameters": {"max_tokens": 1}}
    source, out = questions(tmp_path / "in.csv", range(100)), tmp_path / "out.csv"
    with ChatServer(lambda _seen, _n: Canned(body=completion("yes", usage=None))) as server:
        first = run(job(server.url, source, out, **priced, limits__max_cost=1.0))
        assert first.exit_code is Exit.AT_LIMIT
        sent = server.arrived
        assert 0 < sent < 100
        assert run(job(server.url, source, out, **priced, limits__max_cost=1.0)).exit_code is Exit.AT_LIMIT
        assert server.arrived == sent
