"""Connections that are kept alive, each reused only while nothing arrives on it that was not asked for.

HTTP/1.1 says nothing about which request a response answers but their order. One response too many, and every later
request on the connection gets the answer of the one before it. So a connection on which bytes arrive while no response
is due carries no further request, and the answers that it brought are reported as doubtful.
"""

import asyncio
import select
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

REQUESTS_MAX = 64
"""The most answers of one connection that may be doubtful at once; it carries no further request then."""

REMEMBERED_BYTES_MAX = 256 * 1024
"""The size of request bodies from which a connection carries no further request, as they are remembered until then."""

FORGET_SECONDS = 60.0
"""After this time of silence an answer is certain: what arrives then is the 408 of a proxy that closes."""

RESTING_MAX = 64
"""The most connections that are kept open after their last request, to see whether something follows."""

REUSE_SECONDS_MAX = 1.0
"""A connection whose response took longer carries no further request: a new connection costs little beside that, and
what may follow a response shows soon."""

SILENCE_SECONDS = 0.05
"""How much longer than twice the slowest response a connection must be silent, until its last answer is certain.

Twice, as a server answers one request after the other: if each response is that of the request before, the last one
is begun when the slowest is sent.
"""

CONFIRM_SECONDS_MAX = 2.1
"""How long the end of a run waits at most for its connections to be silent."""

CONFIRM_SLOW_SECONDS_MAX = 10.0
"""How long it waits at most after an unasked response was seen, or if a connection became slow after it was fast."""

LISTEN_SECONDS = 0.05
"""How long a new connection is listened to before its request leaves, if that is large or the server is suspect."""

CONNECTIONS_REFUSED_MAX = 3
"""How many new connections, on which the server speaks first, are given up before the attempt is."""

SMALL_BYTES = 32 * 1024
"""A request body below this size is written at once, so a response that comes before is not its answer."""

HTTP = b"HTTP/"
"""How every response begins."""

EARLY = "the server sends a response before it is asked"


class Exchange(NamedTuple):
    """A request on its way: who is to be told if its answer becomes doubtful, and the size of its body."""

    owner: object
    body_bytes: int


CURRENT: ContextVar[Exchange] = ContextVar("exchange")
"""The exchange that the current task asks a connection for."""

OnDoubt = Callable[[Sequence[object]], None]


class WatchedConnection(ResponseHandler):
    """aiohttp's end of a connection, which notices bytes that arrive while no response is due."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connector: "WatchedConnector") -> None:
        super().__init__(loop)
        self._connector = connector
        self.is_awaited = False
        """A request was sent, and its response is not complete."""
        self.is_written = False
        """That request was written as a whole."""
        self.has_response = False
        """The head of that response is read."""
        self.is_dirty = False
        """Something arrived that was not asked for."""
        self.sent_at = 0.0
        """When its last request left, in the loop's time."""
        self.carried = 0
        """The number of its requests."""
        self.is_slow = False
        """Its last response took so long that it carries no further request."""
        self._is_small = True
        self._first_bytes = b""
        """How its last response began."""
        self.exchanges: list[Exchange] = []
        """What it carried, as long as that may become doubtful."""
        self.remembered_bytes = 0
        """The size of the request bodies of these exchanges."""
        self._arrivals: Callable[[], bool] = lambda: True

    @property
    def has_arrived(self) -> bool:
        """Whether the socket holds bytes that the loop has not read, or the connection has ended."""
        return self.transport is None or self.transport.is_closing() or self._arrivals()

    def begin(self, exchange: Exchange, *, is_certain: bool) -> None:
        """Expect a response from now on. `is_certain`: whatever follows it, the first response is the answer."""
        self.is_awaited, self.is_written, self.has_response = True, False, False
        self._is_small, self._first_bytes = exchange.body_bytes < SMALL_BYTES, b""
        self.sent_at = self._loop.time()
        self.carried += 1
        if not is_certain:
            self.remembered_bytes = exchange.body_bytes + (self.remembered_bytes if self.exchanges else 0)
            self.exchanges.append(exchange)

    def forget_old(self) -> None:
        """Forget the exchanges whose answers are certain by now."""
        if self.exchanges and self._loop.time() - self.sent_at > FORGET_SECONDS:
            self.exchanges.clear()

    def start_timeout(self) -> None:
        """Take note that the request is written; aiohttp starts a timeout then."""
        self.is_written = True
        super().start_timeout()

    def data_received(self, data: bytes) -> None:
        """Read what arrived; see aiohttp."""
        if data and not self.is_awaited:
            self._on_unasked()
        elif len(self._first_bytes) < len(HTTP):
            self._first_bytes += data[: len(HTTP)]
        super().data_received(data)

    def feed_data(self, data: Any, size: int = 0) -> None:  # noqa: ANN401 - aiohttp's message and its body
        """Take the head of a response, whose body may follow; see aiohttp."""
        message, body = data
        if not 100 <= message.code < 200 or message.code == 101:  # informational responses come first
            if self.has_response:
                self._on_unasked()
            elif self.is_awaited and not self.is_written and self._is_small and message.code < 300:
                self._refuse_early()
                return
            else:
                self.has_response = True
                body.on_eof(self._on_complete)
        super().feed_data(data, size)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Fail what is awaited; see aiohttp. A response that begins well, and then is none, may be two in one."""
        is_mixed = not self.is_awaited or self._first_bytes.startswith(HTTP)
        if isinstance(exc, HttpProcessingError) and is_mixed and len(self.exchanges) > self.is_awaited:
            if self.is_awaited:
                self.exchanges.pop()  # it fails, and is asked again, by itself
            self._on_unasked()
        super().set_exception(exc, *cause)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take note of the beginning; see aiohttp."""
        super().connection_made(transport)
        self._connector.open_transports[self] = cast(asyncio.Transport, transport)
        self._arrivals = _arrivals(transport.get_extra_info("socket"))

    def connection_lost(self, exc: BaseException | None) -> None:
        """Take note of the end; see aiohttp."""
        super().connection_lost(exc)
        self._connector.open_transports.pop(self, None)

    def _refuse_early(self) -> None:
        """Fail the attempt, as the answer came before the request left; aiohttp would leave the rest of it unsent."""
        if self.exchanges:
            self.exchanges.pop()
        self._on_unasked()
        self.set_exception(aiohttp.ClientConnectionError(EARLY))
        if self.transport is not None:
            self.transport.close()

    def _on_complete(self) -> None:
        if not self.is_written:  # refused before it was read as a whole: the rest of it must not be read as the next
            self.force_close()
        if not self.is_awaited:
            return
        self.is_awaited = False
        seconds = self._loop.time() - self.sent_at
        self.is_slow = seconds > REUSE_SECONDS_MAX
        if self.is_slow and self.carried == 1:  # a response that was sent before it was asked for comes much sooner
            self.exchanges.clear()
            self.force_close()
        else:
            self._connector.on_complete(seconds)

    def _on_unasked(self) -> None:
        self.is_dirty = True
        if not self.carried:
            return  # the answer of a proxy to CONNECT, or a server that speaks first: no request is sent after it
        self.force_close()
        if self.transport is not None and not self.is_awaited:
            self.transport.close()  # what was read of the answer stays readable
        self.forget_old()
        doubtful, self.exchanges = self.exchanges, []
        self._connector.on_unasked(doubtful)


class WatchedConnector(aiohttp.TCPConnector):
    """Hands out connections for one request each, reused only if they are surely clean.

    aiohttp's own pool hands out an idle connection without asking whether something arrived on it, so each is checked
    here at the moment of use: first what the loop has read, then what the socket holds.
    """

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - those of TCPConnector
        super().__init__(**settings)
        self._factory = cast(partial[ResponseHandler], partial(WatchedConnection, self._loop, self))
        self.on_doubt: OnDoubt = lambda _owners: None
        """Called with the owners of exchanges whose answers became doubtful."""
        self.is_suspect = False
        """An unasked response was seen: each request gets a connection of its own."""
        self._slowest_seconds = 0.0
        """How long the slowest response took, of those on connections that are used again."""
        self.open_transports: dict[WatchedConnection, asyncio.Transport] = {}
        """All connections that are open, also those on which TLS is being ended."""
        self._resting: deque[aiohttp.connector.Connection] = deque()
        """Connections that carry no further request, kept open to see whether something follows."""

    async def connect(self, *arguments: Any, **more: Any) -> aiohttp.connector.Connection:  # noqa: ANN401 - aiohttp's
        """Return a clean connection from the pool, or a new one, for the current task's exchange.

        Raises ClientConnectionError if the server speaks first, before any request was sent.
        """
        refused = 0
        while True:
            connection = await super().connect(*arguments, **more)
            protocol = connection.protocol
            assert isinstance(protocol, WatchedConnection)  # noqa: S101 - `_factory` makes no other
            if protocol.carried:
                if not self.is_suspect and self._may_carry_more(protocol):
                    self._begin(protocol)
                    return connection
                self._rest(connection)
                continue
            try:
                if self.is_suspect or CURRENT.get().body_bytes >= SMALL_BYTES:
                    await asyncio.sleep(LISTEN_SECONDS)
            except BaseException:
                connection.close()
                raise
            # over TLS, a new connection's socket may hold the server's session tickets
            if not protocol.is_dirty and (_is_tls(protocol) or not protocol.has_arrived):
                self._begin(protocol)
                return connection
            connection.close()
            refused += 1
            if refused == CONNECTIONS_REFUSED_MAX:
                raise aiohttp.ClientConnectionError(EARLY)

    def on_complete(self, seconds: float) -> None:
        """Take note of how long a response took."""
        self._slowest_seconds = max(self._slowest_seconds, seconds)

    def on_unasked(self, doubtful: Sequence[Exchange]) -> None:
        """Use no connection twice from now on, and report whose answers are doubtful."""
        self.is_suspect = True
        self.on_doubt([exchange.owner for exchange in doubtful])

    async def confirm(self) -> None:
        """Wait until no answer can become doubtful: every connection was silent long enough, or is closed.

        No longer than two seconds, or ten if an unasked response was seen or a connection became slow.
        """
        began = self._loop.time()
        while True:
            doubtful = [carrier for carrier in self.open_transports if carrier.exchanges]
            is_slow = self.is_suspect or any(carrier.is_slow for carrier in doubtful)
            longest = CONFIRM_SLOW_SECONDS_MAX if is_slow else CONFIRM_SECONDS_MAX
            until = max(map(self._silent_at, doubtful), default=0.0)
            seconds = min(until, began + longest) - self._loop.time()
            if seconds <= 0:
                return
            await asyncio.sleep(seconds)

    def _begin(self, protocol: WatchedConnection) -> None:
        if self.is_suspect:
            protocol.force_close()
        protocol.begin(CURRENT.get(), is_certain=self.is_suspect)

    def _may_carry_more(self, protocol: WatchedConnection) -> bool:
        protocol.forget_old()
        return (
            not (protocol.should_close or protocol.is_slow)
            and len(protocol.exchanges) < REQUESTS_MAX
            and (not protocol.exchanges or protocol.remembered_bytes < REMEMBERED_BYTES_MAX)
            and not protocol.has_arrived
        )

    def _rest(self, connection: aiohttp.connector.Connection) -> None:
        """Keep a connection open without using it, until it was silent for long, or others take its place."""
        self._resting.append(connection)
        while self._resting and (len(self._resting) > RESTING_MAX or self._is_over(self._resting[0])):
            self._resting.popleft().close()

    def _is_over(self, connection: aiohttp.connector.Connection) -> bool:
        protocol = connection.protocol
        assert isinstance(protocol, WatchedConnection)  # noqa: S101 - see `connect`
        return connection.closed or self._loop.time() > self._silent_at(protocol) + CONFIRM_SECONDS_MAX

    def _silent_at(self, protocol: WatchedConnection) -> float:
        """When the answers of a connection are certain if it is silent until then, in the loop's time."""
        return protocol.sent_at + 2 * self._slowest_seconds + SILENCE_SECONDS

    async def close(self, **arguments: Any) -> None:  # noqa: ANN401 - those of aiohttp
        """Close all connections at once, without the end of TLS: no peer is waited for."""
        while self._resting:
            self._resting.popleft().close()
        await super().close(**arguments)
        for transport in self.open_transports.values():
            transport.abort()


def _is_tls(protocol: WatchedConnection) -> bool:
    return protocol.transport is not None and protocol.transport.get_extra_info("ssl_object") is not None


def _arrivals(sock: socket.socket) -> Callable[[], bool]:
    """Make the function that tells whether a socket holds bytes, or its connection's end. Not for a closed socket."""
    if not hasattr(select, "poll"):  # Windows
        return lambda: bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return lambda: bool(poll.poll(0))
