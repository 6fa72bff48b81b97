"""The answer's columns are summarized by value or percentiles, with the columns that say how certain they are."""

import json
from pathlib import Path

import polars as pl
from chat_server import Canned, ChatServer, Seen, completion
from report_pages import Page, run_into

from pipeline.report.report import write_report


def test_confidence_and_repairs_are_shown_beside_the_answer(tmp_path: Path) -> None:
    def reply(seen: Seen, _attempt: int) -> Canned:
        number = int(seen.body["messages"][0]["content"].split()[-1])
        text = json.dumps({"label": "yes"})
        tokens = [{"token": text, "logprob": -0.1 * number}]
        body = json.loads(completion(f"```json\n{text}\n```" if number == 3 else text))
        body["choices"][0]["logprobs"] = {"content": tokens}
        return Canned(body=json.dumps(body).encode())

    with ChatServer(reply) as server:
        frame = pl.DataFrame({"prompt": [f"row {number}" for number in range(20)]})
        run_into(tmp_path, server, frame, **{"answer.labels": ["yes", "no"], "answer.logprobs": True})
    read = Page(write_report(tmp_path / "out.csv"))
    assert read.row("fence")[0] == "1"
    assert "the probability of the label, from 0 to 1" in read.source
    assert "confidence 90%" in read.source
