"""What a row costs beside the endpoint's own time: `pipeline run` against the least that could ask the same.

    python tests/benchmarks/run_overhead.py [--rows 10000 100000] [--concurrency 64 256 1024] [--delay-ms 0 50 1000]

Both are processes of their own, run by turns on the first core against tests/chat_server.py on the second, and told
from start to exit: interpreter, imports, reading and writing included. Every answer is checked; no time is. The least
is a plain asyncio loop that keeps nothing on disk, over httpx with one client a slot, and over raw aiohttp where that
is installed. A re-run is the same command again when every row is answered: what a resume costs before it asks.
For Linux and macOS: the figures are those of wait4.
"""

import argparse
import asyncio
import multiprocessing
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chat_server import answer_to, chat_process

MODEL = "test-model"
TEMPLATE = "Answer in one word. {{ question }}"
QUESTION_CHARACTERS = 100
WORDS = ("river", "clock", "letter", "harvest", "lantern", "orchard", "quarrel", "winter")

PROGRAM, RE_RUN = "pipeline run", "pipeline run again, all answered"
SLOWEST_ROWS_PER_SECOND = 40
"""A process slower than this hangs, and is killed."""


@dataclass(frozen=True)
class Measured:
    """One process from start to exit."""

    seconds: float
    cpu_seconds: float  # user and system, of all its threads
    peak_bytes: int


@dataclass(frozen=True)
class Setting:
    """What all runs over one table share."""

    url: str
    concurrency: int
    rows: int
    folder: Path

    @property
    def table(self) -> Path:
        return self.folder / "table.parquet"

    @property
    def prompts(self) -> Path:
        return self.folder / "prompts.txt"


# ---- the table, and whether the answers are right: in processes of their own, see `apart`


def questions(rows: int) -> Iterator[str]:
    """About 100 characters each, no two the same, the same ones every time."""
    chance = random.Random(rows)
    for number in range(rows):
        text = f"Question {number}:"
        while len(text) < QUESTION_CHARACTERS - 4:
            text += " " + chance.choice(WORDS)
        yield text + "?"


def prompt_of(question: str) -> str:
    return TEMPLATE.replace("{{ question }}", question)


def write_inputs(table: Path, prompts: Path, rows: int) -> None:
    import polars as pl  # noqa: PLC0415 - see `apart`

    asked = list(questions(rows))
    pl.DataFrame({"id": range(rows), "question": asked}).write_parquet(table)
    prompts.write_text("".join(prompt_of(question) + "\n" for question in asked), "utf-8")


def check_program(table: Path, output: Path) -> None:
    """Every row of the input in its place, with the one right answer, asked once."""
    import polars as pl  # noqa: PLC0415 - see `apart`

    given, written = pl.read_parquet(table), pl.read_parquet(output)
    if not written.select(given.columns).equals(given):
        raise SystemExit(f"{output}: its rows are not those of the input.")
    check_answers(given["question"], written["answer"])
    ends = set(written.select("status", "attempts").rows())
    if ends != {("ok", 1)}:
        raise SystemExit(f"{output}: not every row is ok at the first attempt: {ends}")


def check_unchanged(before: Path, after: Path) -> None:
    """The same to the last cell, the time of asking among them: nothing was asked again."""
    import polars as pl  # noqa: PLC0415 - see `apart`

    if not pl.read_parquet(before).equals(pl.read_parquet(after)):
        raise SystemExit(f"{after}: the re-run wrote another table.")


def check_bare(rows: int, answers: Path) -> None:
    check_answers(questions(rows), answers.read_text("utf-8").splitlines())


def check_answers(asked: Iterable[str], answers: Iterable[str]) -> None:
    for question, answer in zip(asked, answers, strict=True):
        if answer != answer_to(prompt_of(question)):
            raise SystemExit(f"{question!r} was answered {answer!r}.")


def apart(function: Callable[..., None], *arguments: object) -> None:
    """Call it in a fresh process: Linux counts a parent's peak memory as its child's, so this one stays small."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(function, *arguments).result()


# ---- the least that could ask


def body_of(prompt: str) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}]}


def text_of(document: Any) -> str:
    text: str = document["choices"][0]["message"]["content"]
    return text


async def ask_with_httpx(url: str, prompts: Sequence[str], concurrency: int) -> list[str]:
    """One client a slot: a pool shared by many scans all its connections for every request."""
    import httpx  # noqa: PLC0415 - a child imports what it measures alone

    answers, unasked = [""] * len(prompts), iter(enumerate(prompts))
    tls, one = httpx.create_ssl_context(), httpx.Limits(max_connections=1)

    async def slot() -> None:
        async with httpx.AsyncClient(verify=tls, limits=one, timeout=60) as client:
            for number, prompt in unasked:
                response = await client.post(url, json=body_of(prompt))
                answers[number] = text_of(response.json())

    await asyncio.gather(*(slot() for _ in range(concurrency)))
    return answers


async def ask_with_aiohttp(url: str, prompts: Sequence[str], concurrency: int) -> list[str]:
    import aiohttp  # noqa: PLC0415 - may not be installed

    answers, unasked = [""] * len(prompts), iter(enumerate(prompts))

    async def slot(session: Any) -> None:
        for number, prompt in unasked:
            async with session.post(url, json=body_of(prompt)) as response:
                answers[number] = text_of(await response.json())

    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as session:
        await asyncio.gather(*(slot(session) for _ in range(concurrency)))
    return answers


BARE = {"httpx": ask_with_httpx, "aiohttp": ask_with_aiohttp}


def bare(library: str, url: str, prompts: str, concurrency: str, answers: str) -> None:
    """What a measured child does: ask each line of a file, then write the answers, one a line."""
    asked = Path(prompts).read_text("utf-8").splitlines()
    found = asyncio.run(BARE[library](f"{url}/chat/completions", asked, int(concurrency)))
    Path(answers).write_text("".join(answer + "\n" for answer in found), "utf-8")


# ---- measuring


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


def measure_program(setting: Setting, number: int) -> dict[str, Measured]:
    """A run into a new job folder, and the same command again."""
    folder = setting.folder / f"program-{number}"
    folder.mkdir()
    output, first = folder / "output.parquet", folder / "first.parquet"
    command = [sys.executable, "-m", "pipeline", "run", str(setting.table), "-o", str(output), "-q"]
    command += ["-p", TEMPLATE, "-m", MODEL, "--base-url", setting.url, "--concurrency", str(setting.concurrency)]
    ran = measure(command, folder / "run.txt", seconds_max(setting.rows))
    apart(check_program, setting.table, output)
    output.rename(first)
    again = measure(command, folder / "again.txt", seconds_max(setting.rows))
    apart(check_unchanged, first, output)
    return {PROGRAM: ran, RE_RUN: again}


def measure_bare(setting: Setting, number: int, library: str) -> dict[str, Measured]:
    answers, log = (setting.folder / f"{library}-{number}.{suffix}" for suffix in ("answers", "log"))
    command = [sys.executable, __file__, "bare", library, setting.url, str(setting.prompts)]
    ran = measure([*command, str(setting.concurrency), str(answers)], log, seconds_max(setting.rows))
    apart(check_bare, setting.rows, answers)
    return {f"bare {library}": ran}


def measure_all(setting: Setting, repeats: int) -> Iterator[dict[str, Measured]]:
    """A round each: every contender once, the first of one round last in the next."""
    apart(write_inputs, setting.table, setting.prompts, setting.rows)
    for number in range(repeats):
        turns = [partial(measure_program, setting, number)]
        turns += [partial(measure_bare, setting, number, library) for library in libraries()]
        found: dict[str, Measured] = {}
        for turn in turns[number % len(turns) :] + turns[: number % len(turns)]:
            took = turn()
            told = ", ".join(f"{name} {measured.seconds:.1f} s" for name, measured in took.items())
            print(f"{setting.rows:,} rows, round {number + 1} of {repeats}: {told}", file=sys.stderr)
            found |= took
        yield found


def libraries() -> list[str]:
    return [name for name in BARE if find_spec(name)]


def seconds_max(rows: int) -> float:
    return 60 + rows / SLOWEST_ROWS_PER_SECOND


# ---- the report


def lines_of(rows: int, rounds: Sequence[dict[str, Measured]]) -> Iterator[str]:
    """Medians over the rounds; a ratio is the median of each round's own, so that a slow minute cancels out."""
    bares = [f"bare {name}" for name in libraries()]
    for name in (PROGRAM, *bares, RE_RUN):
        yield _line(rows, name, [found[name] for found in rounds])
    for name in bares:
        pairs = [(found[PROGRAM], found[name]) for found in rounds]
        speed = statistics.median(b.seconds / p.seconds for p, b in pairs)
        cpu = statistics.median(p.cpu_seconds / b.cpu_seconds for p, b in pairs)
        memory = statistics.median(p.peak_bytes / b.peak_bytes for p, b in pairs)
        yield f"| {rows:,} | **{PROGRAM} / {name}** | | {speed:.2f} | {cpu:.2f} | {memory:.2f} |"


def _line(rows: int, name: str, found: Sequence[Measured]) -> str:
    seconds = statistics.median(m.seconds for m in found)
    cpu_ms = statistics.median(1000 * m.cpu_seconds / rows for m in found)
    megabytes = statistics.median(m.peak_bytes / 1e6 for m in found)
    return f"| {rows:,} | {name} | {seconds:.1f} | {rows / seconds:,.0f} | {cpu_ms:.3f} | {megabytes:,.0f} |"


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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000])
    parser.add_argument("--concurrency", type=int, nargs="+", default=[256])
    parser.add_argument("--delay-ms", type=float, nargs="+", default=[50], help="the endpoint answers after so long")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="2,000 rows once: whether it works, not how fast")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.repeats = [2_000], 1
    for delay_ms, concurrency in product(options.delay_ms, options.concurrency):
        measure_at(delay_ms / 1000, concurrency, options.rows, options.repeats)


def measure_at(delay_seconds: float, concurrency: int, sizes: Sequence[int], repeats: int) -> None:
    """Print a table of all sizes, at one width and with one latency of the endpoint."""
    client_core, server_core = cores() or (None, None)
    contenders = 2 + len(libraries())
    bound_seconds = sum(repeats * contenders * seconds_max(rows) for rows in sizes)
    pin(server_core)  # a server is bound as it is started: its thread is out of reach afterwards
    with chat_process(delay_seconds=delay_seconds, for_seconds=bound_seconds) as server:
        pin(client_core)
        print(
            f"\nPython {platform.python_version()}, httpx {version('httpx')}, {concurrency} at once, "
            f"answers after {1000 * delay_seconds:g} ms, medians of {repeats}, "
            f"client and server {'on a core each' if client_core else 'on no core of their own'}.\n"
        )
        print("| rows | | seconds | rows a second | CPU ms a row | peak memory, MB |\n|--:|---|--:|--:|--:|--:|")
        for rows in sizes:
            with tempfile.TemporaryDirectory() as folder:
                setting = Setting(server.url, concurrency, rows, Path(folder))
                rounds = list(measure_all(setting, repeats))
            print("\n".join(lines_of(rows, rounds)), flush=True)
    pin(client_core | server_core if client_core and server_core else None)


if __name__ == "__main__":
    if sys.argv[1:2] == ["bare"]:
        bare(*sys.argv[2:])
    else:
        main()
