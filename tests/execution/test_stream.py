"""Requests are taken from a stream in their order, without waiting and without loss."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
from live_run import request

from pipeline.execution.stream import AHEAD_BYTES, AHEAD_REQUESTS, RequestStream
from pipeline.records import Request


async def take_all(coming: AsyncIterator[Request], found: list[Request]) -> None:
    """Take all requests, as a sender does."""
    changed = asyncio.Event()
    stream = RequestStream(coming, changed.set)
    while not stream.is_over:
        changed.clear()
        if (one := stream.take()) is not None:
            found.append(one)
        elif not stream.is_over:
            await changed.wait()


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 10))


@pytest.mark.parametrize("count", [0, 1, AHEAD_REQUESTS, 3 * AHEAD_REQUESTS + 1])
@pytest.mark.parametrize("is_late", [False, True])
def test_every_request_is_taken_once_in_its_order(count: int, is_late: bool) -> None:
    async def coming() -> AsyncIterator[Request]:
        for number in range(count):
            if is_late:
                await asyncio.sleep(0)
            yield request(f"row {number}")

    found: list[Request] = []
    run(take_all(coming(), found))
    assert found == [request(f"row {number}") for number in range(count)]


@pytest.mark.parametrize(("size", "drawn"), [(1, AHEAD_REQUESTS), (AHEAD_BYTES, 1)])
def test_few_and_no_large_requests_are_drawn_ahead(size: int, drawn: int) -> None:
    made: list[int] = []

    async def coming() -> AsyncIterator[Request]:
        for number in range(100):
            made.append(number)
            yield Request(str(number), b"x" * size)

    async def take_one() -> None:
        changed = asyncio.Event()
        stream = RequestStream(coming(), changed.set)
        assert stream.take() is None
        await changed.wait()
        assert stream.take() == Request("0", b"x" * size)

    run(take_one())
    assert len(made) == drawn


def test_an_error_comes_after_all_requests_that_were_made_before_it() -> None:
    async def coming() -> AsyncIterator[Request]:
        for number in range(3):
            yield request(f"row {number}")
        raise ValueError("no more")

    found: list[Request] = []
    with pytest.raises(ValueError, match="no more"):
        run(take_all(coming(), found))
    assert len(found) == 3


def test_a_closed_stream_leaves_no_task_behind() -> None:
    async def coming() -> AsyncIterator[Request]:
        await asyncio.Event().wait()
        yield request("never")

    async def close() -> None:
        stream = RequestStream(coming(), lambda: None)
        await stream.close()
        assert stream.take() is None
        await asyncio.sleep(0)
        await stream.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(close())
