"""Keys that expire during a job: renewed once, at no row's expense, in every way of asking; and shown nowhere."""

import json
from pathlib import Path

import msgspec
import polars as pl
import pytest
from batch_runs import batch_job, check_table, write_table
from batch_server import Provider, serving
from builders import counts, job, questions
from chat_server import Canned, ChatServer, Seen, problem
from command_line import asking, typed
from expiring_keys import ExpiringKeys

from pipeline import BadJob, run
from pipeline.execution.ray.share import job_for_actor
from pipeline.records import Exit
from pipeline.results.export import export_table
from pipeline.runs.estimate import estimate_job
from pipeline.runs.preview import preview_requests

ROWS = 300


def test_keys_that_expire_cost_no_row_an_attempt_and_are_in_no_file(tmp_path: Path) -> None:
    keys = ExpiringKeys(tmp_path / "keys", uses=90)
    source, folder = questions(tmp_path / "in.csv", range(ROWS)), tmp_path / "out"
    folder.mkdir()
    with ChatServer(keys.reply, delay_seconds=0.005) as server:
        summary = run(job(server.url, source, folder / "out.csv", endpoint__api_key_command=keys.command))
    assert counts(summary) == {"ok": ROWS}
    assert server.arrived == ROWS + len(keys.refused)
    assert keys.runs == keys.valid == 4
    assert summary.run.attempts == ROWS
    assert pl.read_csv(folder / "out.csv")["attempts"].unique().to_list() == [1]
    kept = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert not any(f"9bL4mR{number}".encode() in content for content in kept for number in range(1, 5))
    history = (folder / "out.csv.job" / "history.jsonl").read_text()
    assert "sk-Zq8" not in history
    assert '"api_key_command":["sh","-c",' in history
    (folder / "out.csv").unlink()
    assert export_table(folder / "out.csv.job", folder / "again.csv")[1].ok == ROWS
    assert keys.runs == 4


def test_a_key_that_is_revoked_stops_the_job_after_one_new_key_and_the_same_line_goes_on(tmp_path: Path) -> None:
    keys = ExpiringKeys(tmp_path / "keys", uses=1000)
    source, is_revoked = questions(tmp_path / "in.csv", range(100)), True

    def reply(seen: Seen, attempt: int) -> Canned | None:
        return Canned(401, problem("revoked")) if is_revoked and server.arrived > 40 else keys.reply(seen, attempt)

    with ChatServer(reply) as server:
        asked = job(server.url, source, tmp_path / "out.csv", endpoint__api_key_command=keys.command)
        stopped = run(asked)
        assert stopped.exit_code is Exit.NEEDS_PERSON
        assert "endpoint.api_key_command" in stopped.message
        assert (keys.runs, stopped.rows.failed) == (2, 0)
        assert stopped.rows.ok + stopped.rows.pending == 100
        is_revoked = False
        assert counts(run(asked)) == {"ok": 100}
        assert keys.runs == 3


def test_batches_that_are_waited_for_longer_than_a_key_lives_are_fetched_with_a_new_one(tmp_path: Path) -> None:
    keys = ExpiringKeys(tmp_path / "keys", uses=1)
    write_table(tmp_path, 30)

    def expire(_method: str, _path: str) -> str:
        provider.key = f"sk-Zq8WvX3kT9bL4mR{1 + (len(provider.calls) - 1) // 7}"
        return ""

    provider = Provider(interfere=expire)
    with serving(provider) as url:
        summary = run(batch_job(tmp_path, url, endpoint__api_key_command=keys.command))
    assert summary.exit_code is Exit.DONE
    check_table(tmp_path, provider, 30)
    assert keys.runs == 1 + (len(provider.calls) - 1) // 7 >= 2


@pytest.mark.parametrize("command", [["no-such-program"], ["sh", "-c", "echo 'no account' >&2; exit 1"], "true"])
def test_a_command_that_gives_no_key_begins_no_job(tmp_path: Path, command: object) -> None:
    source = questions(tmp_path / "in.csv", range(3))
    with ChatServer() as server, pytest.raises(BadJob, match=r"endpoint\.api_key_command: [\s\S]*Nothing was sent"):
        run(job(server.url, source, tmp_path / "out.csv", endpoint__api_key_command=command))
    assert not server.arrived
    assert not (tmp_path / "out.csv.job").exists()


def test_the_command_is_not_run_for_what_sends_nothing(tmp_path: Path) -> None:
    keys = ExpiringKeys(tmp_path / "keys", uses=1)
    source = questions(tmp_path / "in.csv", range(3))
    asked = job("http://127.0.0.1:9/v1", source, tmp_path / "out.csv", endpoint__api_key_command=keys.command)
    assert list(preview_requests(asked, 1))
    assert estimate_job(asked).plan.to_ask == 3
    assert not keys.runs


def test_an_actor_is_told_the_command_and_never_the_key(tmp_path: Path) -> None:
    keys = ExpiringKeys(tmp_path / "keys", uses=1)
    command = [*keys.command[:2], keys.command[2].replace("sk-Zq8WvX3kT9bL4mR", "$(printf sk-%s abc)")]
    asked = job("http://127.0.0.1:9/v1", endpoint__api_key_command=[*command, keys.command[3]])
    key = asked.endpoint.key()
    assert key is not None
    assert key.get_secret_value() == "sk-abc1"
    sent = job_for_actor(asked, 1.0)
    assert msgspec.json.decode(sent)["endpoint"]["api_key_command"] == [*command, keys.command[3]]
    assert b"sk-abc1" not in sent


def test_another_command_asks_nothing_again(tmp_path: Path) -> None:
    source = questions(tmp_path / "in.csv", range(5))
    with ChatServer() as server:
        run(job(server.url, source, tmp_path / "out.csv", endpoint__api_key_command="echo one"))
        assert counts(run(job(server.url, source, tmp_path / "out.csv", endpoint__api_key_command="echo two"))) == {
            "ok": 5
        }
        assert server.arrived == 5


def test_a_command_may_be_set_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    questions(tmp_path / "in.csv", range(2))
    with ChatServer(key="the-key") as server:
        command = "endpoint.api_key_command=printf %s the-key"
        done = typed("run", "in.csv", "-o", "out.csv", *asking(server), "-p", "{{ q }}", "--set", command)
        assert done.returncode == 0, done.stderr
        resumed = typed("resume", "out.csv")
    assert resumed.returncode == 0, resumed.stderr
    start = json.loads((tmp_path / "out.csv.job" / "history.jsonl").read_text().splitlines()[0])
    assert command in start["command"]
