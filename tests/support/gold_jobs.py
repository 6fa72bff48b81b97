"""Finished jobs whose input has a column of gold: what the tests of evaluation and of the report's gold section run."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from chat_server import USAGE, Canned, ChatServer, Seen, completion, problem

from pipeline import Job, ThisRun, run
from pipeline.evaluation.records import Bill, JobScore, Score

LABELS = {"answer.labels": ["yes", "no"], "answer.repairs": 0}
PRICES = {"prices.input": 1.0, "prices.output": 1.0}
DOLLARS_A_ROW = (USAGE["prompt_tokens"] + USAGE["completion_tokens"]) / 1e6

Ran = Callable[..., Path]
Two = Callable[..., tuple[Path, Path]]


def label(word: str) -> str:
    return json.dumps({"label": word})


FOUR = {"q": ["a", "b", "c", "d"], "gold": ["yes", "no", "no", None]}
ANSWERS = {"a": label("yes"), "b": label("yes"), "c": label("no"), "d": label("no")}


def run_job(
    source: Path, answers: Mapping[str, str | int], output: Path, settings: Mapping[str, Any], **this_run: Any
) -> Path:
    """Run a job over the column `q`, against a server that gives `answers` by prompt, a number as the HTTP status."""

    def reply(seen: Seen, _attempt: int) -> Canned:
        answer = answers[seen.prompt]
        if isinstance(answer, int):
            return Canned(status=answer, body=problem("too long"))
        return Canned(body=completion(answer))

    with ChatServer(reply) as server:
        given = {"endpoint.base_url": server.url, "endpoint.model": "m", "prompt.template": "{{ q }}", **settings}
        run(Job.load([source], output, settings=given, this_run=ThisRun(verbosity=-1, **this_run)))
    return output


def job_score(found: Score, rows: int, **changes: Any) -> JobScore:
    """A score of `out.csv`, in which all rows have gold and an answer, with `changes` over it."""
    fields = {
        "job": "out.csv",
        "gold": "gold",
        "answer": "label",
        "rows": rows,
        "without_gold": 0,
        "without_answer": {},
        "score": found,
        "accuracy_of_all": None,
        "by": None,
        "parts": (),
        "bill": Bill(None, None),
        "tokens_per_right_row": None,
        "cost_per_right_row": None,
        "prompt_shows_gold": False,
    }
    return JobScore(**{**fields, **changes})
