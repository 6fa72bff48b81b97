"""Put a streamed reply together: some servers stream although nobody asked for it, and some models only stream.

The result is the document that the server would have sent in one piece. The HTML standard ("Server-sent events")
describes the lines, and OpenAI's reference ("chat completion chunk") what they hold.
"""

import re
from collections.abc import Iterator
from typing import Any

from .lenient_json import parse_json

FIRST_LINE = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,100}(?:data|event|id|retry)?:")
"""How a stream begins: with a field, or with a comment, whose line begins with a colon."""

LINE_END = re.compile(rb"\r\n|\r|\n")
DONE = b"[DONE]"

CUT = "error"
"""The finish reason of a stream that ends before its answer does."""


def is_event_stream(body: bytes) -> bool:
    """Whether a body is a stream of events and not JSON, by its beginning."""
    return FIRST_LINE.match(body) is not None


def put_together(body: bytes) -> dict[str, Any] | None:
    """The whole reply of a stream of chunks; None if it holds no JSON object.

    An error in the stream stands beside the choices, as in a reply in one piece.
    """
    whole: dict[str, Any] = {}
    answer = _StreamedAnswer()
    is_done = False
    for data in _events(body):
        if data.strip() == DONE:
            is_done = True
            break
        chunk = parse_json(data) if data.strip() else None
        if isinstance(chunk, dict):
            whole |= {name: value for name, value in chunk.items() if name != "choices" and value is not None}
            choices = chunk.get("choices")
            if isinstance(choices, list) and choices and isinstance(choices[0], dict):
                answer.add(choices[0])
    if not answer.has_begun:
        return whole or None
    return {**whole, "choices": [answer.choice(is_done=is_done)]}


def _events(body: bytes) -> Iterator[bytes]:
    """The data of each event: its lines that begin with `data:`, joined. Comments and other fields are left out."""
    lines: list[bytes] = []
    for line in LINE_END.split(body.removeprefix(b"\xef\xbb\xbf").lstrip()):
        if line.startswith(b"data:"):
            data = line[5:].removeprefix(b" ")
            if lines and data.startswith((b"{", DONE)) and lines[0].startswith(b"{") and lines[-1].endswith(b"}"):
                yield b"\n".join(lines)  # some servers end an event with one line end in place of two
                lines = []
            lines.append(data)
        elif not line and lines:
            yield b"\n".join(lines)
            lines = []
    if lines:
        yield b"\n".join(lines)


class _StreamedAnswer:
    """The choice that the chunks of a stream describe, one piece after the other."""

    def __init__(self) -> None:
        self.has_begun = False
        self._choice: dict[str, Any] = {}
        self._message: dict[str, Any] = {}
        self._texts: dict[str, list[Any]] = {}
        """The pieces of each part of the message that comes in pieces: texts, or lists of parts."""
        self._calls: dict[object, dict[str, Any]] = {}
        """The tool calls by their index."""
        self._arguments: dict[object, list[str]] = {}
        self._logprobs: list[object] = []

    def add(self, chunk: dict[str, Any]) -> None:
        """Add the choice of one chunk."""
        self.has_begun = True
        whole = chunk.get("message")
        if isinstance(whole, dict) and whole.get("content"):  # the last chunk of some servers repeats the whole message
            self._message, self._texts, self._calls, self._arguments = {}, {}, {}, {}
        self._add_to_message(whole if isinstance(whole, dict) else chunk.get("delta"))
        for name, value in chunk.items():
            if name in ("delta", "message"):
                continue
            if name == "logprobs":
                tokens = value.get("content") if isinstance(value, dict) else None
                self._logprobs += tokens if isinstance(tokens, list) else []
            elif name == "text" and isinstance(value, str):  # older servers
                self._texts.setdefault("content", []).append(value)
            elif value is not None:
                self._choice[name] = value

    def _add_to_message(self, delta: object) -> None:
        for name, value in delta.items() if isinstance(delta, dict) else ():
            if name == "tool_calls" and isinstance(value, list):
                for call in value:
                    self._add_call(call)
            elif isinstance(value, (str, list)) and name not in ("role", "id", "name"):
                self._texts.setdefault(name, []).append(value)
            elif value is not None:
                self._message.setdefault(name, value)

    def _add_call(self, call: object) -> None:
        if not isinstance(call, dict):
            return
        number, function = call.get("index"), call.get("function")
        index = number if isinstance(number, int) else str(call.get("id") or "")
        self._calls.setdefault(index, call)
        arguments = function.get("arguments") if isinstance(function, dict) else None
        if isinstance(arguments, str):
            self._arguments.setdefault(index, []).append(arguments)

    def choice(self, *, is_done: bool) -> dict[str, Any]:
        """The choice as in a reply in one piece. `is_done`: the stream said that it is complete."""
        message = self._message | {name: _joined(pieces) for name, pieces in self._texts.items()}
        for index, pieces in self._arguments.items():
            call = self._calls[index]
            begun = call.get("function")
            function = {**(begun if isinstance(begun, dict) else {}), "arguments": "".join(pieces)}
            self._calls[index] = {**call, "function": function}
        if self._calls:
            message["tool_calls"] = list(self._calls.values())
        choice = {**self._choice, "message": message}
        if self._logprobs:
            choice["logprobs"] = {"content": self._logprobs}
        if not is_done and not choice.get("finish_reason"):
            choice["finish_reason"] = CUT
        return choice


def _joined(pieces: list[Any]) -> str | list[Any]:
    """Pieces of text as one text; if there are lists of parts among them, all parts in one list."""
    if all(isinstance(piece, str) for piece in pieces):
        return "".join(pieces)
    return [part for piece in pieces for part in (piece if isinstance(piece, list) else [piece])]
