"""A job folder of a newer version: each command that would read it wrongly says so in a line, and changes nothing."""

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import builders
import polars as pl
import pytest
from chat_server import ChatServer
from command_line import typed

from pipeline.store.rows import Entry, cells_of_entry, upsert_sql

ROWS = 4
READING = ("status", "show", "export", "score --gold id", "compare", "report")
COMMANDS = ("run", "resume", *READING)
OF_ANSWERS = tuple(command for command in COMMANDS if command != "status")  # which reads their marks alone


def put(folder: Path, key: str, tag: str, value: bytes) -> None:
    with closing(sqlite3.connect(folder / "store" / "cache.db", isolation_level=None)) as database:
        database.execute(upsert_sql(1), cells_of_entry(Entry(key, tag, value)))


def an_outcome(folder: Path, change: dict[str, object], mark: str = "ok") -> None:
    """Change the last outcome to one of a newer version."""
    with closing(sqlite3.connect(folder / "store" / "cache.db")) as database:
        key, value = database.execute("SELECT key, value FROM Cache WHERE tag = 'ok' ORDER BY rowid DESC").fetchone()
    put(folder, key, mark, json.dumps(json.loads(value) | change).encode())


def a_line(folder: Path, line: dict[str, object]) -> None:
    path = folder / "history.jsonl"
    last = json.loads(path.read_text("utf-8").splitlines()[-2])
    assert last["type"] == "began"
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(last | line) + "\n")


def a_plan(folder: Path) -> None:
    keys = folder / "keys.parquet"
    pl.read_parquet(keys).rename({"key": "digest"}).write_parquet(keys)
    a_line(folder, {"version": "9.1", "keys_hash": hashlib.sha256(keys.read_bytes()).hexdigest()})


NEWER: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "mark": (lambda folder: an_outcome(folder, {}, "withheld"), COMMANDS),
    "kind": (lambda folder: an_outcome(folder, {"type": "silence"}), OF_ANSWERS),
    "fields": (lambda folder: an_outcome(folder, {"cost": {"EUR": 1}, "currency": "EUR"}), OF_ANSWERS),
    "format": (lambda folder: put(folder, "note:format", "note", b"2"), COMMANDS),
    "ledger": (lambda folder: put(folder, "note:ledger", "note", b'{"entries":[]}'), ("run", "resume", "status")),
    "batches": (lambda folder: put(folder, "note:batches", "note", b'{"of":[]}'), ("run", "resume", "status")),
    "line": (lambda folder: a_line(folder, {"type": "paused", "version": "0.2"}), (*COMMANDS, "history")),
    "status": (lambda folder: a_line(folder, {"retry": ["withheld"], "version": "1.0"}), (*COMMANDS, "history")),
    "setting": (
        lambda folder: a_line(folder, {"settings": {"answer": {"tone": "dry"}}, "version": "0.1.1"}),
        tuple(command for command in READING if command != "status"),
    ),
    "plan": (a_plan, READING),
}


def files(folder: Path) -> dict[Path, bytes]:
    """All that is in the files below a folder; SQLite makes empty ones beside a database that it reads."""
    found = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".db-shm"}
    return {path: content for path, content in found.items() if content}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("finished")
    builders.questions(folder / "in.csv", range(ROWS))
    with ChatServer() as server:
        line = builders.command_line(server.url, folder / "in.csv", folder / "out.csv", "-q")[3:]
        assert typed(*line).returncode == 0
    return folder, line


@pytest.mark.parametrize("what", NEWER)
def test_what_a_newer_version_wrote_is_named_by_every_command_that_needs_it_and_nothing_is_changed(
    finished: tuple[Path, list[str]], tmp_path: Path, what: str
) -> None:
    origin, line = finished
    folder = tmp_path / "out.csv.job"
    spoil, commands = NEWER[what]
    shutil.copytree(origin / "out.csv.job", folder)
    spoil(folder)
    before = files(tmp_path)
    for command in commands:
        name, *more = command.split()
        jobs = [str(folder)] * (2 if name == "compare" else 1)
        done = typed(*([*line, "--job-dir", str(folder)] if name == "run" else [name, *jobs, *more]))
        assert done.returncode == 1, command
        assert "written by a newer version of pipeline" in done.stderr
        assert done.stderr.count("\n") == 1
        assert done.stdout == ""
        changed = {path.name for path, content in files(tmp_path).items() if before.get(path) != content}
        assert not changed, command


def test_what_a_newer_version_added_that_changes_nothing_else_is_passed_over(
    finished: tuple[Path, list[str]], tmp_path: Path
) -> None:
    origin, line = finished
    folder = tmp_path / "out.csv.job"
    shutil.copytree(origin / "out.csv.job", folder)
    an_outcome(folder, {"mood": "cheerful"})
    put(folder, "note:weather", "note", b"[1]")
    put(folder, "note:learnt", "note", b'{"limits": "of another kind"}')
    a_line(folder, {"version": "9.0.0", "host_color": "blue", "type": "began"})
    for command in ("status", "history", "show", "score"):
        more = ["--gold", "id"] if command == "score" else []
        assert typed(command, str(folder), *more).returncode == 0
    assert typed(*line, "--job-dir", str(folder)).returncode == 0
