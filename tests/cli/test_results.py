"""The commands that show results."""

import contextlib
import json
import os
import pty
import subprocess
import termios
from pathlib import Path

import polars as pl
from chat_server import ChatServer, answer_to
from command_line import PIPELINE, asking, typed


def test_show_prints_prompts_and_answers_as_text(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server))
    shown = typed("show", "out.csv", "-n", "2").stdout
    assert f"    Say one\n  → {answer_to('Say one')}\n" in shown
    assert "row 3" not in shown
    assert "There is no row 9: the table has 3." in typed("show", "out.csv", "--row", "9").stdout
    assert "None of 3 rows is failed." in typed("show", "out.csv", "--status", "failed").stdout
    assert typed("show", "out.csv", "--status", "nonsense").returncode == 2


def test_show_prints_a_typed_answer_by_its_columns(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server), "--set", 'answer.labels=["one", "two"]')
    label = pl.read_csv(here / "out.csv")["label"][0]
    assert f"    Say one\n  → label: {label}\n" in typed("show", "out.csv", "-n", "1").stdout


def test_export_writes_what_is_known_in_another_format(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server), "--limit", "2")
    done = typed("export", "out.csv", "-o", "part.parquet")
    assert done.returncode == 0
    assert "2 of 2 rows have an outcome" in done.stderr
    assert pl.read_parquet(here / "part.parquet")["id"].to_list() == ["001", "002"]


def test_score_and_compare_print_a_report_or_json_on_stdout(here: Path, server: ChatServer) -> None:
    labels = ["--set", 'answer.labels=["one", "two"]']
    typed("run", "in.csv", "-o", "out.csv", *asking(server), *labels)
    table = pl.read_csv(here / "out.csv", infer_schema=False).select("id", "q", gold="label")
    table.with_columns(gold=pl.when(pl.col("id") == "002").then(pl.lit("three")).otherwise("gold")).write_csv("in.csv")
    typed("resume", "out.csv")
    wrong = typed("score", "out.csv", "--gold", "gold")
    assert wrong.returncode == 2
    assert "'three' in 1 row (2)" in wrong.stderr
    table.write_csv("in.csv")
    typed("resume", "out.csv")
    done = typed("score", "out.csv", "--gold", "gold", "--review", "review.csv")
    assert (done.returncode, done.stderr) == (0, "Wrote review.csv: no row differs from gold.\n")
    assert "accuracy            100.0 %  3 of 3" in done.stdout
    assert json.loads(typed("score", "out.csv", "--gold", "gold", "--json").stdout)["score"]["accuracy"]["share"] == 1
    assert "agreement      100.0 %  3 of 3" in typed("compare", "out.csv", "out.csv.job").stdout
    assert json.loads(typed("compare", "out.csv", "out.csv", "--json").stdout)["matched"] == 3
    assert server.arrived == 3


def test_a_full_disk_under_the_answers_shown_is_told_without_a_traceback(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server))
    line = f"{' '.join(PIPELINE)} show out.csv >/dev/full"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False, timeout=60)  # noqa: S602
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert here


def test_a_strange_line_in_the_history_keeps_nobody_from_the_answers(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server))
    with (here / "out.csv.job" / "history.jsonl").open("a") as history:
        history.write('garbage\n{"type": "began", "of": "another version"}\n')
    assert "Say one" in typed("show", "out.csv").stdout
    assert typed("run", "in.csv", "-o", "out.csv", *asking(server)).returncode == 0
    assert server.arrived == 3


def test_a_job_without_its_store_or_its_keys_is_told(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server))
    (here / "out.csv.job" / "store" / "cache.db").unlink()
    assert "no answers yet" in typed("show", "out.csv").stderr
    (here / "out.csv.job" / "keys.parquet").write_bytes(b"cut")
    done = typed("export", "out.csv", "-o", "other.csv")
    assert done.returncode == 2
    assert "was killed as it started" in done.stderr


def test_a_report_has_a_bar_on_a_terminal_and_is_plain_elsewhere(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server))
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    child = subprocess.Popen([*PIPELINE, "report", "out.csv"], stderr=follower)
    os.close(follower)
    told = b""
    with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
        while part := os.read(leader, 1000):
            told += part
    os.close(leader)
    assert child.wait(60) == 0
    assert b"reading:" in told
    assert b"/3 rows" in told
    done = typed("report", "out.csv")
    assert done.stderr.startswith("Wrote ")
    assert here
