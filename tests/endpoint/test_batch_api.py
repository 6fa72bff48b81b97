"""Files and batches at a local provider of the Batch API: each call is one exchange, its reply returned as it is."""

import asyncio
import json
import stat
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from batch_server import Provider, serving
from chat_server import Canned, ChatServer
from pydantic import SecretStr
from raw_server import KEY, endpoint

from pipeline.endpoint.batch_api import BatchApi
from pipeline.records import BadJob, Reply

T = TypeVar("T")

LINES = b"".join(
    json.dumps(
        {
            "custom_id": name,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "m", "messages": [{"role": "user", "content": name}]},
        }
    ).encode()
    + b"\n"
    for name in ("one", "two")
)


def call(base_url: str, use: Callable[[BatchApi], Awaitable[T]]) -> T:
    async def calling() -> T:
        async with BatchApi(endpoint(base_url), SecretStr(KEY)) as api:
            return await use(api)

    return asyncio.run(calling())


def field(reply: Reply, name: str) -> str:
    value = json.loads(reply.body)[name]
    assert isinstance(value, str)
    return value


def test_a_file_is_uploaded_answered_as_a_batch_downloaded_and_deleted(tmp_path: Path) -> None:
    (tmp_path / "requests.jsonl").write_bytes(LINES)
    provider = Provider(key=KEY, looks=1)

    async def use(api: BatchApi) -> list[int]:
        uploaded = await api.upload(tmp_path / "requests.jsonl")
        created = await api.create(field(uploaded, "id"))
        looked = await api.retrieve(field(created, "id"))
        results = await api.download(field(looked, "output_file_id"), tmp_path / "results.jsonl")
        assert results.body == b""
        deleted = await api.delete(field(looked, "output_file_id"))
        return [reply.status for reply in (uploaded, created, looked, results, deleted)]

    with serving(provider) as url:
        assert call(url, use) == [200] * 5
    assert provider.files == {"file-1": LINES}
    answered = {json.loads(line)["custom_id"] for line in (tmp_path / "results.jsonl").read_bytes().splitlines()}
    assert answered == {"one", "two"}


def test_a_downloaded_file_is_private_and_replaces_what_was_there(tmp_path: Path) -> None:
    place = tmp_path / "results.jsonl"
    place.write_bytes(b"longer than what comes")
    with serving(Provider(files={"file-1": b"short"})) as url:
        call(url, lambda api: api.download("file-1", place))
    assert place.read_bytes() == b"short"
    assert stat.S_IMODE(place.stat().st_mode) & 0o077 == 0


def test_the_batches_of_an_account_are_listed_by_page(tmp_path: Path) -> None:
    (tmp_path / "requests.jsonl").write_bytes(LINES)

    async def use(api: BatchApi) -> list[list[str]]:
        file_id = field(await api.upload(tmp_path / "requests.jsonl"), "id")
        for _ in range(3):
            await api.create(file_id)
        pages = []
        after = ""
        for _ in range(2):
            reply = await api.batches(after)
            pages.append([batch["id"] for batch in json.loads(reply.body)["data"]])
            after = pages[-1][-1]
        return pages

    with serving(Provider()) as url:
        assert call(url, use) == [["batch_3", "batch_2"], ["batch_1"]]


def test_an_error_is_the_reply_and_no_file_is_filled_with_it(tmp_path: Path) -> None:
    with serving(Provider()) as url:
        reply = call(url, lambda api: api.download("file-9", tmp_path / "results.jsonl"))
    assert (reply.status, reply.fault) == (404, "")
    assert b"Unknown request URL" in reply.body
    assert (tmp_path / "results.jsonl").read_bytes() == b""


def test_a_connection_that_is_lost_is_a_fault_of_the_reply() -> None:
    with serving(Provider(interfere=lambda _method, _path: "close")) as url:
        assert call(url, lambda api: api.retrieve("batch_1")).fault == "cut"


def test_an_id_cannot_lead_to_another_path() -> None:
    provider, names = Provider(), ["../files/x", "a/b", "a?b=c#d"]
    with serving(provider) as url:
        for name in names:
            call(url, partial(BatchApi.retrieve, batch_id=name))
    assert provider.calls == [f"GET /batches/{name}" for name in names]


def test_a_key_that_a_provider_repeats_is_redacted_in_replies_and_in_those_of_a_file() -> None:
    with ChatServer(lambda _seen, _attempt: Canned(200, f'{{"id": "{KEY}"}}'.encode())) as server:
        assert call(server.url, lambda api: api.retrieve("batch_1")).body == b'{"id": "***"}'

        async def hide(api: BatchApi) -> Reply:
            return api.hide(Reply(400, {}, f"an error with {KEY}".encode(), 0.0))

        assert call(server.url, hide).body == b"an error with ***"


def test_a_base_url_or_a_key_that_cannot_be_used_is_a_bad_job() -> None:
    odd = endpoint("http://127.0.0.1/v1").model_copy(update={"base_url": "http://127.0.0.1:99999/v1"})
    with pytest.raises(BadJob, match=r"endpoint\.base_url"):
        BatchApi(odd, None)
    with pytest.raises(BadJob, match="The key in"):
        BatchApi(endpoint("http://127.0.0.1/v1"), SecretStr("sk-first\nsk-second"))
