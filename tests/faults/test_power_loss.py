"""Power fails after the first request has left: what a job needs to go on is on disk by then.

A child process writes down every fsync, rename and folder that it makes, with the moment; the server notes when the
first request came. The clock is the same for both.
"""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from batch_server import Provider, serving
from chat_server import ChatServer
from command_line import asking

RECORDED = """
import os, sys, threading, time

log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def note(*facts):
    os.write(log, "\\t".join([str(time.monotonic_ns()), *facts, threading.current_thread().name]).encode() + b"\\n")

def watching(event, given):
    if event == "os.rename":
        note("rename", os.path.abspath(given[0]), os.path.abspath(given[1]))

def syncing(descriptor, fsync=os.fsync):
    path = os.readlink(f"/proc/self/fd/{descriptor}")
    fsync(descriptor)
    note("fsync", path)

sys.addaudithook(watching)
os.fsync = syncing
from pipeline.cli import main
main(sys.argv[2:])
"""
pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to name what is synced")


def recorded(folder: Path, *words: str) -> list[tuple[int, list[str]]]:
    log = folder / "calls"
    line = [sys.executable, "-c", RECORDED, str(log), *words]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return [(int(at), facts) for at, *facts in (each.split("\t") for each in log.read_text().splitlines())]


def synced(calls: list[tuple[int, list[str]]], path: Path, thread: str = "") -> list[int]:
    """`thread`: by this thread alone; what another syncs may come later at any other time."""
    return [at for at, (what, *facts) in calls if (what, facts[0]) == ("fsync", str(path)) and thread in facts[-1]]


def renamed_to(calls: list[tuple[int, list[str]]], path: Path) -> int:
    return next(at for at, (what, *facts) in calls if what == "rename" and facts[1] == str(path))


def test_history_and_keys_and_the_folders_around_them_are_on_disk_before_the_first_request(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("q\none\n")
    came: list[int] = []
    with ChatServer(lambda _seen, _attempt: came.append(time.monotonic_ns())) as server:
        calls = recorded(tmp_path, "run", "in.csv", "-o", "out.csv", "--job-dir", "deep/er/job", *asking(server))
    folder = tmp_path / "deep" / "er" / "job"
    first = min(came)
    history = min(synced(calls, folder / "history.jsonl"))
    assert history < first
    # the name of the history, and that of the plan
    assert any(history < at < first for at in synced(calls, folder, "MainThread"))
    assert any(renamed_to(calls, folder / "keys.parquet") < at < first for at in synced(calls, folder, "MainThread"))
    keys = renamed_to(calls, folder / "keys.parquet")
    draft = str(folder / "plan.new" / ".keys.parquet.")
    assert any(what == "fsync" and facts[0].startswith(draft) and at < keys for at, (what, *facts) in calls)
    # the names of the job folder and of all folders that were made for it
    for made in (folder.parent, tmp_path / "deep", tmp_path):
        assert any(at < first for at in synced(calls, made)), made
    # and the store's
    assert any(renamed_to(calls, folder / "store") < at < first for at in synced(calls, folder))
    # what comes after the answers: the output and the summary, each with its name
    for path in (tmp_path / "out.csv", folder / "summary.json"):
        assert any(at > renamed_to(calls, path) for at in synced(calls, path.parent))


def test_a_batch_file_and_its_names_are_on_disk_before_it_is_uploaded(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("q\none\n")
    with serving(Provider(looks=0)) as url:
        words = ["--base-url", url, "-m", "m", "-p", "{{ q }}", "--set", "run.how=batch"]
        calls = recorded(
            tmp_path, "run", "in.csv", "-o", "out.csv", *words, "--set", "run.poll_seconds=0.05", "--no-wait"
        )
    folder = tmp_path / "out.csv.job" / "batches"
    file = min(at for at, (what, *facts) in calls if what == "fsync" and facts[0].startswith(f"{folder}/"))
    assert any(at > file for at in synced(calls, folder))
    assert any(at < file for at in synced(calls, folder.parent))
