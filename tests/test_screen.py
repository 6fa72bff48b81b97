"""Text for people is written in a thread: who writes is never held up, and who reads gets it in its order."""

import io
import os
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

import pytest

from pipeline.progress import Progress
from pipeline.records import Tally
from pipeline.screen import BYTES_MAX, FULL_BYTES, STILL_SECONDS, Screen

LINES = [f"line {number:05d}\n" for number in range(30_000)]


class Unread:
    """A stream that nobody reads: a terminal, one after Ctrl-S, or a pipe. `read` is the beginning of its reading."""

    def __init__(self, kind: str) -> None:
        self._reading, writing = os.pipe() if kind == "pipe" else os.openpty()
        self.stream: TextIO = os.fdopen(writing, "w", encoding="utf-8")
        self._is_stopped = kind == "terminal after Ctrl-S"
        if self._is_stopped:
            termios.tcflow(writing, termios.TCOOFF)

    def read(self, until: str) -> str:
        if self._is_stopped:
            termios.tcflow(self.stream.fileno(), termios.TCOON)
        text = ""
        while until not in text:
            text += os.read(self._reading, 65536).decode().replace("\r", "")
        return text

    def close(self) -> None:
        os.close(self._reading)
        self.stream.close()


@contextmanager
def unread(kind: str) -> Iterator[Unread]:
    opened = Unread(kind)
    try:
        yield opened
    finally:
        opened.close()


def seconds_of(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("kind", ["terminal", "terminal after Ctrl-S", "pipe"])
def test_who_writes_is_not_held_up_and_who_reads_later_gets_it_in_order(kind: str) -> None:
    with unread(kind) as unread_stream:
        screen = Screen(unread_stream.stream)
        assert seconds_of(lambda: [screen.write(line) for line in LINES]) < 2
        assert screen.is_full
        until(lambda: screen.is_held_up)
        assert unread_stream.read(until=LINES[-1]) == "".join(LINES)
        screen.drain()
        assert not screen.is_full
        assert not screen.is_held_up


def test_what_waits_to_be_written_is_bounded() -> None:
    line = "x" * 999 + "\n"
    with unread("pipe") as unread_stream:
        screen = Screen(unread_stream.stream)
        for _ in range(3 * BYTES_MAX // len(line)):
            screen.write(line)
        told: list[str] = []
        reading = threading.Thread(target=lambda: told.append(unread_stream.read(until="the end")))
        reading.start()
        screen.drain()
        screen.write("the end")
        reading.join()
        assert BYTES_MAX < len(told[0]) < BYTES_MAX + 100_000


def test_the_end_waits_for_a_slow_reader_and_not_for_one_that_reads_no_more() -> None:
    with unread("pipe") as unread_stream:
        screen = Screen(unread_stream.stream)
        for line in LINES:
            screen.write(line)
        slow = threading.Timer(STILL_SECONDS / 4, unread_stream.read, [LINES[-1]])
        slow.start()
        assert seconds_of(screen.drain) < STILL_SECONDS
        slow.join()
        for line in LINES:
            screen.write(line)
        assert STILL_SECONDS / 2 < seconds_of(screen.drain) < STILL_SECONDS + 2
        assert seconds_of(screen.drain) < 0.1


def test_a_stream_that_refuses_to_wait_is_tried_again() -> None:
    with unread("pipe") as unread_stream:
        os.set_blocking(unread_stream.stream.fileno(), False)
        screen = Screen(unread_stream.stream)
        for line in LINES:
            screen.write(line)
        assert unread_stream.read(until=LINES[-1]) == "".join(LINES)
        screen.drain()


def test_characters_that_the_encoding_lacks_are_told_by_their_number() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", encoding="ascii", errors="strict") as stream, ExitStack() as at_end:
        at_end.callback(os.close, reading)
        screen = Screen(stream)
        screen.write("5 rows → m")
        screen.drain()
        assert os.read(reading, 100) == b"5 rows \\u2192 m"


def test_a_stream_without_a_descriptor_is_written_to_at_once() -> None:
    stream = io.StringIO()
    Screen(stream).write("now")
    assert stream.getvalue() == "now"


def test_a_program_without_a_screen_shows_nothing() -> None:
    screen = Screen(None)
    screen.write("nobody sees this")
    screen.drain()
    screen.stream.close()


def test_lines_that_found_no_room_are_counted_and_stand_in_the_log(tmp_path: Path) -> None:
    log, lines = tmp_path / "log.txt", 4_000
    told: list[str] = []
    with unread("terminal") as unread_stream:
        progress = Progress(log, stream=unread_stream.stream)
        progress.begin(lines)
        for number in range(lines):
            progress.say(f"line {number:05d} {'x' * 100}")
        reading = threading.Thread(target=lambda: told.append(unread_stream.read(until=f"they are in {log}.\n")))
        reading.start()
        while reading.is_alive():
            progress.show(Tally(ok=lines))
            reading.join(0.05)
        progress.close()
    assert log.read_text("utf-8").count("line ") == lines
    shown = told[0].count("line ")
    assert FULL_BYTES / 500 < shown < lines
    assert f"{lines - shown:,} lines were not shown, since nobody read them; they are in {log}." in told[0]
