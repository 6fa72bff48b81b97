"""A table of prompts with a store of their answers, and the plans made of both."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import polars as pl
from job_files import MINIMAL

from pipeline.execution.local_context import LocalContext
from pipeline.job.job import Job, ThisRun
from pipeline.planning.chains import Chain, Chains
from pipeline.planning.keys import keys_path
from pipeline.planning.pending import pending_requests
from pipeline.planning.plan import Plan, make_plan
from pipeline.planning.statuses import row_statuses, tally_statuses
from pipeline.prompts.prompts import Prompts
from pipeline.records import Answer, Failure, Outcome, Request, Tally
from pipeline.store.reader import Reader
from pipeline.store.writer import Store
from pipeline.tables.open import open_table
from pipeline.tables.table import Table

LASTING = Failure(kind="too_long", reason="4,097 tokens")
PASSING = Failure(kind="timeout", reason="slow", lasting=False)
CUT = Answer(text="yes, bec", finish_reason="length")
OK = Answer(text="yes")


class PlannedTable(AbstractContextManager["PlannedTable"]):
    """A table of prompts, the store of their answers, and the plans made of both."""

    def __init__(self, folder: Path, prompts: Sequence[str | None], **job_settings: Any) -> None:
        self.folder = folder
        pl.DataFrame({"prompt": prompts}, schema={"prompt": pl.String}).write_parquet(folder / "in.parquet")
        self._settings = {**MINIMAL, **job_settings}
        self.store = Store(folder / "store")
        self.table = open_table([str(folder / "in.parquet")], folder)
        self.prompts = Prompts(self.job(), ["prompt"])

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def job(self, **this_run: Any) -> Job:
        return Job.load(["in.parquet"], "out.csv", settings=self._settings, this_run=ThisRun(**this_run))

    def request(self, prompt: str, sample: int = 0) -> Request:
        requests = self.prompts.requests({"prompt": prompt})
        assert isinstance(requests, list)
        return requests[sample]

    def record(self, **outcomes: Outcome) -> None:
        """Store the outcome of the first sample of each prompt."""
        self.record_chains(*[(self.request(prompt), [outcome]) for prompt, outcome in outcomes.items()])

    def record_chains(self, *chains: tuple[Request, Sequence[Outcome]]) -> None:
        """Store the outcomes of chains, each given as its first request and the outcomes of all its requests."""
        context = LocalContext(self.job(), self.store, Tally())

        async def record_one(request: Request, outcomes: Sequence[Outcome]) -> None:
            following: Request | None = request
            for outcome in outcomes:
                assert following is not None
                following = await context.record(following, outcome)

        async def record_all() -> None:
            await asyncio.gather(*(record_one(*chain) for chain in chains))

        asyncio.run(record_all())

    def plan(self, *, table: Table | None = None, **this_run: Any) -> Plan:
        with closing(Reader(self.store.folder)) as reader:
            return make_plan(self.job(**this_run), table or self.table, self.prompts, reader, self.folder)

    def asked(self, plan: Plan, table: Table | None = None) -> list[Request]:
        async def drawn() -> list[Request]:
            with closing(Reader(self.store.folder)) as reader:
                keys, chains = keys_path(self.folder), Chains(self.job(), reader)
                requests = pending_requests(table or self.table, self.prompts, plan, keys, chains)
                return [request async for request in requests]

        return asyncio.run(drawn())

    def chains(self, *firsts: Request) -> list[Chain]:
        with closing(Reader(self.store.folder)) as reader:
            return list(Chains(self.job(), reader).follow(firsts))

    def statuses(self) -> list[str]:
        with closing(Reader(self.store.folder)) as reader:
            return row_statuses(self.job(), self.folder, reader).to_list()

    def tally(self) -> Tally:
        with closing(Reader(self.store.folder)) as reader:
            return tally_statuses(self.job(), self.folder, reader)
