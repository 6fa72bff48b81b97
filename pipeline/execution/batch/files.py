"""Requests as the files that a Batch API takes, and its results as what they say of each request.

A sheet lies in the job folder until all that came of it is on disk; what is uploaded is made from it.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import msgspec
from msgspec.structs import replace

from ...files import open_private
from ...records import Record, Request
from ...store import BatchFile

LINE = b'{"custom_id":"%s","method":"POST","url":"/v1/chat/completions","body":%s}\n'
LINE_BYTES = 160
"""More than a line has beside the request's body."""
BYTES_MOST = 190_000_000
"""Of an upload; providers take 200 MB."""


class BatchLine(Record, frozen=True):
    """One request of a sheet, and what came of it in earlier batches."""

    request: Request
    tries: int = 0
    cost: float | None = 0.0
    """US dollars that they cost; None if that is unknown."""


_encoder = msgspec.json.Encoder()
_line = msgspec.json.Decoder(BatchLine)


class BatchFileWriter:
    """A sheet that is being written."""

    def __init__(self, folder: Path, model: str) -> None:
        self.sheet = BatchFile(f"{os.urandom(8).hex()}.jsonl", model)
        self._file = os.fdopen(open_private(folder / self.sheet.name, os.O_WRONLY | os.O_EXCL), "wb")

    def has_room(self, line: BatchLine, requests_most: int) -> bool:
        """It would still be no more than a provider takes."""
        size_bytes = self.sheet.size_bytes + len(line.request.body) + LINE_BYTES * (self.sheet.requests + 1)
        return self.sheet.requests < requests_most and size_bytes <= BYTES_MOST

    def add(self, line: BatchLine) -> None:
        """One more."""
        self._file.write(_encoder.encode(line) + b"\n")
        size_bytes = self.sheet.size_bytes + len(line.request.body)
        self.sheet = replace(self.sheet, requests=self.sheet.requests + 1, size_bytes=size_bytes)

    def sealed(self) -> BatchFile:
        """The sheet, all of it on disk."""
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
        return self.sheet


def read_lines(path: Path) -> Iterator[BatchLine]:
    """All lines of a sheet, in the order in which they were added."""
    with path.open("rb") as file:
        yield from map(_line.decode, file)


class LinesByKey:
    """The lines of a sheet, each to be taken once by its request's key; a context manager. Holds no body."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._places: dict[str, int] = {}
        place = 0
        for line in self._file:
            self._places[_line.decode(line).request.key] = place
            place += len(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def take(self, key: str) -> BatchLine:
        """The line of this key, which is then no more in it."""
        self._file.seek(self._places.pop(key))
        return _line.decode(self._file.readline())

    def left(self) -> list[str]:
        """The keys of those that were not taken."""
        return list(self._places)


def write_upload(path: Path, requests: Iterable[Request]) -> None:
    """Write what the provider is given."""
    with os.fdopen(open_private(path, os.O_WRONLY | os.O_TRUNC), "wb") as file:
        file.writelines(LINE % (request.key.encode(), request.body) for request in requests)


class Result(NamedTuple):
    """What a batch says of one request."""

    key: str
    status: int
    """The HTTP status; 0 if it was not asked at all, and `body` says why."""
    body: bytes


def count_results(paths: Iterable[Path], parse: Callable[[bytes], object]) -> tuple[int, int]:
    """How many answers files of results hold, and how many lines that are none of a batch's."""
    answered = odd = 0
    for path in paths:
        with path.open("rb") as file:
            for line in filter(bytes.strip, file):
                result = _result(parse(line))
                odd += result is None
                answered += result is not None and result.status == 200
    return answered, odd


def read_results(path: Path, parse: Callable[[bytes], object]) -> Iterator[Result]:
    """Every line of a file of results that makes sense; `parse` gives the JSON value of a line."""
    with path.open("rb") as file:
        for line in file:
            result = _result(parse(line))
            if result is not None:
                yield result


def _result(told: object) -> Result | None:
    if not isinstance(told, dict) or not isinstance(told.get("custom_id"), str):
        return None
    response = told.get("response")
    if isinstance(response, dict) and isinstance(response.get("status_code"), int):
        return Result(told["custom_id"], response["status_code"], _encoder.encode(response.get("body")))
    return Result(told["custom_id"], 0, _encoder.encode(told.get("error")))
