"""What the tests of HTTP share: an environment without this machine's proxy, and a proxy."""

from collections.abc import Iterator

import pytest
from chat_server import Canned, ChatServer


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_PROXY".upper(), raising=False)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    with ChatServer(lambda _seen, _attempt: Canned(body=b'"by proxy"')) as server:
        monkeypatch.setenv("HTTP_PROXY", server.url.removesuffix("/v1"))
        yield server
