"""The flags that commands share, and what is wrong with them."""

from pathlib import Path

import polars as pl
import pytest
from chat_server import ChatServer
from command_line import asking, typed


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "none.csv", "-o", "out.csv"], "none.csv: there is no such file"),
        (["run", "i.csv", "-o", "out.csv"], "Did you mean in.csv?"),
        (["run", "in.csv", "-o", "in.csv"], "is also an input"),
        (["run", "in.csv", "-o", "out.doc"], "Use one of .parquet"),
        (["run", "in.csv", "-o", ""], "is a folder"),
        (["run", "in.csv", "-o", "."], "is a folder"),
        (["run", "in.csv", "-o", "out.csv", "--job-dir", "."], "is in the job folder"),
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


def test_limits_from_the_environment_hold_for_resume_too(here: Path, server: ChatServer) -> None:
    done = typed(
        "run", "in.csv", "-o", "out.csv", *asking(server)[2:], PIPELINE_RUN_BASE_URL=server.url, PIPELINE_RUN_LIMIT="2"
    )
    assert done.returncode == 0, done.stderr
    resumed = typed("resume", "out.csv")
    assert resumed.returncode == 0, resumed.stderr
    assert "2 answered before, 0 to ask" in resumed.stderr
    assert pl.read_csv(here / "out.csv").height == 2
