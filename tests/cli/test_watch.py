"""The commands for a second terminal, as they are typed: which words they take and what they exit with."""

import json
from pathlib import Path

import pytest
from chat_server import ChatServer
from command_line import asking, typed


def test_status_prints_lines_or_one_json_object(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server))
    lines = typed("status", "out.csv")
    assert (lines.returncode, lines.stderr) == (0, "")
    assert "3 ok = 3" in lines.stdout
    told = json.loads(typed("status", "out.csv", "--json").stdout)
    assert (told["state"], told["exit_code"], told["rows"]["ok"]) == ("finished", 0, 3)
    assert told["folder"] == str(here / "out.csv.job")


@pytest.mark.parametrize("words", [("status",), ("status", "--json"), ("tune", "--rpm", "5"), ("stop",)])
def test_a_name_without_a_job_is_an_error_of_usage(here: Path, words: tuple[str, ...]) -> None:
    done = typed(words[0], "none.csv", *words[1:])
    assert done.returncode == 2
    assert "there is no job of this name" in done.stderr
    assert [path.name for path in here.iterdir()] == ["in.csv"]


def test_tune_wants_a_limit_that_is_one_and_a_run_that_is_at_work(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server))
    assert "Name a limit: --concurrency, --rpm, --tpm or --max-cost" in typed("tune", "out.csv").stderr
    assert "limits.requests_per_minute" in typed("tune", "out.csv", "--rpm", "-1").stderr
    for words in (("tune", "out.csv", "--rpm", "5"), ("stop", "out.csv")):
        done = typed(*words)
        assert done.returncode == 2
        assert "this job is not running" in done.stderr
    assert not list((here / "out.csv.job").glob("control-*"))
