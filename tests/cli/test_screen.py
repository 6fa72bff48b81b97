"""What is printed where, and on terminals, pipes and disks that fail."""

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
