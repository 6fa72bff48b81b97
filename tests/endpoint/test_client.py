"""One attempt over real sockets: whatever the other side does, a Reply comes back in time, and the key goes nowhere."""

import asyncio
import base64
import gc
import gzip
import shutil
import socket
import ssl
import subprocess
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from chat_server import Canned, ChatServer, answer_to, completion
from pydantic import SecretStr

from pipeline.endpoint.client import BODY_BYTES_MAX, Client
from pipeline.endpoint.replies import read_reply
from pipeline.job.sections import Endpoint
from pipeline.records import BadJob, Fault, Reply, Request

KEY = "sk-test-4f9c81d2"
HELLO = Request("0" * 64, b'{"model":"m","messages":[{"role":"user","content":"hello"}]}')
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
MIB = 1024 * 1024

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_PROXY".upper(), raising=False)


def endpoint(base_url: str, **more: Any) -> Endpoint:
    return Endpoint(base_url=base_url, model="m", **{"timeout_seconds": 20, **more})


def attempts(base_url: str, times: int = 1, *, key: str | None = KEY, **more: Any) -> list[Reply]:
    """What so many attempts in sequence give, through one Client."""

    async def ask() -> list[Reply]:
        secret = None if key is None else SecretStr(key)
        async with Client(endpoint(base_url, **more), secret) as client:
            return [await client.attempt(HELLO) for _ in range(times)]

    return asyncio.run(ask())


def attempt(base_url: str, **more: Any) -> Reply:
    return attempts(base_url, **more)[0]


def canned(answer: Canned, **more: Any) -> Reply:
    with ChatServer(lambda _seen, _attempt: answer) as server:
        return attempt(server.url, **more)


class Speaker:
    """A server of one test's own, in the test's loop."""

    def __init__(self) -> None:
        self.port = 0
        self.talks: list[asyncio.Task[None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def all_closed(self) -> None:
        """Return once the client has closed every connection."""
        await asyncio.wait_for(asyncio.gather(*self.talks), 10)


@asynccontextmanager
async def speaking(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[Speaker]:
    """A server that says to each connection what `talk` says; its end waits until the client has closed them all."""
    speaker = Speaker()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        speaker.talks.append(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await talk(reader, writer)
            await reader.read()
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    speaker.port = server.sockets[0].getsockname()[1]
    async with server:
        yield speaker
        await speaker.all_closed()


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of the next request. Raises IncompleteReadError at the connection's end."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head, await reader.readexactly(length)


async def answer_all_of_them(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await read_request(reader)
        writer.write(OK)


def said_by(talk: Talk, *, scheme: str = "http", **more: Any) -> Reply:
    """One attempt at a server that talks so."""

    async def ask() -> Reply:
        async with speaking(talk) as server, Client(endpoint(server.url, **more), SecretStr(KEY)) as client:
            return await client.attempt(HELLO)

    async def ask_over_tls() -> Reply:
        async with speaking(talk) as server:
            url = server.url.replace("http:", "https:")
            async with Client(endpoint(url, **more), SecretStr(KEY)) as client:
                return await client.attempt(HELLO)

    return asyncio.run(ask() if scheme == "http" else ask_over_tls())


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    assert isinstance(port, int)
    return port


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


def test_a_gzip_body_is_unpacked() -> None:
    body = completion("packed")
    reply = canned(Canned(body=gzip.compress(body), headers={"content-encoding": "gzip"}))
    assert (reply.status, reply.fault, reply.body) == (200, "", body)


# ---- the other side breaks


def test_a_refused_port_cannot_be_connected_to() -> None:
    reply = attempt(f"http://127.0.0.1:{free_port()}/v1")
    assert (reply.status, reply.fault) == (0, "connect")
    assert reply.detail


def test_an_unknown_host_cannot_be_connected_to() -> None:
    reply = attempt("https://no-such-host.invalid/v1")
    assert (reply.status, reply.fault) == (0, "connect")


def test_a_connection_that_closes_before_a_byte_may_have_been_paid() -> None:
    reply = canned(Canned(close=True))
    assert (reply.status, reply.fault) == (0, "cut")
    said = read_reply(reply)
    assert (said.verdict, said.maybe_paid) == ("retry", True)  # type: ignore[union-attr] # a fault is a Refusal


def test_a_connection_that_is_reset_before_a_byte_may_have_been_paid() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.transport.abort()

    assert said_by(reset).fault == "cut"


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

    assert said_by(talk).fault == "protocol"


def test_a_cut_body_is_told_with_what_came_of_it() -> None:
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


def test_a_server_that_never_answers_is_given_up_at_the_deadline() -> None:
    reply = canned(Canned(hang=True), timeout_seconds=0.2)
    assert is_on_time(reply, 0.2)
    assert (reply.status, reply.detail) == (0, "no whole answer within 0.2 s")


def test_a_body_that_drips_for_ever_is_given_up_at_the_deadline() -> None:
    reply = canned(Canned(drip_seconds=0.01), timeout_seconds=0.3)
    assert is_on_time(reply, 0.3)
    assert reply.status == 200
    assert reply.body.strip() == b""


def test_headers_that_drip_for_ever_are_given_up_at_the_deadline() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
        while not reader.at_eof():
            writer.write(b"a")
            with suppress(TimeoutError):
                await asyncio.wait_for(reader.read(), 0.01)

    assert is_on_time(said_by(drip, timeout_seconds=0.3), 0.3)


def test_a_tls_handshake_that_hangs_is_given_up_at_the_deadline() -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    assert is_on_time(said_by(silent, scheme="https", timeout_seconds=0.3), 0.3)


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


# ---- size


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


# ---- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of 127.0.0.1 and its key, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the test's certificate, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    made = ["-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=127.0.0.1"]
    also = ["-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *made, *also]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    whole = folder / "both.pem"
    whole.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return whole


def server_tls(certificate: Path) -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    return tls


def over_tls(certificate: Path, times: int = 1) -> tuple[list[Reply], int]:
    """What attempts at a TLS server give, and how many requests reached it."""
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


def test_a_self_signed_certificate_is_refused_before_the_key_is_sent(certificate: Path) -> None:
    [reply], arrived = over_tls(certificate)
    assert (reply.status, reply.fault, arrived) == (0, "tls", 0)
    assert "certificate" in reply.detail.lower()
    assert read_reply(reply).verdict == "stop"  # type: ignore[union-attr] # a fault is a Refusal


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
def test_a_connection_lost_in_the_handshake_is_tried_again_not_taken_for_a_bad_certificate(how: str) -> None:
    async def vanish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        if how == "reset":
            writer.transport.abort()
        else:
            writer.write_eof()

    reply = said_by(vanish, scheme="https")
    assert (reply.status, reply.fault) == (0, "connect")


# ---- addresses, headers and proxies


def test_a_scheme_that_is_not_http_is_a_fault_of_the_url() -> None:
    async def ask() -> Reply:
        odd = endpoint("http://127.0.0.1/v1").model_copy(update={"base_url": "ftp://127.0.0.1/v1"})
        async with Client(odd, None) as client:
            return await client.attempt(HELLO)

    assert asyncio.run(ask()).fault == "url"


@pytest.mark.parametrize("host", ["exa mple.com", "a..b", "-", "a" * 70 + ".invalid", "ho%st", "*"])
def test_no_host_name_is_odd_enough_to_raise(host: str) -> None:
    assert attempt(f"http://{host}/v1", key=None).fault in ("connect", "url")


@pytest.mark.parametrize("place", ["127.0.0.1:99999", "127.0.0.1:0", "xn--", "[::zz]", "ex\x00.com"])
def test_an_address_that_can_never_be_asked_is_a_bad_job(place: str) -> None:
    odd = endpoint("http://127.0.0.1/v1").model_copy(update={"base_url": f"http://{place}/v1"})
    with pytest.raises(BadJob, match=r"endpoint\.base_url"):
        Client(odd, None)


@pytest.mark.parametrize("key", ["sk-first\nsk-second", "“sk-quoted”", "sk-\x07bell-9999"])
def test_a_key_that_no_header_can_carry_is_a_bad_job_that_does_not_quote_it(key: str) -> None:
    with pytest.raises(BadJob, match="MY_KEY") as caught:
        Client(endpoint("http://127.0.0.1/v1", api_key_env="MY_KEY"), SecretStr(key))
    assert key not in str(caught.value)
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize("headers", [{"x-team": "blue\r\nx-evil: 1"}, {"x team": "blue"}, {"x-team": "blåa"}])
def test_a_header_that_cannot_be_sent_is_a_bad_job_that_does_not_quote_its_value(headers: dict[str, str]) -> None:
    with pytest.raises(BadJob, match=r"endpoint\.headers") as caught:
        Client(endpoint("http://127.0.0.1/v1", headers=headers), None)
    assert "bl" not in str(caught.value)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 307, 308])
def test_no_redirect_is_followed_and_the_key_stays(server: ChatServer, status: int) -> None:
    with ChatServer(lambda _seen, _attempt: Canned(status, headers={"location": server.url})) as first:
        reply = attempt(first.url, headers={"api-key": "another-secret"})
    assert (reply.status, reply.fault) == (status, "")
    assert reply.headers["location"] == server.url
    assert server.arrived == 0


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    with ChatServer(lambda _seen, _attempt: Canned(body=b'"by proxy"')) as server:
        monkeypatch.setenv("HTTP_PROXY", server.url.removesuffix("/v1"))
        yield server


def test_the_proxy_of_the_environment_is_used(proxy: ChatServer) -> None:
    reply = attempt("http://models.invalid/v1")
    assert (reply.status, reply.body) == (200, b'"by proxy"')
    assert proxy.log[0].path == "http://models.invalid/v1/chat/completions"


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 407 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", b"no HTTP\r\n\r\n", b""]
)
def test_a_proxys_name_and_password_are_told_to_it_alone(
    scheme: str, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).lower())
        writer.write(said)
        writer.close()

    async def ask() -> Reply:
        async with speaking(refuse) as server:
            monkeypatch.setenv(f"{scheme}_proxy", f"http://anna:s%20ecret@127.0.0.1:{server.port}")
            async with Client(endpoint(f"{scheme}://models.invalid/v1"), SecretStr(KEY)) as client:
                return await client.attempt(HELLO)

    reply = asyncio.run(ask())
    told = b"proxy-authorization: basic " + base64.b64encode(b"anna:s ecret").lower()
    assert [told in head for head in heads] == [True]
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


def test_a_host_that_no_proxy_names_is_asked_directly(proxy: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "models.invalid")
    assert attempt("http://models.invalid/v1").fault == "connect"
    assert proxy.arrived == 0


def test_this_machine_is_asked_without_a_proxy(proxy: ChatServer, server: ChatServer) -> None:
    assert answer_to("hello").encode() in attempt(server.url).body
    assert proxy.arrived == 0


def test_a_proxy_on_the_way_to_an_https_endpoint_is_not_told_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")

    async def ask() -> Reply:
        async with speaking(refuse) as server:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.port}")
            async with Client(endpoint("https://models.invalid/v1"), SecretStr(KEY)) as client:
                return await client.attempt(HELLO)

    assert asyncio.run(ask()).fault == "connect"
    [head] = heads
    assert head.startswith(b"CONNECT models.invalid:443 ")
    assert KEY.encode() not in head


@pytest.mark.parametrize(
    "address",
    [
        "gopher://anna:secret@127.0.0.1:1",
        "http://",
        "http://anna:secret@[bad",
        "http://anna:secret@127.0.0.1:99999",
        "http://anna:secret#x@127.0.0.1:9",
    ],
)
def test_a_proxy_that_cannot_be_used_is_a_bad_job_that_does_not_quote_it(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", address)
    with pytest.raises(BadJob, match="proxy") as told:
        Client(endpoint("http://models.invalid/v1"), None)
    assert "secret" not in str(told.value)


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


def test_a_kept_connection_that_closes_upon_the_next_request_is_a_cut_to_be_tried_again_not_sent_twice() -> None:
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
    assert read_reply(replies[1]).verdict == "retry"  # type: ignore[union-attr] # a fault is a Refusal


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


# anyio forgets a connection that is cancelled in the very moment in which it is made; nothing was sent on it
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_after_a_first_attempt_that_was_cancelled_at_any_moment_the_next_is_answered(server: ChatServer) -> None:
    async def ask(turns: int) -> tuple[bool, Reply]:
        async with Client(endpoint(server.url), SecretStr(KEY)) as client:
            cancelled = await cancel_after(turns, asyncio.create_task(client.attempt(HELLO)))
            return cancelled, await client.attempt(HELLO)

    got = [asyncio.run(ask(turns)) for turns in range(40)]
    gc.collect()
    assert all(cancelled for cancelled, _ in got[:5])
    assert [reply.status for _, reply in got] == [200] * 40


# ---- the key


def test_a_key_that_the_server_echoes_is_masked_in_the_body() -> None:
    with ChatServer(key="another-key") as server:
        reply = attempt(server.url)
    assert reply.status == 401
    assert b"provided: ***." in reply.body
    assert KEY.encode() not in reply.body


def test_a_key_that_the_server_echoes_packed_is_masked_too() -> None:
    packed = gzip.compress(f"{KEY} and {KEY}".encode())
    assert canned(Canned(body=packed, headers={"content-encoding": "gzip"})).body == b"*** and ***"


def test_a_key_that_the_server_echoes_is_masked_in_headers_and_in_a_faults_words() -> None:
    echoed = canned(Canned(302, headers={"location": f"http://elsewhere.invalid/?key={KEY}"}))
    assert echoed.headers["location"] == "http://elsewhere.invalid/?key=***"

    async def garble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(f"{KEY} is not a status line\r\n\r\n".encode())

    garbled = said_by(garble)
    assert garbled.fault == "protocol"
    assert "***" in garbled.detail
    assert KEY not in garbled.detail


def test_a_key_that_comes_in_pieces_is_masked() -> None:
    said = f"no such key: {KEY}".encode()

    async def in_pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 401 Unauthorized\r\ntransfer-encoding: chunked\r\n\r\n")
        for at in range(0, len(said), 3):
            piece = said[at : at + 3]
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    assert said_by(in_pieces).body == b"no such key: ***"


def test_a_short_key_is_left_in_answers_for_it_might_be_a_word() -> None:
    assert canned(Canned(body=b"no secret"), key="secret").body == b"no secret"


def test_a_client_does_not_show_its_key() -> None:
    client = Client(endpoint("http://127.0.0.1/v1"), SecretStr(KEY))
    assert KEY not in repr(vars(client))


def test_the_transports_own_log_does_not_hold_the_key(server: ChatServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    attempt(server.url)
    assert KEY not in caplog.text
