"""A preview shows the requests that would be sent, and sends and writes nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from chat_server import ChatServer
from job_files import MINIMAL
from started_job import StartedJob

from pipeline.job.job import Job
from pipeline.records import Answer, BadJob, Failure, Usage
from pipeline.runs.preview import preview_requests

ASKED = {"prompt.template": "Is this good?\n{{ review }}"}
GOOD = Answer(text="yes", finish_reason="stop", usage=Usage(10, 2, total_tokens=12), latency_seconds=0.25, cost=0.0042)
LONG = Failure(kind="too_long", reason="4,097 tokens are too many")
Start = Callable[..., StartedJob]


@pytest.fixture
def reviews(tmp_path: Path) -> str:
    (tmp_path / "in.csv").write_text("id,review\n1,Lovely.\n2,Dreadful.\n3,So so.\n4,\n", "utf-8")
    return "in.csv"


def previewed(tmp_path: Path, inputs: list[str], rows: int, **settings: Any) -> list[str]:
    job = Job.load([str(tmp_path / name) for name in inputs], settings={**MINIMAL, **settings})
    return list(preview_requests(job, rows))


def test_a_preview_shows_the_requests_as_they_would_be_sent(tmp_path: Path, reviews: str) -> None:
    settings = {**ASKED, "prompt.system": "Be short.", "parameters.max_tokens": 5, "answer.labels": ["yes", "no"]}
    place, body = previewed(tmp_path, [reviews], 1, **settings)
    assert place == "row 1 → 127.0.0.1:9"
    held = json.loads(body)
    assert held["messages"] == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Is this good?\nLovely."},
    ]
    assert (held["model"], held["max_tokens"]) == ("m", 5)
    assert held["response_format"]["json_schema"]["schema"]["properties"]["label"]["enum"] == ["yes", "no"]


def test_a_preview_lists_the_rows_that_cannot_be_asked_and_writes_nothing(tmp_path: Path, reviews: str) -> None:
    texts = previewed(tmp_path, [reviews], 9, **ASKED)
    assert [text for text in texts if text.startswith("row")] == [f"row {row} → 127.0.0.1:9" for row in (1, 2, 3, 4)]
    assert texts[-1].startswith("cannot be asked: the template prints a null")
    assert [path.name for path in tmp_path.iterdir()] == [reviews]


def test_a_preview_sends_nothing(tmp_path: Path, reviews: str, server: ChatServer) -> None:
    previewed(tmp_path, [reviews], 3, **ASKED, **{"endpoint.base_url": server.url})
    assert server.arrived == 0


def test_a_preview_of_no_rows_says_so(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("prompt\n", "utf-8")
    assert previewed(tmp_path, ["in.csv"], 3) == ["The input has no rows."]


def test_a_preview_strips_what_could_harm_a_terminal(tmp_path: Path) -> None:
    pl.DataFrame({"prompt": ["\u202eflipped \x9b31m"]}).write_parquet(tmp_path / "in.parquet")
    text = "".join(previewed(tmp_path, ["in.parquet"], 1))
    assert "�flipped �31m" in text


def test_a_preview_refuses_a_job_that_run_would_refuse(tmp_path: Path, reviews: str) -> None:
    with pytest.raises(BadJob, match="did you mean 'review'"):
        previewed(tmp_path, [reviews], 1, **{"prompt.template": "{{ reveiw }}"})
    (tmp_path / "clash.csv").write_text("prompt,status\na,b\n", "utf-8")
    with pytest.raises(BadJob, match=r"\[output\]"):
        previewed(tmp_path, ["clash.csv"], 1)
    with pytest.raises(BadJob, match="not a JSON Schema"):
        previewed(tmp_path, [reviews], 1, **ASKED, **{"answer.schema": {"type": "object", "required": 1}})
