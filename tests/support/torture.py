"""The long crash series: python tests/support/torture.py --kills 300 --seed 1 (or `make torture`).

Each trial is a table of its own, its own script of faults, and a run that is killed with SIGKILL a few times, at random
moments or at a step (`crashing_run.STEPS`), and started again until it has come to its end; then `checker.check` holds
the store and the output against the history of what was sent.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from chat_server import ChatServer
from checker import Finding, acknowledged_in, check, check_kept
from crashing_run import STEPS
from fault_script import Script

from pipeline.job.job import Job

SETTINGS = {"prompt.template": "{{ q }}", "endpoint.model": "m", "prices.input": 1.0, "prices.output": 3.0}
GIVEN_UP_AFTER_SECONDS = 0.4
"""The deadline of one attempt: some faults are silent for ever."""
RUNS_MAX = 20
RUN_SECONDS_MAX = 300


@dataclass(frozen=True)
class Trial:
    """One table on its way through faults and kills."""

    seed: int
    rows: int
    width: int
    folder: Path
    share: float = 0.1
    """Of the rows, such as meet faults that pass."""
    odd: float = 0.1
    """Of the rows, such as end otherwise than with a plain answer."""

    def job(self, url: str) -> Job:
        """The job, as `crashing_run.py` is told it."""
        settings = {
            **SETTINGS,
            "endpoint.base_url": url,
            "endpoint.timeout_seconds": GIVEN_UP_AFTER_SECONDS,
            "limits.concurrency": self.width,
        }
        return Job.load([self.folder / "in.csv"], self.folder / "out.parquet", settings=settings)

    def start(self, url: str, step: str = "never", times: int = 1) -> subprocess.Popen[bytes]:
        """Start the run, to be killed at a step, if one is named."""
        told = [f"{name}={value}" for name, value in SETTINGS.items() if not name.startswith("prompt")]
        line = [
            "run",
            str(self.folder / "in.csv"),
            "-o",
            str(self.folder / "out.parquet"),
            "--base-url",
            url,
            "-p",
            "{{ q }}",
        ]
        line += ["--concurrency", str(self.width), "--set", f"endpoint.timeout_seconds={GIVEN_UP_AFTER_SECONDS}"]
        line += [word for setting in told for word in ("--set", setting)]
        program = Path(__file__).with_name("crashing_run.py")
        command = [sys.executable, str(program), str(self.folder / "acks"), step, str(times), *line]
        with (self.folder / "stderr").open("ab") as stderr:
            return subprocess.Popen(command, stderr=stderr)

    def check_kept(self) -> None:
        """After a kill: what was acknowledged is in the store."""
        check_kept(self.folder / "out.parquet.job", acknowledged_in(self.folder / "acks"))

    def told(self) -> str:
        """The last of what the runs said."""
        return (self.folder / "stderr").read_text()[-3000:]

    def write_input(self) -> None:
        """A table whose rows are this trial's alone."""
        texts = [f"{self.seed} question {number}" for number in range(self.rows)]
        pl.DataFrame({"id": [f"{n:05d}" for n in range(self.rows)], "q": texts}).write_csv(self.folder / "in.csv")

    def finish(self, url: str) -> None:
        """Run until the job says that it has come to its end."""
        for _ in range(RUNS_MAX):
            code = self.start(url).wait(timeout=RUN_SECONDS_MAX)
            if code in (0, 3):
                return
            # what passes may stop a run, such as a first row that is never answered: the same line goes on
            assert code in (1, 75), self.told()
        raise AssertionError(f"not finished after {RUNS_MAX} runs:\n{self.told()}")

    def killed_at_random(self, kills: int) -> Finding:
        """Kill so many runs, each after some requests and a moment more; then finish and check."""
        rng = random.Random(self.seed)
        delay_seconds = rng.choice((0.0, 0.005, 0.02))
        script = Script(self.seed, self.share, self.odd, delay_seconds, limits=not kills)
        self.write_input()
        done = 0
        with ChatServer(script) as server:
            for _ in range(kills):
                run = self.start(server.url)
                goal = server.arrived + rng.randrange(1, max(2, self.rows // kills))
                while server.arrived < goal and run.poll() is None:
                    time.sleep(0.002)
                time.sleep(rng.choice((0.0, rng.random() / 200, rng.random() / 20)))
                done += run.poll() is None
                run.kill()
                run.wait()
                self.check_kept()
            self.finish(server.url)
            return check(self.job(server.url), script, done, self.width)

    def killed_at(self, step: str, times: int) -> Finding:
        """Kill a run when it passes a step for the Nth time, and one more at the first; then finish and check."""
        script = Script(self.seed, self.share, self.odd, limits=False)
        self.write_input()
        with ChatServer(script) as server:
            codes = []
            for nth in (times, 1):
                codes.append(self.start(server.url, step, nth).wait(timeout=RUN_SECONDS_MAX))
                self.check_kept()
            self.finish(server.url)
            kills = codes.count(-9)
            assert kills, f"{step} was never passed: {self.told()}"
            return check(self.job(server.url), script, kills, self.width)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=300, help="how many runs are killed at random moments")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    began = time.monotonic()
    totals: dict[str, Counter[str]] = {}

    def count(kind: str, kills: int, found: Finding) -> None:
        added = {"kills": kills, "rows": found.rows, "requests": found.requests, "faults": found.faults}
        totals.setdefault(kind, Counter()).update(added | {"paid again": found.paid_again})
        print(f"{time.monotonic() - began:6.0f} s  {kind}: {added} paid again {found.paid_again}", flush=True)

    left, seed = options.kills, options.seed * 1_000_000
    while left > 0:
        kills, seed = min(left, rng.randint(1, 6)), seed + 1
        width = rng.choice((1, 4, 16, 64))
        with tempfile.TemporaryDirectory() as folder:
            trial = Trial(seed, rng.choice((40, 200, 500)), width, Path(folder))
            count(f"at random moments, {width} at once", kills, trial.killed_at_random(kills))
        left -= kills
    for step in STEPS:
        for width in (1, 16):
            seed += 1
            with tempfile.TemporaryDirectory() as folder:
                count(f"at a step: {step}", 2, Trial(seed, 60, width, Path(folder)).killed_at(step, rng.randint(1, 20)))
    print("\n| killed | kills | rows | requests | faults met | rows lost or swapped | answers paid again |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for kind, n in totals.items():
        numbers = (n["kills"], n["rows"], n["requests"], n["faults"], 0, n["paid again"])
        print(f"| {kind} | {' | '.join(f'{number:,}' for number in numbers)} |")


if __name__ == "__main__":
    main()
