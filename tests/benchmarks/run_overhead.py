"""What a row costs beside the endpoint's own time: `pipeline run` against loops that only ask, and other programs.

    python tests/benchmarks/run_overhead.py [--rows 10000 100000] [--concurrency 64 256 1024] [--delay-ms 0 50 1000]
        [--repeats 5] [--against aiohttp httpx lm-deluge] [--peers peers/bin/python] [--quick]

Each is a process of its own, run by turns on the first core against tests/chat_server.py on the second, and told from
start to exit: interpreter, imports, reading and writing included; a column beside leaves out the CPU that the same
process takes for one row. Every answer is checked; no time is. A re-run is the same command again when every row is
answered: what a resume costs before it asks. askers.py holds the others: which of them take part is what is installed,
here or for the interpreter that --peers names, so that they need not share an environment with this project:

    python -m venv peers
    peers/bin/pip install lm-deluge flexllm async-batch-llm langchain-openai litellm

Without --rows, a setting has 10,000, or as many as its endpoint answers in 10 s; slow programs have 3,000 at most.
"""

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))

import askers
from chat_server import answer_to, chat_process
from measuring import Measured, allow_connections, apart, children_cpu_seconds, cores, measure, pin
from questions import MODEL, TEMPLATE, prompt_of, questions, write_prompts, write_table

ROWS = 10_000
SLOW_ROWS = 3_000
QUICK_ROWS = 500
ENDPOINT_SECONDS = 10
PROGRAM, RE_RUN = "pipeline run", "pipeline run again, all answered"
STARTS = 3
SLOWEST_ROWS_PER_SECOND = 20
"""A process slower than this hangs, and is killed."""


@dataclass(frozen=True)
class Other:
    """Who asks the same."""

    name: str
    version: str
    python: str

    @property
    def title(self) -> str:
        return f"bare {self.name}" if self.name in askers.BARE else f"{self.name} {self.version}"

    def rows_of(self, rows: int) -> int:
        return min(rows, SLOW_ROWS) if self.name in askers.SLOW else rows


@dataclass(frozen=True)
class Endpoint:
    url: str
    concurrency: int
    delay_seconds: float

    def seconds_max(self, rows: int) -> float:
        return 60 + rows / SLOWEST_ROWS_PER_SECOND + rows * self.delay_seconds / self.concurrency


@dataclass(frozen=True)
class Found:
    """What one process took for so many rows."""

    rows: int
    took: Measured

    @property
    def rows_a_second(self) -> float:
        return self.rows / self.took.seconds

    def cpu_ms(self, start_cpu_seconds: float = 0) -> float:
        """For a row."""
        return 1000 * (self.took.cpu_seconds - start_cpu_seconds) / self.rows


Round = dict[str, Found]
"""By title."""


# ---- whether the answers are right: in processes of their own, see `apart`


def check_program(table: Path, output: Path) -> None:
    """Every row of the input in its place, with the one right answer, asked once."""
    import polars as pl  # noqa: PLC0415 - see `apart`

    given, written = pl.read_parquet(table), pl.read_parquet(output)
    if not written.select(given.columns).equals(given):
        raise SystemExit(f"{output}: its rows are not those of the input.")
    check_answers(given["question"], written["answer"])
    ends = set(written.select("status", "attempts").unique().rows())
    if ends != {("ok", 1)}:
        raise SystemExit(f"{output}: not every row is ok at the first attempt: {ends}")


def check_unchanged(before: Path, after: Path) -> None:
    """The same to the last cell, the time of asking among them: nothing was asked again."""
    import polars as pl  # noqa: PLC0415 - see `apart`

    if not pl.read_parquet(before).equals(pl.read_parquet(after)):
        raise SystemExit(f"{after}: the re-run wrote another table.")


def check_lines(rows: int, answers: Path) -> None:
    check_answers(questions(rows), answers.read_text("utf-8").splitlines())


def check_answers(asked: Iterable[str], answers: Iterable[str]) -> None:
    for question, answer in zip(asked, answers, strict=True):
        if answer != answer_to(prompt_of(question)):
            raise SystemExit(f"{question!r} was answered {answer!r}.")


# ---- one turn of each


def measure_program(endpoint: Endpoint, table: Path, rows: int) -> Round:
    """A run into a new job folder, and the same command again."""
    folder = table.parent / "program"
    folder.mkdir()
    output, first = folder / "output.parquet", folder / "first.parquet"
    command = [sys.executable, "-m", "pipeline", "run", str(table), "-o", str(output), "-q"]
    command += ["-p", TEMPLATE, "-m", MODEL, "--base-url", endpoint.url, "--concurrency", str(endpoint.concurrency)]
    ran = measure(command, folder / "run.txt", endpoint.seconds_max(rows))
    apart(check_program, table, output)
    output.rename(first)
    again = measure(command, folder / "again.txt", endpoint.seconds_max(rows))
    apart(check_unchanged, first, output)
    shutil.rmtree(folder)
    return {PROGRAM: Found(rows, ran), RE_RUN: Found(rows, again)}


def measure_other(endpoint: Endpoint, prompts: Path, rows: int, other: Other) -> Round:
    asked = other.rows_of(rows)
    answers, log = prompts.with_name("answers.txt"), prompts.with_name("log.txt")
    command = [other.python, askers.__file__, other.name, endpoint.url, str(endpoint.concurrency)]
    took = measure([*command, str(prompts), str(asked), str(answers)], log, endpoint.seconds_max(asked))
    apart(check_lines, asked, answers)
    return {other.title: Found(asked, took)}


def measure_all(endpoint: Endpoint, rows: int, others: Sequence[Other], repeats: int) -> Iterator[Round]:
    """A round each: everyone once, the first of one round last in the next."""
    with tempfile.TemporaryDirectory() as name:
        table, prompts = Path(name) / "table.parquet", Path(name) / "prompts.txt"
        apart(write_table, table, rows)
        apart(write_prompts, prompts, rows)
        turns = [partial(measure_program, endpoint, table, rows)]
        turns += [partial(measure_other, endpoint, prompts, rows, other) for other in others]
        for number in range(repeats):
            found: Round = {}
            for turn in turns[number % len(turns) :] + turns[: number % len(turns)]:
                took = turn()
                told = ", ".join(f"{title} {each.took.seconds:.1f} s" for title, each in took.items())
                print(f"{rows:,} rows, round {number + 1} of {repeats}: {told}", file=sys.stderr)
                found |= took
            yield found


# ---- the report


def lines_of(rounds: Sequence[Round], starts: dict[str, float], others: Sequence[Other]) -> Iterator[str]:
    """Medians over the rounds; a ratio is the median of each round's own, so that a slow minute cancels out."""
    titles = [other.title for other in others]
    for title in (PROGRAM, *titles, RE_RUN):
        found = [each[title] for each in rounds]
        seconds = statistics.median(each.took.seconds for each in found)
        pace = statistics.median(each.rows_a_second for each in found)
        whole, apart_from_start = (
            statistics.median(each.cpu_ms(start) for each in found) for start in (0, starts[title])
        )
        megabytes = statistics.median(each.took.peak_bytes / 1e6 for each in found)
        figures = f"{seconds:.1f} | {pace:,.0f} | {whole:.3f} | {apart_from_start:.3f} | {megabytes:,.0f}"
        yield f"| {found[0].rows:,} | {title} | {figures} |"
    for title in titles:
        pairs = [(each[PROGRAM], each[title]) for each in rounds]
        pace, whole, apart_from_start, memory = (
            statistics.median(ratios)
            for ratios in (
                [program.rows_a_second / other.rows_a_second for program, other in pairs],
                [program.cpu_ms() / other.cpu_ms() for program, other in pairs],
                [program.cpu_ms(starts[PROGRAM]) / other.cpu_ms(starts[title]) for program, other in pairs],
                [program.took.peak_bytes / other.took.peak_bytes for program, other in pairs],
            )
        )
        figures = f"{pace:.2f} | {whole:.2f} | {apart_from_start:.2f} | {memory:.2f}"
        yield f"| {rounds[0][PROGRAM].rows:,} | **{PROGRAM} / {title}** | | {figures} |"


# ---- at one endpoint


@contextmanager
def endpoint(concurrency: int, delay_seconds: float) -> Iterator[Endpoint]:
    """On the second core; what is started meanwhile runs on the first."""
    pair = cores()
    pin(pair and pair[1])  # a server is bound as it is started: its thread is out of reach afterwards
    try:
        with chat_process(delay_seconds=delay_seconds, for_seconds=24 * 3600) as server:
            pin(pair and pair[0])
            yield Endpoint(server.url, concurrency, delay_seconds)
    finally:
        pin(pair and pair[0] | pair[1])


def measure_at(
    concurrency: int,
    delay_seconds: float,
    sizes: Sequence[int],
    others: Sequence[Other],
    starts: dict[str, float],
    *,
    repeats: int,
) -> None:
    """Print a table of all sizes, at one width and with one latency of the endpoint."""
    print(f"\n{concurrency} at once, answers after {1000 * delay_seconds:g} ms, medians of {repeats}\n")
    print("| rows | | seconds | rows a second | CPU ms a row | without its start | peak memory, MB |")
    print("|--:|---|--:|--:|--:|--:|--:|", flush=True)
    asked = 0
    with endpoint(concurrency, delay_seconds) as near:
        for rows in sizes:
            rounds = list(measure_all(near, rows, others, repeats))
            print("\n".join(lines_of(rounds, starts, others)), flush=True)
            asked += sum(found.rows for each in rounds for title, found in each.items() if title != RE_RUN)
        before = children_cpu_seconds()
    server_ms = 1000 * (children_cpu_seconds() - before) / asked
    print(f"\nThe server took {server_ms:.2f} ms of CPU a request, its own start included.", flush=True)


def measure_starts(others: Sequence[Other], repeats: int) -> dict[str, float]:
    """By title: the CPU seconds of a process that asks one row."""
    with endpoint(concurrency=1, delay_seconds=0) as near:
        rounds = list(measure_all(near, 1, others, repeats))
    return {title: statistics.median(each[title].took.cpu_seconds for each in rounds) for title in rounds[0]}


# ---- who takes part, and in what


def rows_within(seconds: float, concurrency: int, delay_seconds: float) -> int:
    """No more than the default, nor than the endpoint answers in so long."""
    return min(ROWS, int(seconds * concurrency / delay_seconds)) if delay_seconds else ROWS


def others_of(pythons: Sequence[str], wanted: Sequence[str]) -> list[Other]:
    """Each of those wanted that one of the interpreters can run; the rest are told of."""
    found: dict[str, Other] = {}
    for python in pythons:
        told = subprocess.run([python, askers.__file__], capture_output=True, check=True, text=True).stdout
        for name, version in json.loads(told).items():
            found.setdefault(name, Other(name, version, python))
    if missing := [name for name in wanted if name not in found]:
        print(f"Not installed, so left out: {', '.join(missing)}", file=sys.stderr)
    return [found[name] for name in wanted if name in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", help="of the table")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[256])
    parser.add_argument("--delay-ms", type=float, nargs="+", default=[50], help="the endpoint answers after so long")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--against", nargs="*", choices=[*askers.ASKERS], default=[*askers.ASKERS], metavar="NAME")
    parser.add_argument("--peers", metavar="PYTHON", help="an interpreter that has other programs installed")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS} rows once: whether it works, not how fast")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.repeats = [QUICK_ROWS], 1
    others = others_of([sys.executable, *([options.peers] if options.peers else [])], options.against)
    allow_connections(max(options.concurrency))
    print(f"Python {platform.python_version()}, client and server {'on a core each' if cores() else 'on any core'}")
    starts = measure_starts(others, min(STARTS, options.repeats))
    for delay_ms, concurrency in product(options.delay_ms, options.concurrency):
        sizes = options.rows or [rows_within(ENDPOINT_SECONDS, concurrency, delay_ms / 1000)]
        measure_at(concurrency, delay_ms / 1000, sizes, others, starts, repeats=options.repeats)


if __name__ == "__main__":
    main()
