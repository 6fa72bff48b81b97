"""A short crash series: whatever a job meets, no row is lost or swapped, and nothing is paid again but for a kill."""

import json
from collections import Counter
from pathlib import Path

import pytest
from chat_server import Canned, ChatServer, Seen, problem
from checker import check
from crashing_run import STEPS
from fault_script import LASTING, PASSING, Script
from torture import Trial

from pipeline import run


def test_every_fault_is_met_and_every_row_becomes_what_it_must(tmp_path: Path) -> None:
    trial = Trial(3244, 120, 16, tmp_path, share=0.4, odd=0.5)
    found = trial.killed_at_random(0)
    assert found.paid_again == 0
    script = Script(trial.seed, trial.share, trial.odd)
    met = [name for n in range(trial.rows) for name in script.course(f"{trial.seed} question {n}")]
    assert set(met) == {*PASSING, *LASTING}
    assert found.requests == len(met)


@pytest.mark.parametrize("width", [1, 32])
def test_kills_at_random_moments_lose_and_swap_nothing(tmp_path: Path, width: int) -> None:
    Trial(100 + width, 60, width, tmp_path, share=0.05).killed_at_random(3)


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_step_loses_and_swaps_nothing(tmp_path: Path, step: str) -> None:
    Trial(200 + STEPS.index(step), 20, 4, tmp_path, share=0.0).killed_at(step, 5)


@pytest.mark.parametrize(
    ("stop", "words"),
    [
        (Canned(401, problem("The key was revoked.", code="invalid_api_key")), "revoked"),
        (Canned(402, problem("You have no credit left.")), "credit"),
        (Canned(404, problem("The model m does not exist.", code="model_not_found")), "does not exist"),
    ],
)
def test_what_stops_the_job_midway_leaves_rows_pending_and_the_same_line_completes_it(
    tmp_path: Path, stop: Canned, words: str
) -> None:
    trial, script, broken = Trial(7, 60, 8, tmp_path, share=0.0), Script(7, 0.0), []

    def reply(seen: Seen, attempt: int) -> Canned:
        if server.arrived > 20 and not broken:
            stopped.append(seen.prompt)
            return stop
        return script(seen, attempt)

    stopped: list[str] = []
    with ChatServer(reply) as server:
        trial.write_input()
        summary = run(trial.job(server.url))
        assert summary.exit_code == 1
        assert words in summary.message
        assert summary.rows.pending == 60 - summary.rows.ok - summary.rows.unanswered - summary.rows.truncated
        assert summary.rows.failed == sum(script.due(sent.prompt).status == "failed" for sent in script.history)
        broken.append(False)
        assert run(trial.job(server.url)).exit_code in (0, 3)
        check(trial.job(server.url), script, 0, 8, turned_away=len(stopped))
    assert max(Counter(sent.prompt for sent in script.history).values()) == 1
    ended = [json.loads(line) for line in (tmp_path / "out.parquet.job" / "history.jsonl").read_text().splitlines()]
    assert next(line["summary"]["exit_code"] for line in ended if line["type"] == "ended") == 1
