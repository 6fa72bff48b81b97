"""A server on a loopback port that sends what a test wants, and attempts by a `Client` at it or at a `ChatServer`."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from chat_server import Canned, ChatServer
from pydantic import SecretStr

from pipeline.endpoint.client import Client
from pipeline.job.endpoint import Endpoint
from pipeline.records import Reply, Request

KEY = "sk-test-4f9c81d2"
HELLO = Request("0" * 64, b'{"model":"m","messages":[{"role":"user","content":"hello"}]}')
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def endpoint(base_url: str, **more: Any) -> Endpoint:
    return Endpoint(base_url=base_url, model="m", **{"timeout_seconds": 20, **more})


def attempts(base_url: str, times: int = 1, *, key: str | None = KEY, **more: Any) -> list[Reply]:
    """Make attempts in sequence with one Client; return their replies."""

    async def ask() -> list[Reply]:
        secret = None if key is None else SecretStr(key)
        async with Client(endpoint(base_url, **more), secret) as client:
            return [await client.attempt(HELLO) for _ in range(times)]

    return asyncio.run(ask())


def attempt(base_url: str, **more: Any) -> Reply:
    return attempts(base_url, **more)[0]


def canned(answer: Canned, **more: Any) -> Reply:
    with ChatServer(lambda _seen, _attempt: answer) as server:
        return attempt(server.url, **more)


class Speaker:
    """A raw server in the test's event loop."""

    def __init__(self) -> None:
        self.port = 0
        self.talks: list[asyncio.Task[None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def all_closed(self) -> None:
        """Return once the client has closed every connection."""
        await asyncio.wait_for(asyncio.gather(*self.talks), 10)


@asynccontextmanager
async def speaking(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[Speaker]:
    """Serve each connection with `talk`; at the end, wait until the client has closed them all."""
    speaker = Speaker()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        speaker.talks.append(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await talk(reader, writer)
            await reader.read()
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    speaker.port = server.sockets[0].getsockname()[1]
    async with server:
        yield speaker
        await speaker.all_closed()


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read the next request's head and body. Raises IncompleteReadError at the connection's end."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head, await reader.readexactly(length)


async def answer_all_of_them(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await read_request(reader)
        writer.write(OK)


def reply_of(talk: Talk, *, scheme: str = "http", **more: Any) -> Reply:
    """Make one attempt at a server that talks so."""

    async def ask() -> Reply:
        async with speaking(talk) as server, Client(endpoint(server.url, **more), SecretStr(KEY)) as client:
            return await client.attempt(HELLO)

    async def ask_over_tls() -> Reply:
        async with speaking(talk) as server:
            url = server.url.replace("http:", "https:")
            async with Client(endpoint(url, **more), SecretStr(KEY)) as client:
                return await client.attempt(HELLO)

    return asyncio.run(ask() if scheme == "http" else ask_over_tls())
