"""What a lane needs of its source, and no more."""

import asyncio
from contextlib import closing
from pathlib import Path

from chat_server import ChatServer
from live_run import FewRequests, make_job

from pipeline.endpoint.client import Client
from pipeline.execution.live.lane import Lane
from pipeline.execution.local_context import LocalContext
from pipeline.records import Tally
from pipeline.store.writer import Store


def test_a_lane_needs_only_a_source_of_requests(server: ChatServer, tmp_path: Path) -> None:
    job = make_job(server.url)

    async def work(context: LocalContext) -> None:
        async with Client(job.endpoint, None) as client:
            await Lane(job, "m", FewRequests("hello"), context, client).work()

    with closing(Store(tmp_path / "store")) as store:
        context = LocalContext(job, store, Tally())
        asyncio.run(work(context))
    assert (context.asked.ok, server.arrived) == (1, 1)
