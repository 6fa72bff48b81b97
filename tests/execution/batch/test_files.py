"""Batch files, uploads and files of results."""

import json
from pathlib import Path

import msgspec
import pytest

from pipeline.execution.batch.files import (
    UPLOAD_BYTES_MAX,
    BatchFileWriter,
    BatchLine,
    LinesByKey,
    Result,
    read_lines,
    read_results,
    write_upload,
)
from pipeline.records import Request
from pipeline.store.notes import BatchFile

LINES = [
    BatchLine(Request("a", b'{"n":1}')),
    BatchLine(Request("b", b'{"n":22}', model="m"), tries=2, cost=None),
    BatchLine(Request("c", b"{}"), tries=1, cost=0.5),
]


def written(folder: Path) -> BatchFile:
    writer = BatchFileWriter(folder, "m")
    for line in LINES:
        writer.add(line)
    return writer.close()


def test_a_batch_file_gives_back_its_lines_in_order(tmp_path: Path) -> None:
    batch_file = written(tmp_path)
    assert (batch_file.model, batch_file.requests, batch_file.size_bytes) == ("m", 3, 17)
    path = tmp_path / batch_file.name
    assert list(read_lines(path)) == LINES
    assert path.stat().st_mode & 0o077 == 0


def test_the_names_in_a_batch_file_stay_so_that_earlier_folders_are_read(tmp_path: Path) -> None:
    path = tmp_path / written(tmp_path).name
    assert msgspec.json.decode(path.read_bytes().splitlines()[2]).keys() >= {"request", "tries", "cost"}


def test_a_batch_file_has_room_within_the_limits_of_requests_and_bytes(tmp_path: Path) -> None:
    writer = BatchFileWriter(tmp_path, "m")
    assert writer.has_room(LINES[0], 1)
    assert not writer.has_room(BatchLine(Request("k", b"x" * (UPLOAD_BYTES_MAX - 100))), 1)
    writer.add(LINES[0])
    assert not writer.has_room(LINES[1], 1)
    writer.close()


def test_each_line_is_taken_once_by_its_key(tmp_path: Path) -> None:
    with LinesByKey(tmp_path / written(tmp_path).name) as lines:
        assert [lines.take("c"), lines.take("a")] == [LINES[2], LINES[0]]
        assert lines.left() == ["b"]
        assert ("b" in lines, "a" in lines, "x" in lines) == (True, False, False)
        with pytest.raises(KeyError):
            lines.take("a")


def test_an_upload_has_one_json_object_per_request(tmp_path: Path) -> None:
    write_upload(tmp_path / "upload", (line.request for line in LINES))
    lines = [json.loads(line) for line in (tmp_path / "upload").read_text().splitlines()]
    assert [line["custom_id"] for line in lines] == ["a", "b", "c"]
    assert lines[1]["body"] == {"n": 22}
    assert {(line["method"], line["url"]) for line in lines} == {("POST", "/v1/chat/completions")}


def test_results_are_read_and_other_lines_are_none(tmp_path: Path) -> None:
    answered = {"custom_id": "a", "response": {"status_code": 200, "body": {"x": 1}}, "error": None}
    rejected = {"custom_id": "b", "response": {"status_code": 400, "body": None}}
    not_asked = {"custom_id": "c", "response": None, "error": {"code": "batch_expired"}}
    values = [answered, rejected, not_asked, {"response": {"status_code": 200}}, []]
    path = tmp_path / "results"
    path.write_text("\n".join(map(json.dumps, values)) + "\n\n")
    assert list(read_results(path, json.loads)) == [
        Result("a", 200, b'{"x":1}'),
        Result("b", 400, b"null"),
        Result("c", 0, b'{"code":"batch_expired"}'),
        None,
        None,
    ]
