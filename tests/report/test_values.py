"""The answer's columns are summarized by value or percentiles, with the columns that say how certain they are."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from chat_server import Canned, ChatServer, Seen, completion
from report_pages import Page, answered, run_into

from pipeline.report.figures import Figures
from pipeline.report.report import write_report
from pipeline.report.values import PERCENTILES, ColumnSummary, column_summaries


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


def summary_of(cells: list[Any], schema: Mapping[str, Any], dtype: pl.DataType) -> ColumnSummary:
    figures = Figures({"label": dtype})
    figures.add(answered([0.0] * len(cells)).with_columns(label=pl.Series(cells, dtype=dtype)))
    (summary,) = column_summaries({"label": schema}, figures)
    return summary


def test_values_are_listed_by_frequency_with_those_that_no_answer_has() -> None:
    summary = summary_of(["no", "no", "yes", None], {"enum": ["yes", "no", "maybe"]}, pl.String())
    assert (summary.rows, summary.values, summary.never) == (3, [("no", 2), ("yes", 1)], ("maybe",))


def test_a_column_of_mostly_different_texts_is_free_text() -> None:
    summary = summary_of([f"text {number}" for number in range(40)], {"type": "string"}, pl.String())
    assert (summary.values, summary.numbers) == (None, ())


def test_few_numbers_are_listed_by_value_and_many_by_percentiles() -> None:
    assert summary_of([1, 2, 2], {"type": "integer"}, pl.Int64()).values == [("1", 1), ("2", 2)]
    many = summary_of(list(range(1, 101)), {"type": "integer"}, pl.Int64())
    assert many.values is None
    assert dict(zip(PERCENTILES, many.numbers, strict=True)) == {
        "Mean": "50.5", "Min": "1", "Median": "50", "90 %": "90", "95 %": "95", "99 %": "99", "Max": "100",
    }  # fmt: skip
