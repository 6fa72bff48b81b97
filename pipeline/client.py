"""One attempt over HTTP: a Request out, a Reply in. Nothing is raised, retried or judged here.

One httpx client for each request in flight: a pool shared by many scans all its connections for every request, which
cost 56 ms of CPU a row at 256 at once where this costs 1.6. The TLS context is shared, and made once.
"""

import asyncio
import time
from types import TracebackType
from typing import Self

import httpx
from pydantic import SecretStr

from .job import Endpoint
from .records import Fault, Reply, Request

BODY_BYTES_MAX = 32 * 1024 * 1024
"""A decompressed answer larger than this is none."""

ONE = httpx.Limits(max_connections=1, max_keepalive_connections=1)


class Client:
    """The way to one endpoint. An async context manager; `attempt` may be called as often at once as one likes."""

    def __init__(
        self, endpoint: Endpoint, key: SecretStr | None, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._url = httpx.URL(f"{endpoint.base_url}/chat/completions")
        self._headers = httpx.Headers({"accept": "application/json", **endpoint.headers})
        self._headers["content-type"] = "application/json"
        self._headers["user-agent"] = "batch-prompt-pipeline"
        if key is not None:
            self._headers["authorization"] = f"Bearer {key.get_secret_value()}"
        self._deadline = endpoint.timeout_seconds
        self._transport = transport
        self._tls = httpx.create_ssl_context()
        self._idle: list[httpx.AsyncClient] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        for client in self._idle:
            await client.aclose()

    async def attempt(self, request: Request) -> Reply:
        """Send once and read whatever comes, within the endpoint's total deadline.

        A broken attempt is a Reply too, with its `fault`. Redirects are not followed: the key would go with them.
        """
        client = self._idle.pop() if self._idle else self._new_client()
        began = time.perf_counter()
        status, headers, body = 0, {}, bytearray()
        fault: Fault = ""
        detail = ""
        try:
            async with asyncio.timeout(self._deadline):
                message = client.build_request("POST", self._url, content=request.body, headers=self._headers)
                response = await client.send(message, stream=True)
                status, headers = response.status_code, {name.lower(): text for name, text in response.headers.items()}
                try:
                    async for part in response.aiter_bytes():
                        body += part
                        if len(body) > BODY_BYTES_MAX:
                            fault = "too_large"
                            break
                finally:
                    await response.aclose()
        except TimeoutError:
            fault, detail = "timeout", f"no whole answer within {self._deadline:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, UnicodeError) as error:
            fault, detail = _fault_of(error, answered=status > 0), str(error) or type(error).__name__
        self._idle.append(client)
        return Reply(status, headers, bytes(body), time.perf_counter() - began, fault, detail)

    def _new_client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=self._transport,
            verify=self._tls,
            limits=ONE,
            timeout=None,  # noqa: S113 - one deadline over the whole attempt stands in its place
            follow_redirects=False,
        )


def _fault_of(error: Exception, *, answered: bool) -> Fault:
    """What broke, in the order of httpx's own tree of errors."""
    if isinstance(error, httpx.ConnectError):
        # httpx keeps TLS failures among those to connect; the cause alone tells a bad certificate from a refused port
        return "tls" if "CERTIFICATE" in str(error).upper() or "SSL" in str(error).upper() else "connect"
    if isinstance(error, (httpx.UnsupportedProtocol, httpx.InvalidURL, UnicodeError)):
        return "url"
    if isinstance(error, httpx.TimeoutException):
        return "timeout"
    if isinstance(error, httpx.ProxyError):
        return "connect"
    if answered:
        return "cut"
    return "protocol"
