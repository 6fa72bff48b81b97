"""What a job would cost is told without sending, without writing, and with what is answered already."""

from pathlib import Path
from typing import Any

import builders
import pytest
from chat_server import ChatServer

from pipeline import BadJob, Job, ThisRun, run
from pipeline.runs.estimate import estimate_job, estimate_text

PRICED = {"prices.input": 1.0, "prices.output": 4.0, "parameters.max_tokens": 20}


def job(folder: Path, url: str, output: str | None = None, **settings: Any) -> Job:
    named = {"prompt.template": "Say {{ q }}", **settings}
    return builders.job(url, folder / "in.csv", None if output is None else folder / output, **named)


def told(job: Job) -> list[str]:
    return list(estimate_text(job, estimate_job(job)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in.csv").write_text("q\n" + "".join(f"question {n % 90}\n" for n in range(100)))
    return tmp_path


def test_a_guess_of_what_it_costs_lies_in_its_range_and_every_model_is_named(folder: Path) -> None:
    settings = {"parameters.max_tokens": 50, "parameters.seed": 1, "answer.samples": 2, "answer.models": ["a", "b"]}
    prices = {"prices.input": 0.0, "prices.output": 1.0}
    lines = told(job(folder, "http://127.0.0.1:9/v1", **{"prompt.template": "{{ q }}", **prices, **settings}))
    assert lines[0] == "100 rows, 4 samples each → 127.0.0.1:9, a + b"
    assert "money     about $0.02 ($0.00036 to $0.02)" in lines[3]


def test_before_the_first_answer_it_is_a_guess_between_wide_bounds(folder: Path) -> None:
    found = estimate_job(job(folder, "http://127.0.0.1:9/v1", **PRICED))
    assert (found.plan.to_ask, found.plan.duplicates) == (90, 10)
    low, high = found.between.low, found.between.high
    assert (low.prompt_tokens, high.prompt_tokens) == (found.plan.request_bytes / 5, found.plan.request_bytes / 2)
    assert (low.completion_tokens, high.completion_tokens) == (90, 90 * 20)
    assert found.expected.seconds is None
    assert sorted(path.name for path in folder.iterdir()) == ["in.csv"]
    limited = told(job(folder, "http://127.0.0.1:9/v1", **{"limits.requests_per_minute": 30}))
    assert limited[1] == "  requests  90 to ask, 0 answered before, 10 equal to others"
    assert limited[3] == "  money     price unknown; [prices] in the job file sets one"
    assert limited[4] == "  time      about 3 min, at the limits that are set or were learned"


def test_all_who_are_asked_are_named_and_each_opinion_is_a_request(folder: Path) -> None:
    lines = told(job(folder, "http://127.0.0.1:9/v1", **{"answer.models": ["a", "b"]}))
    assert lines[0] == "100 rows, 2 samples each → 127.0.0.1:9, a + b"
    assert lines[1] == "  requests  180 to ask, 0 answered before, 20 equal to others"


def test_with_an_output_what_is_answered_counts_and_tells_and_nothing_is_changed(folder: Path) -> None:
    with ChatServer() as server:
        asked = job(folder, server.url, "out.csv", **PRICED)
        pilot = asked.model_copy(update={"this_run": ThisRun(verbosity=-1, sample=30)})
        run(pilot)
        arrived = server.arrived
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if "-shm" not in path.name}
        found = estimate_job(asked)
        capped = told(asked.model_copy(update={"limits": asked.limits.model_copy(update={"max_cost": 0.001})}))
        assert server.arrived == arrived
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if "-shm" not in path.name} == before
    assert found.plan.answered >= 30
    assert found.plan.to_ask == 90 - arrived
    assert found.between.low.completion_tokens == found.between.high.completion_tokens == 6 * found.plan.to_ask
    assert f"by {arrived} answers so far" in capped[2]
    assert "cap $0.001, of which $" in capped[3]


def test_a_job_that_run_would_refuse_is_refused(folder: Path) -> None:
    with pytest.raises(BadJob, match="no price is known"):
        estimate_job(job(folder, "http://127.0.0.1:9/v1", **{"limits.max_cost": 1.0}))
    with pytest.raises(BadJob, match="did you mean 'q'"):
        estimate_job(job(folder, "http://127.0.0.1:9/v1", **{"prompt.template": "{{ qq }}"}))
