"""At the end of a run the user's command learns how it went, not the key, and cannot hold anything up."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import builders
import pytest
from chat_server import Canned, ChatServer, problem

from pipeline import Job, Summary
from pipeline.records import Exit, Tally
from pipeline.runs.on_finish import run_on_finish

PIPELINE = (sys.executable, "-m", "pipeline")
SUMMARY = Summary(Exit.DONE, "", "out.csv", Tally(ok=3), Tally(ok=3), 0.5, 1.0, True)


def job() -> Job:
    return builders.job(endpoint__api_key_env="THE_KEY")


def test_it_has_the_summary_on_its_stdin_and_in_its_environment_and_never_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THE_KEY", "sk-a-secret")
    assert run_on_finish("cat > got.json; env > got.env", job(), SUMMARY) is None
    assert json.loads((tmp_path / "got.json").read_text())["rows"]["ok"] == 3
    environment = (tmp_path / "got.env").read_text()
    assert "PIPELINE_EXIT_CODE=0\n" in environment
    assert f"PIPELINE_OUTPUT={tmp_path / 'out.csv'}\n" in environment
    assert f"PIPELINE_SUMMARY={tmp_path / 'out.csv.job' / 'summary.json'}\n" in environment
    assert "sk-a-secret" not in environment


def test_one_that_fails_is_told_and_one_that_does_not_end_is_ended_with_all_it_started() -> None:
    assert run_on_finish("exit 7", job(), SUMMARY) == "exit code 7"
    began = time.monotonic()
    said = run_on_finish("sleep 60 & sleep 60", job(), SUMMARY, timeout_seconds=0.3)
    assert said == "it took longer than 0 s, and was killed"
    assert time.monotonic() - began < 10


def test_a_run_that_stops_tells_it_too_and_its_failure_changes_no_exit_code(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("q\none\ntwo\n")
    with ChatServer(lambda _seen, _attempt: Canned(401, problem("no", code="invalid_api_key"))) as server:
        words = ["run", "in.csv", "-o", "out.csv", "--base-url", server.url, "-m", "m", "-p", "Say {{ q }}"]
        command = "echo $PIPELINE_EXIT_CODE > code; exit 9"
        done = subprocess.run(
            [*PIPELINE, *words, "--on-finish", command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert (tmp_path / "code").read_text() == "1\n"
    assert done.stderr.endswith(f"--on-finish: exit code 9: {command}\n")
    assert json.loads((tmp_path / "out.csv.job" / "summary.json").read_text())["exit_code"] == 1


def test_a_message_that_the_locale_cannot_spell_is_passed_on_in_utf_8(tmp_path: Path) -> None:
    script = (
        "from test_on_finish import *\n"
        "message = 'no credit \\u2192 \\u65e5\\0'\n"
        "summary = Summary(Exit.NEEDS_PERSON, message, 'out.csv', Tally(), Tally(), 0.5, 1.0, True)\n"
        "assert run_on_finish('printf %s \"$PIPELINE_MESSAGE\" > got', job(), summary) is None\n"
    )
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(builders.__file__).parent)])
    environment = {**os.environ, **locale, "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "got").read_bytes().decode() == "no credit → 日\ufffd"
