"""URLs, headers, keys and proxies that cannot be used are a bad job; proxies are those of the environment."""

import asyncio
import os

import pytest
from chat_server import Canned, ChatServer, Seen, answer_to
from pydantic import SecretStr
from raw_server import (
    attempt,
    endpoint,
)

from pipeline.endpoint.client import Client
from pipeline.records import BadJob, Reply, Request


@pytest.mark.parametrize("host", ["exa mple.com", "a..b", "-", "a" * 70 + ".invalid", "ho%st", "*"])
def test_no_host_name_is_odd_enough_to_raise(host: str) -> None:
    assert attempt(f"http://{host}/v1", key=None).fault in ("connect", "url")


@pytest.mark.parametrize("place", ["127.0.0.1:99999", "127.0.0.1:0", "xn--", "[::zz]", "ex\x00.com"])
def test_a_url_that_no_request_can_be_sent_to_is_a_bad_job(place: str) -> None:
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


def test_the_proxy_of_the_environment_is_used(proxy: ChatServer) -> None:
    reply = attempt("http://models.invalid/v1")
    assert (reply.status, reply.body) == (200, b'"by proxy"')
    assert proxy.log[0].path == "http://models.invalid/v1/chat/completions"


def test_a_host_in_no_proxy_is_reached_directly(proxy: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "models.invalid")
    assert attempt("http://models.invalid/v1").fault == "connect"
    assert proxy.arrived == 0


def test_this_machine_is_reached_without_a_proxy(proxy: ChatServer, server: ChatServer) -> None:
    assert answer_to("hello").encode() in attempt(server.url).body
    assert proxy.arrived == 0


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
    with pytest.raises(BadJob, match="proxy") as caught:
        Client(endpoint("http://models.invalid/v1"), None)
    assert "secret" not in str(caught.value)


def test_a_query_and_a_header_from_the_environment_reach_the_endpoint_and_the_headers_value_is_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secret = "0123456789abcdef" * 2
    monkeypatch.setenv("AZURE_API_KEY", secret)

    def reply(seen: Seen, _attempt: int) -> Canned:
        is_right = seen.path == "/openai/deployments/d/chat/completions?api-version=2024-10-21"
        return Canned(body=f'"{seen.headers["api-key"]}"'.encode()) if is_right else Canned(404)

    async def ask(url: str) -> Reply:
        azure = endpoint(
            url.removesuffix("/v1") + "/openai/deployments/d",
            query={"api-version": "2024-10-21"},
            headers_env={"api-key": "AZURE_API_KEY"},
        )
        async with Client(azure, None) as client:
            return await client.attempt(Request("", b"{}"))

    with ChatServer(reply) as server:
        got = asyncio.run(ask(server.url))
        assert (got.status, got.body) == (200, b'"***"')
        assert server.log[0].headers["api-key"] == secret


def test_a_header_whose_variable_is_not_set_is_a_bad_job_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_API_KEY", raising=False)
    with pytest.raises(BadJob, match=r"header api-key is not set[\s\S]*export AZURE_API_KEY="):
        Client(endpoint("http://127.0.0.1/v1", headers_env={"api-key": "AZURE_API_KEY"}), None)


def test_the_proxy_for_all_schemes_is_used_where_there_is_no_other(
    proxy: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = os.environ["HTTP_PROXY"]
    monkeypatch.delenv("HTTP_PROXY")
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.setenv("ALL_PROXY", address)
    assert attempt("http://models.invalid/v1").body == b'"by proxy"'
