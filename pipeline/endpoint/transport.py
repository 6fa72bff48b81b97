"""What carries requests: aiohttp behind httpx's own seam, at about a quarter of the CPU of httpx's own transport.

What is not wanted is off: redirects, cookies, decompression (what a body unpacks to is counted as it is read),
passwords of a .netrc, time limits (one deadline stands over the whole attempt), and any retry: a POST is sent once.
"""

import asyncio
import io
import ssl
from base64 import b64encode
from collections.abc import AsyncIterable, AsyncIterator
from typing import cast

import aiohttp
import httpx

HEAD_BYTES_MAX = 64 * 1024
"""A status line or a header longer than this is none."""
LOOP_TURNS = 2
"""So many, and the loop has heard that a connection ended while it was idle, which is then not used again."""
LARGE_BYTES = 1024 * 1024
NO_LIMIT = aiohttp.ClientTimeout(total=None, sock_connect=None)


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Any number of requests at once, a connection for each, kept for the next one.

    Raises httpx's own errors: UnsupportedProtocol · ConnectError and ProxyError, and nothing was sent · ReadError if
    the connection ended before the answer did · RemoteProtocolError for what is not HTTP.
    """

    def __init__(self, tls: ssl.SSLContext, proxy: httpx.Proxy | None = None) -> None:
        """`proxy`: whom to send through; nothing else of the environment counts."""
        self._tls, self._proxy = tls, None if proxy is None else str(proxy.url)
        # beside the address, which aiohttp's errors repeat
        password = b":".join(proxy.raw_auth) if proxy is not None and proxy.raw_auth is not None else None
        self._for_proxy = {} if password is None else {"proxy-authorization": f"Basic {b64encode(password).decode()}"}
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The response as soon as its head is there; its body comes as it is on the wire."""
        session = self._session = self._session or self._opened()  # made here: it belongs to the loop that runs
        for _ in range(LOOP_TURNS):
            await asyncio.sleep(0)
        headers = [(name.decode("ascii"), value.decode("ascii")) for name, value in request.headers.raw]
        if request.url.scheme == "http":  # of a request over TLS the proxy sees the address alone
            headers += self._for_proxy.items()
        try:
            response = await session.request(
                request.method,
                str(request.url),
                headers=headers,
                data=_content(request),
                allow_redirects=False,
                proxy_headers=self._for_proxy,
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _in_httpx_words(error) from error
        return httpx.Response(response.status, headers=response.raw_headers, stream=_Body(response))

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            await asyncio.sleep(0)  # they close in the loop's next turn

    def _opened(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls, ttl_dns_cache=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            proxy=self._proxy,
            timeout=NO_LIMIT,
            max_line_size=HEAD_BYTES_MAX,
            max_field_size=HEAD_BYTES_MAX,
        )


def _content(request: httpx.Request) -> bytes | io.BytesIO | AsyncIterable[bytes]:
    """The body at once; a large one in pieces, between which others have their turn; a file as it is read."""
    stream = request.stream
    if not isinstance(stream, httpx.ByteStream):
        return cast(httpx.AsyncByteStream, stream)
    body = b"".join(stream)
    return body if len(body) < LARGE_BYTES else io.BytesIO(body)


class _Body(httpx.AsyncByteStream):
    """A response's body; closed before its end, it takes its connection with it."""

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
        if not self._response.content.at_eof():  # at its end it has given its connection back
            self._response.close()


def _in_httpx_words(error: Exception) -> Exception:
    """The same error as httpx would raise it."""
    said = str(error) or type(error).__name__
    match error:
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            return httpx.ProxyError(said)
        case aiohttp.ClientConnectorError() | aiohttp.ClientSSLError():
            return httpx.ConnectError(said)
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError() | UnicodeError():
            return httpx.UnsupportedProtocol(said)
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | OSError():
            return httpx.ReadError(said)
        case _:
            return httpx.RemoteProtocolError(said)
