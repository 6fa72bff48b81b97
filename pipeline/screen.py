"""The screen: text for people, written in a thread of its own, so that a terminal that nobody reads holds up nothing.

A terminal after Ctrl-S, a connection that hangs and a pipe that is full make a write wait for ever. To ask first does
not help: `poll` calls a terminal ready that has room for one byte, and a longer write waits all the same. O_NONBLOCK
would be set for the shell and for all others that use the terminal.
"""

import io
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TextIO

HELD_UP_SECONDS = 0.2
"""What has waited for so long to be written shows that nobody reads, or too slowly."""
STILL_SECONDS = 2.0
"""How long the end of a program waits for a screen on which nothing moves any more."""
DRAIN_SECONDS = 10.0
"""How long the end of a program waits for a screen that is read slowly."""
FULL_BYTES = 256 * 1024
"""While this much waits to be written, lines are left out."""
BYTES_MAX = 1024 * 1024
"""While this much waits to be written, new text is dropped."""
PIECE_BYTES = 2048
"""How much is written at once: so little that it shows whether a slow reader still reads."""
PARTS_AT_ONCE = 64
"""How many texts are joined, since a thread that runs beside a busy one has few turns."""
AGAIN_SECONDS = 0.05
"""How long until a write that would have waited is tried again."""
IDLE_SECONDS = 1.0
"""How long the thread waits for more to write before it ends."""


class _Part(NamedTuple):
    data: bytes
    at: float
    """When it came, on the screen's clock."""


class Screen:
    """A text stream whose `write` never waits and never fails, whatever becomes of those who read.

    Only a stream on a file descriptor can hold up its writer: any other, as in a notebook or a test, is written to at
    once, and its errors are raised.
    """

    def __init__(
        self, stream: TextIO | None, *, bytes_max: float = BYTES_MAX, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`stream`: None if the program was started without one (`2>&-`): nothing is shown then.

        `bytes_max`: while this much waits to be written, new text is dropped.
        """
        if stream is None:
            stream = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open until the process ends
        self._stream, self._bytes_max, self._clock = stream, bytes_max, clock
        self._number = _file_number(stream)
        self._parts: deque[_Part] = deque()
        self._waiting_bytes = 0
        self._moved_at = clock()
        self._is_full = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def encoding(self) -> str:
        """The encoding of the stream."""
        return self._stream.encoding or "utf-8"

    @property
    def errors(self) -> str:
        """What becomes of characters that the encoding lacks; never an error."""
        return "replace" if self._stream.errors == "replace" else "backslashreplace"

    @property
    def stream(self) -> TextIO:
        """The stream itself, whose `write` waits."""
        return self._stream

    @property
    def is_held_up(self) -> bool:
        """Whether text has waited for HELD_UP_SECONDS. Then a progress bar, soon out of date, should not be written."""
        with self._changed:
            return bool(self._parts) and self._clock() - self._parts[0].at >= HELD_UP_SECONDS

    @property
    def is_full(self) -> bool:
        """Whether lines should be left out: true from FULL_BYTES that wait until all of them are written."""
        return self._is_full

    def fileno(self) -> int:
        """The stream's file descriptor."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self._stream.isatty()

    def write(self, text: str) -> int:
        """Have a text written as soon as the stream takes it."""
        if self._number is None:
            return self._stream.write(text)
        data = text.encode(self.encoding, self.errors)
        with self._changed:
            if data and self._waiting_bytes < self._bytes_max:
                now = self._clock()
                if not self._parts:
                    self._moved_at = now
                self._parts.append(_Part(data, now))
                self._count(len(data))
                if self._thread is None:
                    # a daemon, since a write that nobody reads must not keep the program from its end
                    self._thread = threading.Thread(target=self._write_parts, name="screen", daemon=True)
                    self._thread.start()
                self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        """Flush a stream without a descriptor; any other is written as soon as it takes something (see `drain`)."""
        if self._number is None:
            self._stream.flush()

    def drain(self, *, for_ever: bool = False) -> None:
        """Wait until all is written; if not `for_ever`, no longer than DRAIN_SECONDS, or until nothing moves any more.

        Nothing moves where nothing was written for STILL_SECONDS.
        """
        with self._changed:
            latest = self._clock() + DRAIN_SECONDS
            while self._parts:
                left = IDLE_SECONDS if for_ever else min(latest, self._moved_at + STILL_SECONDS) - self._clock()
                if left <= 0:
                    return
                self._changed.wait(left)

    def _count(self, more_bytes: int) -> None:
        self._waiting_bytes += more_bytes
        self._is_full = bool(self._waiting_bytes) and (self._is_full or self._waiting_bytes >= FULL_BYTES)

    def _write_parts(self) -> None:
        """Write what waits, in order; ends once there was nothing for IDLE_SECONDS."""
        while True:
            with self._changed:
                if not self._parts:
                    self._changed.wait(IDLE_SECONDS)
                if not self._parts:
                    self._thread = None
                    return
                taken = list(itertools.islice(self._parts, PARTS_AT_ONCE))
            data = b"".join(part.data for part in taken)
            self._write_all(data)
            with self._changed:
                for _ in taken:  # only now: how long the first of them has waited is how long nobody reads
                    self._parts.popleft()
                self._count(-len(data))
                self._changed.notify_all()

    def _write_all(self, data: bytes) -> None:
        # not by way of the stream: Python waits at its end for the lock of a stream that is being written to
        while data:
            try:
                data = data[os.write(self.fileno(), data[:PIECE_BYTES]) :]
            except BlockingIOError:  # another user of the terminal has set O_NONBLOCK
                time.sleep(AGAIN_SECONDS)
            except (OSError, ValueError):  # a closed terminal or stream, a reader that has gone, a full disk
                return
            self._moved_at = self._clock()


def _file_number(stream: TextIO) -> int | None:
    """The file descriptor that a stream writes to; None if it has none, or writes in a way of its own."""
    binary = getattr(stream, "buffer", None)
    if isinstance(getattr(binary, "raw", binary), io.FileIO):
        return stream.fileno()
    return None
