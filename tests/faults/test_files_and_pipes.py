"""Names that are no UTF-8, names that are too long, pipes, sockets and devices where files are meant."""

import os
import signal
import socket
import subprocess
from pathlib import Path

import polars as pl
import pytest
from chat_server import ChatServer
from command_line import PIPELINE, asking, typed

BAD = os.fsdecode(b"r\xe9sum\xe9")
LONG = "n" * 251 + ".csv"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text("q,g\none,1\n")
    (tmp_path / BAD).mkdir()
    (tmp_path / BAD / f"{BAD}.csv").write_text("q\none\n")
    (tmp_path / "link").symlink_to(tmp_path / BAD)
    return tmp_path


def refused(*words: str) -> str:
    done = typed(*words)
    assert done.returncode == 2, (words, done)
    assert done.stdout == ""
    return done.stderr


def test_every_name_and_word_that_is_no_utf_8_is_refused_in_a_line_and_nothing_is_sent(
    here: Path, server: ChatServer
) -> None:
    run = ["run", "in.csv", "-o", "out.csv", *asking(server)]
    lines = [
        ["run", f"{BAD}.csv", "-o", "out.csv", *asking(server)],
        ["run", "link/*.csv", "-o", "out.csv", *asking(server)],
        ["run", "in.csv", "-o", f"{BAD}.csv", *asking(server)],
        ["run", "in.csv", "-o", "link/out.csv", *asking(server)],
        *([*run, option, BAD] for option in ("-c", "--job-dir", "--on-finish", "--system", "-m", "--retry")),
        *([*run, "-p", word] for word in (BAD, f"@{BAD}")),
        *([*run, "--set", word] for word in (f"output.prefix={BAD}", f"output.job_dir={BAD}", f"{BAD}.x=1")),
        [*run, "--job-dir", "link/job"],
        *([command, BAD] for command in ("show", "export", "report", "status", "history", "stop", "resume")),
        *([command, "out.csv", "-o", BAD] for command in ("export", "report")),
        *(["score", "out.csv", "--gold", "g", option, BAD] for option in ("--gold", "--review", "--by", "--answer")),
        ["compare", BAD, BAD],
        ["init", "in.csv", "-o", BAD],
        *([command, f"{BAD}.csv", *asking(server)] for command in ("preview", "estimate")),
    ]
    for words in lines:
        told = refused(*words)
        assert r"r\xe9sum\xe9" in told, words
        assert told.count("\n") == 1, told
    assert server.arrived == 0
    assert {path.name for path in here.iterdir()} == {"in.csv", "link", BAD}


def test_a_folder_whose_own_name_is_no_utf_8_is_told(
    here: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here / BAD)
    assert r"r\xe9sum\xe9: a name" in refused("run", str(here / "in.csv"), "-o", "out.csv", *asking(server))


def test_a_name_that_is_too_long_is_refused_and_one_of_255_bytes_is_written(here: Path, server: ChatServer) -> None:
    run = ["run", "in.csv", *asking(server)]
    too_long = [
        ["run", "n" * 300, "-o", "out.csv", *asking(server)],
        [*run, "-o", f"n{LONG}"],
        [*run, "-o", LONG],
        [*run, "-o", "out.csv", "--job-dir", LONG * 2],
        [*run, "-o", "out.csv", "-c", LONG * 2],
        *([command, LONG * 2] for command in ("show", "status", "resume")),
    ]
    for words in too_long:
        refused(*words)
    assert "--job-dir" in refused(*run, "-o", LONG)
    assert server.arrived == 0
    assert typed(*run, "-o", LONG, "--job-dir", "job").returncode == 0
    assert pl.read_csv(here / LONG)["q"].to_list() == ["one"]
    assert typed("export", "job").returncode == 0
    assert "Name another page with -o" in refused("report", "job")


def test_what_is_no_file_is_never_replaced_by_an_output(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server))
    os.mkfifo(here / "pipe.csv")
    (here / "null.csv").symlink_to("/dev/null")
    (here / "null.html").symlink_to("/dev/null")
    (here / "loop.csv").symlink_to("loop.csv")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.csv")
        before = {path.name: path.lstat() for path in here.iterdir()}
        for name in ("pipe.csv", "null.csv", "socket.csv", "loop.csv"):
            refused("run", "in.csv", "-o", name, *asking(server))
            refused("export", "out.csv", "-o", name)
            refused("score", "out.csv", "--gold", "g", "--review", name)
        for name in ("socket.csv", "null.csv", "loop.csv"):
            refused("run", name, "-o", "new.csv", *asking(server))
        refused("report", "out.csv", "-o", "null.html")
        assert {path.name: path.lstat().st_ino for path in here.iterdir() if path.name in before} == {
            name: at.st_ino for name, at in before.items()
        }
    assert server.arrived == 1
    assert not (here / "new.csv").exists()


def test_a_pipe_is_read_as_an_input_and_the_job_resumes_without_it(here: Path, server: ChatServer) -> None:
    os.mkfifo(here / "pipe.csv")
    words = " ".join([*PIPELINE, "run", "pipe.csv", "-o", "out.csv", *asking(server)[:-1], "'{{ q }}'"])
    line = ["sh", "-c", f"cat in.csv > pipe.csv & {words}"]
    subprocess.run(line, check=True, timeout=60, stderr=subprocess.DEVNULL)
    assert pl.read_csv(here / "out.csv")["q"].to_list() == ["one"]
    done = typed("resume", "out.csv")
    assert (done.returncode, server.arrived) == (0, 1), done.stderr
    assert "1 answered before, 0 to ask" in done.stderr


def test_ctrl_c_ends_the_wait_for_a_pipe_that_nobody_writes(here: Path, server: ChatServer) -> None:
    os.mkfifo(here / "pipe.csv")
    line = [*PIPELINE, "run", "pipe.csv", "-o", "out.csv", *asking(server)]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "Waiting for pipe.csv" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
    assert server.arrived == 0
