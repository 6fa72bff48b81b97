"""How close to a hidden limit each comes over real sockets: `pipeline run`, 20 at once with backoff, and AIMD.

    python tests/benchmarks/run_throttle.py [--rpm 6000 --burst 600 --rows 6000] [--latency 1.5]

Without --rpm, both 1,200 requests/min (burst 120, 1,200 rows) and 600/min (burst 60, 1,500 rows): four minutes. Each
asker has an endpoint of its own in a process of its own; nobody is told the limit, and all three ask at the same time,
so 6,000/min needs cores that are idle. A 429 says Retry-After in whole seconds. Goodput is the share that the least
time, in which the limit lets the table through, is of the time it took; who takes four times that is ended.
"""

import argparse
import asyncio
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))

from chat_server import CHAT_PATH, Canned, ChatServer, Seen, answer_to, completion, problem

CASES = ((1200, 120, 1200), (600, 60, 1500))
SETTLED_SECONDS = 5.0
ASKERS = {"pipeline run": "", "20 at once, backoff": "fixed", "AIMD": "aimd"}
NO_LONGER_THAN = 4.0
"""Times the least that it can take, and a minute: then an asker is ended."""


@dataclass(frozen=True)
class Case:
    """An endpoint's hidden limit, and how many rows are asked of it."""

    requests_per_minute: int
    burst: int
    rows: int
    latency_seconds: float

    @property
    def least_seconds(self) -> float:
        return 60 * max(0, self.rows - self.burst) / self.requests_per_minute + self.latency_seconds

    @property
    def seconds_max(self) -> float:
        return NO_LONGER_THAN * self.least_seconds + 60

    def prompts(self) -> list[str]:
        return [f"Row {number}: which word is this?" for number in range(self.rows)]


# ---- the endpoint


class HiddenLimit:
    """A bucket of requests, checked on arrival; answers after a lognormal latency."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.answered_at: list[float] = []
        self.refused = 0
        self._dice = random.Random(1)
        self._level, self._at = float(case.burst), time.monotonic()

    def __call__(self, seen: Seen, _attempt: int) -> Canned:
        per_second = self.case.requests_per_minute / 60
        self._level = min(self.case.burst, self._level + (seen.at - self._at) * per_second)
        self._at = seen.at
        if self._level < 1:
            self.refused += 1
            wait = math.ceil((1 - self._level) / per_second)
            return Canned(429, problem("slow down"), {"retry-after": str(wait)})
        self._level -= 1
        seconds = self._dice.lognormvariate(math.log(self.case.latency_seconds), 0.35)
        self.answered_at.append(seen.at + seconds)
        return Canned(body=completion(answer_to(seen.prompt)), delay_seconds=seconds)


def serve(case: Case) -> None:
    """Until stdin closes; then say what was seen, as JSON."""
    limit = HiddenLimit(case)
    with ChatServer(limit, keep_log=False) as server:
        print(server.url, flush=True)
        sys.stdin.read()
    print(json.dumps({"answered_at": sorted(limit.answered_at), "refused": limit.refused}), flush=True)


# ---- the askers


class Plain:
    """Rows over httpx, so many at once; each refusal is waited out in its slot."""

    def __init__(self, url: str, *, adapts: bool) -> None:
        self._url, self._adapts = url, adapts
        self._width, self._cut_at, self._busy = (8.0 if adapts else 20.0), -math.inf, 0
        self._changed = asyncio.Condition()
        self._dice = random.Random(2)

    async def ask_all(self, prompts: Sequence[str]) -> list[str]:
        import httpx  # noqa: PLC0415 - the endpoint's process needs none

        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(timeout=60, limits=limits) as client, asyncio.TaskGroup() as tasks:
            asked = []
            for prompt in prompts:
                async with self._changed:
                    await self._changed.wait_for(lambda: self._busy < int(self._width))
                self._busy += 1
                asked.append(tasks.create_task(self._ask(client, prompt)))
        return [task.result() for task in asked]

    async def _ask(self, client: Any, prompt: str) -> str:
        body = {"model": "test-model", "messages": [{"role": "user", "content": prompt}]}
        tries = 0
        while True:
            left_at = time.monotonic()
            reply = await client.post(self._url.removesuffix("/v1") + CHAT_PATH, json=body)
            if reply.status_code == 200:
                break
            if self._adapts and left_at > self._cut_at:
                self._width, self._cut_at = max(1.0, self._width / 2), time.monotonic()
            backoff = min(8.0, 0.5 * 2**tries) * (1 - 0.25 * self._dice.random())
            await asyncio.sleep(float(reply.headers.get("retry-after", backoff)))
            tries += 1
        if self._adapts:
            self._width = min(200.0, self._width + 1 / self._width)
        async with self._changed:
            self._busy -= 1
            self._changed.notify()
        text: str = reply.json()["choices"][0]["message"]["content"]
        return text


def ask_plainly(url: str, case: Case, kind: str, output: Path) -> None:
    answers = asyncio.run(Plain(url, adapts=kind == "aimd").ask_all(case.prompts()))
    output.write_text(json.dumps(answers))


def command_of(kind: str, url: str, case: Case, folder: Path) -> list[str]:
    output = folder / f"{kind or 'pipeline'}.ndjson"
    if kind:
        return [sys.executable, __file__, *words_of(case), "--ask", kind, "--url", url, "--output", str(output)]
    table = folder / "rows.ndjson"
    table.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in case.prompts()))
    command = [sys.executable, "-m", "pipeline", "run", str(table), "-o", str(output), "-q"]
    return [*command, "-m", "test-model", "--base-url", url]


def answers_in(output: Path, kind: str) -> list[str | None]:
    if not output.exists():
        return []
    text = output.read_text("utf-8")
    return json.loads(text) if kind else [json.loads(line)["answer"] for line in text.splitlines()]


# ---- one measurement


def words_of(case: Case) -> list[str]:
    told = {"rpm": case.requests_per_minute, "burst": case.burst, "rows": case.rows, "latency": case.latency_seconds}
    return [word for name, value in told.items() for word in (f"--{name}", str(value))]


def measure(case: Case, folder: Path) -> Iterator[str]:
    """A line for each asker, of what its endpoint saw and of what came out."""
    running = []
    for name, kind in ASKERS.items():
        serving = [sys.executable, __file__, *words_of(case), "--serve"]
        server = subprocess.Popen(serving, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        command = command_of(kind, server.stdout.readline().strip(), case, folder)
        running.append((name, kind, server, time.monotonic(), subprocess.Popen(command, stdin=subprocess.DEVNULL)))
    for name, kind, server, began, asker in running:
        try:
            asker.wait(timeout=max(1.0, began + case.seconds_max - time.monotonic()))
        except subprocess.TimeoutExpired:
            asker.kill()
            asker.wait()
        seen = json.loads(server.communicate()[0])
        yield line_of_key(case, name, seen, lost(case, answers_in(folder / f"{kind or 'pipeline'}.ndjson", kind)))


def lost(case: Case, answers: Sequence[str | None]) -> int:
    """Rows without their own answer."""
    good = sum(a == answer_to(prompt) for prompt, a in zip(case.prompts(), answers, strict=False))
    return case.rows - good


def line_of_key(case: Case, name: str, seen: dict[str, Any], rows_lost: int) -> str:
    times, refused = seen["answered_at"], seen["refused"]
    first = times[0] - case.latency_seconds if times else 0.0
    took = times[-1] - first if times else math.inf
    ramp = ramp_seconds(case, [at - first for at in times])
    return (
        f"  {name:22}{100 * case.least_seconds / took:6.1f} % goodput {100 * refused / (refused + len(times)):7.2f} % "
        f"refused{'never' if ramp == math.inf else f'{ramp:.0f} s':>8} to 90 %{rows_lost:6,} lost{took:8.1f} s"
    )


def ramp_seconds(case: Case, times: Sequence[float]) -> float:
    """From the first request until five seconds held 90 % of the limit."""
    recent: deque[float] = deque()
    for at in times:
        recent.append(at)
        while recent[0] <= at - SETTLED_SECONDS:
            recent.popleft()
        if len(recent) >= 0.9 * SETTLED_SECONDS * case.requests_per_minute / 60:
            return at
    return math.inf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rpm", type=int, help="the hidden limit")
    parser.add_argument("--burst", type=int, default=60)
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--latency", type=float, default=1.5, help="seconds, the median of a lognormal")
    for word in ("--ask", "--url", "--output"):
        parser.add_argument(word, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    told = [(options.rpm, options.burst, options.rows)] if options.rpm else CASES
    cases = [Case(*case, options.latency) for case in told]
    if options.serve:
        serve(cases[0])
    elif options.ask:
        ask_plainly(options.url, cases[0], options.ask, Path(options.output))
    else:
        for case in cases:
            limit = f"{case.requests_per_minute:,} requests/min, burst {case.burst:,}, latency {case.latency_seconds} s"
            print(f"{limit}: {case.rows:,} rows take {case.least_seconds:.0f} s at least", flush=True)
            with tempfile.TemporaryDirectory() as folder:
                for line in measure(case, Path(folder)):
                    print(line, flush=True)


if __name__ == "__main__":
    main()
