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


def test_only_a_long_text_is_worked_on_in_a_thread() -> None:
    async def threads() -> list[int]:
        return [await in_thread_if(is_long, threading.get_ident) for is_long in (False, True)]

    at_once, in_thread = asyncio.run(threads())
    assert at_once == threading.get_ident() != in_thread


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
    stalls: list[float] = []

    async def watch(task: "asyncio.Task[None]") -> None:
        last = time.perf_counter()
        while not task.done():
            await asyncio.sleep(0.005)
            stalls.append(time.perf_counter() - last)
            last = time.perf_counter()

    def begin(_context: LocalContext, task: "asyncio.Task[None]") -> None:
        watching = asyncio.get_running_loop().create_task(watch(task))
        task.add_done_callback(lambda _: watching.cancel())

    def reply(seen: Seen, _attempt: int) -> Canned:
        return Canned(body=completion(text if seen.prompt == "row 1" else GOOD))

    with ChatServer(reply) as server:
        job = make_job(server.url, answer__schema=SCHEMA, answer__repairs=0, limits__concurrency=2)
        left = run(tmp_path, job, numbered(8), on_start=begin)
    assert {prompt: mark for prompt, mark in left.marks.items() if mark != "ok"} == {"row 1": "invalid"}
    assert left.answers["row 1"] == text
    assert max(stalls) < 1.5  # seconds, on a busy machine; some took a minute, and others did not end
