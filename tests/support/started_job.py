"""A job that was started, for tests of what reads its folder, and a job of questions to run."""

import asyncio
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from job_files import MINIMAL

from pipeline.execution.live.live import answer_all
from pipeline.execution.local_context import LocalContext
from pipeline.folder import history
from pipeline.folder.folder import make_job_folder
from pipeline.job.job import Job, ThisRun
from pipeline.planning.chains import Chains
from pipeline.planning.keys import keys_hash, keys_path
from pipeline.planning.pending import pending_requests
from pipeline.planning.plan import Plan, make_plan, select_rows
from pipeline.prompts.prompts import Prompts
from pipeline.records import Answer, Failure, Outcome, Status, Tally, Usage
from pipeline.results.show import show_rows
from pipeline.store.reader import Reader
from pipeline.store.writer import Store
from pipeline.tables.open import open_table
from pipeline.tables.table import Table

ASKED = {"prompt.template": "Is this good?\n{{ review }}"}
GOOD = Answer(text="yes", finish_reason="stop", usage=Usage(10, 2, total_tokens=12), latency_seconds=0.25, cost=0.0042)
LONG = Failure(kind="too_long", reason="4,097 tokens are too many")


class StartedJob(AbstractContextManager["StartedJob"]):
    """A job whose run was started and planned in a folder, as a killed process leaves it."""

    def __init__(
        self, folder: Path, inputs: list[str], output: str, this_run: ThisRun, settings: dict[str, Any]
    ) -> None:
        self.job = Job.load(inputs, folder / output, settings={**MINIMAL, **settings}, this_run=this_run)
        make_job_folder(self.job.folder)
        whole = open_table(inputs, self.job.folder)
        self.table: Table = select_rows(self.job.this_run, whole)
        self.prompts = Prompts(self.job, list(self.table.schema))
        self._store = Store(self.job.folder / "store")
        self._reader = Reader(self.job.folder / "store")
        self.context = LocalContext(self.job, self._store, Tally())
        self.plan: Plan = make_plan(self.job, self.table, self.prompts, self._reader, self.job.folder)
        self.keys = keys_path(self.job.folder)
        history.record_start(self.job, ["run"], whole.content_hash, whole.path, keys_hash(self.keys))

    def record(self, *outcomes: Outcome | None) -> None:
        """Store the outcomes of the first rows; None leaves a row pending."""

        async def record_all() -> None:
            for row, outcome in zip(self.rows(), outcomes, strict=False):
                requests = self.prompts.requests(row)
                if outcome is not None:
                    assert isinstance(requests, list)
                    await self.context.record(requests[0], outcome)

        asyncio.run(record_all())

    def rows(self) -> list[dict[str, Any]]:
        return [row for frame in self.table.slices() for row in frame.to_dicts()]

    def answer(self) -> None:
        chains = Chains(self.job, self._reader)
        requests = pending_requests(self.table, self.prompts, self.plan, self.keys, chains)
        asyncio.run(answer_all(self.job, requests, self.context))

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self._store.close()


def shown(job: StartedJob, status: Status | None = None, row: int | None = None, most: int = 20) -> list[str]:
    return list(show_rows(job.job.output_path, status=status, row=row, most=most))


def question_job(folder: Path, url: str = "http://127.0.0.1:9/v1", rows: int = 12, **settings: Any) -> Job:
    source = folder / "in.csv"
    source.write_text("q\n" + "".join(f"question {n}\n" for n in range(rows)))
    flags = {"endpoint.base_url": url, "endpoint.model": "m", "prompt.template": "Say {{ q }}", **settings}
    return Job.load([source], folder / "out.csv", settings=flags, this_run=ThisRun(verbosity=-1))
