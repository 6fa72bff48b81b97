"""Rows that failed are asked again when the user wants it, and nothing is paid twice."""

from pathlib import Path

import polars as pl
import pytest
from builders import counts, job, questions
from chat_server import Canned, ChatServer, Seen, completion, problem

from pipeline import ThisRun, run
from pipeline.records import Exit


def test_a_bad_row_never_stops_the_job_and_is_asked_again_only_with_retry(tmp_path: Path) -> None:
    repair_kind = False

    def reply(seen: Seen, _attempt: int) -> Canned | None:
        if seen.prompt.endswith(("7", "3")) and not repair_kind:
            return Canned(status=400, body=problem("prompt is too long", code="context_length_exceeded"))
        return None

    source, out = questions(tmp_path / "in.csv", range(40)), tmp_path / "out.parquet"
    with ChatServer(reply) as server:
        summary = run(job(server.url, source, out))
        assert summary.exit_code is Exit.INCOMPLETE
        assert counts(summary) == {"ok": 32, "failed": 8}
        assert pl.read_parquet(out).filter(status="failed")["error"].unique().to_list() == [
            "too_long: prompt is too long"
        ]
        sent = server.arrived
        run(job(server.url, source, out))
        assert server.arrived == sent
        repair_kind = True
        retried = run(job(server.url, source, out, ThisRun(retry=("failed",), verbosity=-1)))
        assert server.arrived == sent + 8
    assert counts(retried) == {"ok": 40}


def test_what_a_failure_cost_stays_with_its_row_when_it_is_retried(tmp_path: Path) -> None:
    empty = completion("", usage={"prompt_tokens": 100, "completion_tokens": 0, "total_tokens": 100})
    replies, priced = iter([empty] * 3), {"prices__input": 1e6, "prices__output": 0.0}

    def reply(_seen: Seen, _attempt: int) -> Canned | None:
        body = next(replies, None)
        return Canned(body=body) if body is not None else None

    source, out = questions(tmp_path / "in.csv", [1]), tmp_path / "out.parquet"
    with ChatServer(reply) as server:
        failed = run(job(server.url, source, out, **priced))
        assert counts(failed) == {"failed": 1}
        assert failed.spent == pytest.approx(300.0)
        retried = run(
            job(
                server.url, source, out, ThisRun(retry=("failed",), verbosity=-1), prices__input=1e6, prices__output=0.0
            )
        )
    assert counts(retried) == {"ok": 1}
    assert retried.spent == pytest.approx(retried.rows.cost) == pytest.approx(pl.read_parquet(out)["cost"].sum())
    assert retried.spent > 300


def test_a_retry_that_fails_does_not_take_the_place_of_the_answer(tmp_path: Path) -> None:
    cut = completion("Half of", finish_reason="length")
    source, out = questions(tmp_path / "in.csv", [1]), tmp_path / "out.parquet"
    with ChatServer(lambda _seen, n: Canned(body=cut) if n == 1 else Canned(status=413, body=b"{}")) as server:
        assert counts(run(job(server.url, source, out))) == {"truncated": 1}
        again = run(job(server.url, source, out, ThisRun(retry=("truncated",), verbosity=-1)))
        assert server.arrived == 2
    assert counts(again) == {"truncated": 1}
    assert pl.read_parquet(out)["answer"].to_list() == ["Half of"]


def test_a_retry_that_was_stopped_midway_does_not_pay_again_for_what_came_out_the_same(tmp_path: Path) -> None:
    cut = Canned(body=completion("Half of", finish_reason="length"))
    source, out = questions(tmp_path / "in.csv", range(20)), tmp_path / "out.csv"
    replies = iter([*[cut] * 20, *[cut] * 8, Canned(status=402, body=problem("You have no credit left."))])
    with ChatServer(lambda _seen, _attempt: next(replies, None)) as server:
        assert counts(run(job(server.url, source, out))) == {"truncated": 20}
        retry = job(server.url, source, out, ThisRun(retry=("truncated",), verbosity=-1), limits__concurrency=1)
        assert run(retry).exit_code is Exit.NEEDS_PERSON
        assert server.arrived == 29
        assert counts(run(retry)) == {"ok": 12, "truncated": 8}
        assert server.arrived == 29 + 12
        assert counts(run(retry)) == {"ok": 20}  # the last one had come to its end: this is a retry of its own
