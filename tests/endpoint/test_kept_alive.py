"""See also `faults/test_unasked.py`, where whole runs meet such endpoints."""

import asyncio

from pydantic import SecretStr
from raw_server import HELLO, KEY, OK, endpoint, read_request, speaking

from pipeline.endpoint.client import Client
from pipeline.endpoint.kept_alive import REQUESTS_MAX
from pipeline.records import Reply


def test_a_connection_carries_a_bounded_number_of_requests() -> None:
    carried: list[int] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        carried.append(0)
        while True:
            await read_request(reader)
            carried[-1] += 1
            writer.write(OK)

    async def ask() -> None:
        async with speaking(talk) as server, Client(endpoint(server.url), SecretStr(KEY)) as client:
            for number in range(REQUESTS_MAX + 1):
                assert (await client.attempt(HELLO, number)).status == 200

    asyncio.run(ask())
    assert carried == [REQUESTS_MAX, 1]


def test_the_owners_of_all_answers_of_a_connection_are_told_when_something_follows() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3):
            await read_request(reader)
            writer.write(OK)
        await asyncio.sleep(0.02)
        writer.write(b"H")

    doubtful: list[object] = []

    async def ask() -> None:
        async with speaking(talk) as server, Client(endpoint(server.url), SecretStr(KEY)) as client:
            client.on_doubt(doubtful.extend)
            for owner in "abc":
                await client.attempt(HELLO, owner)
            await client.confirm()

    asyncio.run(ask())
    assert doubtful == ["a", "b", "c"]


def test_a_server_that_always_speaks_first_gets_no_request() -> None:
    requests: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        requests.append(await reader.read())

    async def ask() -> list[Reply]:
        async with speaking(talk) as server, Client(endpoint(server.url), SecretStr(KEY)) as client:
            await client.attempt(HELLO)  # on the first connection the response may come just after the request left
            return [await client.attempt(HELLO) for _ in range(2)]

    replies = asyncio.run(ask())
    assert {(reply.status, reply.fault) for reply in replies} == {(0, "protocol")}
    assert all(request == b"" for request in requests[1:])


def test_what_is_silent_is_soon_certain() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)

    async def ask() -> float:
        async with speaking(talk) as server, Client(endpoint(server.url), SecretStr(KEY)) as client:
            await client.attempt(HELLO)
            began = asyncio.get_running_loop().time()
            await client.confirm()
            return asyncio.get_running_loop().time() - began

    assert asyncio.run(ask()) < 1
