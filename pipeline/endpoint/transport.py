"""An httpx transport that sends requests with aiohttp, at about a quarter of the CPU of httpx's own transport.

Turned off are redirects, cookies, decompression (`exchange` decompresses, up to a size limit), passwords from .netrc,
timeouts (`exchange` sets one deadline for the whole attempt) and retries: a POST is sent once.
"""

import asyncio
import io
import ssl
from base64 import b64encode
from collections.abc import AsyncIterable, AsyncIterator
from typing import cast

import aiohttp
import httpx

from .kept_alive import CURRENT, Exchange, OnDoubt, WatchedConnector

HEAD_BYTES_MAX = 64 * 1024
"""The longest status line or header that is accepted."""

LARGE_BYTES = 1024 * 1024
"""The size from which a request body is sent in pieces."""

NO_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=None)
"""Turns off aiohttp's default timeouts."""


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends any number of requests at once, each on a connection of its own, which is kept alive and reused.

    A request's extension "owner" is what `on_doubt` is called with if it turns out that its response may have been
    another request's. Until then the owner is kept.

    Raises httpx's errors: UnsupportedProtocol for a bad URL; ConnectError and ProxyError where nothing was sent;
    ReadError if the connection ended before the response did; RemoteProtocolError for a response that is not HTTP.
    """

    def __init__(self, tls: ssl.SSLContext, proxy: httpx.Proxy | None = None, *, reuses: bool = True) -> None:
        """`proxy`: the proxy to send through. The environment's proxy variables are not read.

        `reuses=False`: each request gets a connection of its own, so that its response is never doubtful.
        """
        self._reuses = reuses
        self._tls, self._proxy = tls, None if proxy is None else str(proxy.url)
        # kept out of the proxy's URL, since aiohttp's errors repeat that
        login = b":".join(proxy.raw_auth) if proxy is not None and proxy.raw_auth is not None else None
        self._proxy_headers = {} if login is None else {"proxy-authorization": f"Basic {b64encode(login).decode()}"}
        self._session: aiohttp.ClientSession | None = None
        self._connector: WatchedConnector | None = None
        self.on_doubt: OnDoubt = lambda _owners: None
        """Called with the owners of requests whose responses became doubtful."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response once its headers are read; its body is streamed as it comes, not decompressed."""
        session = self._session = self._session or self._open_session()  # made here: it belongs to the running loop
        headers = [(name.decode("ascii"), value.decode("ascii")) for name, value in request.headers.raw]
        if request.url.scheme == "http":  # over TLS, the proxy's headers go with its CONNECT alone
            headers += self._proxy_headers.items()
        content = _content(request)
        body_bytes = len(content) if isinstance(content, bytes) else LARGE_BYTES
        CURRENT.set(Exchange(request.extensions.get("owner"), body_bytes))
        try:
            response = await session.request(
                request.method,
                str(request.url),
                headers=headers,
                data=content,
                allow_redirects=False,
                proxy_headers=self._proxy_headers,
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _as_httpx_error(error) from error
        return httpx.Response(response.status, headers=response.raw_headers, stream=_Body(response))

    async def confirm(self) -> None:
        """Return once no response can become doubtful any more; see `WatchedConnector.confirm`."""
        if self._connector is not None:
            await self._connector.confirm()

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            await asyncio.sleep(0)  # the sockets are closed in the loop's next turn

    def _open_session(self) -> aiohttp.ClientSession:
        self._connector = WatchedConnector(limit=0, ssl=self._tls, ttl_dns_cache=60)
        self._connector.on_doubt = self.on_doubt
        self._connector.is_suspect = not self._reuses
        return aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            proxy=self._proxy,
            timeout=NO_TIMEOUT,
            max_line_size=HEAD_BYTES_MAX,
            max_field_size=HEAD_BYTES_MAX,
        )


def _content(request: httpx.Request) -> bytes | io.BytesIO | AsyncIterable[bytes]:
    """Return the body as bytes; a large one as a file, whose pieces do not block the loop; a stream as it is."""
    stream = request.stream
    if not isinstance(stream, httpx.ByteStream):
        return cast(httpx.AsyncByteStream, stream)
    body = b"".join(stream)
    return body if len(body) < LARGE_BYTES else io.BytesIO(body)


class _Body(httpx.AsyncByteStream):
    """A response's body. Its connection is reused if the body was read to its end, else closed."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._response.content
        try:
            while part := await content.readany():
                yield part
        except (aiohttp.ClientError, OSError) as error:
            raise httpx.ReadError(str(error) or type(error).__name__) from error

    async def aclose(self) -> None:
        if not self._response.content.at_eof():  # at its end, aiohttp has taken the connection back
            self._response.close()


def _as_httpx_error(error: Exception) -> Exception:
    """Translate an error into the one that httpx raises in its place."""
    message = str(error) or type(error).__name__
    match error:
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            return httpx.ProxyError(message)
        case aiohttp.ClientConnectorError() | aiohttp.ClientSSLError():
            return httpx.ConnectError(message)
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError() | UnicodeError():
            return httpx.UnsupportedProtocol(message)
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | OSError():
            return httpx.ReadError(message)
        case _:
            return httpx.RemoteProtocolError(message)
