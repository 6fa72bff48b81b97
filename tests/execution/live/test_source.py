"""What a lane needs of its source, and no more."""

import asyncio
from contextlib import closing
from pathlib import Path

from chat_server import ChatServer
from live_run import make_job, request

from pipeline.endpoint.client import Client
from pipeline.execution.live.lane import Lane
from pipeline.execution.local_context import LocalContext
from pipeline.records import Request, Tally
from pipeline.store.writer import Store


class OneRequest:
    """The smallest `RequestSource`: one request, and nothing shared with other lanes."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._left = [request("hello")]

    def draw(self, _model: str) -> Request | None:
        return self._left.pop() if self._left else None

    def is_over(self, _model: str) -> bool:
        return not self._left

    def wake_all(self) -> None:
        raise AssertionError("only under a cost cap")


def test_a_lane_needs_only_a_source_of_requests(server: ChatServer, tmp_path: Path) -> None:
    job = make_job(server.url)

    async def work(context: LocalContext) -> None:
        async with Client(job.endpoint, None) as client:
            await Lane(job, "m", OneRequest(), context, client).work()

    with closing(Store(tmp_path / "store")) as store:
        context = LocalContext(job, store, Tally())
        asyncio.run(work(context))
    assert (context.asked.ok, server.arrived) == (1, 1)
