"""The command line as a newcomer types it: what is said, where, and with which exit code."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import termios
from pathlib import Path

import polars as pl
import pytest
from chat_server import Canned, ChatServer, Seen, answer_to, problem
from click.testing import CliRunner

from pipeline.cli.group import main

PIPELINE = (sys.executable, "-m", "pipeline")
HEAVY = ("polars", "pydantic", "httpx", "jinja2", "msgspec", "diskcache", "tqdm", "genai_prices", "asyncio")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text("id,q\n001,one\n002,two\n003,three\n")
    return tmp_path


def typed(*words: str, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, in this process where nothing is piped into it: to start Python and polars takes a second."""
    if stdin is None:
        done = CliRunner(env=environment).invoke(main, words, catch_exceptions=False, prog_name="pipeline")
        return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)
    return subprocess.run(
        [*PIPELINE, *words],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )


def asking(server: ChatServer) -> list[str]:
    return ["--base-url", server.url, "-m", "m", "-p", "Say {{ q }}"]


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from pipeline.cli import main\n"
        "try: main(['--help'])\n"
        f"except SystemExit: print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("HEAVY []\n")


def test_every_command_has_a_help_and_a_place_in_it() -> None:
    listed = typed("--help").stdout
    for command in (
        "init",
        "preview",
        "estimate",
        "run",
        "resume",
        "status",
        "tune",
        "stop",
        "show",
        "export",
        "score",
        "compare",
        "report",
        "history",
    ):
        assert f"\n  {command} " in listed
        told = typed(command, "--help")
        assert told.returncode == 0
        assert max(map(len, told.stdout.splitlines())) <= 80
    lines = listed.splitlines()[1:]
    assert all(len(line) <= 80 and not line.endswith("...") for line in lines)
    assert all(line[2] != " " for line in lines if line.startswith("  ")), "a line for each command"
    assert "the most requests per minute" in typed("run", "--help").stdout


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
    assert "  the other 1 rows  " in done.stderr
    line = next(line for line in done.stderr.splitlines() if "Ask them: " in line)
    assert line.startswith("  Ask them: pipeline run in.csv -o out.csv --base-url")
    assert "--sample" not in line


def test_quiet_is_silent_unless_something_needs_a_person(here: Path, server: ChatServer) -> None:
    done = typed("run", "in.csv", "-o", "out.csv", *asking(server), "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    refused = typed("run", "in.csv", "-o", "other.csv", *asking(server), "-q", "--set", "endpoint.api_key_env=NO_SUCH")
    assert refused.returncode == 2
    assert "export NO_SUCH=" in refused.stderr


def test_show_prints_prompts_and_answers_as_text(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server))
    shown = typed("show", "out.csv", "-n", "2").stdout
    assert f"    Say one\n  → {answer_to('Say one')}\n" in shown
    assert "row 3" not in shown
    assert "There is no row 9: the table has 3." in typed("show", "out.csv", "--row", "9").stdout
    assert "None of 3 rows is failed." in typed("show", "out.csv", "--status", "failed").stdout
    assert typed("show", "out.csv", "--status", "nonsense").returncode == 2


def test_show_prints_a_typed_answer_by_its_columns(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server), "--set", 'answer.labels=["one", "two"]')
    label = pl.read_csv(here / "out.csv")["label"][0]
    assert f"    Say one\n  → label: {label}\n" in typed("show", "out.csv", "-n", "1").stdout


def test_export_writes_what_is_known_in_another_format(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server), "--limit", "2")
    done = typed("export", "out.csv", "-o", "part.parquet")
    assert done.returncode == 0
    assert "2 of 2 rows have an outcome" in done.stderr
    assert pl.read_parquet(here / "part.parquet")["id"].to_list() == ["001", "002"]


def test_score_and_compare_print_a_report_or_json_on_stdout(here: Path, server: ChatServer) -> None:
    labels = ["--set", 'answer.labels=["one", "two"]']
    typed("run", "in.csv", "-o", "out.csv", *asking(server), *labels)
    table = pl.read_csv(here / "out.csv", infer_schema=False).select("id", "q", gold="label")
    table.with_columns(gold=pl.when(pl.col("id") == "002").then(pl.lit("three")).otherwise("gold")).write_csv("in.csv")
    typed("resume", "out.csv")
    wrong = typed("score", "out.csv", "--gold", "gold")
    assert wrong.returncode == 2
    assert "'three' in 1 row (2)" in wrong.stderr
    table.write_csv("in.csv")
    typed("resume", "out.csv")
    done = typed("score", "out.csv", "--gold", "gold", "--review", "review.csv")
    assert (done.returncode, done.stderr) == (0, "Wrote review.csv: 0 rows disagree, and come first.\n")
    assert "accuracy            100.0 %  3 of 3" in done.stdout
    assert json.loads(typed("score", "out.csv", "--gold", "gold", "--json").stdout)["score"]["accuracy"]["share"] == 1
    assert "agreement      100.0 %  3 of 3" in typed("compare", "out.csv", "out.csv.job").stdout
    assert json.loads(typed("compare", "out.csv", "out.csv", "--json").stdout)["matched"] == 3
    assert server.arrived == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "none.csv", "-o", "out.csv"], "none.csv: there is no such file"),
        (["run", "i.csv", "-o", "out.csv"], "Did you mean in.csv?"),
        (["run", "in.csv", "-o", "in.csv"], "is also an input"),
        (["run", "in.csv", "-o", "out.doc"], "Known are .parquet"),
        (["run", "in.csv", "-o", ""], "is a folder"),
        (["run", "in.csv", "-o", "."], "is a folder"),
        (["run", "in.csv", "-o", "out.csv", "--job-dir", "."], "holds other files"),
        (["run", "in.csv", "-o", "none/out.csv"], "mkdir -p"),
        (["run", "in.csv", "-o", "out.csv", "--set", "limits.max_cots=5"], "did you mean 'max_cost'?"),
        (["run", "in.csv", "-o", "out.csv", "--set", "nonsense"], "section.key=value"),
        (["run", "in.csv", "-o", "out.csv", "--retry", "broken"], "--retry broken: there are failed"),
        (["run", "in.csv", "-o", "out.csv", "-p", "{{ question }}"], "no column 'question'"),
        (["run", "in.csv", "-o", "out.csv", "-p", "@none.txt"], "@none.txt: cannot be read"),
        (["run", "in.csv", "-o", "out.csv", "-c", "job.toml"], "no such job file"),
        (["run", "in.csv", "-o", "out.csv", "--limit", "2", "--sample", "2"], "not both"),
        (["run", "in.csv", "-o", "out.csv", "--concurrency", "many"], "command line: limits.concurrency"),
        (["run", "in.csv"], "Missing option"),
        (["rnu", "in.csv"], "run"),
        (["show", "out.csv"], "there is no job of this name"),
        (["resume", "out.csv"], "there is no job of this name"),
        (["export", "out.csv"], "there is no job of this name"),
        (["score", "out.csv", "--gold", "gold"], "there is no job of this name"),
        (["score", "out.csv"], "Missing option '--gold'"),
        (["compare", "out.csv", "other.csv"], "there is no job of this name"),
        (["compare", "out.csv"], "takes 2 values"),
    ],
)
def test_wrong_usage_is_told_with_the_remedy_exits_2_and_leaves_nothing_behind(
    here: Path, server: ChatServer, words: list[str], told: str
) -> None:
    more = asking(server) if words[0] == "run" and "-p" not in words else asking(server)[:4] if "-p" in words else []
    done = typed(*words, *more)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert server.arrived == 0
    assert [path.name for path in here.iterdir()] == ["in.csv"]


def test_without_an_endpoint_it_says_how_to_name_one(here: Path) -> None:
    done = typed("run", "in.csv", "-o", "out.csv", "-p", "{{ q }}")
    assert done.returncode == 2
    assert "endpoint: missing; set it in the job file (-c), or with --base-url" in done.stderr
    assert here


def test_a_job_folder_that_is_not_ours_is_left_alone(here: Path, server: ChatServer) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "input-2024.parquet").write_text("precious")
    assert typed("run", "in.csv", "-o", "out.csv", *asking(server), "--job-dir", "mine").returncode == 2
    assert [path.name for path in (here / "mine").iterdir()] == ["input-2024.parquet"]


def test_limits_from_the_environment_hold_for_resume_too(here: Path, server: ChatServer) -> None:
    done = typed(
        "run", "in.csv", "-o", "out.csv", *asking(server)[2:], PIPELINE_RUN_BASE_URL=server.url, PIPELINE_RUN_LIMIT="2"
    )
    assert done.returncode == 0, done.stderr
    resumed = typed("resume", "out.csv")
    assert resumed.returncode == 0, resumed.stderr
    assert "2 answered before, 0 to ask" in resumed.stderr
    assert pl.read_csv(here / "out.csv").height == 2


@pytest.mark.parametrize("closing", ["2>/dev/full", "2>&-", "<&-"])
def test_a_lost_terminal_does_not_decide_how_a_run_ends(here: Path, server: ChatServer, closing: str) -> None:
    line = " ".join(
        [*PIPELINE, "run", "in.csv", "-o", "out.csv", "--base-url", server.url, "-m", "m", "-p", "'{{ q }}'"]
    )
    done = subprocess.run(f"{line} {closing}", shell=True, capture_output=True, check=False, timeout=60)  # noqa: S602
    assert done.returncode == 0
    assert pl.read_csv(here / "out.csv").height == 3


def test_standard_input_that_is_closed_is_told(here: Path, server: ChatServer) -> None:
    line = " ".join(
        [*PIPELINE, "run", "-", "-o", "out.csv", "--base-url", server.url, "-m", "m", "-p", "'{{ q }}'", "<&-"]
    )
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False, timeout=60)  # noqa: S602
    assert done.returncode == 2
    assert "Standard input is closed" in done.stderr
    assert here


def test_a_full_disk_under_the_answers_shown_is_told_without_a_traceback(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server))
    line = f"{' '.join(PIPELINE)} show out.csv >/dev/full"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False, timeout=60)  # noqa: S602
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert here


def test_a_folder_that_was_moved_is_told_by_resume_and_can_be_shown(here: Path, server: ChatServer) -> None:
    (here / "w").mkdir()
    os.chdir(here / "w")
    typed("run", "../in.csv", "-o", "out.csv", *asking(server))
    os.chdir(here)
    (here / "w").rename(here / "moved")
    resumed = typed("resume", "moved/out.csv")
    assert resumed.returncode == 2
    assert "cannot be entered" in resumed.stderr
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


def test_a_strange_line_in_the_history_keeps_nobody_from_the_answers(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server))
    with (here / "out.csv.job" / "history.jsonl").open("a") as history:
        history.write('garbage\n{"type": "began", "of": "another version"}\n')
    assert "Say one" in typed("show", "out.csv").stdout
    assert typed("run", "in.csv", "-o", "out.csv", *asking(server)).returncode == 0
    assert server.arrived == 3


def test_a_job_without_its_store_or_its_keys_is_told(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server))
    (here / "out.csv.job" / "store" / "cache.db").unlink()
    assert "no answers yet" in typed("show", "out.csv").stderr
    (here / "out.csv.job" / "keys.parquet").write_bytes(b"cut")
    done = typed("export", "out.csv", "-o", "other.csv")
    assert done.returncode == 2
    assert "cut short as it began" in done.stderr


def test_ctrl_c_at_the_guards_question_is_heard_at_once(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server))
    line = [*PIPELINE, "run", "in.csv", "-o", "out.csv", *asking(server), "--system", "Be kind."]
    leader, follower = pty.openpty()
    child = subprocess.Popen(line, stdin=follower, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert child.stderr is not None
    told = b""
    while b"[y/N]" not in told:
        told += os.read(child.stderr.fileno(), 1000)
    for _ in range(20):  # one that comes in the very moment before it waits for the answer is lost, as to any program
        child.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=1)
            break
    rest = child.stderr.read()
    child.stderr.close()
    os.close(follower)
    os.close(leader)
    assert child.returncode == 130
    assert b"Every answer so far is kept" in rest
    assert server.arrived == 3
    assert here


def test_a_report_has_a_bar_on_a_terminal_and_is_plain_elsewhere(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server))
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    child = subprocess.Popen([*PIPELINE, "report", "out.csv"], stderr=follower)
    os.close(follower)
    told = b""
    with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
        while part := os.read(leader, 1000):
            told += part
    os.close(leader)
    assert child.wait(60) == 0
    assert b"reading:" in told
    assert b"/3 rows" in told
    done = typed("report", "out.csv")
    assert done.stderr.startswith("Wrote ")
    assert here


def test_a_closed_pipe_is_no_error(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server))
    line = f"{' '.join(PIPELINE)} show out.csv | head -1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)  # noqa: S602 - a pipe is meant
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert here


def test_on_a_terminal_the_guard_asks_and_no_means_no(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server))
    line = [*PIPELINE, "run", "in.csv", "-o", "out.csv", *asking(server), "--system", "Be kind."]
    for answer, code, arrived in ((b"n\n", 2, 3), (b"y\n", 0, 6)):
        leader, follower = pty.openpty()
        child = subprocess.Popen(line, stdin=follower, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        os.write(leader, answer)
        _, told = child.communicate(timeout=60)
        os.close(follower)
        os.close(leader)
        assert "prompt.system changed since" in told
        assert "Ask 3 rows again" in told
        assert child.returncode == code, told
        assert server.arrived == arrived
    assert here
