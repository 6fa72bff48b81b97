"""Call the endpoint's Batch API, as OpenAI defines it: upload and download files, create and look up batches."""

import functools
import os
from pathlib import Path
from typing import Any, BinaryIO, Self
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from ..files import open_private
from ..job import Endpoint
from ..records import Reply
from .connection import proxy_for, redactor_for, request_headers, url_under
from .exchange import exchange
from .key_renewal import renewal_of
from .transport import AiohttpTransport

FILE_SECONDS = 900.0
"""The least deadline of a call: enough for a file of 200 MB."""

PAGE_BATCHES = 100
"""How many batches are listed on a page."""


class BatchApi:
    """A client of one endpoint's Batch API: an async context manager, one HTTP exchange for each method.

    Each method returns a Reply, as `Client.attempt` does, with JSON in its body. Raises BadJob as Client does.
    A key from a command is renewed as a Client renews it.
    """

    def __init__(self, endpoint: Endpoint, key: SecretStr | None) -> None:
        self._base_url, self._query = url_under(endpoint, "/"), endpoint.query
        self._headers = request_headers(endpoint, key)
        del self._headers["content-type"]  # each call has its own
        self._deadline_seconds = max(endpoint.timeout_seconds, FILE_SECONDS)
        proxy = proxy_for(self._base_url)
        self._redactor = redactor_for(endpoint, key, proxy)

        def hide(newer: SecretStr) -> None:
            self._redactor = redactor_for(endpoint, newer, proxy)

        self._renewal = renewal_of(endpoint, self._headers, hide)
        transport = AiohttpTransport(httpx.create_ssl_context(), proxy, reuses=False)  # calls are few
        self._client = httpx.AsyncClient(transport=transport, follow_redirects=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._renewal is not None:
            await self._renewal.close()
        await self._client.aclose()

    async def upload(self, path: Path) -> Reply:
        """Upload a file of requests, one JSON object a line. The reply names it (`id`)."""
        with path.open("rb") as file:
            # OpenAI takes no other ending than .jsonl
            form = {"purpose": (None, "batch"), "file": (f"{path.stem}.jsonl", file, "application/jsonl")}
            return await self._call("POST", "files", files=form)

    async def download(self, file_id: str, to: Path) -> Reply:
        """Write a file's content to `to`, in place of the reply's body.

        The file is complete if the reply is a 200 without a fault.
        """
        with os.fdopen(open_private(to, os.O_WRONLY | os.O_TRUNC), "wb") as file:
            return await self._call("GET", f"files/{_path_segment(file_id)}/content", into=file)

    async def delete(self, file_id: str) -> Reply:
        """Delete a file at the provider."""
        return await self._call("DELETE", f"files/{_path_segment(file_id)}")

    async def create(self, file_id: str) -> Reply:
        """Create a batch of the requests in a file, to be answered within a day. The reply names the batch (`id`)."""
        wanted = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        return await self._call("POST", "batches", json=wanted)

    async def retrieve(self, batch_id: str) -> Reply:
        """Get the state of a batch."""
        return await self._call("GET", f"batches/{_path_segment(batch_id)}")

    async def batches(self, after: str) -> Reply:
        """List a page of the account's batches, latest first. `after`: the last id of the page before, "" to begin."""
        page = {"limit": str(PAGE_BATCHES), **({"after": after} if after else {})}
        return await self._call("GET", "batches", params=page)

    def hide(self, reply: Reply) -> Reply:
        """Redact the secrets in a reply from a downloaded file, as in one that came by itself."""
        return self._redactor.redact_reply(reply)

    async def _call(self, method: str, path: str, *, into: BinaryIO | None = None, **content: Any) -> Reply:  # noqa: ANN401 - httpx's own
        call = functools.partial(self._exchange, method, path, into, content)
        return await call() if self._renewal is None else await self._renewal.send(call)

    async def _exchange(self, method: str, path: str, into: BinaryIO | None, content: dict[str, Any]) -> Reply:
        return await exchange(self._send(method, path, **content), self._deadline_seconds, self._redactor, into)

    async def _send(self, method: str, path: str, **content: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own
        url = self._base_url.join(path)
        if self._query:
            url = url.copy_merge_params(self._query)
        message = self._client.build_request(method, url, headers=self._headers, **content)
        return await self._client.send(message, stream=True)


def _path_segment(name: str) -> str:
    """Encode a provider's id as a single segment of a path, so that it cannot lead elsewhere."""
    return quote(name, safe="").replace(".", "%2E")
