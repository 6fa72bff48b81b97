"""No command puts its output over a file that a job keeps."""

import os
from pathlib import Path

import pytest
from chat_server import ChatServer
from command_line import asking, typed


def content() -> dict[Path, bytes]:
    files = [path for path in Path("J").rglob("*") if path.is_file() and not path.name.endswith("-shm")]
    return {path: path.read_bytes() for path in files}


@pytest.mark.parametrize(
    "words",
    [
        ["run", "in.csv", "-o", "J/keys.parquet"],
        ["run", "in.csv", "-o", "J/history.jsonl"],
        ["run", "in.csv", "-o", "J/new.csv"],
        ["run", "in.csv", "-o", "J/store/../summary.jsonl"],
        ["run", "in.csv", "-o", "linked/keys.parquet"],
        ["run", "in.csv", "-o", "new.csv", "--job-dir", "J/sub"],
        ["run", "in.csv", "-o", "fresh/new.csv", "--job-dir", "fresh"],
        ["run", "in.csv", "-o", "new.csv", "--job-dir", "new.csv"],
        ["export", "out.csv", "-o", "J/history.jsonl"],
        ["export", "out.csv", "-o", "J/input.csv"],
        ["export", "out.csv", "-o", "linked/keys.parquet"],
        ["report", "out.csv", "-o", "J/page.html"],
        ["score", "out.csv", "--gold", "q", "--review", "J/keys.parquet"],
        ["init", "in.csv", "-o", "J/job.toml"],
    ],
    ids=" ".join,
)
def test_an_output_in_a_job_folder_is_refused_and_nothing_is_sent(
    tmp_path: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.csv").write_text("q\none\n")
    typed("run", "in.csv", "-o", "out.csv", "--job-dir", "J", *asking(server))
    Path("out.csv.job").symlink_to("J")
    Path("linked").symlink_to("J")
    Path("fresh").mkdir()
    before = content()
    done = typed(*words, *(asking(server) if words[0] == "run" else []))
    assert done.returncode == 2
    assert "job folder" in done.stderr
    assert server.arrived == 1
    assert content() == before
    assert sorted(os.listdir()) == sorted(["in.csv", "out.csv", "J", "out.csv.job", "linked", "fresh"])  # noqa: PTH208
