"""What became of each row and what was paid: whatever strikes meanwhile, the books balance or say that they do not."""

import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import builders
import polars as pl
import pytest
from chat_server import Canned, ChatServer, Seen, answer_to, completion

from pipeline import Job, run
from pipeline.records import Exit
from pipeline.store.notes import read_ledger
from pipeline.store.reader import Reader

ROWS = 60


def job(server: ChatServer, folder: Path, **settings: Any) -> Job:
    return builders.job(
        server.url, folder / "in.csv", folder / "out.csv", **{"prompt__template": "{{ q }}", **settings}
    )


def questions(folder: Path, rows: int = ROWS) -> None:
    pl.DataFrame({"q": [f"question {n}" for n in range(rows)]}).write_csv(folder / "in.csv")


def lose_an_answer(folder: Path) -> None:
    """As a disk or another program might, behind the back of the run that wrote it."""
    with closing(sqlite3.connect(folder / "store" / "cache.db", timeout=30, isolation_level=None)) as database:
        database.execute("DELETE FROM Cache WHERE rowid = (SELECT max(rowid) FROM Cache WHERE tag = 'ok')")
        assert database.execute("SELECT changes()").fetchone() == (1,)


def lose_half_the_plan(folder: Path) -> None:
    keys = folder / "keys.parquet"
    half = pl.read_parquet(keys).head(ROWS // 2)
    half.write_parquet(keys.with_suffix(".new"))
    keys.with_suffix(".new").replace(keys)


def count_a_row_twice(folder: Path) -> None:
    keys = folder / "keys.parquet"
    more = pl.read_parquet(keys)
    pl.concat([more, more.tail(1)]).write_parquet(keys.with_suffix(".new"))
    keys.with_suffix(".new").replace(keys)


@pytest.mark.parametrize("strike", [lose_an_answer, lose_half_the_plan, count_a_row_twice])
def test_a_fault_behind_its_back_is_seen_in_the_books_and_the_table_is_not_trusted(tmp_path: Path, strike: Any) -> None:
    questions(tmp_path)
    (tmp_path / "out.csv").write_text("what stood here\n")

    def reply(_seen: Seen, _attempt: int) -> None:
        if server.arrived == ROWS - 5:
            strike(tmp_path / "out.csv.job")

    with ChatServer(reply) as server:
        summary = run(job(server, tmp_path))
        assert summary.exit_code is Exit.NEEDS_PERSON
        assert "the accounts do not balance" in summary.message
        assert not summary.wrote
        assert (tmp_path / "out.csv").read_text() == "what stood here\n"
        again = run(job(server, tmp_path))
        assert again.exit_code is Exit.DONE
        lost = 1 if strike is lose_an_answer else 0
        assert server.arrived == ROWS + lost
    assert pl.read_csv(tmp_path / "out.csv")["answer"].to_list() == [answer_to(f"question {n}") for n in range(ROWS)]


def test_however_often_it_is_killed_the_endpoint_bills_no_more_than_the_cap(tmp_path: Path) -> None:
    """Each answer is the longest that may come; what was in flight at a kill was billed too, and nobody tells."""
    cap, width, longest = 600.0, 8, {"prompt_tokens": 1, "completion_tokens": 10}
    questions(tmp_path, 200)
    sent: list[float] = []

    def reply(_seen: Seen, _attempt: int) -> Canned:
        sent.append(10.0)
        return Canned(body=completion("as long as may be", usage=longest), delay_seconds=0.02)

    with ChatServer(reply) as server:
        words = ["run", "in.csv", "-o", "out.csv", "--base-url", server.url, "-m", "m", "-p", "{{ q }}", "-q"]
        words += ["--concurrency", str(width), "--max-cost", str(cap)]
        priced = {"parameters.max_tokens": 10, "prices.input": 0, "prices.output": 1e6}
        words += [word for name, value in priced.items() for word in ("--set", f"{name}={value}")]
        for goal in (1, 8, 20, 33):
            child = subprocess.Popen([sys.executable, "-m", "pipeline", *words], cwd=tmp_path)
            server.wait_for(goal)
            child.kill()
            assert child.wait() == -signal.SIGKILL
        done = subprocess.run([sys.executable, "-m", "pipeline", *words], cwd=tmp_path, check=False)
        assert done.returncode == Exit.AT_LIMIT
    assert sum(sent) <= cap
    with closing(Reader(tmp_path / "out.csv.job" / "store")) as reader:
        ledger = read_ledger(reader)
    assert ledger.cost <= sum(sent) <= ledger.cost + ledger.held <= cap
    status = Counter(pl.read_csv(tmp_path / "out.csv")["status"])
    assert status["ok"] + status["pending"] == 200
    assert ledger.cost == pytest.approx(10.0 * status["ok"])


def test_a_retry_that_was_killed_pays_again_for_no_more_than_was_in_flight(tmp_path: Path) -> None:
    width = 4
    questions(tmp_path)
    with ChatServer(lambda _seen, _n: Canned(body=completion("Half of", finish_reason="length"))) as server:
        assert run(job(server, tmp_path, endpoint__name="x")).rows.truncated == ROWS

    def cut_again(_seen: Seen, _attempt: int) -> Canned:
        return Canned(body=completion("Half of", finish_reason="length"), delay_seconds=0.02)

    with ChatServer(cut_again) as server:
        words = ["run", "in.csv", "-o", "out.csv", "--base-url", server.url, "-m", "m", "-p", "{{ q }}", "-q"]
        words += ["--concurrency", str(width), "--retry", "truncated", "--set", "endpoint.name=x"]
        for goal in (20, 40):
            child = subprocess.Popen([sys.executable, "-m", "pipeline", *words], cwd=tmp_path)
            server.wait_for(goal)
            child.kill()
            assert child.wait() == -signal.SIGKILL
        done = subprocess.run([sys.executable, "-m", "pipeline", *words], cwd=tmp_path, check=False)
        assert done.returncode == Exit.DONE
        assert len({seen.prompt for seen in server.log}) == ROWS
        assert server.arrived - ROWS <= 2 * 2 * width
