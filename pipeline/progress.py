"""A run's progress on stderr: a bar on a terminal, plain lines elsewhere; and the run's log file."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Never, TextIO

from tqdm import tqdm

from .files import open_private
from .records import LearnedLimits, Tally
from .screen import Screen
from .text import duration, money, printable, short_count

REDRAW_SECONDS = 0.2
"""How often the bar is redrawn."""
LINE_SECONDS, LATER_LINE_SECONDS = 30.0, 300.0
"""How often a plain line is written, in the first OFTEN_SECONDS of a run and later: a night is then a short mail."""
OFTEN_SECONDS = 300.0
"""How long plain lines come every LINE_SECONDS."""


class Pause(NamedTuple):
    """How long nothing is sent, and why."""

    seconds: float
    cause: str = ""
    """Empty if the endpoint asked for it."""


NO_PAUSE = Pause(0.0)


def pause_text(pause: Pause) -> str:
    """`paused 12 s: the endpoint asked to wait`."""
    return f"paused {duration(pause.seconds)}: {pause.cause or 'the endpoint asked to wait'}"


def learned_text(learned: LearnedLimits | None) -> str:
    """`learned: 598 requests/min, 41,000 tokens/min, window 24`; empty if no limit was learned."""
    if learned is None:
        return ""
    facts = [
        f"{per_minute:,.0f} {what}/min"
        for per_minute, what in (
            (learned.requests_per_minute, "requests"),
            (_rounded(learned.tokens_per_minute), "tokens"),
        )
        if per_minute is not None
    ]
    if learned.window:
        facts.append(f"window {learned.window:,}")
    return f"learned: {', '.join(facts)}" if facts else ""


def _rounded(number: float | None) -> float | None:
    """Round to two significant digits: token limits are not known more exactly."""
    return None if number is None else float(f"{number:.2g}")


class Progress:
    """The progress of a run. `show` may be called for every row: it redraws by time.

    Nothing here waits for a terminal that nobody reads: its bar stands still, and lines that find no room are left out,
    counted, and stand in the log.
    """

    def __init__(
        self,
        log: Path | None = None,
        *,
        stream: TextIO | Screen | None = None,
        clock: Callable[[], float] = time.monotonic,
        quiet: bool = False,
    ) -> None:
        """`log`: a file to append every line to, with the time, also when quiet."""
        stream = stream if stream is not None else sys.stderr
        self._screen = stream if isinstance(stream, Screen) else Screen(stream)
        self._clock, self._quiet = clock, quiet
        self._unshown_lines = 0
        self._log_path = log
        self._log: TextIO | None = None
        with contextlib.suppress(OSError):  # as in `say`
            self._log = _to_add_to(log) if log is not None else None
        self._bar: tqdm[Never] | None = None
        self._total = 0
        self._began = self._next = clock()

    def begin(self, total: int) -> None:
        """Start the bar for this number of requests."""
        self._total = total
        self._began = self._next = self._clock()
        if self._quiet or not self._screen.isatty():
            self._next += LINE_SECONDS
        else:
            self._bar = tqdm(
                desc=f"0/{total:,}",
                total=total,
                file=self._screen,
                dynamic_ncols=True,
                bar_format="{percentage:3.0f}%|{bar}| {desc}",  # tqdm's own numbers have no thousands
                leave=False,
                mininterval=0,
            )

    @property
    def is_due(self) -> bool:
        """Whether the bar, or the next plain line, is due."""
        return self._clock() >= self._next

    def show(self, tally: Tally, pause: Pause = NO_PAUSE, learned: LearnedLimits | None = None) -> None:
        """Show the tally, a pause and the learned limits, if that is due."""
        if not self.is_due:
            return
        now = self._clock()
        rate = tally.rows / (now - self._began) if now > self._began else 0.0
        self._say_what_was_not_shown()
        if self._bar is not None:
            self._next = now + REDRAW_SECONDS
            if self._screen.is_held_up:
                return
            self._bar.n = tally.rows
            with contextlib.suppress(OSError):  # as in `say`
                self._bar.set_description_str(_facts(self._total, tally, rate, pause, learned), refresh=True)
        else:
            self._next = now + (LINE_SECONDS if now - self._began < OFTEN_SECONDS else LATER_LINE_SECONDS)
            self.say(_line(self._total, tally, rate, pause, learned))

    def say(self, text: str) -> None:
        """Write lines above the bar, and to the log; only to the log if quiet."""
        text = printable(text)
        self.note(text)
        if self._quiet:
            return
        self._say_what_was_not_shown()
        if self._screen.is_full:
            self._unshown_lines += text.count("\n") + 1
        else:
            self._write(text)

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a closed terminal or a full disk does not stop the run
            tqdm.write(text, file=self._screen)
            self._screen.flush()

    def _say_what_was_not_shown(self) -> None:
        """Once there is room again, say how many lines were left out."""
        if self._unshown_lines and not self._screen.is_full:
            where = "" if self._log is None else f"; they are in {self._log_path}"
            self._write(f"{self._unshown_lines:,} lines were not shown, since nobody read them{where}.")
            self._unshown_lines = 0

    def note(self, text: str) -> None:
        """Write lines to the log alone."""
        if self._log is not None:
            with contextlib.suppress(OSError):  # as in `say`
                self._log.write(f"{datetime.now(tz=UTC):%Y-%m-%dT%H:%M:%SZ} {printable(text)}\n")
                self._log.flush()

    @contextlib.contextmanager
    def counting(self, what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Show the progress of work that sends nothing, such as reading; yields a function to call with each rows done.

        On a terminal a bar; elsewhere a line if the work takes longer than LINE_SECONDS. `total`: the number of rows.
        """
        began = self._clock()
        bar: tqdm[Never] | None = None
        if not self._quiet and self._screen.isatty():
            form = "{desc}: {percentage:3.0f}%|{bar}| {n:,}/{total:,} rows" if total else "{desc} …"
            bar = tqdm(desc=what, total=total, file=self._screen, dynamic_ncols=True, bar_format=form, leave=False)
        done, is_reported = 0, False

        def seen(rows: int) -> None:
            nonlocal done, is_reported
            done += rows
            if bar is not None:
                if self._screen.is_held_up:
                    bar.n = done
                    return
                with contextlib.suppress(OSError):  # as in `say`
                    bar.update(rows)
            elif not is_reported and self._clock() >= began + LINE_SECONDS:
                is_reported = True
                self.say(f"{what}: {done:,}/{total or 0:,} rows so far")

        try:
            yield seen
        finally:
            if bar is not None:
                with contextlib.suppress(OSError):  # as in `say`
                    bar.close()
                self._screen.drain()

    def end(self) -> None:
        """Remove the bar; returns once that is shown, if somebody reads."""
        if self._bar is not None:
            with contextlib.suppress(OSError):  # as in `say`
                self._bar.close()
            self._bar = None
        self._screen.drain()
        self._say_what_was_not_shown()
        self._screen.drain()

    def close(self) -> None:
        """Remove the bar and close the log."""
        self.end()
        if self._log is not None:
            with contextlib.suppress(OSError):  # as in `say`
                self._log.close()


def _to_add_to(path: Path) -> TextIO:
    return os.fdopen(open_private(path, os.O_WRONLY | os.O_APPEND), "a", encoding="utf-8")


def _facts(total: int, tally: Tally, rate: float, pause: Pause, learned: LearnedLimits | None) -> str:
    facts = [f"{tally.rows:,}/{total:,}"]
    if tally.unanswered:
        facts.append(f"{tally.unanswered:,} failed")
    facts.append(f"{short_count(tally.tokens)} tokens")
    if tally.cost:
        facts.append(money(tally.cost))
    facts.append(f"{rate:,.1f} rows/s")
    if rate:
        facts.append(f"{duration((total - tally.rows) / rate)} left")
    if pause.seconds:
        facts.append(pause_text(pause))
    if text := learned_text(learned):
        facts.append(text)
    return " · ".join(facts)


def _line(total: int, tally: Tally, rate: float, pause: Pause, learned: LearnedLimits | None) -> str:
    facts = [f"{tally.rows:,}/{total:,}", f"failed={tally.unanswered}", f"cost={money(tally.cost)}"]
    if rate:
        facts.append(f"eta={duration((total - tally.rows) / rate).replace(' ', '')}")
    if pause.seconds:
        facts.append(f"waiting={pause.seconds:.0f}s ({pause.cause or 'endpoint asked'})")
    if text := learned_text(learned):
        facts.append(text)
    return f"{datetime.now(tz=UTC):%Y-%m-%dT%H:%M:%SZ} running {' '.join(facts)}"
