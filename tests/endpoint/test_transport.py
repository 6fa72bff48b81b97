"""Connections are encrypted, kept, reused, closed and shared with proxies as a careful client does."""

import asyncio
import base64
import gc
import ssl
from pathlib import Path

import pytest
from chat_server import ChatServer
from pydantic import SecretStr
from raw_server import (
    HELLO,
    KEY,
    OK,
    answer_all_of_them,
    attempt,
    endpoint,
    read_request,
    reply_of,
    speaking,
)

from pipeline.endpoint.client import Client
from pipeline.endpoint.replies import read_reply
from pipeline.records import Reply


def server_tls(certificate: Path) -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    return tls


def over_tls(certificate: Path, times: int = 1) -> tuple[list[Reply], int]:
    """Make attempts at a TLS server; return their replies and the number of requests that reached it."""
    arrived = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        while True:
            await read_request(reader)
            arrived += 1
            writer.write(OK)

    async def ask() -> list[Reply]:
        async with speaking(talk, server_tls(certificate)) as server:
            url = server.url.replace("http:", "https:")
            async with Client(endpoint(url), SecretStr(KEY)) as client:
                return [await client.attempt(HELLO) for _ in range(times)]

    return asyncio.run(ask()), arrived


def test_a_self_signed_certificate_is_rejected_before_the_key_is_sent(certificate: Path) -> None:
    [reply], arrived = over_tls(certificate)
    assert (reply.status, reply.fault, arrived) == (0, "tls", 0)
    assert "certificate" in reply.detail.lower()
    assert read_reply(reply).verdict == "stop"  # type: ignore[union-attr] # a fault is a Rejection


def test_a_certificate_that_the_environment_names_is_trusted(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    replies, arrived = over_tls(certificate, 3)
    assert [(reply.status, reply.body) for reply in replies] == [(200, b"{}")] * 3
    assert arrived == 3


def test_plain_http_at_an_https_address_is_a_fault_of_tls(server: ChatServer) -> None:
    reply = attempt(server.url.replace("http:", "https:"))
    assert (reply.status, reply.fault) == (0, "tls")


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_connection_lost_in_the_handshake_is_retried_not_taken_for_a_bad_certificate(how: str) -> None:
    async def vanish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        if how == "reset":
            writer.transport.abort()
        else:
            writer.write_eof()

    reply = reply_of(vanish, scheme="https")
    assert (reply.status, reply.fault) == (0, "connect")


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "response", [b"HTTP/1.1 407 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", b"no HTTP\r\n\r\n", b""]
)
def test_a_proxys_name_and_password_are_sent_to_the_proxy_alone(
    scheme: str, response: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = []

    async def reject(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).lower())
        writer.write(response)
        writer.close()

    async def ask() -> Reply:
        async with speaking(reject) as server:
            monkeypatch.setenv(f"{scheme}_proxy", f"http://anna:s%20ecret@127.0.0.1:{server.port}")
            async with Client(endpoint(f"{scheme}://models.invalid/v1"), SecretStr(KEY)) as client:
                return await client.attempt(HELLO)

    reply = asyncio.run(ask())
    expected = b"proxy-authorization: basic " + base64.b64encode(b"anna:s ecret").lower()
    assert [expected in head for head in heads] == [True]
    assert not any(word in repr(reply) for word in ("anna", "s%20ecret", "s ecret"))


def test_a_password_of_the_hosts_in_a_netrc_is_not_sent(
    proxy: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine models.invalid login anna password secret\n", "utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert attempt("http://models.invalid/v1").status == 200
    assert proxy.log[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_proxy_to_an_https_endpoint_does_not_see_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = []

    async def reject(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")

    async def ask() -> Reply:
        async with speaking(reject) as server:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.port}")
            async with Client(endpoint("https://models.invalid/v1"), SecretStr(KEY)) as client:
                return await client.attempt(HELLO)

    assert asyncio.run(ask()).fault == "connect"
    [head] = heads
    assert head.startswith(b"CONNECT models.invalid:443 ")
    assert KEY.encode() not in head


# ---- connections


def test_attempts_in_sequence_share_one_connection() -> None:
    async def ask() -> int:
        async with speaking(answer_all_of_them) as server:
            async with Client(endpoint(server.url), SecretStr(KEY)) as client:
                replies = [await client.attempt(HELLO) for _ in range(20)]
            assert [reply.status for reply in replies] == [200] * 20
            return len(server.talks)

    assert asyncio.run(ask()) == 1


def test_attempts_at_once_have_a_connection_each_and_all_are_closed_at_the_end() -> None:
    async def ask() -> int:
        everyone_is_here = asyncio.Event()
        arrived = 0

        async def together(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal arrived
            await read_request(reader)
            arrived += 1
            if arrived == 50:
                everyone_is_here.set()
            await everyone_is_here.wait()
            writer.write(OK)
            await answer_all_of_them(reader, writer)

        async with speaking(together) as server:
            async with Client(endpoint(server.url), SecretStr(KEY)) as client:
                for _ in range(2):
                    replies = await asyncio.gather(*(client.attempt(HELLO) for _ in range(50)))
                    assert [reply.status for reply in replies] == [200] * 50
            await server.all_closed()
            return len(server.talks)

    assert asyncio.run(ask()) == 50
    gc.collect()  # an open socket would be a warning here, and so an error


def test_a_server_that_restarts_between_two_attempts_costs_none() -> None:
    async def ask() -> list[Reply]:
        with ChatServer() as server:
            client = Client(endpoint(server.url), SecretStr(KEY))
            before = await client.attempt(HELLO)
        async with client:
            with ChatServer(port=server.port):
                return [before, await client.attempt(HELLO)]

    assert [(reply.status, reply.fault) for reply in asyncio.run(ask())] == [(200, ""), (200, "")]


def test_a_connection_that_the_server_closed_while_it_was_idle_is_not_used_again() -> None:
    async def ask() -> list[Reply]:
        closed = asyncio.Event()

        async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(OK)
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            closed.set()

        replies = []
        async with speaking(once) as server, Client(endpoint(server.url), SecretStr(KEY)) as client:
            for _ in range(5):
                closed.clear()
                replies.append(await client.attempt(HELLO))
                await closed.wait()
        return replies

    assert [reply.status for reply in asyncio.run(ask())] == [200] * 5


def test_a_kept_connection_that_closes_upon_the_next_request_is_a_cut_to_be_retried_not_sent_twice() -> None:
    seen = 0

    async def one_and_a_half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        await read_request(reader)
        writer.write(OK)
        seen += 1
        await read_request(reader)
        seen += 1
        writer.close()

    async def ask() -> list[Reply]:
        async with speaking(one_and_a_half) as server, Client(endpoint(server.url), SecretStr(KEY)) as client:
            return [await client.attempt(HELLO) for _ in range(3)]

    replies = asyncio.run(ask())
    assert [reply.fault for reply in replies] == ["", "cut", ""]
    assert seen == 3
    assert read_reply(replies[1]).verdict == "retry"  # type: ignore[union-attr] # a fault is a Rejection


def test_a_cancelled_attempt_closes_its_connection_at_once() -> None:
    async def ask() -> Reply:
        arrived = asyncio.Event()

        async def hang_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            if not arrived.is_set():
                arrived.set()
                return
            writer.write(OK)

        async with speaking(hang_once) as server, Client(endpoint(server.url), SecretStr(KEY)) as client:
            task = asyncio.create_task(client.attempt(HELLO))
            await arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await server.all_closed()
            return await client.attempt(HELLO)

    assert asyncio.run(ask()).status == 200


def test_an_attempt_that_is_cancelled_in_its_tls_handshake_closes_its_connection_at_once() -> None:
    async def ask() -> None:
        greeted = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(1)
            greeted.set()

        async with speaking(silent) as server:
            url = server.url.replace("http:", "https:")
            async with Client(endpoint(url), SecretStr(KEY)) as client:
                task = asyncio.create_task(client.attempt(HELLO))
                await greeted.wait()
                task.cancel()
                await asyncio.wait({task})
                assert task.cancelled()
                await server.all_closed()

    asyncio.run(ask())


async def cancel_after(turns: int, task: asyncio.Task[Reply]) -> bool:
    for _ in range(turns):
        await asyncio.sleep(0)  # one turn of the loop
    task.cancel()
    await asyncio.wait({task})
    return task.cancelled()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_attempt_on_a_kept_connection_may_be_cancelled_at_any_moment(
    scheme: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls = server_tls(certificate) if scheme == "https" else None

    async def ask() -> list[bool]:
        cancelled = []
        async with speaking(answer_all_of_them, tls) as server:
            url = server.url.replace("http:", f"{scheme}:")
            async with Client(endpoint(url), SecretStr(KEY)) as client:
                for turns in range(40):
                    assert (await client.attempt(HELLO)).status == 200
                    cancelled.append(await cancel_after(turns, asyncio.create_task(client.attempt(HELLO))))
        return cancelled

    assert all(asyncio.run(ask())[:5])


def test_after_a_first_attempt_that_was_cancelled_at_any_moment_the_next_is_answered(server: ChatServer) -> None:
    async def ask(turns: int) -> tuple[bool, Reply]:
        async with Client(endpoint(server.url), SecretStr(KEY)) as client:
            cancelled = await cancel_after(turns, asyncio.create_task(client.attempt(HELLO)))
            return cancelled, await client.attempt(HELLO)

    got = [asyncio.run(ask(turns)) for turns in range(40)]
    gc.collect()
    assert all(cancelled for cancelled, _ in got[:5])
    assert [reply.status for _, reply in got] == [200] * 40
