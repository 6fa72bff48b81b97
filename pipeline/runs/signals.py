"""Signals and the run-time limit: the first one stops the sending and drains, the second waits for nothing.

SIGINT (Ctrl-C) stops a run even where it is inherited as ignored, as by a process that a script starts with `&`: there
is no gentler way to stop such a run. SIGHUP does not where it is ignored: that is what nohup is for.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Never

from ..execution import DRAIN_SECONDS, LocalContext
from ..job import duration_seconds
from ..records import Exit, Stopped

STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""The signals that stop a run. Its exit code is then 128 and the signal's number, as in a shell."""
SIGNAL_NAMES = {"SIGINT": "SIGINT (Ctrl-C)"}
"""How a signal is called on the screen, where people know it by another name."""
NOT_MAIN_THREAD = (ValueError, NotImplementedError, RuntimeError)
"""What Python raises where signal handlers cannot be set: in another thread than the main one, and on Windows."""


@contextlib.contextmanager
def stop_on_signals(context: LocalContext, max_runtime: str | None, began: float) -> Iterator[None]:
    """In a running event loop: a stop signal, or the end of the run time, stops the sending; replies may still come.

    A second signal aborts the drain. `max_runtime`: such as `7h30m`, counted from `began` (monotonic seconds); None for
    no limit.
    """
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if context.stopping is not None:
            context.abort_drain()
            return
        context.say(
            f"{number.name}: nothing more is sent. Waiting up to {DRAIN_SECONDS:.0f} s for requests in flight. "
            "Press Ctrl-C again to stop at once."
        )
        context.stop(Stopped(f"Stopped by {SIGNAL_NAMES.get(number.name, number.name)}.", Exit(128 + number)))

    before = {number: signal.getsignal(number) for number in STOP_SIGNALS if not _is_meant_to_be_survived(number)}
    with contextlib.suppress(*NOT_MAIN_THREAD):
        for number in before:
            loop.add_signal_handler(number, on_signal, number)
    timer = None
    if max_runtime is not None:
        reached = Stopped(f"The time limit is reached (limits.max_runtime of {max_runtime}).", Exit.AT_LIMIT)
        left_seconds = duration_seconds(max_runtime) - (time.monotonic() - began)
        timer = loop.call_later(max(0.0, left_seconds), context.stop, reached)
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
        by_signal = context.stopping is not None and context.stopping.exit_code > 128
        with contextlib.suppress(*NOT_MAIN_THREAD):
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                # another Ctrl-C must not interrupt the summary; `signal_handlers_kept` restores all handlers later
                signal.signal(number, signal.SIG_IGN if by_signal else handler)


@contextlib.contextmanager
def signal_handlers_kept() -> Iterator[None]:
    """Restore the handlers of all stop signals when the block ends."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        # ValueError: another thread than the main one; TypeError: a handler that was not set by Python
        with contextlib.suppress(ValueError, TypeError):
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def signals_raised() -> Iterator[Callable[[], None]]:
    """While rows are planned or written, raise a stop signal as Stopped where it arrives, so that everything is closed.

    Yields a function to call once the run is over: further signals are then ignored, and the summary can be printed.
    For the main thread of a program alone.
    """

    def stop(number: int, _frame: object) -> Never:
        raise Stopped(
            f"{signal.Signals(number).name} came. Every answer so far is kept; the same line goes on from here.",
            Exit(128 + number),
        )

    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS if not _is_meant_to_be_survived(number)}

    def ignore_more() -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)

    try:
        yield ignore_more
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_meant_to_be_survived(number: signal.Signals) -> bool:
    return number.name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN
