"""Files of batches: requests as they are kept in the job folder and as they are uploaded, and downloaded results.

A batch file is kept in the job folder until all outcomes of its requests are on disk. The upload is made from it.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import msgspec
from msgspec.structs import replace

from ...files import open_private, sync
from ...records import Record, Request
from ...store import BatchFile

UPLOAD_LINE = b'{"custom_id":"%s","method":"POST","url":"/v1/chat/completions","body":%s}\n'
"""One line of an upload, with places for a request's key and body; the format is OpenAI's."""

LINE_OVERHEAD_BYTES = 160
"""More bytes than a line of an upload has beside the request's body."""

UPLOAD_BYTES_MAX = 190_000_000
"""The largest upload, in bytes. Providers take 200 MB."""


class BatchLine(Record, frozen=True):
    """One line of a batch file: a request, and its attempts in earlier batches. The names are those on disk."""

    request: Request
    tries: int = 0
    """Number of attempts in earlier batches."""
    cost: float | None = 0.0
    """US dollars that they cost; None if that is unknown."""


_encoder = msgspec.json.Encoder()
_line_decoder = msgspec.json.Decoder(BatchLine)


class BatchFileWriter:
    """Writes a new batch file."""

    def __init__(self, folder: Path, model: str) -> None:
        self._batch_file = BatchFile(f"{os.urandom(8).hex()}.jsonl", model)
        self._folder = folder
        self._file = os.fdopen(open_private(folder / self._batch_file.name, os.O_WRONLY | os.O_EXCL), "wb")

    def has_room(self, line: BatchLine, requests_max: int) -> bool:
        """Whether the file stays within `requests_max` and UPLOAD_BYTES_MAX with one more line."""
        requests = self._batch_file.requests
        size_bytes = self._batch_file.size_bytes + len(line.request.body) + LINE_OVERHEAD_BYTES * (requests + 1)
        return requests < requests_max and size_bytes <= UPLOAD_BYTES_MAX

    def add(self, line: BatchLine) -> None:
        """Append a line."""
        self._file.write(_encoder.encode(line) + b"\n")
        size_bytes = self._batch_file.size_bytes + len(line.request.body)
        self._batch_file = replace(self._batch_file, requests=self._batch_file.requests + 1, size_bytes=size_bytes)

    def close(self) -> BatchFile:
        """Return the batch file once all of it is on disk."""
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
        sync(self._folder)
        return self._batch_file


def read_lines(path: Path) -> Iterator[BatchLine]:
    """Read the lines of a batch file, in the order in which they were added."""
    with path.open("rb") as file:
        yield from map(_line_decoder.decode, file)


class LinesByKey:
    """The lines of a batch file by the key of their request; a context manager.

    Each line can be taken once. Only keys and places in the file are kept in memory, no bodies.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._places: dict[str, int] = {}
        place = 0
        for line in self._file:
            self._places[_line_decoder.decode(line).request.key] = place
            place += len(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def take(self, key: str) -> BatchLine:
        """Remove and return the line of a key. Raises KeyError if it was taken, or never there."""
        self._file.seek(self._places.pop(key))
        return _line_decoder.decode(self._file.readline())

    def left(self) -> list[str]:
        """The keys of the lines that were not taken."""
        return list(self._places)


def write_upload(path: Path, requests: Iterable[Request]) -> None:
    """Write requests in the format that a provider takes."""
    with os.fdopen(open_private(path, os.O_WRONLY | os.O_TRUNC), "wb") as file:
        file.writelines(UPLOAD_LINE % (request.key.encode(), request.body) for request in requests)


class Result(NamedTuple):
    """The result of one request, from a file of results."""

    key: str
    status: int
    """The HTTP status; 0 if the request was not asked."""
    body: bytes
    """The body of the reply as JSON; if the request was not asked, the provider's error object."""


def read_results(path: Path, parse: Callable[[bytes], object]) -> Iterator[Result | None]:
    """Read the results in a file; None for each line that is none. `parse` returns the JSON value of a line."""
    with path.open("rb") as file:
        for line in filter(bytes.strip, file):
            yield _result(parse(line))


def _result(value: object) -> Result | None:
    if not isinstance(value, dict) or not isinstance(value.get("custom_id"), str):
        return None
    response = value.get("response")
    if isinstance(response, dict) and isinstance(response.get("status_code"), int):
        return Result(value["custom_id"], response["status_code"], _encoder.encode(response.get("body")))
    return Result(value["custom_id"], 0, _encoder.encode(value.get("error")))
