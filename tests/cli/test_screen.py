"""What is printed where, and on terminals, pipes and disks that fail."""

import json
import os
import subprocess
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


def test_a_screen_that_lacks_characters_shows_others_and_what_a_script_reads_is_whole(
    here: Path, server: ChatServer
) -> None:
    (here / "in.csv").write_text("q,é\n“日本” 😀,a\n", encoding="utf-8")
    line = ["run", "in.csv", "-o", "日本.csv", "--base-url", server.url, "-m", "m", "-p", "→ {{ q }}"]
    commands = (
        [*line, "--sample", "1"],
        ["show", "日本.csv"],
        ["preview", *line[1:2], *line[4:]],
        ["estimate", *line[1:]],
        ["score", "日本.csv", "--gold", "é"],
        ["run", "--help"],
    )
    for words in commands:
        done = typed_on_a_latin_1_screen(*words)
        assert (done.returncode, b"\\u" in done.stderr) == (0, False), (words, done.stderr)
    history, scored = (
        json.loads(typed_on_a_latin_1_screen(*words).stdout.decode("ascii"))
        for words in (["history", "--json", "日本.csv"], ["score", "日本.csv", "--gold", "é", "--json"])
    )
    assert history[0]["command"][:4] == line[:4]
    assert (scored["job"], scored["gold"]) == ("日本.csv", "é")
    assert pl.read_csv("日本.csv")["q"].to_list() == ["“日本” 😀"]


def typed_on_a_latin_1_screen(*words: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    return subprocess.run([*PIPELINE, *words], env=environment, capture_output=True, check=False, timeout=60)
