"""HTTP/1.1 to one endpoint, as an httpx transport: a connection for each request in flight, kept for the next one.

It exists for its cost: a tenth of httpx's own transport at 256 at once. What is not plain is not here: no proxy, no
redirect, no HTTP/2, no retry; nothing is logged. The answers are parsed by httptools, which is Node's llhttp.
"""

import asyncio
import select
import ssl
from collections import deque
from collections.abc import AsyncIterator
from functools import partial
from typing import cast

import httptools
import httpx

HEAD_BYTES_MAX = 256 * 1024
"""A status line and headers longer than this are none."""
RACE_SECONDS = 0.25
"""A host's next address is tried when one is silent for so long (RFC 8305)."""


class Wire(httpx.AsyncBaseTransport):
    """Any number of requests at once. One whose response is closed before its end takes its connection with it.

    Raises httpx's own errors: UnsupportedProtocol · ConnectError, and nothing was sent · ReadError if the connection
    ended before the answer did · RemoteProtocolError for what is not HTTP.
    """

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._idle: list[_Connection] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The response as soon as its head is there; its body comes as it is on the wire."""
        connection = self._kept() or await self._connect(request.url)
        try:
            status, headers = await connection.ask(_head(request), request.read())
        except BaseException:
            connection.abort()
            raise
        return httpx.Response(status, headers=headers, stream=_Body(connection, self._idle))

    async def aclose(self) -> None:
        """Close the connections that no request uses."""
        while self._idle:
            self._idle.pop().abort()
        await asyncio.sleep(0)  # they close in the loop's next turn

    def _kept(self) -> "_Connection | None":
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and connection.is_silent:
                return connection
            connection.abort()
        return None

    async def _connect(self, url: httpx.URL) -> "_Connection":
        if url.scheme not in ("http", "https"):
            raise httpx.UnsupportedProtocol(f"{url.scheme}:// is neither http:// nor https://")
        host, port = url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)
        tls = self._tls if url.scheme == "https" else None
        loop = asyncio.get_running_loop()
        connect = partial(loop.create_connection, _Connection, host, port, ssl=tls)
        if isinstance(loop, asyncio.BaseEventLoop):  # others, as uvloop's, try one address after the other
            connect = partial(connect, happy_eyeballs_delay=RACE_SECONDS)
        try:
            connection: _Connection = (await connect())[1]
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(str(error) or type(error).__name__) from error
        return connection


class _Connection(asyncio.Protocol):
    """One connection: one request, then its answer, then the next."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self.is_open = True
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._parts: deque[bytes] = deque()
        self._error: httpx.TransportError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_asked = self._has_head = self._is_whole = False
        self._head_bytes = 0

    @property
    def is_silent(self) -> bool:
        """Nothing has come that the loop has not told of yet, such as the end of the connection."""
        return not _is_readable(self._transport.get_extra_info("socket").fileno())

    async def ask(self, head: bytes, body: bytes) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Send a request; give the status and headers of its answer."""
        self._headers, self._head_bytes = [], 0
        self._is_asked, self._has_head, self._is_whole = True, False, False
        self._transport.write(head + body)
        while not self._has_head:
            await self._change()
        return self._parser.get_status_code(), self._headers

    async def parts(self) -> AsyncIterator[bytes]:
        """The answer's body, to its end."""
        while True:
            while self._parts:
                yield self._parts.popleft()
            if self._is_whole:
                return
            await self._change()

    @property
    def is_done(self) -> bool:
        """The answer was read to its end."""
        return self._is_whole and not self._parts

    def abort(self) -> None:
        """Close it at once."""
        self.is_open = False
        self._transport.abort()

    async def _change(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _break(self, error: httpx.TransportError) -> None:
        self._error = self._error or error
        self.abort()

    # asyncio calls the four that follow

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        """Some of an answer."""
        if not self._is_asked or self._is_whole:  # what nobody asked for is no answer to the next request
            self.abort()
            return
        if not self._has_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._break(httpx.RemoteProtocolError(f"the answer is not HTTP: {error}"))
        if not self._has_head and self._head_bytes > HEAD_BYTES_MAX:
            self._break(httpx.RemoteProtocolError("the headers have no end"))
        self._wake()

    def eof_received(self) -> None:
        """The other side says no more: the connection closes itself."""
        self.is_open = False

    def connection_lost(self, error: Exception | None) -> None:
        """The end, which is that of an answer too where nothing else tells it."""
        self.is_open = False
        if error is None and self._has_head and not self._is_whole and self._ends_with_the_connection():
            self._is_whole = True
        if not self._is_whole:
            self._error = self._error or httpx.ReadError(str(error) if error else "the server disconnected")
        self._wake()

    def _ends_with_the_connection(self) -> bool:
        return not {name.lower() for name, _ in self._headers} & {b"content-length", b"transfer-encoding"}

    # httptools calls the four that follow

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or one of those behind a chunked body."""
        if not self._has_head:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The whole head, maybe of an interim answer."""
        self._has_head = self._parser.get_status_code() >= 200

    def on_body(self, part: bytes) -> None:
        """Some of the body."""
        self._parts.append(part)

    def on_message_complete(self) -> None:
        """The end of an answer."""
        if self._has_head:
            self._is_whole = True
            self.is_open = self.is_open and self._parser.should_keep_alive()
        else:
            self._headers.clear()


class _Body(httpx.AsyncByteStream):
    """A response's body; closing it gives its connection back, or ends it."""

    def __init__(self, connection: _Connection, idle: list[_Connection]) -> None:
        self._connection, self._idle = connection, idle

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._connection.parts()

    async def aclose(self) -> None:
        """May be called once."""
        if self._connection.is_open and self._connection.is_done:
            self._idle.append(self._connection)
        else:
            self._connection.abort()


def _is_readable(descriptor: int) -> bool:
    if not hasattr(select, "poll"):  # Windows, whose select takes any descriptor
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _head(request: httpx.Request) -> bytes:
    lines = b"".join([b"%s: %s\r\n" % pair for pair in request.headers.raw])
    return b"%s %s HTTP/1.1\r\n%s\r\n" % (request.method.encode("ascii"), request.url.raw_path, lines)
