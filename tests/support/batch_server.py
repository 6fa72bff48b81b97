"""A provider with OpenAI's Batch API on a loopback port. Its files and batches outlive a restart of the server.

Use it as `provider = Provider()` and `with serving(provider) as url:`. Each batch is finished after it was looked up
`looks` times, with its results in random order. `provider.billed` counts how often each request was answered, and so
paid for.
"""

import email
import email.policy
import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from chat_server import answer_to, completion, problem

Answered = tuple[int, bytes]
FILE_BYTES_MAX, LINES_MAX = 200 * 1024 * 1024, 50_000
JSON = {"content-type": "application/json"}


def usual(body: dict[str, Any]) -> Answered:
    """Answer as `chat_server` does."""
    prompt = body["messages"][-1]["content"]
    form = body.get("response_format") or {}
    schema = form["json_schema"]["schema"] if form.get("type") == "json_schema" else None
    return 200, completion(answer_to(prompt, schema), model=body["model"])


@dataclass
class Provider:
    """The provider's files, batches and behaviour."""

    answer: Callable[[dict[str, Any]], Answered | None] = usual  # None: no line in the results
    looks: int = 2  # how often a batch is looked up until it is finished
    ends: Callable[[int], str] = lambda _number: "completed"  # by the batch's number, from 1
    share: float = 1.0  # of its requests that a batch answers if it does not complete
    queue_tokens: int | None = None  # the most in open batches; a token is four bytes here
    tells_queue: bool = True
    bad_lines: Callable[[int, list[dict[str, Any]]], dict[int, str]] = lambda _number, _lines: {}
    # by method and path: "close" the connection before the call or "lose" it after, "hang" for a minute, reply with an
    # HTML "page" or a status; "" does nothing
    interfere: Callable[[str, str], str] = lambda _method, _path: ""
    results: Callable[[bytes], bytes] = lambda content: content  # what is sent of a file of results
    shows: Callable[[dict[str, Any]], dict[str, Any]] = lambda batch: batch  # what is shown of a batch
    ignores_after: bool = False  # each page of its list is the first
    lists: bool = True
    names_results: Callable[[int], bool] = lambda _looks: True  # by how often the batch was looked up
    key: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    billed: Counter[str] = field(default_factory=Counter)
    calls: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)

    def upload(self, content: bytes) -> dict[str, Any]:
        name = f"file-{len(self.calls)}"
        self.files[name] = content
        return {"id": name, "object": "file", "bytes": len(content), "purpose": "batch"}

    def create(self, wanted: dict[str, Any]) -> Answered:
        if wanted["input_file_id"] not in self.files:
            return 400, problem("No such File object.")
        assert wanted["endpoint"] == "/v1/chat/completions"
        number = len(self.batches) + 1
        name = f"batch_{number}"
        self.batches[name] = batch = {
            "id": name,
            "object": "batch",
            "input_file_id": wanted["input_file_id"],
            "status": "validating",
            "looks": 0,
            "number": number,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
        }
        lines = self.lines(batch)
        waiting = sum(
            self.tokens(other) for other in self.batches.values() if other["status"] in ("validating", "in_progress")
        )
        if self.queue_tokens is not None and waiting > self.queue_tokens:
            limit = f"Limit: {self.queue_tokens:,} enqueued tokens. " if self.tells_queue else ""
            self.fail(
                batch,
                [{"code": "token_limit_exceeded", "line": None, "message": f"Enqueued token limit reached. {limit}"}],
            )
        elif bad := self.bad_lines(number, lines):
            self.fail(batch, [{"code": "invalid", "line": at, "message": text} for at, text in bad.items()])
        return 200, json.dumps(self.shows(dict(batch))).encode()

    def fail(self, batch: dict[str, Any], errors: list[dict[str, Any]]) -> None:
        batch |= {"status": "failed", "errors": {"object": "list", "data": errors}}

    def lines(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]

    def tokens(self, batch: dict[str, Any]) -> int:
        return len(self.files.get(batch["input_file_id"], b"")) // 4

    def retrieve(self, name: str) -> Answered:
        batch = self.batches.get(name)
        if batch is None:
            return 404, problem(f"No batch found with id {name!r}.")
        if batch["status"] in ("validating", "in_progress"):
            batch["status"] = "in_progress"
            if batch["looks"] + 1 >= self.looks:
                self.finish(batch)
        batch["looks"] += 1
        if not self.names_results(batch["looks"]):
            return 200, json.dumps({**batch, "output_file_id": None, "error_file_id": None}).encode()
        return 200, json.dumps(self.shows(dict(batch))).encode()

    def finish(self, batch: dict[str, Any]) -> None:
        """Answer the requests, and write both files of results in random order."""
        rng, lines = random.Random(batch["number"]), self.lines(batch)
        rng.shuffle(lines)
        status = self.ends(batch["number"])
        answered = lines if status == "completed" else lines[: int(len(lines) * self.share)]
        good, bad = [], []
        for line in answered:
            answer = self.answer(line["body"])
            if answer is None:
                continue
            status_code, body = answer
            self.billed[line["custom_id"]] += status_code == 200
            response = {"status_code": status_code, "request_id": "r", "body": json.loads(body)}
            result = {"id": "x", "custom_id": line["custom_id"], "response": response, "error": None}
            (good if status_code == 200 else bad).append(result)
        for line in lines[len(answered) :]:
            error = {"code": f"batch_{status}", "message": "This request could not be executed before it was over."}
            bad.append({"id": "x", "custom_id": line["custom_id"], "response": None, "error": error})
        for name, results in (("output_file_id", good), ("error_file_id", bad)):
            if results:
                self.files[f"{name}-{batch['id']}"] = b"".join(json.dumps(each).encode() + b"\n" for each in results)
                batch[name] = f"{name}-{batch['id']}"
        batch |= {"status": status, "request_counts": {"total": len(lines), "completed": len(good), "failed": len(bad)}}

    def page(self, after: str) -> dict[str, Any]:
        """A page of the list of batches: two batches, latest first."""
        latest = list(reversed(self.batches.values()))
        names = [batch["id"] for batch in latest]
        start = names.index(after) + 1 if after and not self.ignores_after else 0
        return {"object": "list", "data": latest[start : start + 2], "has_more": start + 2 < len(latest)}


def complaint_about(name: str, content: bytes) -> str:
    """What OpenAI says of a file of requests that it does not take; empty if it takes it."""
    if not name.endswith(".jsonl"):
        return "Invalid file format for Batch API. Must be .jsonl"
    if len(content) > FILE_BYTES_MAX:
        return "The file is larger than 200 MB."
    try:
        lines = [json.loads(line) for line in content.decode("utf-8", "strict").splitlines()]
    except ValueError as error:
        return f"Invalid file: {error}"
    if not lines or len(lines) > LINES_MAX:
        return f"The file has {len(lines)} lines."
    names = [line.get("custom_id") for line in lines]
    if len(set(names)) < len(names):
        return "custom_id must be unique."
    for line in lines:
        if set(line) != {"custom_id", "method", "url", "body"} or line["method"] != "POST":
            return f"Invalid line: {line}"
        if line["url"] != "/v1/chat/completions" or line["body"].get("stream") is True or "model" not in line["body"]:
            return f"Invalid request: {line}"
    return ""


class _Handler(BaseHTTPRequestHandler):
    provider: Provider
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer()

    do_POST = do_DELETE = do_GET  # noqa: N815

    def answer(self) -> None:
        provider = self.provider
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = urlsplit(self.path)
        path = unquote(parts.path).removeprefix("/v1")
        with provider.lock:
            provider.calls.append(f"{self.command} {path}")
            how = provider.interfere(self.command, path)
        if how == "hang":
            provider.over.wait(60)
            self.close_connection = True
            return
        with provider.lock:
            if how == "close":
                self.close_connection = True
                return
            if how == "page":
                self.reply(200, b"<html><body>Please log in.</body></html>")
                return
            if how.isdigit():
                self.reply(int(how), problem("Interfered."))
                return
            status, body = self.respond(path, parse_qs(parts.query), content)
        if how == "lose":
            self.close_connection = True
            return
        self.reply(status, body)

    def respond(self, path: str, query: dict[str, list[str]], content: bytes) -> Answered:
        provider = self.provider
        if provider.key and self.headers.get("authorization") != f"Bearer {provider.key}":
            return 401, problem("Incorrect API key provided.", code="invalid_api_key")
        match self.command, path.strip("/").split("/"):
            case "POST", ["files"]:
                name, payload = self.file_in(content)
                if complaint := complaint_about(name, payload):
                    return 400, problem(complaint)
                return 200, json.dumps(provider.upload(payload)).encode()
            case "GET", ["files", name, "content"] if name in provider.files:
                return 200, provider.results(provider.files[name])
            case "DELETE", ["files", name] if name in provider.files:
                del provider.files[name]
                return 200, b'{"deleted": true}'
            case "POST", ["batches"]:
                return provider.create(json.loads(content))
            case "GET", ["batches"] if provider.lists:
                return 200, json.dumps(provider.page(query.get("after", [""])[0])).encode()
            case "GET", ["batches", name]:
                return provider.retrieve(name)
        return 404, problem(f"Unknown request URL: {self.command} {path}.")

    def file_in(self, content: bytes) -> tuple[str, bytes]:
        head = f"content-type: {self.headers['content-type']}\r\n\r\n".encode()
        form = email.message_from_bytes(head + content, policy=email.policy.HTTP)
        parts = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}
        assert parts["purpose"].get_payload() == "batch"
        payload = parts["file"].get_payload(decode=True)
        assert isinstance(payload, bytes)
        return parts["file"].get_filename() or "", payload

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        for name, value in {**JSON, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as http.server has it
        pass


@contextmanager
def serving(provider: Provider, port: int = 0) -> Iterator[str]:
    """Serve the provider while the block lasts; yields its base URL."""
    handler = type("Handler", (_Handler,), {"provider": provider})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        provider.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
