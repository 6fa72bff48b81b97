"""What is printed where, and on terminals, pipes and disks that fail."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from chat_server import ChatServer
from command_line import PIPELINE, asking, typed


@pytest.mark.parametrize("closing", ["2>/dev/full", "2>&-", "<&-"])
def test_a_lost_terminal_does_not_decide_how_a_run_ends(here: Path, server: ChatServer, closing: str) -> None:
    line = " ".join(
        [*PIPELINE, "run", "in.csv", "-o", "out.csv", "--base-url", server.url, "-m", "m", "-p", "'{{ q }}'"]
    )
    done = subprocess.run(f"{line} {closing}", shell=True, capture_output=True, check=False, timeout=60)  # noqa: S602
    assert done.returncode == 0
    assert pl.read_csv(here / "out.csv").height == 3


def test_a_closed_pipe_is_no_error(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server))
    line = f"{' '.join(PIPELINE)} show out.csv | head -1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)  # noqa: S602 - a pipe is meant
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert here


@pytest.mark.parametrize("losing", [">/dev/full", ">&-", "| true; exit ${PIPESTATUS[0]}"])
def test_a_lost_stdout_does_not_decide_how_a_pilot_ends(here: Path, server: ChatServer, losing: str) -> None:
    line = f"{' '.join(PIPELINE)} run in.csv -o out.csv --base-url {server.url} -m m -p '{{{{ q }}}}' --sample 2"
    done = subprocess.run(
        ["bash", "-c", f"{line} --on-finish 'touch ended' {losing}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Done in" in done.stderr
    assert (here / "ended").exists()


def test_a_full_disk_under_what_is_printed_is_told_in_a_line(here: Path) -> None:
    assert here.exists()
    line = ["sh", "-c", f"{' '.join(PIPELINE)} --help >/dev/full"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "Error: [Errno 28] No space left on device\n")


TYPED_ONE_AFTER_THE_OTHER = """
import json, sys
from pipeline.cli import main

for at, words in enumerate(json.loads(sys.argv[1])):
    if at:
        print("====", flush=True)
    try:
        main(words)
    except SystemExit as end:
        if end.code:
            sys.exit(f"{words}: {end.code}")
"""


def test_a_screen_that_lacks_characters_shows_others_and_what_a_script_reads_is_whole(
    here: Path, server: ChatServer
) -> None:
    (here / "in.csv").write_text("q,é\n“日本” 😀,a\n", encoding="utf-8")
    line = ["run", "in.csv", "-o", "日本.csv", "--base-url", server.url, "-m", "m", "-p", "→ {{ q }}"]
    commands = [
        [*line, "--sample", "1"],
        ["show", "日本.csv"],
        ["preview", *line[1:2], *line[4:]],
        ["estimate", *line[1:]],
        ["score", "日本.csv", "--gold", "é"],
        ["run", "--help"],
        ["history", "--json", "日本.csv"],
        ["score", "日本.csv", "--gold", "é", "--json"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", TYPED_ONE_AFTER_THE_OTHER, json.dumps(commands)],
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, b"\\u" in done.stderr) == (0, False), done.stderr
    *shown, history, scored = done.stdout.split(b"====\n")
    assert all(shown)
    assert json.loads(history.decode("ascii"))[0]["command"][:4] == line[:4]
    assert json.loads(scored.decode("ascii"))["gold"] == "é"
    assert pl.read_csv("日本.csv")["q"].to_list() == ["“日本” 😀"]
