"""Random servers that bill what they like and say what they like of it, and jobs under a cap that ask them.

`python tests/support/random_bills.py --servers 200` prints how far the bills were above the caps.
"""

import argparse
import asyncio
import random
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec
from chat_server import Canned, ChatServer, Seen, completion, problem
from live_run import ASKED_TO_STOP, ask, make_job, requests

from pipeline.execution.local_context import LocalContext
from pipeline.job.job import Job
from pipeline.records import Tally
from pipeline.store.notes import read_ledger
from pipeline.store.reader import Reader
from pipeline.store.writer import Store

MAX_TOKENS = 20
OUTPUT_PRICE = 0.001
"""US dollars for an output token; prompt tokens are free, so that a request's highest cost is known here, too."""
WORST = MAX_TOKENS * OUTPUT_PRICE
WIDTH_MAX = 32


class Billed(NamedTuple):
    """One attempt, as the server sees it."""

    began: float
    ended: float
    dollars: float


@dataclass
class Biller:
    """Decides what a server answers, and keeps its bill."""

    seed: int
    bills: list[Billed] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        chance = self.random.random
        self.ignores_limit = self.random.choice([1, 1, 2, 10, 100]) if chance() < 0.6 else 1
        self.share_odd = self.random.choice([0, 0.1, 0.5, 0.9])
        self.share_without_usage = self.random.choice([0, 0.1, 1.0])
        self.seconds = self.random.choice([0, 0.005, 0.02])
        self.lock = threading.Lock()

    def reply(self, seen: Seen, _attempt: int) -> Canned:
        """Answer a request in this server's manner."""
        with self.lock:
            chance = self.random.random
            tokens = self.random.randint(1, MAX_TOKENS * self.ignores_limit)
            kind = chance()
            is_odd = kind < self.share_odd
            usage: dict[str, int] | None = {"prompt_tokens": 5, "completion_tokens": tokens}
            if chance() < self.share_without_usage:
                tokens = min(tokens, MAX_TOKENS)  # what is neither limited nor told cannot be known
                odd_usages = [None, {}, {"prompt_tokens": 0, "completion_tokens": 0}, {"completion_tokens": -5}]
                usage = self.random.choice(odd_usages)
            answer = Canned(body=completion("word", usage=usage), delay_seconds=self.seconds)
            if is_odd:
                tokens = min(tokens, MAX_TOKENS)
                answer = self.random.choice(
                    [
                        Canned(body=completion("", usage=None), delay_seconds=self.seconds),
                        Canned(500, problem("it broke after all the work")),
                        Canned(502),
                        Canned(body=b'{"choices": []}'),
                        Canned(body=b'{"cho'),
                        Canned(body=completion("half", usage=None), cut_after=40),
                        Canned(close=True),
                    ]
                )
            self.bills.append(Billed(seen.at, seen.at + self.seconds, tokens * OUTPUT_PRICE))
            return answer

    @property
    def total(self) -> float:
        """The whole bill in US dollars."""
        return sum(billed.dollars for billed in self.bills)

    def group_excess(self) -> float:
        """The most that as many attempts as can be in flight at once cost beyond the first reservation, together."""
        excess = sorted((max(0.0, billed.dollars - WORST) for billed in self.bills), reverse=True)
        return sum(excess[:WIDTH_MAX])


class Trial(NamedTuple):
    """What one server billed, and what the jobs that asked it were allowed."""

    requests: int
    bill: float
    cap: float
    allowed_beyond: float
    """What one group in flight could cost beyond its reservation."""
    booked: float
    """What the job folder's ledger says was spent, or may have been."""

    @property
    def overshoot(self) -> float:
        """US dollars above the cap."""
        return max(0.0, self.bill - self.cap)


def try_server(seed: int, folder: Path, rows: int = 80) -> Trial:
    """Ask one random server by a job whose runs are stopped hard, resumed, and told other caps."""
    biller = Biller(seed)
    rng = random.Random(seed)
    cap = rng.choice([0.05, 0.2, 0.5, 1.0])
    highest_cap = cap
    with ChatServer(biller.reply, keep_log=False) as server:
        for _ in range(rng.choice([1, 2, 3])):
            width = rng.choice([1, 4, WIDTH_MAX])
            job = make_job(
                server.url,
                limits__max_cost=cap,
                limits__concurrency=width,
                prices__input=0.0,
                prices__output=OUTPUT_PRICE * 1e6,
                parameters__max_tokens=MAX_TOKENS,
            )
            tuned = cap * rng.choice([0.5, 1.0, 2.0])
            is_tuned, is_killed = rng.random() < 0.3, rng.random() < 0.4
            booked = _run(job, folder, rows, rng.uniform(0.05, 0.3) if is_killed else None, tuned if is_tuned else None)
            highest_cap = max(highest_cap, tuned if is_tuned else cap)
            rows += 40
    return Trial(len(biller.bills), biller.total, highest_cap, biller.group_excess(), booked)


def _run(job: Job, folder: Path, rows: int, killed_after: float | None, tuned_cap: float | None) -> float:
    """One run over new rows; what its ledger says in the end. `killed_after`: seconds until it is given up hard."""
    store, reader = Store(folder / "store"), None
    reader = Reader(folder / "store")
    context = LocalContext(job, store, read_ledger(reader) or Tally(), rng=lambda: 0.0)

    def on_start(running: LocalContext, task: asyncio.Task[None]) -> None:
        loop = asyncio.get_running_loop()
        if killed_after is not None:
            loop.call_later(killed_after, running.stop, ASKED_TO_STOP)
            loop.call_later(killed_after, running.abort_drain)
        if tuned_cap is not None:
            limits = job.limits.model_copy(update={"max_cost": tuned_cap})
            loop.call_later(0.05, running.tune, limits)

    prompts = [f"row {number} of {rows}" for number in range(rows)]
    asyncio.run(ask(job, requests(prompts), context, on_start))
    reader.close()
    store.close()
    return context.ledger.cost + context.ledger.held + context.ledger.aside


def main() -> None:
    """Try random servers, and print the worst of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    trials = []
    for number in range(given.servers):
        with tempfile.TemporaryDirectory() as folder:
            trials.append(try_server(given.seed + number, Path(folder)))
    worst = max(trials, key=lambda trial: trial.overshoot - trial.allowed_beyond)
    largest = max(trial.overshoot for trial in trials)
    figures = {
        "servers": len(trials),
        "requests": sum(trial.requests for trial in trials),
        "above the cap": sum(trial.overshoot > 1e-9 for trial in trials),
        "largest overshoot": round(largest, 4),
        "above the stated bound": sum(trial.overshoot > trial.allowed_beyond + 1e-9 for trial in trials),
        "closest to the bound": [round(number, 4) for number in worst],
    }
    print(msgspec.json.encode(figures).decode())


if __name__ == "__main__":
    main()
