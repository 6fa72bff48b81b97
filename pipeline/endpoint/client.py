"""Send chat requests to the endpoint, one HTTP exchange for each attempt.

Requests and responses are httpx's, carried by `transport`. httpx's own client takes three times the CPU with one client
for each request in flight, and a hundred times with one client shared by all, whose pool scans all its connections.
"""

import functools
import ssl
from types import TracebackType
from typing import Self

import httpx
from pydantic import SecretStr

from ..job import LOOPBACK, Endpoint
from ..records import Reply, Request
from .body_room import BodyRoom, RoomShare
from .connection import proxy_for, redactor_for, request_headers, url_under
from .exchange import exchange
from .kept_alive import OnDoubt
from .key_renewal import renewal_of
from .transport import AiohttpTransport


class Client:
    """A client of one endpoint: an async context manager whose `attempt` may run any number of times at once.

    Uses the proxy that the environment names, but never for this machine. Raises BadJob for a URL, a key, a header or
    a proxy that cannot be used.
    """

    def __init__(self, endpoint: Endpoint, key: SecretStr | None) -> None:
        self._url = url_under(endpoint, "/chat/completions")
        self._headers = request_headers(endpoint, key)
        self._headers["host"] = self._url.netloc.decode("ascii")
        self._deadline_seconds, self._is_streamed = endpoint.timeout_seconds, endpoint.stream
        self._room = BodyRoom()
        proxy = proxy_for(self._url)
        self._redactor = redactor_for(endpoint, key, proxy)

        def hide(newer: SecretStr) -> None:
            self._redactor = redactor_for(endpoint, newer, proxy)

        self._renewal = renewal_of(endpoint, self._headers, hide)
        # reading the certificates of the public authorities takes 50 ms, and plain HTTP on this machine needs none
        is_plain_and_local = self._url.host in LOOPBACK and self._url.scheme == "http"
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if is_plain_and_local else httpx.create_ssl_context()
        self._transport = AiohttpTransport(tls, proxy)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._renewal is not None:
            await self._renewal.close()
        await self._transport.aclose()

    def on_doubt(self, call: OnDoubt) -> None:
        """Have `call` called with the owners of attempts whose replies, as it turns out, may be another request's."""
        self._transport.on_doubt = call

    async def confirm(self) -> None:
        """Wait until no reply can become doubtful any more, two seconds at most.

        Ten at most, if the endpoint was seen to send what nobody asked for.
        """
        await self._transport.confirm()

    def share(self) -> RoomShare:
        """What the reply to one attempt may take of the room for all: used with `with`, until its outcome is kept."""
        return self._room.share()

    async def attempt(self, request: Request, owner: object = None, share: RoomShare | None = None) -> Reply:
        """Send a request once and read its reply, within the endpoint's total deadline.

        A large reply waits for room, if others have it; without a `share` it does not. That wait is not counted.
        A failed attempt is a Reply with a `fault`. Redirects are not followed, since the key would go with them. Where
        a reply repeats the key, it is replaced by `***`; in an answer, unless it is a placeholder such as `not-needed`.
        A cancelled attempt closes its connection. `owner`: see `on_doubt`.

        With a key from a command, an attempt whose key has expired is sent again with a new one: see `KeyRenewal`.
        Raises Stopped if the command fails.
        """
        if self._renewal is None:
            return await self._exchange(request, owner, share)
        return await self._renewal.send(functools.partial(self._exchange, request, owner, share))

    async def _exchange(self, request: Request, owner: object, share: RoomShare | None) -> Reply:
        # with `content` in place of `stream`, httpx spends six times as long on finding the same headers again; the
        # transport adds the length
        message = httpx.Request(
            "POST",
            self._url,
            headers=self._headers,
            stream=httpx.ByteStream(request.body),
            extensions={"owner": owner},
        )
        sending = self._transport.handle_async_request(message)
        return await exchange(
            sending, self._deadline_seconds, self._redactor, share=share, is_streamed=self._is_streamed
        )
