"""A chat endpoint on a loopback port whose every answer is a function of the prompt.

In a test: `with ChatServer() as server: … server.url, server.log`. As a process: `with chat_process() as server: …`, or
`python tests/chat_server.py --delay-ms 50 --log requests.ndjson`, which prints its URL on the first line.
"""

import argparse
import asyncio
import hashlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

import httptools
import msgspec

CHAT_PATH = "/v1/chat/completions"
PHRASES = {status.value: status.phrase for status in HTTPStatus}
USAGE = {"prompt_tokens": 12, "completion_tokens": 6, "total_tokens": 18}


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived, whole."""

    path: str  # with its query, if it had one
    headers: dict[str, str]  # names in lower case
    body: dict[str, Any]  # empty if it was no JSON object
    at: float  # time.monotonic(), which on Linux all processes share
    prompt: str  # the text of the last user message; empty if there is none


@dataclass(frozen=True, slots=True)
class Canned:
    """What to send instead of the normal answer. Its delay counts alone: the server's is not added."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(
        default_factory=dict
    )  # over content-type and content-length; `connection: close` is kept
    delay_seconds: float = 0
    cut_after: int | None = None  # close after so many bytes of the body, though content-length promises all
    hang: bool = False  # never answer, until one side closes
    close: bool = False  # close without a byte
    drip_seconds: float | None = None  # send headers, then a space every so often, for ever
    garbage: bool = False  # send bytes that are not HTTP, and close


Reply = Callable[[Seen, int], Canned | None]


def pick(prompt: str, values: Sequence[Any]) -> Any:
    """The one of the values that this prompt always gets."""
    return values[int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4]) % len(values)]


def answer_to(prompt: str, schema: Mapping[str, Any] | None = None) -> str:
    """The text of the normal answer: `re:` and a hash of the prompt, or JSON of that hash that fits the schema."""
    return _words(prompt) if schema is None else msgspec.json.encode(_value(prompt, schema)).decode()


def _words(prompt: str) -> str:
    return f"re:{hashlib.sha256(prompt.encode()).hexdigest()[:12]}"


def _value(prompt: str, schema: Mapping[str, Any]) -> Any:
    if "enum" in schema:
        return pick(prompt, schema["enum"])
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            return {name: _value(prompt, part) for name, part in schema.get("properties", {}).items()}
        case "array":
            return [_value(prompt, schema.get("items", {}))]
        case "integer" | "number":
            return pick(prompt, range(int(schema.get("minimum", 0)), int(schema.get("maximum", 10)) + 1))
        case "boolean":
            return pick(prompt, (False, True))
        case "null":
            return None
        case _:
            return _words(prompt)


def completion(
    text: str | None,
    *,
    finish_reason: str | None = "stop",
    model: str = "test-model",
    usage: Mapping[str, Any] | None = USAGE,
    **message: Any,
) -> bytes:
    """A body in OpenAI's shape. Other names go into the message (`refusal="No."`); None for usage omits it."""
    body: dict[str, Any] = {
        "id": "chatcmpl-test",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, **message},
                "logprobs": None,
                "finish_reason": finish_reason,
            }
        ],
    }
    if usage is not None:
        body["usage"] = usage
    return msgspec.json.encode(body)


def problem(message: str, *, kind: str = "invalid_request_error", code: str | None = None) -> bytes:
    """The body of an error in OpenAI's shape."""
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": code}})


class ChatServer:
    """Serves on 127.0.0.1 from a daemon thread with a loop of its own, from `with` to its end, once.

    `reply(seen, attempt)` is called in that thread for each request, whatever its path, with how often this very prompt
    has now arrived (1 the first time); None means the normal answer. What it raises becomes a 400 (so that a client
    does not try again) and is raised at the end of the `with`. With a `key`, a request without it is normally answered
    by 401. Entering raises OSError if the port is taken; port 0 takes a free one. `keep_log=False` leaves `log` empty,
    for long benchmarks.
    """

    def __init__(
        self,
        reply: Reply | None = None,
        *,
        delay_seconds: float = 0,
        key: str | None = None,
        port: int = 0,
        keep_log: bool = True,
    ) -> None:
        self.reply = reply
        self.delay_seconds = delay_seconds
        self.key = key
        self.port = port
        self.keep_log = keep_log
        self.log: list[Seen] = []  # every request, in order of arrival
        self.arrived = 0
        self.in_flight = 0  # arrived whole and not yet answered
        self.most_in_flight = 0
        self._attempts: Counter[str] = Counter()
        self._errors: list[Exception] = []
        self._arrival = threading.Condition()
        self._connections: set[_Connection] = set()
        # one for all connections, as each read is parsed before the next; a fresh one a read costs the kernel 20 µs
        self._buffer = memoryview(bytearray(256 * 1024))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        # bound here, so that a taken port is an error of the test's own line
        listener = socket.create_server(("127.0.0.1", self.port), backlog=1024)
        self.port = listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(listener,), name="chat-server", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        if self._errors:
            raise self._errors[0]

    def wait_for(self, count: int, timeout_seconds: float = 60) -> None:
        """Return once so many requests have arrived in all; raise TimeoutError if they do not."""
        with self._arrival:
            if not self._arrival.wait_for(lambda: self.arrived >= count, timeout_seconds):
                raise TimeoutError(f"{self.arrived} of {count} requests arrived in {timeout_seconds} s")

    def _run(self, listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(listener))

    async def _serve(self, listener: socket.socket) -> None:
        server = await self._loop.create_server(lambda: _Connection(self), sock=listener, backlog=1024)
        await self._stopping.wait()
        server.close()
        for connection in self._connections:
            connection.transport.abort()
        await asyncio.sleep(0)  # one turn of the loop, in which the aborted connections end
        await server.wait_closed()

    def _decide(self, method: str, seen: Seen) -> Canned:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self._attempts[seen.prompt] += 1
        with self._arrival:
            if self.keep_log:
                self.log.append(seen)
            self.arrived += 1
            self._arrival.notify_all()
        try:
            canned = self.reply(seen, self._attempts[seen.prompt]) if self.reply else None
        except Exception as error:  # noqa: BLE001 - whatever a test's function raises is raised again in the test's thread
            self._errors.append(error)
            canned = Canned(400, problem(f"the test's reply function raised {error!r}"))
        return canned or self._normal(method, seen)

    def _normal(self, method: str, seen: Seen) -> Canned:
        sent = seen.headers.get("authorization", "")
        if self.key is not None and sent != f"Bearer {self.key}":
            # some servers echo the whole key; so does this one, so that each test of a wrong key is also one of a leak
            text = f"Incorrect API key provided: {sent.removeprefix('Bearer ')}."
            return Canned(401, problem(text, code="invalid_api_key"))
        if method != "POST" or seen.path.partition("?")[0] != CHAT_PATH:
            return Canned(404, problem(f"Unknown request URL: {method} {seen.path}.", code="unknown_url"))
        if not isinstance(seen.body.get("messages"), list):
            return Canned(400, problem("The body is not a JSON object with a list of messages."))
        return Canned(body=_normal_body(seen), delay_seconds=self.delay_seconds)


def _normal_body(seen: Seen) -> bytes:
    prompt_tokens = sum(len(_text(message)) for message in seen.body["messages"]) // 4 + 1
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": 6, "total_tokens": prompt_tokens + 6}
    form = seen.body.get("response_format") or {}
    schema = form["json_schema"]["schema"] if form.get("type") == "json_schema" else None
    return completion(answer_to(seen.prompt, schema), model=seen.body.get("model", "test-model"), usage=usage)


def _text(message: Any) -> str:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _prompt(body: dict[str, Any]) -> str:
    messages = body.get("messages")
    if not isinstance(messages, list):
        return ""
    return next((_text(m) for m in reversed(messages) if isinstance(m, dict) and m.get("role") == "user"), "")


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return f"HTTP/1.1 {status} {PHRASES.get(status, 'Unknown')}\r\n{lines}\r\n".encode("latin-1")


@lru_cache(maxsize=1024)
def _header(name: bytes, value: bytes) -> tuple[str, str]:
    return name.decode("latin-1").lower(), value.decode("latin-1")


class _Connection(asyncio.BufferedProtocol):
    """One client's connection: requests in, answered one after the other in the order they came."""

    transport: asyncio.Transport

    def __init__(self, server: ChatServer) -> None:
        self.server = server
        self.parser = httptools.HttpRequestParser(self)
        self.unanswered: deque[tuple[Canned, bool]] = deque()  # what to send, and whether the connection stays open
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server._connections.add(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.server._connections.discard(self)
        self.server.in_flight -= len(self.unanswered)
        self.unanswered.clear()
        if self.timer:
            self.timer.cancel()

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self.server._buffer

    def buffer_updated(self, nbytes: int) -> None:
        try:
            self.parser.feed_data(self.server._buffer[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._write(Canned(400, problem(f"not a request: {error}")), stays_open=False)

    # httptools calls the five that follow

    def on_message_begin(self) -> None:
        self.target = b""
        self.headers: dict[str, str] = {}
        self.content = b""

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        lower, text = _header(name, value)
        self.headers[lower] = text

    def on_body(self, body: bytes) -> None:
        self.content += body

    def on_message_complete(self) -> None:
        body = _object(self.content)
        seen = Seen(self.target.decode("latin-1"), self.headers, body, time.monotonic(), _prompt(body))
        canned = self.server._decide(self.parser.get_method().decode("ascii"), seen)
        said_close = canned.headers.get("connection", "").lower() == "close"
        self.unanswered.append((canned, self.parser.should_keep_alive() and not said_close))
        if len(self.unanswered) == 1:
            self._begin()

    def _begin(self) -> None:
        if not self.unanswered or self.transport.is_closing():
            return
        delay_seconds = self.unanswered[0][0].delay_seconds
        if delay_seconds > 0:
            self.timer = self.server._loop.call_later(delay_seconds, self._answer)
        else:
            self._answer()

    def _answer(self) -> None:
        canned, stays_open = self.unanswered[0]
        if canned.hang:
            return
        if canned.drip_seconds is not None:
            headers = {"content-type": "application/json", **canned.headers, "transfer-encoding": "chunked"}
            self.transport.write(_head(canned.status, headers))
            self._drip(canned.drip_seconds)
            return
        # before the bytes leave, so that a client with its answer in hand never finds itself counted
        self.unanswered.popleft()
        self.server.in_flight -= 1
        if canned.close:
            self.transport.close()
        elif canned.garbage:
            self.transport.write(b"\x00\xffThese bytes are not HTTP.\r\n\r\n")
            self.transport.close()
        else:
            self._write(canned, stays_open=stays_open)
            if self.unanswered:
                self.server._loop.call_soon(self._begin)

    def _write(self, canned: Canned, *, stays_open: bool) -> None:
        headers = {"content-type": "application/json", "content-length": str(len(canned.body)), **canned.headers}
        if not stays_open:
            headers["connection"] = "close"
        self.transport.write(_head(canned.status, headers) + canned.body[: canned.cut_after])
        if canned.cut_after is not None or not stays_open:
            self.transport.close()

    def _drip(self, every_seconds: float) -> None:
        self.transport.write(b"1\r\n \r\n")
        self.timer = self.server._loop.call_later(every_seconds, self._drip, every_seconds)


@dataclass(frozen=True)
class ChatProcess:
    """A server in a process of its own."""

    url: str
    process: subprocess.Popen[str]
    log: Path | None

    def log_lines(self) -> list[dict[str, Any]]:
        """Every request in order of arrival: `at` (monotonic), `attempt`, `path`, `prompt`, `sha256` of the prompt."""
        if self.log is None:
            raise ValueError("chat_process was started without a log")
        return [msgspec.json.decode(line) for line in self.log.read_bytes().rpartition(b"\n")[0].splitlines()]


@contextmanager
def chat_process(
    log: Path | None = None, *, delay_seconds: float = 0, port: int = 0, for_seconds: float = 900
) -> Iterator[ChatProcess]:
    """A server as a subprocess, ended with the block; if this process is killed, it ends too, as its stdin closes."""
    command = [sys.executable, __file__, "--port", str(port), "--delay-ms", str(delay_seconds * 1000)]
    command += ["--for-seconds", str(for_seconds), *(["--log", str(log)] if log else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError("the chat server did not start; its own words are on stderr")
            yield ChatProcess(url, process, log)
        finally:
            process.stdin.close()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def _writing_to(path: Path) -> Reply:
    """A reply function that logs and leaves the answer as it is: one write a line, so that a SIGKILL loses none."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(seen: Seen, attempt: int) -> None:
        line = {
            "at": seen.at,
            "attempt": attempt,
            "path": seen.path,
            "sha256": hashlib.sha256(seen.prompt.encode()).hexdigest(),
            "prompt": seen.prompt,
        }
        os.write(file, msgspec.json.encode(line) + b"\n")

    return write


def _wait_for_the_end(seconds: float) -> None:
    """Return when stdin is closed or the time is up."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        readable_entries, _, _ = select.select([0], [], [], left)
        if readable_entries and not os.read(0, 4096):
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay-ms", type=float, default=0)
    parser.add_argument("--log", type=Path, help="append one JSON line a request to this file")
    parser.add_argument(
        "--for-seconds", type=float, default=900, help="end after so long; it also ends when stdin closes"
    )
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    reply = _writing_to(options.log) if options.log else None
    with ChatServer(reply, delay_seconds=options.delay_ms / 1000, port=options.port, keep_log=False) as server:
        print(server.url, flush=True)
        _wait_for_the_end(options.for_seconds)


if __name__ == "__main__":
    main()
