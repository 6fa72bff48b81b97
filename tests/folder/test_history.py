"""The history is durable, holds no secret, and is enough to make a job again."""

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from job_files import MINIMAL

from pipeline.folder import history
from pipeline.folder.history import RunEnd, RunStart
from pipeline.job.job import Job, ThisRun
from pipeline.prompts.prompts import Prompts
from pipeline.records import BadJob, Exit, Failure, Summary, Tally, Usage

SCHEMA = {"type": "object", "properties": {"stars": {"type": "integer"}}, "required": ["stars"]}


def job_in(tmp_path: Path, *, this_run: ThisRun | None = None, **settings: Any) -> Job:
    folder = tmp_path / "out.csv.job"
    folder.mkdir(exist_ok=True)
    output = tmp_path / "out.csv"
    return Job.load([tmp_path / "in.parquet"], output, settings={**MINIMAL, **settings}, this_run=this_run)


def begin(job: Job, command: list[str] | None = None) -> None:
    history.record_start(job, command, "0" * 64, Path(job.inputs[0]), "1" * 64)


def summary_of(job: Job, code: Exit = Exit.DONE) -> Summary:
    tally = Tally(ok=2, usage=Usage(10, 4), cost=0.5)
    return Summary(
        exit_code=code,
        message="",
        output=str(job.output_path),
        rows=tally,
        run=tally,
        spent=1.5,
        seconds=9.5,
        wrote=True,
    )


def test_a_run_is_a_line_when_it_begins_and_a_line_when_it_ends(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    begin(job, ["run", "in.parquet", "-o", "out.csv"])
    began = history.last_start(job.folder)
    assert began is not None
    assert began.command == ["run", "in.parquet", "-o", "out.csv"]
    assert (began.directory, began.pid) == (str(Path.cwd()), os.getpid())
    assert began.inputs == [str(tmp_path / "in.parquet")]
    assert began.input_hash == "0" * 64
    assert began.at.tzinfo is not None
    history.record_end(job.folder, summary_of(job, Exit.INCOMPLETE))
    first, second = history.read_history(job.folder)
    assert first == began
    assert isinstance(second, RunEnd)
    assert second.summary == summary_of(job, Exit.INCOMPLETE)


def test_the_summary_is_json_that_people_read_with_every_number(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    history.record_end(job.folder, summary_of(job, Exit.AT_LIMIT))
    text = (job.folder / "summary.json").read_text("utf-8")
    assert text.count("\n") > 10
    held = json.loads(text)
    assert (held["exit_code"], held["rows"]["ok"], held["rows"]["failed"], held["spent"]) == (4, 2, 0, 1.5)
    assert held["rows"]["usage"] == {"prompt_tokens": 10, "completion_tokens": 4}
    assert [path.name for path in job.folder.iterdir() if path.name.startswith("summary")] == ["summary.json"]


def test_a_folder_in_which_nothing_was_run_has_no_history(tmp_path: Path) -> None:
    assert history.read_history(tmp_path) == []
    assert history.last_start(tmp_path) is None


def test_the_last_run_over_the_whole_table_is_found_behind_its_pilots(tmp_path: Path) -> None:
    begin(job_in(tmp_path), ["whole"])
    begin(job_in(tmp_path, this_run=ThisRun(sample=5, seed=3)), ["sample"])
    begin(job_in(tmp_path, this_run=ThisRun(limit=5)), ["limit"])
    folder = tmp_path / "out.csv.job"
    newest, whole = history.last_start(folder), history.last_start(folder, pilots=False)
    assert newest is not None
    assert whole is not None
    assert (newest.command, whole.command) == (["limit"], ["whole"])


def test_where_there_were_only_pilots_no_whole_run_is_found(tmp_path: Path) -> None:
    begin(job_in(tmp_path, this_run=ThisRun(limit=5)))
    assert history.last_start(tmp_path / "out.csv.job", pilots=False) is None


def test_a_last_line_cut_short_is_passed_over_and_the_next_run_stands_on_a_line_of_its_own(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    begin(job, ["first"])
    begin(job, ["second"])
    path = job.folder / "history.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    assert [line.command for line in history.read_history(job.folder) if isinstance(line, RunStart)] == [["first"]]
    begin(job, ["third"])
    assert [line.command for line in history.read_history(job.folder) if isinstance(line, RunStart)] == [
        ["first"],
        ["third"],
    ]


def test_a_first_line_cut_short_is_none(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    (job.folder / "history.jsonl").write_bytes(b'{"type": "beg')
    assert history.read_history(job.folder) == []
    begin(job, ["first"])
    assert len(history.read_history(job.folder)) == 1


def test_a_line_that_this_version_does_not_understand_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_bytes(b'{"type": "other"}\nnonsense\n')
    assert history.read_history(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("at", "2026-11-22T03:10:00"), ("limit", -5), ("sample", 0), ("settings", {"limits": 5}), ("user", None)],
)
def test_a_line_with_an_impossible_value_is_passed_over(tmp_path: Path, name: str, value: object) -> None:
    job = job_in(tmp_path)
    begin(job)
    path = job.folder / "history.jsonl"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}) + "\n")
    assert history.read_history(tmp_path / "out.csv.job") == []


def test_a_line_is_ones_own_by_its_mark_and_a_group_is_agreed_to_by_a_line_of_ones_own(tmp_path: Path) -> None:
    job = job_in(tmp_path, **{"output.shared": True})
    begin(job)
    assert not history.read_earlier(job.folder).shares  # the folder itself is not shared yet
    job.folder.chmod(0o2770)
    begin(job)
    earlier = history.read_earlier(job.folder)
    assert (len(earlier.own), earlier.is_own, earlier.shares) == (2, True, True)
    assert earlier.starts[-1].uid == os.geteuid()
    path = job.folder / "history.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines()[-1].replace('"run"', '"rum"') + " \n")
    earlier = history.read_earlier(job.folder)
    assert (len(earlier.own), earlier.is_own, earlier.shares) == (2, False, True)
    job.folder.chmod(0o2777)  # where everybody may write, nobody is a group that one agreed to
    assert not history.read_earlier(job.folder).shares


def test_a_line_is_never_broken_by_what_it_holds(tmp_path: Path) -> None:
    template = 'line\r\nend\u2028{{ review }} "quoted" \x85 \U0001f642'
    job = job_in(tmp_path, **{"prompt.template": template})
    begin(job, ["run", "-p", template])
    began = history.last_start(job.folder)
    assert began is not None
    assert history.job_of_start(job.folder, began).prompt.template == template
    assert began.command == ["run", "-p", template]


def test_a_retry_is_gone_on_with_under_its_id_until_it_has_come_to_its_end(tmp_path: Path) -> None:
    job = job_in(tmp_path, this_run=ThisRun(retry=("failed", "invalid")))
    assert history.unfinished_retry(job.folder, job.this_run.retry) is None
    begin(job)
    found = history.unfinished_retry(job.folder, ("invalid", "failed"))
    assert found is not None
    assert found.id
    assert found.since is None
    begin(job)
    history.record_end(job.folder, summary_of(job, Exit.AT_LIMIT))
    assert history.unfinished_retry(job.folder, job.this_run.retry) == found
    assert history.unfinished_retry(job.folder, ("failed",)) is None
    assert history.unfinished_retry(job.folder, ()) is None
    history.record_end(job.folder, summary_of(job))
    assert history.unfinished_retry(job.folder, job.this_run.retry) is None


def test_a_retry_that_an_early_version_began_is_gone_on_with_from_the_time_when_it_began(tmp_path: Path) -> None:
    job = job_in(tmp_path, this_run=ThisRun(retry=("failed",)))
    begin(job)
    path = job.folder / "history.jsonl"
    early = json.loads(path.read_bytes())
    del early["retry_id"]
    path.write_text(json.dumps(early) + "\n")
    began = history.unfinished_retry(job.folder, ("failed",))
    assert began == ("", datetime.fromisoformat(early["at"]))
    begin(job)
    going_on = history.unfinished_retry(job.folder, ("failed",))
    assert going_on is not None
    assert going_on.id
    assert going_on.since == datetime.fromisoformat(early["at"])


def test_the_history_is_private(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    begin(job)
    assert (job.folder / "history.jsonl").stat().st_mode & 0o777 == 0o600


def test_no_key_and_no_header_is_written_into_any_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "sk-canary-environment")
    job = job_in(
        tmp_path,
        **{
            "endpoint.api_key_env": "CANARY",
            "endpoint.api_key_default": "sk-canary-default",
            "endpoint.headers": {"x-org": "canary-header"},
        },
    )
    job.endpoint.key()
    begin(job, ["run", "in.parquet", "-c", "job.toml"])
    history.record_end(job.folder, summary_of(job))
    written = {path: path.read_bytes() for path in job.folder.rglob("*") if path.is_file()}
    assert {path.name for path in written} == {"history.jsonl", "summary.json"}
    assert not [path for path, content in written.items() if b"canary" in content]
    assert b"CANARY" in written[job.folder / "history.jsonl"]  # the variable's name is no secret
    assert b"x-org" in written[job.folder / "history.jsonl"]


@pytest.mark.parametrize(
    "settings",
    [
        {"prompt.template": "Is {{ review }} good?", "prompt.system": "Be short."},
        {"prompt.column": "review"},
        {"answer.labels": ["yes", "no"], "answer.name": "verdict", "prompt.column": "review"},
        {"answer.schema": SCHEMA, "prompt.column": "review", "output.prefix": "m_", "output.columns": ["stars"]},
        {
            "prompt.column": "review",
            "parameters.temperature": 0,
            "parameters.top_p": 0.5,
            "parameters.stop": ["\n"],
            "parameters.extra": {"deep": [1, None]},
            "limits.max_cost": 5,
            "limits.concurrency": 4,
            "limits.max_runtime": "7h30m",
            "prices.input": 1,
            "prices.output": 2,
            "endpoint.name": "house",
            "endpoint.revision": "2",
            "endpoint.timeout_seconds": 30,
        },
    ],
)
def test_the_job_is_made_again_from_its_line(tmp_path: Path, settings: dict[str, Any]) -> None:
    job = job_in(tmp_path, this_run=ThisRun(sample=3, seed=11), **settings)
    begin(job)
    began = history.last_start(job.folder)
    assert began is not None
    again = history.job_of_start(job.folder, began)
    assert again.without_secrets() == job.without_secrets()
    assert again.seen_by_model() == job.seen_by_model() == began.seen_by_model
    assert (again.this_run.sample, again.this_run.seed) == (3, 11)
    assert (again.folder, again.output_path) == (job.folder, job.output_path)
    row = {"review": "Good."}
    request = Prompts(again, ["review"]).requests(row)
    assert not isinstance(request, Failure)
    assert request == Prompts(job, ["review"]).requests(row)


def test_a_job_over_whole_chats_is_made_again_without_naming_its_column(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    begin(job)
    began = history.last_start(job.folder)
    assert began is not None
    again = history.job_of_start(job.folder, began)
    assert Prompts(again, ["messages"]).columns == Prompts(job, ["messages"]).columns == ("messages",)
    with pytest.raises(BadJob):
        Prompts(job_in(tmp_path, **{"prompt.column": "other"}), ["messages"])


def test_headers_are_not_known_any_more(tmp_path: Path) -> None:
    job = job_in(tmp_path, **{"endpoint.headers": {"x-org": "secret"}})
    begin(job)
    began = history.last_start(job.folder)
    assert began is not None
    assert history.job_of_start(job.folder, began).endpoint.headers == {"x-org": "***"}


def test_a_job_is_named_by_its_output_or_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_in(tmp_path)
    begin(job)
    monkeypatch.chdir(tmp_path)
    for name in ("out.csv", "out.csv.job", "./out.csv", tmp_path / "out.csv", job.folder):
        assert history.find_job_folder(name) == job.folder
    monkeypatch.chdir(job.folder)
    assert history.find_job_folder(".") == job.folder


@pytest.mark.parametrize("name", ["none.csv", ".", "..", "/", ""])
def test_where_there_is_no_job_the_message_says_which_names_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadJob, match="there is no job of this name"):
        history.find_job_folder(name)


def in_a_process(job: Job, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script that has `job` and `begin()`, as a process of its own."""
    prelude = (
        "import os, resource, signal, sys\n"
        "from pathlib import Path\n"
        "from pipeline.folder import history\n"
        "from pipeline.job import Job\n"
        "from pipeline.records import Stopped\n"
        f"job = Job.load([sys.argv[1]], sys.argv[2], settings={MINIMAL!r})\n"
        "begin = lambda: history.record_start(job, ['run'], '0' * 64, Path(sys.argv[1]), '1' * 64)\n"
    )
    command = [sys.executable, "-c", prelude + script, job.inputs[0], str(job.output_path)]
    return subprocess.run(command, timeout=60, check=False, capture_output=True, text=True)


def test_a_full_disk_is_a_stop_with_the_remedy_and_spoils_no_line(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    begin(job)
    full = (job.folder / "history.jsonl").stat().st_size + 100
    script = (
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({full}, {full}))\n"
        "try:\n    begin()\n"
        "except Stopped as stop:\n    print(stop)\n    sys.exit(stop.exit_code)\n"
    )
    done = in_a_process(job, script)
    assert done.returncode == Exit.NEEDS_PERSON, done.stderr
    assert "history.jsonl cannot be written: File too large. Every answer so far is kept." in done.stdout
    assert len(history.read_history(job.folder)) == 1
    begin(job)
    assert len(history.read_history(job.folder)) == 2


def test_a_line_is_there_when_the_process_is_killed_after_it(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    assert in_a_process(job, "begin()\nos.kill(os.getpid(), signal.SIGKILL)\n").returncode == -9
    assert [type(line) for line in history.read_history(job.folder)] == [RunStart]
