"""Long texts are read and checked in a thread: the event loop never stands still for them."""

import asyncio
import threading
import time
from pathlib import Path

import pytest
from chat_server import Canned, ChatServer, Seen, completion
from live_run import make_job, numbered, run

from pipeline.execution.local_context import LocalContext
from pipeline.text import in_thread_if

SCHEMA = {"type": "object", "properties": {"s": {"type": "array", "items": {"type": "string"}}}}
GOOD = '{"s": ["yes"]}'
SIZE = 1_000_000
LARGE = 2_000_000
KEY = "sk-proj-Ab3dEf6hIj9kLmNopQrStUvWxYz12345678"
PAUSE_SECONDS_MAX = 0.4
"""Twice what is promised, for slow machines. On a fast one it was 0.16 at most, and 2.5 where one search took all."""


def test_only_a_long_text_is_worked_on_in_a_thread() -> None:
    async def threads() -> list[int]:
        return [await in_thread_if(is_long, threading.get_ident) for is_long in (False, True)]

    at_once, in_thread = asyncio.run(threads())
    assert at_once == threading.get_ident() != in_thread


def longest_pause(tmp_path: Path, text: str, body: bytes, **settings: object) -> float:
    """The longest pause of the event loop while row 1 is answered with a body that holds this text.

    In seconds of CPU time of this process, as the machine may be busy with something else.
    """
    pauses: list[float] = []

    async def watch(task: "asyncio.Task[None]") -> None:
        last = time.process_time()
        while not task.done():
            await asyncio.sleep(0.005)
            now = time.process_time()
            pauses.append(now - last)
            last = now

    def begin(_context: LocalContext, task: "asyncio.Task[None]") -> None:
        watching = asyncio.get_running_loop().create_task(watch(task))
        task.add_done_callback(lambda _: watching.cancel())

    def reply(seen: Seen, _attempt: int) -> Canned:
        return Canned(body=body if seen.prompt == "row 1" else completion(GOOD))

    with ChatServer(reply) as server:
        job = make_job(server.url, answer__schema=SCHEMA, answer__repairs=0, limits__concurrency=2, **settings)
        left = run(tmp_path, job, numbered(8), on_start=begin)
    assert {prompt: mark for prompt, mark in left.marks.items() if mark != "ok"} == {"row 1": "invalid"}
    assert left.answers["row 1"] == text
    return max(pauses)


@pytest.mark.parametrize(
    "text",
    [
        "\\" * SIZE,
        "```\n" + " " * 190_000,
        '{"' + '\\"' * 90_000 + "\\",
        '{"s": [' + "1," * (SIZE // 2 - 10) + "1]}",
        ('{"a":["' + '"a":"b"(' * 5_000)[:19_990],
        "[" * SIZE,
        "word " * (SIZE // 5),
    ],
    ids=["backslashes", "an open fence", "an open string", "wrong values", "broken JSON", "brackets", "words"],
)
def test_while_a_long_answer_is_read_and_checked_the_others_go_on(tmp_path: Path, text: str) -> None:
    assert longest_pause(tmp_path, text, completion(text)) < PAUSE_SECONDS_MAX


@pytest.mark.parametrize("text", ["\0" * LARGE, "a" * LARGE], ids=["zero bytes", "letters"])
def test_while_a_key_is_looked_for_in_a_large_reply_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("KEY", KEY)
    escaped_key = KEY.replace("o", r"\u006f").encode()
    body = completion(text + "KEY").replace(b"KEY", escaped_key)
    assert longest_pause(tmp_path, text + "***", body, endpoint__api_key_env="KEY") < PAUSE_SECONDS_MAX
