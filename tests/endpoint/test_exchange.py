"""An exchange ends with a Reply in time and of limited size, however the other side behaves."""

import asyncio
import gzip
import socket
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from typing import NamedTuple

import httpx
import pytest
from chat_server import Canned, ChatServer, completion
from pydantic import SecretStr
from raw_server import (
    HELLO,
    KEY,
    attempt,
    attempts,
    canned,
    endpoint,
    read_request,
    reply_of,
    speaking,
)

from pipeline.endpoint.body_room import BODY_BYTES_MAX
from pipeline.endpoint.client import Client
from pipeline.endpoint.exchange import exchange
from pipeline.endpoint.redact import Redactor
from pipeline.endpoint.replies import read_reply
from pipeline.records import Fault, Reply


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    assert isinstance(port, int)
    return port


def test_a_gzip_body_is_decompressed() -> None:
    body = completion("packed")
    reply = canned(Canned(body=gzip.compress(body), headers={"content-encoding": "gzip"}))
    assert (reply.status, reply.fault, reply.body) == (200, "", body)


# ---- the other side breaks


def test_a_closed_port_cannot_be_connected_to() -> None:
    reply = attempt(f"http://127.0.0.1:{free_port()}/v1")
    assert (reply.status, reply.fault) == (0, "connect")
    assert reply.detail


def test_an_unknown_host_cannot_be_connected_to() -> None:
    reply = attempt("https://no-such-host.invalid/v1")
    assert (reply.status, reply.fault) == (0, "connect")


def test_a_connection_that_closes_before_a_byte_may_have_been_paid() -> None:
    reply = canned(Canned(close=True))
    assert (reply.status, reply.fault) == (0, "cut")
    meaning = read_reply(reply)
    assert (meaning.verdict, meaning.maybe_paid) == ("retry", True)  # type: ignore[union-attr] # a fault is a Rejection


def test_a_connection_that_is_reset_before_a_byte_may_have_been_paid() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.transport.abort()

    assert reply_of(reset).fault == "cut"


def test_bytes_that_are_not_http_are_a_fault_of_protocol() -> None:
    reply = canned(Canned(garbage=True))
    assert (reply.status, reply.fault) == (0, "protocol")


def test_headers_without_end_are_a_fault_of_protocol() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(100_000):
            writer.write(b"x-%d: %s\r\n" % (number, b"a" * 1000))
            await writer.drain()

    assert reply_of(talk).fault == "protocol"


def test_a_body_that_is_cut_short_is_a_fault_and_what_came_of_it_is_kept() -> None:
    body = completion("a long answer")
    reply = canned(Canned(body=body, cut_after=40))
    assert (reply.status, reply.fault, reply.body) == (200, "cut", body[:40])


@pytest.mark.parametrize(
    "packed", [gzip.compress(completion("half") * 50)[:40], b"this is no gzip at all"], ids=["half", "none"]
)
def test_a_gzip_body_that_cannot_be_unpacked_to_its_end_is_cut(packed: bytes) -> None:
    reply = canned(Canned(body=packed, headers={"content-encoding": "gzip"}))
    assert (reply.status, reply.fault) == (200, "cut")


def test_bytes_behind_a_gzip_body_are_left_out() -> None:
    packed = gzip.compress(b"{}") + b"\0" * 300_000
    reply = canned(Canned(body=packed, headers={"content-encoding": "gzip"}))
    assert (reply.fault, reply.body) == ("", b"{}")


def test_an_unknown_encoding_is_left_as_it_is() -> None:
    reply = canned(Canned(body=b"\x1b\x00", headers={"content-encoding": "br, gzip"}))
    assert (reply.fault, reply.body) == ("", b"\x1b\x00")


# ---- the deadline is total


def is_on_time(reply: Reply, deadline_seconds: float) -> bool:
    return reply.fault == "timeout" and deadline_seconds <= reply.seconds < deadline_seconds + 5


def test_a_server_that_never_answers_is_left_at_the_deadline() -> None:
    reply = canned(Canned(hang=True), timeout_seconds=0.2)
    assert is_on_time(reply, 0.2)
    assert (reply.status, reply.detail) == (0, "no whole answer within 0.2 s")


def test_a_body_that_drips_forever_is_left_at_the_deadline() -> None:
    reply = canned(Canned(drip_seconds=0.01), timeout_seconds=0.3)
    assert is_on_time(reply, 0.3)
    assert reply.status == 200
    assert reply.body.strip() == b""


def test_headers_that_drip_forever_are_left_at_the_deadline() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
        while not reader.at_eof():
            writer.write(b"a")
            with suppress(TimeoutError):
                await asyncio.wait_for(reader.read(), 0.01)

    assert is_on_time(reply_of(drip, timeout_seconds=0.3), 0.3)


def test_a_tls_handshake_that_hangs_is_left_at_the_deadline() -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    assert is_on_time(reply_of(silent, scheme="https", timeout_seconds=0.3), 0.3)


def test_after_an_attempt_that_broke_the_next_one_is_answered() -> None:
    broken = [
        Canned(hang=True),
        Canned(drip_seconds=0.01),
        Canned(close=True),
        Canned(garbage=True),
        Canned(body=b"[1, 2]", cut_after=3),
        Canned(body=b"not gzip", headers={"content-encoding": "gzip"}),
    ]

    def reply(_seen: object, times: int) -> Canned | None:
        return broken[times // 2] if times % 2 == 0 and times // 2 < len(broken) else None

    with ChatServer(reply) as server:
        replies = attempts(server.url, 2 * len(broken), timeout_seconds=0.3)
    assert [reply.fault == "" for reply in replies] == [True, False] * (len(broken) - 1) + [True, True]


MIB = 1024 * 1024


class Measured(NamedTuple):
    """One attempt's reply without its body: asyncio.run makes a repr of what it returns, of four times the size."""

    fault: Fault
    body_bytes: int
    most_bytes: int  # held at once while it was read


async def measured(url: str) -> Measured:
    async with Client(endpoint(url), SecretStr(KEY)) as client:
        tracemalloc.start()
        reply = await client.attempt(HELLO)
        most_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return Measured(reply.fault, len(reply.body), most_bytes)


def measured_canned(body: bytes, **headers: str) -> Measured:
    with ChatServer(lambda _seen, _attempt: Canned(body=body, headers=headers)) as server:
        return asyncio.run(measured(server.url))


def bomb(mebibytes: int) -> bytes:
    packer = zlib.compressobj(wbits=31)
    zeros = bytes(MIB)
    return b"".join(packer.compress(zeros) for _ in range(mebibytes)) + packer.flush()


def test_a_gzip_bomb_is_too_large_and_is_not_unpacked_beyond_the_limit() -> None:
    packed = bomb(128)
    assert len(packed) < MIB
    got = measured_canned(packed, **{"content-encoding": "gzip"})
    assert (got.fault, got.body_bytes) == ("too_large", BODY_BYTES_MAX + 1)
    assert got.most_bytes < 3 * BODY_BYTES_MAX


def test_a_bomb_within_a_bomb_is_not_unpacked_twice() -> None:
    got = measured_canned(gzip.compress(bomb(128)), **{"content-encoding": "gzip, gzip"})
    assert got.body_bytes < MIB
    assert got.most_bytes < 8 * MIB


def test_a_body_without_end_is_too_large_and_is_not_read_on() -> None:
    block = b" " * MIB

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n")
        while True:
            writer.write(block)
            await writer.drain()

    async def ask() -> Measured:
        async with speaking(endless) as server:
            return await measured(server.url)

    got = asyncio.run(ask())
    assert got.fault == "too_large"
    assert got.most_bytes < 3 * BODY_BYTES_MAX


def test_a_body_of_exactly_the_limit_is_read_whole() -> None:
    got = measured_canned(bytes(BODY_BYTES_MAX))
    assert (got.fault, got.body_bytes) == ("", BODY_BYTES_MAX)


# ---- with a stream, the deadline is for each piece


class Pieces(httpx.AsyncByteStream):
    """A body that comes in pieces, one after each pause."""

    def __init__(self, *pauses_seconds: float) -> None:
        self._pauses_seconds = pauses_seconds

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for seconds in self._pauses_seconds:
            await asyncio.sleep(seconds)
            yield b"x"

    async def aclose(self) -> None:
        pass


def streamed(*pauses_seconds: float, is_streamed: bool = True) -> Reply:
    async def sending() -> httpx.Response:
        return httpx.Response(200, stream=Pieces(*pauses_seconds))

    return asyncio.run(exchange(sending(), 0.5, Redactor([]), is_streamed=is_streamed))


def test_a_stream_may_take_longer_than_the_deadline_as_long_as_its_pieces_come() -> None:
    reply = streamed(*[0.15] * 6)
    assert (reply.fault, reply.body) == ("", b"xxxxxx")
    assert streamed(*[0.15] * 6, is_streamed=False).fault == "timeout"


def test_a_stream_that_falls_silent_is_left_at_the_deadline() -> None:
    reply = streamed(0.1, 0.1, 60)
    assert (reply.fault, reply.body, reply.detail) == ("timeout", b"xx", "nothing came for 0.5 s")
    assert reply.seconds < 5
