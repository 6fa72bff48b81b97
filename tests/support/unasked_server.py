"""A chat endpoint on a loopback port that sends responses which nobody asked for: late, doubled, early, interleaved.

`python tests/support/unasked_server.py --runs 120` prints how many rows of random runs got another row's answer.
"""

import argparse
import asyncio
import random
import ssl
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import msgspec
from chat_server import answer_to, completion
from live_run import make_job, numbered, run
from raw_server import read_request


@dataclass(frozen=True)
class Manner:
    """How a server misbehaves. Times are in seconds."""

    share: float = 1.0
    """The share of responses that one more follows."""
    late: tuple[float, float] = (0.0, 0.0)
    """How long after an answer the response comes that nobody asked for, at least and at most."""
    early: bool = False
    """A new connection begins with a response, before any request."""
    early_after: float = 0.0
    status: bytes = b"200 OK"
    """The status of these responses."""
    halves: bool = False
    """They come in two pieces, the second 5 ms after the first."""
    after: int = 0
    """How many requests are answered properly first."""
    latency: tuple[float, float] = (0.0, 0.0)
    """How long a proper answer takes, at least and at most."""
    slower: float = 0.0
    """How long each proper answer takes after the first, if not 0; then only the first is followed by one more."""


@dataclass
class UnaskedServer:
    """Serves on 127.0.0.1 from a daemon thread, from `with` to its end. An unasked response is another row's answer."""

    manner: Manner
    tls: ssl.SSLContext | None = None
    seed: int = 0
    prompts: list[str] = field(default_factory=list)
    """The prompts of all requests, as they came."""
    unasked: int = 0
    """The number of responses that nobody asked for."""
    connections: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._random = random.Random(self.seed)
        self._loop = asyncio.new_event_loop()
        began = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(began,), daemon=True)
        self._thread.start()
        assert began.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    def _serve(self, began: threading.Event) -> None:
        async def serve() -> None:
            self._over = asyncio.Event()
            server = await asyncio.start_server(self._talk, "127.0.0.1", 0, ssl=self.tls)
            self.port = server.sockets[0].getsockname()[1]
            began.set()
            await self._over.wait()
            server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0.01)

        self._loop.run_until_complete(serve())
        self._loop.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        extra: set[asyncio.Task[None]] = set()
        try:
            if self.manner.early and len(self.prompts) >= self.manner.after:
                await asyncio.sleep(self.manner.early_after)
                await self._send_unasked(writer, 0.0)
            while True:
                _, body = await read_request(reader)
                asked = msgspec.json.decode(body)["messages"][-1]["content"]
                prompt = asked.partition("\n\n")[0]  # without a schema that is stated after it
                self.prompts.append(prompt)
                is_first = len(self.prompts) == 1
                slower = 0.0 if is_first else self.manner.slower
                await asyncio.sleep(slower or self._random.uniform(*self.manner.latency))
                writer.write(_response(b"200 OK", completion(answer_to(prompt))))
                is_due = len(self.prompts) > self.manner.after and not self.manner.early and not slower
                if is_due and self._random.random() < self.manner.share:
                    pause = self._random.uniform(*self.manner.late)
                    if pause:
                        extra.add(asyncio.create_task(self._send_unasked(writer, pause)))
                    else:
                        await self._send_unasked(writer, 0.0)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            for task in extra:
                task.cancel()
            writer.transport.abort()

    async def _send_unasked(self, writer: asyncio.StreamWriter, pause: float) -> None:
        await asyncio.sleep(pause)
        if writer.transport.is_closing():
            return
        self.unasked += 1
        wrong = answer_to(f"{self._random.choice(self.prompts)} " if self.prompts else "another row")
        data = _response(self.manner.status, completion(wrong))
        if self.manner.halves:
            writer.write(data[: len(data) // 2])
            await asyncio.sleep(0.005)
            data = data[len(data) // 2 :]
        writer.write(data)


def _response(status: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % (status, len(body)) + body


def random_manner(rng: random.Random) -> Manner:
    """A manner of sending responses that nobody asked for."""
    return Manner(
        share=rng.choice([0.02, 0.1, 0.5, 1.0]),
        late=(0.0, rng.choice([0.0, 0.001, 0.02, 0.1, 0.3])),
        status=rng.choice([b"200 OK", b"200 OK", b"408 Request Timeout", b"500 Oh", b"429 No"]),
        halves=rng.random() < 0.2,
        after=rng.choice([0, 0, 20, 60]),
        latency=(0.0, rng.choice([0.0, 0.02, 0.1, 0.3])),
    )


def main() -> None:
    """Ask random servers, and print how many rows got another row's answer."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    figures = dict.fromkeys(("runs", "rows", "wrong rows", "requests", "unasked responses"), 0)
    for number in range(given.runs):
        rng = random.Random(given.seed + number)
        pace = {"limits__requests_per_minute": rng.choice([600, 3000])} if rng.random() < 0.2 else {}
        rows = 30 if pace else rng.choice([8, 100])
        with UnaskedServer(random_manner(rng), seed=number) as server, tempfile.TemporaryDirectory() as folder:
            job = make_job(server.url, limits__concurrency=rng.choice([1, 4, 16, 64]), **pace)
            done = run(Path(folder), job, numbered(rows))
            wrong = sum(text != answer_to(prompt) for prompt, text in done.answers.items())
            found = (1, rows, wrong, len(server.prompts), server.unasked)
        figures = {name: known + more for (name, known), more in zip(figures.items(), found, strict=True)}
    print(msgspec.json.encode(figures).decode())


if __name__ == "__main__":
    main()
