"""The follow-ups of an answer are found again from its first request after a kill or a stop; nothing is paid twice."""

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import builders
import polars as pl
import pytest
from chat_server import Canned, ChatServer, Seen, completion
from planned_table import PlannedTable

from pipeline import Job, Summary, ThisRun, run
from pipeline.planning.chains import Chains
from pipeline.records import Answer, Exit, Failure
from pipeline.store.reader import PART_BYTES, Reader

GOOD, BAD = Canned(body=completion('{"label": "yes"}')), Canned(body=completion("Hm, perhaps."))
PRICES = {"prices.input": 1.0, "prices.output": 1.0}


def asked_before(seen: Seen) -> int:
    """How many answers to this row the request repeats."""
    return sum(message["role"] == "assistant" for message in seen.body["messages"])


def row_of(seen: Seen) -> str:
    return str(seen.body["messages"][0]["content"]).split("\n")[0]


def rows(path: Path, count: int) -> Path:
    pl.DataFrame({"prompt": [f"row {number}" for number in range(count)]}).write_csv(path)
    return path


def job(url: str, source: Path, *, retry: tuple[Any, ...] = (), **settings: Any) -> Job:
    named = {"answer.labels": ["yes", "no"], "limits.concurrency": 4, "prompt.template": None, **PRICES, **settings}
    return builders.job(url, source, source.with_name("out.parquet"), ThisRun(verbosity=-1, retry=retry), **named)


def table(summary: Summary) -> pl.DataFrame:
    return pl.read_parquet(summary.output)


@pytest.mark.parametrize("answered", [1, 2])
def test_a_run_that_is_killed_between_an_answer_and_its_repair_continues_with_the_repair(
    tmp_path: Path, answered: int
) -> None:
    killed = False

    def reply(seen: Seen, _attempt: int) -> Canned:
        if asked_before(seen) < answered:
            return BAD
        return GOOD if killed else Canned(hang=True)

    source = rows(tmp_path / "in.csv", 4)
    with ChatServer(reply) as server:
        line = f"run {source} -o {tmp_path}/out.parquet --base-url {server.url} -m m --concurrency 4 -q --set"
        line += ' answer.labels=["yes","no"] --set prices.input=1.0 --set prices.output=1.0'
        child = subprocess.Popen([sys.executable, "-m", "pipeline", *line.split()])
        server.wait_for(4 * answered + 4)  # each row's last request hangs: all before are answered, and on disk
        child.kill()
        assert child.wait() == -signal.SIGKILL
        killed, before = True, server.arrived
        summary = run(job(server.url, source))
        assert server.arrived == before + 4
        sent = Counter((row_of(seen), asked_before(seen)) for seen in server.log)
    assert all(times == (1 if asked < answered else 2) for (_, asked), times in sent.items())
    assert summary.rows.ok == summary.run.ok == 4
    out = table(summary)
    assert out["status"].to_list() == ["ok"] * 4
    assert out["repaired"].to_list() == ["asked again"] * 4
    assert out["attempts"].to_list() == [answered + 1] * 4
    assert out["cost"].sum() == pytest.approx(summary.spent) == pytest.approx(4 * (answered + 1) * 18e-6)


def test_an_answer_that_never_fits_is_invalid_after_all_repairs_and_is_counted_once(tmp_path: Path) -> None:
    source = rows(tmp_path / "in.csv", 5)
    with ChatServer(lambda _seen, _attempt: BAD) as server:
        summary = run(job(server.url, source))
        assert server.arrived == 15
        assert run(job(server.url, source)).rows.invalid == 5
        assert server.arrived == 15
    assert summary.exit_code is Exit.INCOMPLETE
    assert (summary.rows.invalid, summary.run.invalid, summary.run.rows) == (5, 5, 5)
    assert summary.run.attempts == 15
    out = table(summary)
    assert out["answer"].to_list() == ["Hm, perhaps."] * 5
    assert out["attempts"].to_list() == [3] * 5


def test_a_retry_of_invalid_rows_sends_only_the_last_request_of_each_chain_again(tmp_path: Path) -> None:
    repair_kind = False
    source = rows(tmp_path / "in.csv", 3)
    with ChatServer(lambda seen, _attempt: GOOD if repair_kind and asked_before(seen) == 2 else BAD) as server:
        run(job(server.url, source))
        repair_kind, before = True, server.arrived
        summary = run(job(server.url, source, retry=("invalid",)))
        assert [asked_before(seen) for seen in server.log[before:]] == [2, 2, 2]
    assert summary.rows.ok == 3
    assert table(summary)["cost"].sum() == pytest.approx(summary.spent)


def test_a_repair_that_fails_does_not_replace_the_first_answer(tmp_path: Path) -> None:
    def reply(seen: Seen, _attempt: int) -> Canned:
        return Canned(status=413, body=b"{}") if asked_before(seen) else BAD

    source = rows(tmp_path / "in.csv", 2)
    with ChatServer(reply) as server:
        summary = run(job(server.url, source))
        assert server.arrived == 4
        run(job(server.url, source))
        assert server.arrived == 4
    out = table(summary)
    assert out["status"].to_list() == ["invalid"] * 2
    assert out["answer"].to_list() == ["Hm, perhaps."] * 2


def test_a_larger_number_of_repairs_continues_where_the_smaller_ended(tmp_path: Path) -> None:
    source = rows(tmp_path / "in.csv", 2)
    with ChatServer(lambda seen, _attempt: GOOD if asked_before(seen) == 3 else BAD) as server:
        assert run(job(server.url, source, answer__repairs=1)).rows.invalid == 2
        assert server.arrived == 4
        assert run(job(server.url, source, answer__repairs=3)).rows.ok == 2
        assert server.arrived == 8


def test_a_row_whose_repair_is_unanswered_is_pending_when_the_run_stops(tmp_path: Path) -> None:
    def reply(seen: Seen, _attempt: int) -> Canned | None:
        if asked_before(seen) and row_of(seen) == "row 1":
            return Canned(status=402, body=b"{}")
        return Canned(status=200, body=BAD.body) if row_of(seen) == "row 1" else GOOD

    source = rows(tmp_path / "in.csv", 2)
    with ChatServer(reply) as server:
        summary = run(job(server.url, source, limits__concurrency=1))
    assert summary.exit_code is Exit.NEEDS_PERSON
    assert (summary.rows.ok, summary.rows.pending) == (1, 1)


def test_a_truncated_answer_is_asked_again_once_with_more_tokens(tmp_path: Path) -> None:
    def reply(seen: Seen, _attempt: int) -> Canned:
        room = seen.body["max_tokens"] > 8
        return GOOD if room else Canned(body=completion('{"label": "y', finish_reason="length"))

    source = rows(tmp_path / "in.csv", 3)
    with ChatServer(reply) as server:
        settings = {"parameters": {"max_tokens": 8}, "answer__grow_on_truncation": 64, "limits__max_cost": 1.0}
        summary = run(job(server.url, source, **settings))
        assert [seen.body["max_tokens"] for seen in server.log].count(64) == 3
        assert server.arrived == 6
    assert summary.rows.ok == 3


BAD_ANSWER, GOOD_ANSWER = Answer(text="Hm."), Answer(text='{"label": "yes"}')


def test_a_chain_has_a_step_for_each_stored_request_and_its_last_answer_is_the_result(
    make: Callable[..., PlannedTable],
) -> None:
    rows = make("a", "b", "c", **{"answer.labels": ["yes", "no"]})
    firsts = [rows.request(prompt) for prompt in "abc"]
    rows.record_chains((firsts[0], [BAD_ANSWER, GOOD_ANSWER]), (firsts[1], [BAD_ANSWER]))
    repaired, waiting, new = rows.chains(*firsts)
    assert [(step.outcome.status, step.status) for step in repaired.steps] == [("ok", "invalid"), ("ok", "ok")]
    assert (repaired.unanswered, repaired.result, repaired.status) == (None, repaired.steps[1], "ok")
    assert repaired.next_request == repaired.steps[1].request
    assert (waiting.result, waiting.status, len(waiting.steps)) == (None, "pending", 1)
    assert waiting.next_request == waiting.unanswered
    assert waiting.next_request.repair == 1
    assert (new.steps, new.next_request, new.status) == ([], firsts[2], "pending")


def test_a_failed_follow_up_leaves_the_answer_before_it_as_the_result(make: Callable[..., PlannedTable]) -> None:
    rows = make("a", **{"answer.labels": ["yes", "no"]})
    first = rows.request("a")
    rows.record_chains((first, [BAD_ANSWER, Failure(kind="too_long", reason="413")]))
    [chain] = rows.chains(first)
    assert (len(chain.steps), chain.result, chain.status) == (2, chain.steps[0], "invalid")


@pytest.mark.parametrize(("together", "lengths"), [(1, [3, 3, 2]), (2, [2, 2, 2, 2])])
def test_chains_are_followed_in_parts_of_a_bounded_size_whichever_of_their_answers_are_large(
    make: Callable[..., PlannedTable], together: int, lengths: list[int]
) -> None:
    prompts = [f"row {number}" for number in range(8)]
    planned = make(*prompts, **{"answer.labels": ["yes", "no"], "answer.repairs": 1})
    large, good = Answer(text="Hm. " * (PART_BYTES // 12)), Answer(text="yes")
    outcomes = [[large, good], [Answer(text="Hm."), large], [Answer(text="Hm."), large], [large, large]]
    firsts = [planned.request(prompt) for prompt in prompts]
    planned.record_chains(*zip(firsts, outcomes * 2, strict=True))
    with closing(Reader(planned.store.folder)) as reader:
        parts = list(Chains(planned.job(), reader).parts(firsts, together))
    found = [[[getattr(step.outcome, "text", "") for step in chain.steps] for chain in part] for part in parts]
    assert [chain.first.key for part in parts for chain in part] == [first.key for first in firsts]
    assert [chain for part in found for chain in part] == [[each.text for each in chain] for chain in outcomes * 2]
    assert [len(part) for part in parts] == lengths
    assert all(sum(len(text) for chain in part for text in chain) < 2 * PART_BYTES for part in found)
