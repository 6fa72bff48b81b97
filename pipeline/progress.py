"""The bar on a terminal, plain lines elsewhere: what a run tells while it runs, on stderr alone."""

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
from .text import duration, money, printable, short_count

REDRAW_SECONDS = 0.2
LINE_SECONDS = 30.0
LATER_LINE_SECONDS = 300.0
OFTEN_SECONDS = 300.0
"""A plain line every 30 s for the first five minutes, then every five minutes: an eight-hour job is a short mail."""


class Pause(NamedTuple):
    """For how long, and why, nothing leaves just now."""

    seconds: float
    cause: str = ""
    """Empty if the endpoint said so."""


NO_PAUSE = Pause(0.0)


def pause_text(wait: Pause) -> str:
    """`paused 12 s: the endpoint said so`."""
    return f"paused {duration(wait.seconds)}: {wait.cause or 'the endpoint said so'}"


def learned_text(learnt: LearnedLimits | None) -> str:
    """`learnt: 598 requests/min, 41,000 tokens/min, window 24`; empty if nothing was."""
    if learnt is None:
        return ""
    facts = [
        f"{per_minute:,.0f} {what}/min"
        for per_minute, what in (
            (learnt.requests_per_minute, "requests"),
            (_rounded(learnt.tokens_per_minute), "tokens"),
        )
        if per_minute is not None
    ]
    if learnt.window:
        facts.append(f"window {learnt.window:,}")
    return f"learnt: {', '.join(facts)}" if facts else ""


def _rounded(number: float | None) -> float | None:
    """To two digits that matter: a limit for tokens is not known any better."""
    return None if number is None else float(f"{number:.2g}")


class Progress:
    """What a run tells, and how far it is. `show` may be called for every row: it redraws by time."""

    def __init__(
        self,
        log: Path | None = None,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        quiet: bool = False,
    ) -> None:
        """`log`: a file that all that is said is added to, with the time, also when quiet."""
        self._stream = stream if stream is not None else sys.stderr
        self._clock, self._quiet = clock, quiet
        self._log: TextIO | None = None
        with contextlib.suppress(OSError):  # as in `say`
            self._log = _to_add_to(log) if log is not None else None
        self._bar: tqdm[Never] | None = None
        self._total = 0
        self._began = self._next = clock()

    def begin(self, total: int) -> None:
        """So many requests are to be asked now."""
        self._total = total
        self._began = self._next = self._clock()
        if self._quiet or not self._stream.isatty():
            self._next += LINE_SECONDS
        else:
            self._bar = tqdm(
                desc=f"0/{total:,}",
                total=total,
                file=self._stream,
                dynamic_ncols=True,
                bar_format="{percentage:3.0f}%|{bar}| {desc}",  # tqdm's own numbers have no thousands
                leave=False,
                mininterval=0,
            )

    @property
    def is_due(self) -> bool:
        """It is time to tell again how it stands."""
        return self._clock() >= self._next

    def show(self, tally: Tally, wait: Pause = NO_PAUSE, learnt: LearnedLimits | None = None) -> None:
        """Tell how it stands, if it is time; for how long, and why, nothing leaves just now; the endpoint's pace."""
        if not self.is_due:
            return
        now = self._clock()
        rate = tally.rows / (now - self._began) if now > self._began else 0.0
        if self._bar is not None:
            self._next = now + REDRAW_SECONDS
            self._bar.n = tally.rows
            with contextlib.suppress(OSError):  # as in `say`
                self._bar.set_description_str(_facts(self._total, tally, rate, wait, learnt), refresh=True)
        else:
            self._next = now + (LINE_SECONDS if now - self._began < OFTEN_SECONDS else LATER_LINE_SECONDS)
            self.say(_line(self._total, tally, rate, wait, learnt))

    def say(self, text: str) -> None:
        """Lines of their own, above the bar. On the screen only if not quiet."""
        text = printable(text)
        self.note(text)
        if not self._quiet:
            with contextlib.suppress(OSError):  # a terminal that is gone, a full disk under a log: the asking goes on
                tqdm.write(text, file=self._stream)
                self._stream.flush()

    def note(self, text: str) -> None:
        """Lines for the log alone."""
        if self._log is not None:
            with contextlib.suppress(OSError):  # as in `say`
                self._log.write(f"{datetime.now(tz=UTC):%Y-%m-%dT%H:%M:%SZ} {printable(text)}\n")
                self._log.flush()

    @contextlib.contextmanager
    def counting(self, what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Silent work that may be long, of so many rows: the block calls what it is given with each further ones done.

        On a terminal a bar, once a moment has passed; elsewhere a line if it takes longer than 30 s.
        """
        began = self._clock()
        bar: tqdm[Never] | None = None
        if not self._quiet and self._stream.isatty():
            form = "{desc}: {percentage:3.0f}%|{bar}| {n:,}/{total:,} rows" if total else "{desc} …"
            bar = tqdm(desc=what, total=total, file=self._stream, dynamic_ncols=True, bar_format=form, leave=False)
        done, told = 0, False

        def seen(rows: int) -> None:
            nonlocal done, told
            done += rows
            if bar is not None:
                with contextlib.suppress(OSError):  # as in `say`
                    bar.update(rows)
            elif not told and self._clock() >= began + LINE_SECONDS:
                told = True
                self.say(f"{what}: {done:,}/{total or 0:,} rows so far")

        try:
            yield seen
        finally:
            if bar is not None:
                with contextlib.suppress(OSError):  # as in `say`
                    bar.close()

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            with contextlib.suppress(OSError):  # as in `say`
                self._bar.close()
            self._bar = None

    def close(self) -> None:
        """Nothing more will be said."""
        self.end()
        if self._log is not None:
            with contextlib.suppress(OSError):  # as in `say`
                self._log.close()


def _to_add_to(path: Path) -> TextIO:
    return os.fdopen(open_private(path, os.O_WRONLY | os.O_APPEND), "a", encoding="utf-8")


def _facts(total: int, tally: Tally, rate: float, wait: Pause, learnt: LearnedLimits | None) -> str:
    facts = [f"{tally.rows:,}/{total:,}"]
    if tally.unanswered:
        facts.append(f"{tally.unanswered:,} failed")
    facts.append(f"{short_count(tally.tokens)} tokens")
    if tally.cost:
        facts.append(money(tally.cost))
    facts.append(f"{rate:,.1f} rows/s")
    if rate:
        facts.append(f"{duration((total - tally.rows) / rate)} left")
    if wait.seconds:
        facts.append(pause_text(wait))
    if text := learned_text(learnt):
        facts.append(text)
    return " · ".join(facts)


def _line(total: int, tally: Tally, rate: float, wait: Pause, learnt: LearnedLimits | None) -> str:
    facts = [f"{tally.rows:,}/{total:,}", f"failed={tally.unanswered}", f"cost={money(tally.cost)}"]
    if rate:
        facts.append(f"eta={duration((total - tally.rows) / rate).replace(' ', '')}")
    if wait.seconds:
        facts.append(f"waiting={wait.seconds:.0f}s ({wait.cause or 'endpoint asked'})")
    if text := learned_text(learnt):
        facts.append(text)
    return f"{datetime.now(tz=UTC):%Y-%m-%dT%H:%M:%SZ} running {' '.join(facts)}"
