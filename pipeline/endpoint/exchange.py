"""One HTTP exchange: send a request, read its reply until the deadline, and name the fault if it failed.

Nothing is raised, retried or judged here.
"""

import asyncio
import ssl
import time
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterator
from typing import BinaryIO, cast

import httpx

from ..records import Fault, Reply
from ..text import BODY_BYTES_AT_ONCE, in_thread_if
from .body_room import BODY_BYTES_MAX, BodyRoom, RoomShare
from .redact import Redactor

PIECE_BYTES = 256 * 1024
"""How much is decompressed at once."""

GZIP_WINDOW_BITS = 16 + zlib.MAX_WBITS
"""How zlib is asked for the gzip format."""


async def exchange(
    sending: Awaitable[httpx.Response],
    deadline_seconds: float,
    redactor: Redactor,
    into: BinaryIO | None = None,
    share: RoomShare | None = None,
    *,
    is_streamed: bool = False,
) -> Reply:
    """Await a response and read its body, within one deadline for all of it. Secrets are redacted in the whole reply.

    Of an answer, only what looks like a secret is redacted (`Redactor.redact_reply`).

    A failed exchange is a Reply with a `fault`, and with as much of the status, headers and body as arrived.
    `into`: a file that the body of a 200 is written to, in place of the reply's body. An error in writing it is raised.
    `share`: what the body may take of the room for all; None if it is alone. `is_streamed`: the deadline is for each
    piece of the body, not for all of it.
    """
    share = share or BodyRoom().share()
    began = time.perf_counter()
    status, headers, body = 0, {}, bytearray()
    fault: Fault = ""
    detail = ""
    try:
        async with asyncio.timeout(deadline_seconds) as deadline:
            response = await sending
            status, headers = response.status_code, _plain_headers(response.headers)
            stream = cast(httpx.AsyncByteStream, response.stream)
            try:
                if into is not None and status == 200:
                    async for part in response.aiter_bytes():
                        into.write(part)
                else:
                    parts = _renewing(stream, deadline, deadline_seconds) if is_streamed else stream
                    fault = await _read_body(parts, headers.get("content-encoding", ""), body, share, deadline)
            finally:
                await stream.aclose()
    except TimeoutError:
        what = "nothing came for" if is_streamed else "no whole answer within"
        fault, detail = "timeout", f"{what} {deadline_seconds:g} s"
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, UnicodeError, zlib.error) as error:
        fault, detail = _fault_of(error, has_status=status > 0), str(error) or type(error).__name__
    seconds = time.perf_counter() - began
    reply = Reply(status, headers, bytes(body), seconds, fault, detail)
    body.clear()  # the room is for one copy
    return await in_thread_if(len(reply.body) > BODY_BYTES_AT_ONCE, redactor.redact_reply, reply)


def _plain_headers(headers: httpx.Headers) -> dict[str, str]:
    """Map names in lower case to values; of several headers with one name the last counts."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers.raw}


async def _read_body(
    stream: AsyncIterable[bytes], encoding: str, body: bytearray, share: RoomShare, deadline: asyncio.Timeout
) -> Fault:
    """Append a stream to `body`, decompressed. Stops just above the size limit, even amid a decompression bomb."""
    is_gzip = encoding.strip().lower() in ("gzip", "x-gzip")
    unzip = zlib.decompressobj(GZIP_WINDOW_BITS) if is_gzip else None
    async for part in stream:
        for piece in (part,) if unzip is None else _unzipped(unzip, part):
            size = min(len(body) + len(piece), BODY_BYTES_MAX + 1)
            await share.grow(size, deadline)
            body += piece[: size - len(body)]
            if size > BODY_BYTES_MAX:
                return "too_large"
    return "cut" if unzip is not None and not unzip.eof else ""


async def _renewing(stream: AsyncIterable[bytes], deadline: asyncio.Timeout, seconds: float) -> AsyncIterator[bytes]:
    """The parts of a stream; each moves the deadline on, except comments, which a gateway may send for ever."""
    async for part in stream:
        if not part.lstrip().startswith(b":"):
            deadline.reschedule(asyncio.get_running_loop().time() + seconds)
        yield part


def _unzipped(unzip: "zlib._Decompress", packed: bytes) -> Iterator[bytes]:
    """Decompress a part of a stream, a piece at a time. What follows the end of the gzip is left out."""
    while not unzip.eof:
        piece = unzip.decompress(packed, PIECE_BYTES)
        packed = unzip.unconsumed_tail
        if piece:
            yield piece
        if not packed and len(piece) < PIECE_BYTES:
            return


def _fault_of(error: Exception, *, has_status: bool) -> Fault:
    if isinstance(error, (httpx.UnsupportedProtocol, httpx.InvalidURL, UnicodeError)):
        return "url"
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)):
        return "tls" if _is_tls(error) else "connect"
    if isinstance(error, httpx.TimeoutException):
        return "timeout"
    # a connection that ends before the first byte of a reply may have carried a request that is billed all the same
    if has_status or isinstance(error, httpx.NetworkError) or "disconnected" in str(error):
        return "cut"
    return "protocol"


def _is_tls(error: BaseException) -> bool:
    """Tell whether TLS can never succeed here: a bad certificate, or a server without TLS; not a lost connection."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return isinstance(cause, ssl.SSLError) and not isinstance(cause, (ssl.SSLEOFError, ssl.SSLSyscallError))
