"""One attempt over HTTP: a Request (or a file of them) out, a Reply in. Nothing is raised, retried or judged here.

What travels is httpx's Request and Response; what carries them is `wire`. httpx's own clients take three times the CPU
with one for each request in flight, and a hundred times with one shared by all, whose pool scans all its connections.
"""

import asyncio
import contextlib
import os
import re
import ssl
import time
import zlib
from collections.abc import Awaitable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
from pydantic import SecretStr

from ..files import open_private
from ..job import LOOPBACK, Endpoint
from ..records import BadJob, Fault, Reply, Request
from .redact import Redactor
from .transport import AiohttpTransport

BODY_BYTES_MAX = 32 * 1024 * 1024
"""A decompressed answer larger than this is none."""

FILE_SECONDS = 900.0
"""The least deadline of a call that carries a file of 200 MB."""

GZIP_WINDOW_BITS = 16 + zlib.MAX_WBITS
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HEADER_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?|")


class Client:
    """The way to one endpoint. An async context manager; `attempt` may be called as often at once as one likes.

    Proxies are those of the environment, but this machine is asked without one. Raises BadJob for an address, a key,
    a header or a proxy that cannot be used.
    """

    def __init__(self, endpoint: Endpoint, key: SecretStr | None) -> None:
        self._url = _checked_url(endpoint.base_url)
        self._headers = _checked_headers(endpoint, key)
        self._headers["host"] = self._url.netloc.decode("ascii")
        self._deadline = endpoint.timeout_seconds
        self._mask = _mask_of(endpoint, key)
        is_here = self._url.host in LOOPBACK
        # to read the certificates of the web's authorities takes 50 ms, and plain HTTP on this machine needs none
        plain = is_here and self._url.scheme == "http"
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else httpx.create_ssl_context()
        self._transport = AiohttpTransport(tls, _proxy_for(self._url))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._transport.aclose()

    async def attempt(self, request: Request) -> Reply:
        """Send once and read whatever comes, within the endpoint's total deadline.

        A broken attempt is a Reply too, with its `fault`. Redirects are not followed: the key would go with them. The
        key itself is `***` wherever the reply repeats it. A cancelled attempt closes its connection.
        """
        # with `content` in the place of `stream`, httpx takes six times as long to find the same headers each time
        message = httpx.Request("POST", self._url, headers=self._headers, stream=httpx.ByteStream(request.body))
        message.headers["content-length"] = str(len(request.body))
        return await _exchange(self._transport.handle_async_request(message), self._deadline, self._mask)


class BatchApi:
    """The files and batches of one endpoint's Batch API, as OpenAI has it: one HTTP call each, and nothing judged.

    An async context manager. Every call gives a Reply, as `Client.attempt` does; an answer is JSON in its body. Raises
    BadJob as Client does.
    """

    def __init__(self, endpoint: Endpoint, key: SecretStr | None) -> None:
        self._base = _checked_url(endpoint.base_url).copy_with(path=httpx.URL(endpoint.base_url).path.rstrip("/") + "/")
        self._headers = _checked_headers(endpoint, key)
        del self._headers["content-type"]  # each call has its own
        self._deadline = max(endpoint.timeout_seconds, FILE_SECONDS)
        self._mask = _mask_of(endpoint, key)
        wire = AiohttpTransport(httpx.create_ssl_context(), _proxy_for(self._base))
        self._client = httpx.AsyncClient(transport=wire, follow_redirects=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def upload(self, path: Path) -> Reply:
        """Give the provider a file of requests, one JSON object a line; the answer names it (`id`)."""
        with path.open("rb") as file:
            form = {"purpose": (None, "batch"), "file": (path.name, file, "application/jsonl")}
            return await self._call("POST", "files", files=form)

    async def download(self, file_id: str, to: Path) -> Reply:
        """Write the file's content to `to`, which is whole if the reply is a 200 without a fault; its body is empty."""
        with os.fdopen(open_private(to, os.O_WRONLY | os.O_TRUNC), "wb") as file:
            return await self._call("GET", f"files/{_segment(file_id)}/content", into=file)

    async def delete(self, file_id: str) -> Reply:
        """Let the provider forget a file."""
        return await self._call("DELETE", f"files/{_segment(file_id)}")

    async def create(self, file_id: str) -> Reply:
        """Have the requests in a file answered within a day; the answer names the batch (`id`)."""
        wanted = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        return await self._call("POST", "batches", json=wanted)

    async def retrieve(self, batch_id: str) -> Reply:
        """How a batch stands."""
        return await self._call("GET", f"batches/{_segment(batch_id)}")

    async def batches(self, after: str) -> Reply:
        """A page of all batches of the account, the latest first; `after`: the last one of the page before."""
        return await self._call("GET", "batches", params={"limit": "100", **({"after": after} if after else {})})

    def hide(self, line: bytes) -> bytes:
        """A line of a downloaded file without the key, should it repeat it."""
        return self._mask.body(line, broke_off=False)

    async def _call(self, method: str, path: str, *, into: BinaryIO | None = None, **content: Any) -> Reply:  # noqa: ANN401 - httpx's own
        return await _exchange(self._answer(method, path, **content), self._deadline, self._mask, into)

    async def _answer(self, method: str, path: str, **content: Any) -> httpx.Response:  # noqa: ANN401 - as above
        message = self._client.build_request(method, self._base.join(path), headers=self._headers, **content)
        return await self._client.send(message, stream=True)


async def _exchange(
    answering: Awaitable[httpx.Response], deadline_seconds: float, mask: Redactor, into: BinaryIO | None = None
) -> Reply:
    """What comes of a request, as far as it comes until the deadline, without secrets.

    `into`: a file for the body of a 200; an error in writing it is raised.
    """
    began = time.perf_counter()
    status, headers, body = 0, {}, bytearray()
    fault: Fault = ""
    detail = ""
    try:
        async with asyncio.timeout(deadline_seconds):
            response = await answering
            status, headers = response.status_code, _plain(response.headers)
            stream = cast(httpx.AsyncByteStream, response.stream)
            try:
                if into is not None and status == 200:
                    async for part in response.aiter_bytes():
                        into.write(part)
                else:
                    fault = await _read(stream, headers.get("content-encoding", ""), body)
            finally:
                await stream.aclose()
    except TimeoutError:
        fault, detail = "timeout", f"no whole answer within {deadline_seconds:g} s"
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, UnicodeError, zlib.error) as error:
        fault, detail = _fault_of(error, answered=status > 0), str(error) or type(error).__name__
    seconds = time.perf_counter() - began
    said = "\n".join(headers.values())
    if mask.text(said) != said:
        headers = {name: mask.text(text) for name, text in headers.items()}
    return Reply(status, headers, mask.body(bytes(body), broke_off=bool(fault)), seconds, fault, mask.text(detail))


def _mask_of(endpoint: Endpoint, key: SecretStr | None) -> Redactor:
    return Redactor([*endpoint.secret_headers, *([key.get_secret_value()] if key is not None else [])])


def _segment(name: str) -> str:
    """A provider's id as one segment of a path: it may not lead elsewhere."""
    return quote(name, safe="").replace(".", "%2E")


def _plain(headers: httpx.Headers) -> dict[str, str]:
    """By name in lower case; of several of one name the last."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers.raw}


async def _read(stream: httpx.AsyncByteStream, encoding: str, body: bytearray) -> Fault:
    """Fill `body` with what comes, decompressed; never with much more than the limit, whatever it would unpack to."""
    packed = encoding.strip().lower() in ("gzip", "x-gzip")
    unzip = zlib.decompressobj(GZIP_WINDOW_BITS) if packed else None
    async for part in stream:
        room = BODY_BYTES_MAX + 1 - len(body)
        if unzip is None:
            body += part[:room]
        elif not unzip.eof:
            body += unzip.decompress(part, room)
        if len(body) > BODY_BYTES_MAX:
            return "too_large"
    return "cut" if unzip is not None and not unzip.eof else ""


def _checked_url(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(f"{base_url}/chat/completions")
        _ = url.host  # read only now, it may be no name
    except (httpx.InvalidURL, UnicodeError) as error:
        raise BadJob(f"endpoint.base_url: {base_url!r} is not a web address: {error}\nNothing was sent.") from None
    if url.port is not None and not 0 < url.port < 65536:
        raise BadJob(f"endpoint.base_url: {base_url!r}: there is no port {url.port}\nNothing was sent.")
    return url


def _proxy_for(url: httpx.URL) -> httpx.Proxy | None:
    """The proxy that the environment names for an address. Raises BadJob for one that cannot be used."""
    address = getproxies().get(url.scheme)
    if address is None or url.host in LOOPBACK or proxy_bypass(url.host):
        return None
    with contextlib.suppress(httpx.InvalidURL, ValueError):
        parts, proxy = urlsplit(address), httpx.Proxy(address)  # each takes what the other does not
        if parts.scheme == "http" and parts.hostname and parts.port != 0:
            return proxy
    raise BadJob(  # its address is not repeated: it may hold a password
        f"The {url.scheme} proxy that the environment names cannot be used: its address is to be http://HOST:PORT,\n"
        "or http://USER:PASSWORD@HOST:PORT, with % and two digits for what is no letter in a password.\n"
        "Nothing was sent."
    )


def _checked_headers(endpoint: Endpoint, key: SecretStr | None) -> httpx.Headers:
    """Checked here, as the transport's own complaint would quote the value."""
    for name, value in endpoint.headers.items():
        if not HEADER_NAME.fullmatch(name) or not HEADER_VALUE.fullmatch(value):
            raise BadJob(
                f"endpoint.headers: {name!r} or its value holds a character that no header may hold: "
                "only plain ASCII, without line breaks or outer spaces.\nNothing was sent."
            )
    headers = httpx.Headers({"accept": "application/json", **endpoint.headers})
    headers["content-type"] = "application/json"
    headers["accept-encoding"] = "gzip"
    headers["user-agent"] = "batch-prompt-pipeline"
    if key is not None:
        if not HEADER_VALUE.fullmatch(key.get_secret_value()):
            raise BadJob(
                f"The key in {endpoint.api_key_env or 'endpoint.api_key_default'} holds a character that no key has, "
                "such as a line break or a typographic quote: copy it again.\nNothing was sent."
            )
        headers["authorization"] = f"Bearer {key.get_secret_value()}"
    return headers


def _fault_of(error: Exception, *, answered: bool) -> Fault:
    """What broke, in the order of httpx's own tree of errors."""
    if isinstance(error, (httpx.UnsupportedProtocol, httpx.InvalidURL, UnicodeError)):
        return "url"
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)):
        return "tls" if _is_tls(error) else "connect"
    if isinstance(error, httpx.TimeoutException):
        return "timeout"
    # a connection that ends before the first byte of a reply may have carried a request that is billed all the same
    if answered or isinstance(error, httpx.NetworkError) or "disconnected" in str(error):
        return "cut"
    return "protocol"


def _is_tls(error: BaseException) -> bool:
    """No handshake will succeed: a bad certificate, or no TLS at all. A connection lost in one is not that."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return isinstance(cause, ssl.SSLError) and not isinstance(cause, (ssl.SSLEOFError, ssl.SSLSyscallError))
