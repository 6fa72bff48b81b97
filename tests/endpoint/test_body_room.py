"""However many large bodies come at once, they take a bounded amount of memory, and every one is read to its end."""

import asyncio
import gzip
import tracemalloc
from contextlib import suppress

import pytest
from pydantic import SecretStr
from raw_server import HELLO, KEY, endpoint, read_request, speaking

from pipeline.endpoint.body_room import BODY_BYTES_MAX, FREE_BYTES, ROOM_BYTES, BodyRoom, RoomShare
from pipeline.endpoint.client import Client

MIB = 1024 * 1024


async def grown(share: RoomShare, to_bytes: int, seconds: float = 10) -> float | None:
    """Grow within a deadline; returns the seconds left of it."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(seconds) as deadline:
        await share.grow(to_bytes, deadline)
        due = deadline.when()
        assert due is not None
        return due - loop.time()


def test_bodies_that_wait_for_each_other_all_come_to_their_end() -> None:
    most = used = 0

    async def read(room: BodyRoom, size: int) -> None:
        nonlocal most, used
        with room.share() as share:
            for now in range(MIB, size + 1, MIB):
                await grown(share, now, 30)
                used += MIB
                most = max(most, used)
                await asyncio.sleep(0)
            await asyncio.sleep(0.001)
        used -= size

    async def read_all() -> None:
        room = BodyRoom()
        await asyncio.gather(*(read(room, BODY_BYTES_MAX - number * MIB) for number in range(32)))

    asyncio.run(read_all())
    assert used == 0
    assert ROOM_BYTES - BODY_BYTES_MAX <= most <= ROOM_BYTES


def test_an_answer_of_a_usual_size_never_waits() -> None:
    async def fill() -> None:
        room = BodyRoom()
        with room.share() as first, room.share() as second, room.share() as third, room.share() as usual:
            await grown(first, BODY_BYTES_MAX)
            await grown(second, BODY_BYTES_MAX)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(grown(third, FREE_BYTES + 1), 0.01)
            await asyncio.wait_for(grown(usual, FREE_BYTES), 0.01)

    asyncio.run(fill())


def test_a_wait_for_room_is_not_counted_against_the_deadline() -> None:
    async def wait() -> None:
        room = BodyRoom(BODY_BYTES_MAX)
        with room.share() as second:
            with room.share() as first:
                await grown(first, BODY_BYTES_MAX)
                waiting = asyncio.create_task(grown(second, MIB, 0.3))
                await asyncio.sleep(0.6)
                assert not waiting.done()
            left = await waiting
        assert left is not None
        assert 0.2 < left <= 0.3

    asyncio.run(wait())


def test_who_gives_up_waiting_leaves_its_room_to_others() -> None:
    async def give_up() -> None:
        room = BodyRoom(BODY_BYTES_MAX)
        with room.share() as first:
            await grown(first, MIB)

            async def wait() -> None:
                with room.share() as share:
                    await grown(share, MIB)

            waiting = [asyncio.create_task(wait()) for _ in range(2)]
            await asyncio.sleep(0.01)
            waiting[0].cancel()
            with suppress(asyncio.CancelledError):
                await waiting[0]
        await asyncio.wait_for(waiting[1], 5)
        with room.share() as last:
            await asyncio.wait_for(grown(last, BODY_BYTES_MAX), 5)

    asyncio.run(give_up())


@pytest.mark.parametrize("packing", ["", "gzip"])
def test_many_large_replies_at_once_take_no_more_memory_than_there_is_room(packing: str) -> None:
    size, times = 8 * MIB, 24
    body = b"x" * size
    sent = gzip.compress(body, 1) if packing else body
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: %b\r\ncontent-length: %d\r\n\r\n" % (packing.encode(), len(sent))

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(head)
        for start in range(0, len(sent), 65536):
            writer.write(sent[start : start + 65536])
            await writer.drain()

    async def read(client: Client) -> tuple[str, int]:
        with client.share() as share:
            reply = await client.attempt(HELLO, share=share)
            await asyncio.sleep(0.01)  # an answer is kept before its room is given back
            return reply.fault, len(reply.body)

    async def read_all() -> list[tuple[str, int]]:
        async with speaking(talk) as server, Client(endpoint(server.url), SecretStr(KEY)) as client:
            tracemalloc.start()
            return await asyncio.gather(*(read(client) for _ in range(times)))

    assert asyncio.run(read_all()) == [("", size)] * times
    most_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most_bytes < 1.25 * ROOM_BYTES + times * FREE_BYTES + 2 * size
