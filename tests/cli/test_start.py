"""The commands that start a job, as a newcomer types them."""

import contextlib
import json
import os
import pty
import signal
import subprocess
from pathlib import Path

import polars as pl
import pytest
from chat_server import Canned, ChatServer, Seen, problem
from command_line import PIPELINE, asking, typed, typed_on_a_terminal


def test_run_says_the_plan_and_the_end_on_stderr_and_nothing_on_stdout(here: Path, server: ChatServer) -> None:
    done = typed("run", "in.csv", "-o", "out.csv", *asking(server))
    assert done.returncode == 0
    assert done.stdout == ""
    plan, end = done.stderr.splitlines()[0], done.stderr.splitlines()[-1]
    assert plan.startswith(f"3 rows → 127.0.0.1:{server.port}, m · 3 to ask · price unknown")
    assert "3 ok = 3." in end
    assert end.endswith("Wrote out.csv.")
    assert "\r" not in done.stderr
    assert (here / "out.csv").exists()


def test_the_same_line_resumes_and_so_does_resume_from_another_folder(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server))
    again = typed("run", "in.csv", "-o", "out.csv", *asking(server))
    assert "3 answered before, 0 to ask" in again.stderr
    (here / "in.csv").write_text("id,q\n001,one\n002,zwei\n003,three\n")
    (here / "elsewhere").mkdir()
    os.chdir(here / "elsewhere")
    resumed = typed("resume", "../out.csv")
    assert resumed.returncode == 0, resumed.stderr
    assert "2 answered before, 1 to ask" in resumed.stderr
    assert server.arrived == 4
    assert pl.read_csv(here / "out.csv")["q"].to_list() == ["one", "zwei", "three"]
    typed("resume", str(here / "out.csv.job"))
    assert server.arrived == 4


def test_resume_retries_what_failed(here: Path) -> None:
    repair_kind = False

    def reply(seen: Seen, _attempt: int) -> Canned | None:
        if seen.prompt == "Say two" and not repair_kind:
            return Canned(status=413, body=problem("prompt is too long"))
        return None

    with ChatServer(reply) as server:
        first = typed("run", "in.csv", "-o", "out.csv", *asking(server))
        assert first.returncode == 3
        assert (
            "Look: pipeline show out.csv --status failed   Retry: pipeline resume out.csv --retry failed"
            in first.stderr
        )
        shown = typed("show", "out.csv", "--status", "failed")
        assert "row 2 · failed" in shown.stdout
        assert "too_long: prompt is too long" in shown.stdout
        repair_kind = True
        assert typed("resume", "out.csv").returncode == 3
        assert typed("resume", "out.csv", "--retry", "failed").returncode == 0
        assert server.arrived == 4
        assert typed("resume", "out.csv").returncode == 0
    assert (here / "out.csv").read_text().count(",ok,") == 3


def test_standard_input_is_read_and_resumed_from_its_snapshot(here: Path, server: ChatServer) -> None:
    text = (here / "in.csv").read_text()
    assert typed("run", "-", "-o", "out.csv", *asking(server), stdin=text).returncode == 0
    resumed = typed("resume", "out.csv")
    assert resumed.returncode == 0, resumed.stderr
    assert "3 answered before, 0 to ask" in resumed.stderr
    assert "two" in typed("show", "out.csv", "--row", "2").stdout


def test_preview_never_sends_and_shows_what_would_be_sent(here: Path, server: ChatServer) -> None:
    done = typed("preview", "in.csv", *asking(server), "--system", "Be brief.", "-n", "1")
    assert done.returncode == 0
    _, _, body = done.stdout.partition("\n")
    assert json.loads(body)["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Say one"},
    ]
    assert server.arrived == 0
    assert [path.name for path in here.iterdir()] == ["in.csv"]


def test_a_pilot_shows_its_answers_and_what_the_rest_would_cost(here: Path, server: ChatServer) -> None:
    prices = ["--set", "prices.input=1", "--set", "prices.output=1"]
    done = typed("run", "in.csv", "-o", "out.csv", *asking(server), *prices, "--sample", "2")
    assert done.returncode == 0
    assert done.stdout.count("→ re:") == 2
    assert "2 of 2 sampled rows have a valid answer (100%)." in done.stderr
    assert "  other 1 rows  " in done.stderr
    line = next(line for line in done.stderr.splitlines() if "Ask them: " in line)
    assert line.startswith("  Ask them: pipeline run in.csv -o out.csv --base-url")
    assert "--sample" not in line


def test_quiet_is_silent_unless_something_needs_a_person(here: Path, server: ChatServer) -> None:
    done = typed("run", "in.csv", "-o", "out.csv", *asking(server), "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    refused = typed("run", "in.csv", "-o", "other.csv", *asking(server), "-q", "--set", "endpoint.api_key_env=NO_SUCH")
    assert refused.returncode == 2
    assert "export NO_SUCH=" in refused.stderr


def test_a_job_folder_that_is_not_ours_is_left_alone(here: Path, server: ChatServer) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "input-2024.parquet").write_text("precious")
    assert typed("run", "in.csv", "-o", "out.csv", *asking(server), "--job-dir", "mine").returncode == 2
    assert [path.name for path in (here / "mine").iterdir()] == ["input-2024.parquet"]


def test_standard_input_that_is_closed_is_told(here: Path, server: ChatServer) -> None:
    line = " ".join(
        [*PIPELINE, "run", "-", "-o", "out.csv", "--base-url", server.url, "-m", "m", "-p", "'{{ q }}'", "<&-"]
    )
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False, timeout=60)  # noqa: S602
    assert done.returncode == 2
    assert "Standard input is closed" in done.stderr
    assert here


def test_a_folder_that_was_moved_is_told_by_resume_and_can_be_shown(here: Path, server: ChatServer) -> None:
    (here / "w").mkdir()
    os.chdir(here / "w")
    typed("run", "../in.csv", "-o", "out.csv", *asking(server))
    os.chdir(here)
    (here / "w").rename(here / "moved")
    resumed = typed("resume", "moved/out.csv")
    assert resumed.returncode == 2
    assert "where the last run was started, is gone" in resumed.stderr
    assert "Say one" in typed("show", "moved/out.csv").stdout


def test_a_job_folder_that_was_moved_alone_is_resumed_where_it_is_and_pays_for_nothing_again(
    here: Path, server: ChatServer
) -> None:
    typed("run", "in.csv", "-o", "out.csv", "--limit", "2", *asking(server))
    (here / "elsewhere").mkdir()
    (here / "out.csv.job").rename(here / "elsewhere" / "job")
    done = typed("resume", "elsewhere/job")
    assert done.returncode == 0, done.stderr
    assert "2 answered before" in done.stderr
    assert server.arrived == 2
    assert not (here / "out.csv.job").exists()


def test_ctrl_c_at_the_guards_question_is_heard_at_once(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server))
    line = [*PIPELINE, "run", "in.csv", "-o", "out.csv", *asking(server), "--system", "Be kind."]
    leader, follower = pty.openpty()
    child = subprocess.Popen(line, stdin=follower, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert child.stderr is not None
    told = b""
    while b"[y/N]" not in told:
        told += os.read(child.stderr.fileno(), 1000)
    for _ in range(4):  # one that comes in the very moment before it waits for the answer is lost, as to any program
        child.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=10)  # a second one while it exits would end it by the signal itself
            break
    rest = child.stderr.read()
    child.stderr.close()
    os.close(follower)
    os.close(leader)
    assert child.returncode == 130
    assert b"Every answer so far is kept" in rest
    assert server.arrived == 3
    assert here


def test_a_line_typed_in_a_folder_whose_name_looks_like_a_pattern_is_resumed_from_elsewhere(
    here: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "a[1]").mkdir()
    for name in ("b[2].csv", "part1.csv", "part2.csv"):
        (here / "a[1]" / name).write_text(f"q\n{name}\n")
    for source, output in (("b[2].csv", "b.csv"), ("part*.csv", "c.csv")):
        monkeypatch.chdir(here / "a[1]")
        assert typed("run", source, "-o", output, *asking(server)).returncode == 0
        monkeypatch.chdir(here)
        resumed = typed("resume", f"a[1]/{output}")
        assert resumed.returncode == 0, resumed.stderr
        assert "0 to ask" in resumed.stderr
    assert server.arrived == 3


def test_on_a_terminal_the_guard_asks_and_no_means_no(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server))
    line = ["run", "in.csv", "-o", "out.csv", *asking(server), "--system", "Be kind."]
    for answer, code, arrived in ((b"n\n", 2, 3), (b"y\n", 0, 6)):
        done = typed_on_a_terminal(*line, answer=answer)
        assert "prompt.system changed since" in done.stderr
        assert "Ask 3 rows again" in done.stderr
        assert done.returncode == code, done.stderr
        assert server.arrived == arrived
    assert here
