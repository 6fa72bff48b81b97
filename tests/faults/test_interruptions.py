"""A run that is told to stop, however it was started: by a person, a script, a login that ends, cron."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl
import pytest
from chat_server import Canned, ChatServer, Seen, problem

from pipeline import Job, run
from pipeline.execution.context import DRAIN_SECONDS
from pipeline.records import Stopped
from pipeline.runs.signals import signals_raised
from pipeline.tables.open import open_table
from pipeline.tables.write import write_table

PIPELINE = f"{sys.executable} -m pipeline"
ROWS = 40


@pytest.fixture(autouse=True)
def started_from_a_login() -> Iterator[None]:
    """What is started here hears the end of a login, though the tests themselves may run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def questions(folder: Path, rows: int = ROWS) -> Path:
    pl.DataFrame({"q": [f"question {n}" for n in range(rows)]}).write_csv(folder / "in.csv")
    return folder / "in.csv"


def line(server: ChatServer, folder: Path) -> str:
    return f"{PIPELINE} run in.csv -o out.csv --base-url {server.url} -m m -p '{{{{ q }}}}' --concurrency 2"


def shell(script: str, folder: Path) -> subprocess.Popen[str]:
    """A shell that is not interactive: what it starts with `&` ignores SIGINT from the first moment."""
    return subprocess.Popen(["sh", "-c", script], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_run_in_the_background_of_a_script_drains_and_the_same_line_goes_on(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    questions(tmp_path)
    with ChatServer(delay_seconds=0.1) as server:
        started = shell(f"{line(server, tmp_path)} & echo $!; wait $!", tmp_path)
        child = int(first_line(started))
        server.wait_for(4)
        os.kill(child, number)
        _, told = started.communicate(timeout=30)
        assert started.returncode == code, told
        assert f"Stopped by {number.name}" in told
        again = shell(line(server, tmp_path), tmp_path)
        _, told = again.communicate(timeout=30)
        assert again.returncode == 0, told
        assert Counter(seen.prompt for seen in server.log) == {f"question {n}": 1 for n in range(ROWS)}


def test_under_nohup_the_end_of_a_login_is_outlived_and_a_sigterm_drains(tmp_path: Path) -> None:
    questions(tmp_path)
    with ChatServer(delay_seconds=0.1) as server:
        started = shell(f"nohup {line(server, tmp_path)} & echo $!; wait $!", tmp_path)
        child = int(first_line(started))
        server.wait_for(4)
        os.kill(child, signal.SIGHUP)
        server.wait_for(12)
        os.kill(child, signal.SIGTERM)
        _, told = started.communicate(timeout=30)
    assert started.returncode == 143, told
    assert "SIGHUP" not in told


def test_a_child_of_cron_runs_to_its_end_in_plain_lines(tmp_path: Path) -> None:
    questions(tmp_path)
    with ChatServer() as server:
        done = subprocess.run(
            ["setsid", "-w", "env", "-i", "PATH=/usr/bin:/bin", f"HOME={tmp_path}", "sh", "-c", line(server, tmp_path)],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert not done.stdout
    mail = done.stderr.decode("utf-8")
    assert f"{ROWS} ok" in mail
    assert len(mail.splitlines()) < 6
    assert not {"\r", "\x1b"} & set(mail)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_before_it_asks_has_sent_nothing_and_says_so(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with ChatServer() as server:
        words = line(server, tmp_path).replace("in.csv", "-", 1)
        child = subprocess.Popen(
            ["sh", "-c", f"exec {words}"], cwd=tmp_path, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        while not (tmp_path / "out.csv.job" / "lock.json").exists():  # from then on it waits for its input
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(number)
        _, told = child.communicate(timeout=30)
        assert child.returncode == code
        assert f"{number.name} came. Every answer so far is kept" in told
        assert "Traceback" not in told
        assert server.arrived == 0


def test_a_signal_while_a_table_is_written_is_heard_and_leaves_the_old_one(tmp_path: Path) -> None:
    output, drawn = tmp_path / "out.csv", []
    output.write_text("old\n")

    def frames() -> Iterator[pl.DataFrame]:
        for number in range(100_000):
            drawn.append(number)
            if number == 10:
                os.kill(os.getpid(), signal.SIGTERM)
            yield pl.DataFrame({"n": [number]})

    with signals_raised(), pytest.raises(Stopped, match="SIGTERM") as caught:
        write_table(frames(), pl.Schema({"n": pl.Int64()}), output, {})
    assert caught.value.exit_code == 143
    assert len(drawn) < 100_000
    assert output.read_text() == "old\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_a_signal_while_a_table_is_read_is_heard_before_all_of_it_is(tmp_path: Path) -> None:
    source, folder, known = tmp_path / "in.csv", tmp_path / "job", tmp_path / "known"
    source.write_text(
        "id,text\n" + "".join(f"{n},a line of some length of which no two are the same: {n}\n" for n in range(400_000))
    )
    for each in (folder, known):
        each.mkdir()
    whole = open_table([str(source)], known).path.stat().st_size
    written: list[int] = []

    def strike() -> None:
        while not any(path.stat().st_size for path in folder.iterdir()):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)

    def on_signal(_number: int, _frame: object) -> None:
        written.append(sum(path.stat().st_size for path in folder.iterdir()))
        raise Stopped("SIGTERM")

    before = signal.signal(signal.SIGTERM, on_signal)
    threading.Thread(target=strike, daemon=True).start()
    try:
        with pytest.raises(Stopped, match="SIGTERM"):
            open_table([str(source)], folder)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert written[0] < whole
    assert not list(folder.iterdir())


def test_the_third_signal_is_no_worse_than_the_second(tmp_path: Path) -> None:
    questions(tmp_path)

    def reply(seen: Seen, _attempt: int) -> Canned | None:
        return Canned(hang=True) if seen.prompt.endswith("question 2") else None

    with ChatServer(reply) as server:
        child = subprocess.Popen(["sh", "-c", f"exec {line(server, tmp_path)}"], cwd=tmp_path, stderr=subprocess.PIPE)
        server.wait_for(ROWS)
        for _ in range(3):
            child.send_signal(signal.SIGINT)
            time.sleep(0.05)
        _, told = child.communicate(timeout=30)
    # the last one may strike when Python is leaving: a shell says 130 of both
    assert child.returncode in (130, -signal.SIGINT)
    assert f"{ROWS - 1} ok, 1 pending".encode() in told
    assert b"Traceback" not in told


# a pipeline whose drain, probes of a quota and notion of a sleep are a second long, not twenty, thirty and sixty
HASTY = """
from pipeline.endpoint import rejections
from pipeline.execution.live import live
from pipeline.pacing import retry
from pipeline.cli import main
retry.QUOTA_PROBES_SECONDS = 1.0
rejections.QUOTA_PAUSE_SECONDS = 0.4
live.DRAIN_SECONDS = live.SLEEP_SECONDS = live.LATE_REPLY_SECONDS = 1.0
live.TICK_SECONDS = 0.2
main(prog_name="pipeline")
"""


def hasty(server: ChatServer, folder: Path) -> subprocess.Popen[str]:
    questions(folder)
    words = ["run", "in.csv", "-o", "out.csv", "--base-url", server.url, "-m", "m", "-p", "{{ q }}"]
    return subprocess.Popen([sys.executable, "-c", HASTY, *words], cwd=folder, stderr=subprocess.PIPE, text=True)


def hangs_at(number: int, otherwise: Canned | None = None) -> Any:
    def reply(seen: Seen, attempt: int) -> Canned | None:
        return Canned(hang=True) if (seen.prompt, attempt) == (f"question {number}", 1) else otherwise

    return reply


def test_one_signal_waits_so_long_for_what_hangs_and_no_longer(tmp_path: Path) -> None:
    assert DRAIN_SECONDS == 20
    with ChatServer(hangs_at(2)) as server:
        child = hasty(server, tmp_path)
        server.wait_for(ROWS)
        child.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, told = child.communicate(timeout=30)
    assert child.returncode == 130
    assert time.monotonic() - began < 10
    assert f"{ROWS - 1} ok, 1 pending" in told
    assert "1 attempts gave no answer and may be billed all the same" in told


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, "invalid_api_key", "The key was revoked."),
        (429, "insufficient_quota", "You exceeded your current quota, please check your plan and billing details."),
    ],
)
def test_a_stop_that_needs_a_person_waits_no_longer_either_and_says_the_servers_words(
    tmp_path: Path, status: int, code: str | None, words: str
) -> None:
    def reply(seen: Seen, attempt: int) -> Canned | None:
        if seen.prompt == "question 2":
            return Canned(hang=True)
        return Canned(status, problem(words, code=code)) if server.arrived > 20 else None

    with ChatServer(reply) as server:
        child = hasty(server, tmp_path)
        server.wait_for(21)
        began = time.monotonic()
        _, told = child.communicate(timeout=30)
        assert time.monotonic() - began < 10
    assert child.returncode == 1, told
    assert words in told
    assert "pipeline resume out.csv" in told
    ok, pending = (int(found[1]) for found in (re.search(rf"(\d+) {name}", told) for name in ("ok", "pending")))
    assert ok + pending == ROWS
    assert ok >= 18


def test_a_process_that_was_stopped_for_long_asks_again_what_was_in_flight(tmp_path: Path) -> None:
    """SIGSTOP for some seconds: what a closed lid is to a process, but that its connections live."""
    with ChatServer(hangs_at(2)) as server:
        child = hasty(server, tmp_path)
        server.wait_for(ROWS)
        child.send_signal(signal.SIGSTOP)
        time.sleep(2.5)
        child.send_signal(signal.SIGCONT)
        _, told = child.communicate(timeout=30)
    assert child.returncode == 0, told
    assert "woke after" in told
    assert Counter(seen.prompt for seen in server.log)["question 2"] == 2
    assert server.arrived == ROWS + 1


def test_an_endpoint_that_dies_midway_is_waited_for_and_each_row_answered_once(tmp_path: Path) -> None:
    questions(tmp_path, 300)
    with ChatServer(delay_seconds=0.02) as first:
        child = subprocess.Popen(["sh", "-c", f"exec {line(first, tmp_path)}"], cwd=tmp_path, stderr=subprocess.PIPE)
        first.wait_for(30)
    time.sleep(1)  # nobody is there
    with ChatServer(port=urlsplit(first.url).port or 0) as second:
        _, told = child.communicate(timeout=60)
    assert child.returncode == 0, told
    sent = Counter(seen.prompt for seen in [*first.log, *second.log])
    assert set(sent) == {f"question {n}" for n in range(300)}
    assert sum(sent.values()) <= 300 + 2  # what was in flight when it died


def test_an_endpoint_that_dies_midway_for_good_is_given_up_to_be_tried_later(tmp_path: Path) -> None:
    questions(tmp_path, 300)
    with ChatServer(delay_seconds=0.02) as server:
        words = f"{line(server, tmp_path)} --set limits.give_up_after=2s"
        child = subprocess.Popen(["sh", "-c", f"exec {words}"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        server.wait_for(30)
    _, told = child.communicate(timeout=60)
    assert child.returncode == 75, told
    assert "limits.give_up_after" in told
    assert "pipeline resume out.csv" in told
    assert "failed" not in told.splitlines()[-2]


def test_a_table_of_which_every_row_is_too_long_stops_and_none_is_called_failed(tmp_path: Path) -> None:
    """As with a max_tokens beyond what the model can hold."""
    too_long = Canned(400, problem("maximum context length is 4 tokens", code="context_length_exceeded"))
    with ChatServer(lambda _seen, _attempt: too_long) as server:
        settings = {"endpoint.base_url": server.url, "endpoint.model": "m", "prompt.template": "{{ q }}"}
        summary = run(Job.load([questions(tmp_path, 150)], tmp_path / "out.csv", settings=settings))
        assert server.arrived <= 105
    assert summary.exit_code == 1
    assert "maximum context length is 4 tokens" in summary.message
    assert summary.rows.pending == 150
