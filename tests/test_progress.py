"""What a run tells: short numbers, lines that a mail can hold, a bar that leaves nothing behind."""

import fcntl
import io
import os
import re
import struct
import termios
import threading
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TextIO

import pytest

from pipeline.progress import NO_PAUSE, Pause, Progress, learned_text, pause_text
from pipeline.records import LearnedLimits, Tally, Usage

HALF = Tally(ok=1_807, failed=3, usage=Usage(800_000, 100_000), cost=0.86)


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Terminal:
    """A terminal of so many columns, and all that was written to it."""

    def __init__(self, columns: int) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.stream: TextIO = os.fdopen(slave, "w", encoding="utf-8")
        self._written = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                part = os.read(self._master, 65536)
            except OSError:  # the other end is closed
                return
            if not part:
                return
            self._written += part

    def close(self) -> str:
        if not self.stream.closed:
            self.stream.close()
            self._reader.join()
            os.close(self._master)
        return self._written.decode()


@contextmanager
def terminal(columns: int) -> Iterator[Terminal]:
    opened = Terminal(columns)
    try:
        yield opened
    finally:
        opened.close()


def screen_of(written: str) -> str:
    """What a person sees at the end: a carriage return goes back, what follows is written over what was there."""
    seen = []
    for line in written.replace("\r\n", "\n").split("\n"):
        cells: list[str] = []
        for part in line.split("\r"):
            cells[: len(part)] = list(part)
        seen.append("".join(cells).rstrip())
    return "\n".join(seen).rstrip("\n")


def columns_of(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def test_plain_lines_come_every_30_seconds_for_five_minutes_then_every_five_minutes() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream=stream, clock=clock)
    progress.begin(28_800)
    told = []
    for second in range(8 * 3600):
        clock.now = 1_000.0 + second
        before = stream.tell()
        progress.show(Tally(ok=second))
        if stream.tell() > before:
            told.append(second)
    progress.end()
    assert told[:12] == [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 600, 900]
    assert {later - earlier for earlier, later in pairwise(told[10:])} == {300}
    assert len(told) == len(stream.getvalue().splitlines()) < 120
    assert "\r" not in stream.getvalue()


def test_a_plain_line_tells_how_it_stands_and_why_nothing_leaves() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream=stream, clock=clock)
    progress.begin(4_415)
    clock.now += 600
    progress.show(HALF, Pause(12.0, "endpoint asked"))
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    line = r"running 1,810/4,415 failed=3 cost=\$0\.86 eta=14min waiting=12s \(endpoint asked\)\n"
    assert re.fullmatch(f"{time} {line}", stream.getvalue())


@pytest.mark.parametrize(
    ("learnt", "text"),
    [
        (LearnedLimits(598.4, 41_234.0, 24), "learned: 598 requests/min, 41,000 tokens/min, window 24"),
        (LearnedLimits(598.4, None, 1_024), "learned: 598 requests/min, window 1,024"),
        (LearnedLimits(None, None, 24), "learned: window 24"),
        (LearnedLimits(), ""),
        (None, ""),
    ],
)
def test_what_was_learnt_is_told_in_its_units(learnt: LearnedLimits | None, text: str) -> None:
    assert learned_text(learnt) == text


def test_a_pause_is_told_with_its_cause() -> None:
    assert pause_text(Pause(12.0)) == "paused 12 s: the endpoint asked to wait"
    assert pause_text(Pause(60.0, "after HTTP 503")) == "paused 60 s: after HTTP 503"


def test_bar_and_plain_line_tell_the_pause_and_what_was_learnt() -> None:
    learnt = LearnedLimits(598.4, 41_234.0, 24)
    clock, stream = Clock(), io.StringIO()
    with terminal(200) as tty:
        for progress in (Progress(stream=tty.stream, clock=clock), Progress(stream=stream, clock=clock)):
            progress.begin(4_415)
            clock.now += 600
            progress.show(HALF, Pause(12.0), learnt)
            progress.end()
        written = tty.close()
    told = "learned: 598 requests/min, 41,000 tokens/min, window 24"
    assert f"paused 12 s: the endpoint asked to wait · {told}" in written
    assert stream.getvalue().endswith(f"waiting=12s (endpoint asked) {told}\n")


def test_before_the_first_row_no_end_is_promised() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream=stream, clock=clock)
    progress.begin(10)
    clock.now += 31
    progress.show(Tally())
    assert "running 0/10 failed=0" in stream.getvalue()
    assert "eta" not in stream.getvalue()


def test_a_terminal_has_a_bar_with_the_numbers_and_at_the_end_none() -> None:
    clock = Clock()
    with terminal(120) as tty:
        progress = Progress(stream=tty.stream, clock=clock)
        progress.say("4,415 rows")
        progress.begin(4_415)
        clock.now += 600
        progress.show(HALF)
        progress.say("a line above the bar")
        progress.end()
        progress.close()
        written = tty.close()
    bar = next(part for part in written.split("\r") if "1,810" in part)
    assert bar.startswith(" 41%|█")
    assert "| 1,810/4,415 · 3 failed · 0.9M tokens · $0.86 · 3.0 rows/s · 14 min left" in bar
    assert screen_of(written) == "4,415 rows\na line above the bar"


def drawn(columns: int, wait: Pause) -> str:
    """All that one bar writes to a terminal, from its beginning to its end."""
    clock = Clock()
    with terminal(columns) as tty:
        progress = Progress(stream=tty.stream, clock=clock)
        progress.begin(4_415)
        clock.now += 600
        progress.show(HALF, wait)
        progress.end()
        return tty.close()


def test_the_bar_is_redrawn_by_time_however_often_it_is_shown() -> None:
    clock = Clock()
    with terminal(100) as tty:
        progress = Progress(stream=tty.stream, clock=clock)
        progress.begin(10_000)
        for row in range(10_000):
            clock.now += 0.001
            progress.show(Tally(ok=row))
        progress.close()
        written = tty.close()
    assert 40 <= written.count(" rows/s") <= 60


@pytest.mark.parametrize("columns", [5, 10, 20, 40])
def test_a_narrow_terminal_is_never_wrapped(columns: int) -> None:
    written = drawn(columns, Pause(12.0, "endpoint asked"))
    assert max(columns_of(part) for part in re.split(r"[\r\n]", written)) <= columns
    assert screen_of(written) == ""


def test_a_terminal_that_does_not_tell_its_width_has_a_bar_all_the_same() -> None:
    written = drawn(0, NO_PAUSE)
    assert "0.9M tokens" in written
    assert screen_of(written) == ""


def test_quiet_is_silent_and_the_log_has_it_all(tmp_path: Path) -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(tmp_path / "log.txt", stream=stream, clock=clock, quiet=True)
    progress.say("a plan")
    progress.begin(10)
    clock.now += 31
    progress.show(Tally(ok=3))
    progress.note("a refusal")
    progress.end()
    progress.close()
    assert stream.getvalue() == ""
    log = (tmp_path / "log.txt").read_text("utf-8")
    assert re.search(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ a plan$", log, re.MULTILINE)
    assert "running 3/10" in log
    assert "a refusal" in log


def test_quiet_on_a_terminal_draws_no_bar(tmp_path: Path) -> None:
    clock = Clock()
    with terminal(80) as tty:
        progress = Progress(tmp_path / "log.txt", stream=tty.stream, clock=clock, quiet=True)
        progress.begin(10)
        progress.show(Tally())
        clock.now += 31
        progress.show(Tally(ok=3))
        progress.close()
        assert tty.close() == ""
    assert (tmp_path / "log.txt").read_text("utf-8").count("running") == 1


def test_the_log_is_private_and_added_to_and_holds_what_was_said(tmp_path: Path) -> None:
    for text in ("first run", "second\x1b[2J run"):
        progress = Progress(tmp_path / "log.txt", stream=io.StringIO())
        progress.say(text)
        progress.close()
    assert (tmp_path / "log.txt").stat().st_mode & 0o777 == 0o600
    lines = (tmp_path / "log.txt").read_text("utf-8").splitlines()
    assert [line.partition(" ")[2] for line in lines] == ["first run", "second� run"]


def test_a_reader_that_has_gone_and_a_full_disk_do_not_stop_the_asking() -> None:
    clock = Clock()
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w", encoding="utf-8")
    os.close(reading)
    progress = Progress(Path("/dev/full"), stream=stream, clock=clock)
    progress.begin(10)
    clock.now += 31
    progress.show(Tally(ok=3))
    progress.say("still going")
    progress.note("for the log")
    progress.end()
    progress.close()
    stream.close()  # nothing is left in it that its end would have to write


def test_a_terminal_that_has_gone_does_not_stop_the_asking() -> None:
    clock = Clock()
    master, slave = os.openpty()
    with os.fdopen(slave, "w", encoding="utf-8") as stream:
        progress = Progress(stream=stream, clock=clock)
        progress.begin(10)
        os.close(master)
        clock.now += 31
        progress.show(Tally(ok=3))
        progress.say("still going")
        progress.close()


def test_a_mail_of_eight_hours_of_lines_stays_under_120(tmp_path: Path) -> None:
    clock, mail = Clock(), io.StringIO()
    progress = Progress(tmp_path / "log.txt", stream=mail, clock=clock)
    progress.say("the plan")
    with progress.counting("planning", 200_000) as seen:
        for _ in range(100):
            clock.now += 1
            seen(2000)
    progress.begin(200_000)
    for _ in range(8 * 3600 // 2):
        clock.now += 2
        progress.show(HALF)
    progress.say("the end\nin two lines")
    progress.close()
    lines = mail.getvalue().splitlines()
    assert 100 < len(lines) < 120
    assert lines[1] == "planning: 60,000/200,000 rows so far"


def test_quick_work_is_not_worth_a_line_and_quiet_says_nothing() -> None:
    clock, said = Clock(), io.StringIO()
    with Progress(stream=said, clock=clock).counting("planning", 10) as seen:
        clock.now += 5
        seen(10)
    with Progress(stream=said, clock=clock, quiet=True).counting("planning", 10) as seen:
        clock.now += 500
        seen(10)
    assert said.getvalue() == ""


def test_silent_work_has_a_bar_on_a_terminal_without_colour_that_leaves_nothing_behind() -> None:
    with terminal(60) as screen:
        with Progress(stream=screen.stream).counting("planning", 1000) as seen:
            time.sleep(0.15)
            seen(500)
        with pytest.raises(KeyboardInterrupt), Progress(stream=screen.stream).counting("reading the input"):
            raise KeyboardInterrupt
        written = screen.close()
    assert "planning:  50%|" in written
    assert "500/1,000 rows" in written
    assert "reading the input" in written
    assert "\x1b[3" not in written
    assert screen_of(written).strip() == ""
