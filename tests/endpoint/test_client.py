"""A client sends each request once and as it was made, and its key goes to the endpoint alone."""

import asyncio
import gzip

import pytest
from chat_server import Canned, ChatServer, answer_to
from pydantic import SecretStr
from raw_server import (
    HELLO,
    KEY,
    OK,
    attempt,
    canned,
    endpoint,
    read_request,
    reply_of,
    speaking,
)

from pipeline.endpoint.client import Client
from pipeline.records import Reply, Request

# ---- what arrives, and what is sent


def test_an_answer_comes_back_whole_with_status_headers_and_time(server: ChatServer) -> None:
    reply = attempt(server.url)
    assert (reply.status, reply.fault, reply.detail) == (200, "", "")
    assert reply.headers["content-type"] == "application/json"
    assert answer_to("hello").encode() in reply.body
    assert 0 < reply.seconds < 20


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_an_error_status_is_no_fault_and_keeps_its_body_and_headers(status: int) -> None:
    reply = canned(Canned(status, b'{"error": "why"}', {"Retry-After": "7"}))
    assert (reply.status, reply.fault, reply.body) == (status, "", b'{"error": "why"}')
    assert reply.headers["retry-after"] == "7"


def test_the_request_leaves_exactly_as_it_was_made() -> None:
    body = b'{"model": "m",\n "messages":[{"role":"user","content":"caf\xc3\xa9 \\u0000 \xff"}]}  \n'
    seen: list[tuple[bytes, bytes]] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(OK)

    async def ask() -> None:
        async with (
            speaking(listen) as server,
            Client(endpoint(server.url, headers={"X-Team": "blue"}), SecretStr(KEY)) as client,
        ):
            await client.attempt(Request("0" * 64, body))

    asyncio.run(ask())
    [(head, sent)] = seen
    assert sent == body
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    lines = head.lower().split(b"\r\n")
    assert {b"authorization: bearer " + KEY.encode(), b"x-team: blue", b"content-type: application/json"} <= {*lines}


def test_without_a_key_no_authorization_is_sent(server: ChatServer) -> None:
    attempt(server.url, key=None)
    assert "authorization" not in server.log[0].headers


def test_a_scheme_that_is_not_http_is_a_fault_of_the_url() -> None:
    async def ask() -> Reply:
        odd = endpoint("http://127.0.0.1/v1").model_copy(update={"base_url": "ftp://127.0.0.1/v1"})
        async with Client(odd, None) as client:
            return await client.attempt(HELLO)

    assert asyncio.run(ask()).fault == "url"


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 307, 308])
def test_no_redirect_is_followed_and_the_key_stays(server: ChatServer, status: int) -> None:
    with ChatServer(lambda _seen, _attempt: Canned(status, headers={"location": server.url})) as first:
        reply = attempt(first.url, headers={"api-key": "another-secret"})
    assert (reply.status, reply.fault) == (status, "")
    assert reply.headers["location"] == server.url
    assert server.arrived == 0


# ---- the key


def test_a_key_that_the_server_echoes_is_redacted_in_the_body() -> None:
    with ChatServer(key="another-key") as server:
        reply = attempt(server.url)
    assert reply.status == 401
    assert b"provided: ***." in reply.body
    assert KEY.encode() not in reply.body


def test_a_key_that_the_server_echoes_compressed_is_redacted_too() -> None:
    packed = gzip.compress(f"{KEY} and {KEY}".encode())
    assert canned(Canned(body=packed, headers={"content-encoding": "gzip"})).body == b"*** and ***"


def test_a_key_that_the_server_echoes_is_redacted_in_headers_and_in_the_detail_of_a_fault() -> None:
    echoed = canned(Canned(302, headers={"location": f"http://elsewhere.invalid/?key={KEY}"}))
    assert echoed.headers["location"] == "http://elsewhere.invalid/?key=***"

    async def garble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(f"{KEY} is not a status line\r\n\r\n".encode())

    garbled = reply_of(garble)
    assert garbled.fault == "protocol"
    assert "***" in garbled.detail
    assert KEY not in garbled.detail


def test_a_key_that_comes_in_pieces_is_redacted() -> None:
    body = f"no such key: {KEY}".encode()

    async def in_pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 401 Unauthorized\r\ntransfer-encoding: chunked\r\n\r\n")
        for at in range(0, len(body), 3):
            piece = body[at : at + 3]
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    assert reply_of(in_pieces).body == b"no such key: ***"


def test_a_short_key_is_left_in_answers_for_it_might_be_a_word() -> None:
    assert canned(Canned(body=b"no secret"), key="secret").body == b"no secret"


def test_a_client_does_not_show_its_key() -> None:
    client = Client(endpoint("http://127.0.0.1/v1"), SecretStr(KEY))
    assert KEY not in repr(vars(client))


def test_the_transports_own_log_does_not_hold_the_key(server: ChatServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    attempt(server.url)
    assert KEY not in caplog.text
