"""One process from start to exit: its seconds, its CPU, its peak memory, and the core it runs on.

For Linux and macOS: the figures are those of wait4.
"""

import multiprocessing
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Measured:
    """One process from start to exit."""

    seconds: float
    cpu_seconds: float  # user and system, of all its threads
    peak_bytes: int


def measure(command: Sequence[str], log: Path, seconds_max: float) -> Measured:
    """Run it to its end; what it says goes to `log`, and is shown if it fails."""
    with log.open("wb") as said:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        watchdog = threading.Timer(seconds_max, process.kill)
        watchdog.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)  # the one that tells what this child alone used
            seconds = time.perf_counter() - began
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            watchdog.cancel()
            if process.returncode is None:
                process.kill()
                process.wait()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {process.returncode}:\n{log.read_text('utf-8', 'replace')}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Measured(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def apart(function: Callable[..., None], *arguments: object) -> None:
    """Call it in a fresh process: Linux counts a parent's peak memory as its child's, so this one stays small."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(function, *arguments).result()


def cores() -> tuple[set[int], set[int]] | None:
    """The client's and the server's, where there are two and the system lets a process choose."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    free = sorted(os.sched_getaffinity(0))
    return ({free[0]}, {free[1]}) if len(free) > 1 else None


def pin(own: set[int] | None) -> None:
    """Bind this process, and so all that it starts from now on."""
    if own is not None:
        os.sched_setaffinity(0, own)


def allow_connections(count: int) -> None:
    """So many in each process that is started from now on, and some files beside them."""
    wanted = count + 512
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise SystemExit(f"{count:,} at once need {wanted:,} open files, and {hard:,} are allowed: see ulimit -n.")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def children_cpu_seconds() -> float:
    """What all processes used that this one started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
