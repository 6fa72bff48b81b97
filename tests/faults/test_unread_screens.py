"""A screen that nobody reads, or that has gone: every row is asked, signals and orders are obeyed, the end comes."""

import os
import signal
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from builders import command_line, questions
from chat_server import Canned, ChatServer, Seen, problem

from pipeline.runs.control import send_order

ROWS = 100
LONG = "This is not to my taste. " * 40  # of each rejection, the screen shows and the log keeps its words


def every_other_row_is_rejected(seen: Seen, _attempt: int) -> Canned | None:
    return Canned(400, problem(LONG)) if int(seen.prompt.split()[-1]) % 2 else None


@contextmanager
def screen(kind: str) -> Iterator[int]:
    """The end that a program writes to, of a terminal after Ctrl-S, a full pipe, or one whose other end is closed."""
    reading, writing = os.pipe() if kind.endswith("pipe") else os.openpty()
    if kind == "terminal after Ctrl-S":
        termios.tcflow(writing, termios.TCOOFF)
    elif kind == "full pipe":
        os.set_blocking(writing, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writing, bytes(4096))
        os.set_blocking(writing, True)
    else:
        os.close(reading)
    try:
        yield writing
    finally:
        os.close(writing)
        with suppress(OSError):  # it was closed before
            os.close(reading)


@contextmanager
def started(
    server: ChatServer, folder: Path, errors: int, *more: str, output: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    words = command_line(server.url, questions(folder / "in.csv", range(ROWS)), folder / "out.csv", *more)
    # a session of its own, so that the end of the terminal is no SIGHUP
    with subprocess.Popen(
        words, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("kind", ["terminal after Ctrl-S", "full pipe", "closed terminal", "closed pipe"])
def test_every_row_is_asked_and_the_end_comes_by_its_rows(tmp_path: Path, kind: str) -> None:
    with ChatServer(every_other_row_is_rejected) as server, screen(kind) as errors:
        with started(server, tmp_path, errors, "-v", "--on-finish", "touch finished") as process:
            assert process.wait(30) == 3
        assert len({seen.prompt for seen in server.log}) == ROWS
    assert (tmp_path / "finished").exists()
    assert (tmp_path / "out.csv.job" / "log.txt").read_text("utf-8").count(LONG[:100]) >= ROWS / 2


@pytest.mark.parametrize("kind", ["terminal after Ctrl-S", "closed pipe"])
def test_a_pilot_ends_although_nobody_reads_its_rows(tmp_path: Path, kind: str) -> None:
    with ChatServer() as server, screen(kind) as both:
        words = ["--sample", "5", "--on-finish", "touch finished"]
        with started(server, tmp_path, both, *words, output=both) as process:
            assert process.wait(30) == 0
    assert (tmp_path / "finished").exists()


@contextmanager
def amid_its_rows(tmp_path: Path, kind: str) -> Iterator["subprocess.Popen[str]"]:
    """A run under `-v` that has asked ten rows, and whose screen nobody reads."""
    with (
        ChatServer(every_other_row_is_rejected, delay_seconds=0.2) as server,
        screen(kind) as errors,
        started(server, tmp_path, errors, "-v", "--concurrency", "2") as process,
    ):
        server.wait_for(10)
        yield process


def test_a_signal_is_obeyed_while_nobody_reads(tmp_path: Path) -> None:
    with amid_its_rows(tmp_path, "full pipe") as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 143


def test_an_order_is_obeyed_while_nobody_reads(tmp_path: Path) -> None:
    with amid_its_rows(tmp_path, "terminal after Ctrl-S") as process:
        said = send_order(tmp_path / "out.csv.job", stop=True, wait_seconds=20)
        assert "nothing more is sent" in said
        assert process.wait(10) == 4
