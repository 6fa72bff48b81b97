"""A whole job on a disk that fills up, at every step, and on a network file system: it stops in words and goes on."""

import json
import os
import re
import resource
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import polars as pl
from chat_server import ChatServer, answer_to
from children import CHILD_SECONDS, on_network, small_disk

from pipeline.folder import history
from pipeline.records import Exit

TEMPLATE = "Answer {{ q }}"


def questions(path: Path, rows: int) -> Path:
    pl.DataFrame({"q": [f"question {n} " + "x" * 500 for n in range(rows)]}).write_csv(path)
    return path


class Ended(NamedTuple):
    code: int
    said: str
    cpu_seconds: float


def run(server: ChatServer, source: Path, output: Path, *more: object, where: list[str] | None = None) -> Ended:
    words = [sys.executable, "-m", "pipeline", "run", source, "-o", output, "--base-url", server.url, "-m", "m"]
    words += ["-p", TEMPLATE, *more]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*(where or []), *map(str, words)], capture_output=True, text=True, check=False, timeout=CHILD_SECONDS
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Ended(done.returncode, done.stderr, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def fill(folder: Path, leave_bytes: int) -> Path:
    """Another's file, until so much is left."""
    filler = folder / "filler"
    with filler.open("wb") as file, ExitStack() as stack:
        stack.callback(file.close)
        room = os.statvfs(folder)
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - leave_bytes)
    return filler


def asked(server: ChatServer) -> Counter[str]:
    return Counter(seen.prompt for seen in server.log)


def answers(path: Path) -> list[str]:
    return pl.read_csv(path, infer_schema=False)["answer"].to_list()


def expected(source: Path) -> list[str]:
    return [answer_to(f"Answer {q}") for q in pl.read_csv(source, infer_schema=False)["q"]]


def goes_on(server: ChatServer, source: Path, output: Path, *more: object) -> None:
    """When there is room again, the same line ends well, and no answer that was shown as done is asked again."""
    before = server.arrived
    ended = run(server, source, output, *more)
    assert ended.code == Exit.DONE, ended.said
    told = re.search(r"([\d,]+) answered before", ended.said)
    known = int(told[1].replace(",", "")) if told else 0
    assert server.arrived - before == len(expected(source)) - known
    assert answers(output) == expected(source)
    assert max(asked(server).values()) <= 2


def test_a_disk_that_fills_up_under_the_store_stops_the_job_which_goes_on_when_there_is_room(
    tmp_path: Path, server: ChatServer
) -> None:
    source, output = questions(tmp_path / "in.csv", 2000), tmp_path / "out.csv"
    output.write_text("what stood here\n")
    with small_disk(tmp_path / "small", "40m") as small:
        filler = fill(small, 1_500_000)
        ended = run(server, source, output, "--job-dir", small / "job")
        assert ended.code == Exit.NEEDS_PERSON, ended.said
        assert "No space" in ended.said or "disk is full" in ended.said
        assert "free some space" in ended.said
        assert f"Go on: pipeline resume {small / 'job'}" in ended.said
        assert "Traceback" not in ended.said
        assert ended.cpu_seconds < 30
        assert server.arrived < 2000
        assert output.read_text() == "what stood here\n"
        filler.unlink()
        kept = server.arrived
        goes_on(server, source, output, "--job-dir", small / "job")
        assert kept > 50
        assert [type(line).__name__ for line in history.read_history(small / "job")][-2:] == ["RunStart", "RunEnd"]


def test_a_disk_too_full_to_begin_is_told_before_anything_is_sent(tmp_path: Path, server: ChatServer) -> None:
    source, output = questions(tmp_path / "in.csv", 50), tmp_path / "out.csv"
    with small_disk(tmp_path / "small", "8m") as small:
        for room in (0, 4096, 16_384, 65_536, 150_000):
            filler = fill(small, room)
            ended = run(server, source, output, "--job-dir", small / "job")
            assert ended.code in {Exit.NEEDS_PERSON, Exit.USAGE}, (room, ended.said)
            assert "Traceback" not in ended.said
            assert re.search(r"[Nn]o space|disk is full|disk may be full", ended.said), ended.said
            assert not output.exists()
            filler.unlink()
        goes_on(server, source, output, "--job-dir", small / "job")


def test_a_disk_full_under_the_output_leaves_what_stood_there_and_keeps_every_answer(
    tmp_path: Path, server: ChatServer
) -> None:
    source = questions(tmp_path / "in.csv", 600)
    job = ("--job-dir", tmp_path / "job")
    with small_disk(tmp_path / "small", "4m") as small:
        output = small / "out.csv"
        output.write_text("what stood here\n")
        filler = fill(small, 100_000)
        ended = run(server, source, output, *job)
        assert ended.code == Exit.NEEDS_PERSON
        assert "No space left on the disk for" in ended.said
        assert f"df -h {small}" in ended.said
        assert f"Go on: pipeline resume {tmp_path / 'job'}" in ended.said
        assert output.read_text() == "what stood here\n"
        assert sorted(path.name for path in small.iterdir()) == ["filler", "out.csv"]
        filler.unlink()
        goes_on(server, source, output, *job)
        assert server.arrived == 600
    began, ended_first, _, ended_last = history.read_history(tmp_path / "job")
    assert isinstance(ended_first, history.RunEnd)
    assert isinstance(ended_last, history.RunEnd)
    assert (ended_first.summary.exit_code, ended_last.summary.exit_code) == (Exit.NEEDS_PERSON, Exit.DONE)
    assert isinstance(began, history.RunStart)


FILL_WHEN_LAST_ROWS_ARE_ASKED = """
import os, sys
from pathlib import Path
import importlib
from pipeline.cli import main

runs = importlib.import_module("pipeline.runs.run")
small, finish = Path(sys.argv[1]), runs.finish

def fill_and_finish(ready, stop):
    room = os.statvfs(small)
    with (small / "filler").open("wb") as file:
        while True:  # to the last byte, by writing: what is promised to a file can be taken back
            try:
                os.write(file.fileno(), bytes(4096))
            except OSError:
                break
    return finish(ready, stop)

runs.finish = fill_and_finish
main(sys.argv[2:])
"""


def test_a_disk_full_at_the_last_step_still_writes_the_output_elsewhere_and_says_what_it_could_not(
    tmp_path: Path, server: ChatServer
) -> None:
    source, output = questions(tmp_path / "in.csv", 100), tmp_path / "out.csv"
    with small_disk(tmp_path / "small", "8m") as small:
        words = ["run", source, "-o", output, "--base-url", server.url, "-m", "m", "-p", TEMPLATE]
        words += ["--job-dir", small / "job"]
        command = [sys.executable, "-c", FILL_WHEN_LAST_ROWS_ARE_ASKED, small, *words]
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, check=False, timeout=CHILD_SECONDS
        )
        assert done.returncode == Exit.NEEDS_PERSON, done.stderr
        assert "Traceback" not in done.stderr
        assert re.search(r"cannot be written: No space left on device", done.stderr), done.stderr
        assert answers(output) == expected(source)
        (small / "filler").unlink()
        goes_on(server, source, output, "--job-dir", small / "job")
        assert server.arrived == 100
        assert [type(line).__name__ for line in history.read_history(small / "job")][-2:] == ["RunStart", "RunEnd"]
        assert json.loads((small / "job" / "summary.json").read_bytes())["exit_code"] == 0


def test_a_log_that_cannot_be_written_ends_no_job(tmp_path: Path, server: ChatServer) -> None:
    source, output = questions(tmp_path / "in.csv", 20), tmp_path / "out.csv"
    job = tmp_path / "out.csv.job"
    job.mkdir(mode=0o700)
    (job / "log.txt").mkdir()
    (job / "lock").touch()
    ended = run(server, source, output)
    assert ended.code == Exit.DONE, ended.said
    (job / "log.txt").rmdir()
    (job / "log.txt").symlink_to("/dev/full")
    ended = run(server, questions(tmp_path / "in.csv", 30), output)
    assert ended.code == Exit.DONE, ended.said
    assert answers(output) == expected(source)


def test_a_job_on_a_network_file_system_runs_is_looked_at_and_resumed_like_any_other(
    tmp_path: Path, server: ChatServer
) -> None:
    source, output = questions(tmp_path / "in.csv", 300), tmp_path / "out.csv"
    network = on_network(tmp_path, tmp_path / "mounts")
    assert run(server, source, output, "--limit", "200", where=network).code == Exit.DONE
    assert not list((tmp_path / "out.csv.job" / "store").glob("*-wal"))
    ended = run(server, source, output, where=network)
    assert ended.code == Exit.DONE
    assert "200 answered before, 100 to ask" in ended.said
    assert run(server, source, output).code == Exit.DONE  # copied to a local disk
    assert answers(output) == expected(source)
    assert server.arrived == 300


def test_a_damaged_store_stops_the_job_and_goes_on_with_what_is_left_once_that_is_agreed_to(
    tmp_path: Path, server: ChatServer
) -> None:
    source, output = questions(tmp_path / "in.csv", 400), tmp_path / "out.csv"
    assert run(server, source, output).code == Exit.DONE
    database = tmp_path / "out.csv.job" / "store" / "cache.db"
    with database.open("r+b") as file:
        file.seek(database.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xff" * 2 * 4096)
    ended = run(server, source, output)
    assert ended.code == Exit.NEEDS_PERSON
    kept = re.search(r"what can still be read: (\d+) of 400 or more answers", ended.said)
    assert kept is not None, ended.said
    assert "add --yes" in ended.said
    assert server.arrived == 400
    ended = run(server, source, output, "--yes")
    assert ended.code == Exit.DONE, ended.said
    assert server.arrived == 400 + 400 - int(kept[1])
    assert 300 < int(kept[1]) < 400
    assert answers(output) == expected(source)
