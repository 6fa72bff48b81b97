"""The table of spending adds up to what was paid, by model, follow-ups included."""

import json
from pathlib import Path

import polars as pl
import pytest
from chat_server import Canned, ChatServer, Seen, completion
from report_pages import Page, run_into

from pipeline import Summary
from pipeline.report.report import write_report


def test_tokens_and_money_of_all_items_add_up_to_the_sums(job: tuple[Path, Summary], page: Path) -> None:
    read, table = Page(page), pl.read_csv(job[0]).filter(pl.col("attempts") > 0)
    cached, reasoning = table["cached_tokens"].sum(), table["reasoning_tokens"].sum()
    counts = {
        "Prompt": table["prompt_tokens"].sum() - cached,
        "Prompt, cached by the endpoint": cached,
        "Answers": table["completion_tokens"].sum() - reasoning,
        "Reasoning, not shown": reasoning,
    }
    assert {what: read.row(what)[0] for what in counts} == {what: f"{count:,}" for what, count in counts.items()}
    assert [read.row(what)[1] for what in counts] == ["$0.10", "$0.025", "$0.40", "$0.40"]
    begins, ends = (next(at for at, row in enumerate(read.rows) if row[0] == what) for what in ("Prompt", "These rows"))
    parts = [float(row[3].removeprefix("$")) for row in read.rows[begins:ends]]
    assert sum(parts) == pytest.approx(job[1].rows.cost, rel=0.05)  # each is rounded to two digits


def opinion(seen: Seen, _attempt: int) -> Canned:
    """Two models of different prices; every third row's first answer is invalid, and one model disagrees."""
    again, dear = len(seen.body["messages"]) > 1, seen.body["model"] == "dear"
    question = seen.body["messages"][0]["content"]
    if int(question.split()[-1]) % 3 == 0 and dear and not again:
        return Canned(body=completion('{"label": "who knows"}', usage={"prompt_tokens": 10, "completion_tokens": 3}))
    label = "yes" if dear or int(question.split()[-1]) % 4 else "no"
    usage = {
        "prompt_tokens": 30 if again else 10,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    return Canned(body=completion(json.dumps({"label": label}), usage=usage))


def test_each_model_has_its_own_prices_and_follow_ups_have_a_line(tmp_path: Path) -> None:
    settings = {
        "answer.labels": ["yes", "no"],
        "answer.models": ["cheap", "dear"],
        "prices.models.cheap": {"input": 1.0, "output": 2.0},
        "prices.models.dear": {"input": 100.0, "cached_input": 50.0, "output": 200.0},
    }
    with ChatServer(opinion) as server:
        frame = pl.DataFrame({"prompt": [f"row {number}" for number in range(12)]})
        summary = run_into(tmp_path, server, frame, **settings)
        assert server.arrived == 24 + 4
    read = Page(write_report(tmp_path / "out.csv"))
    # 4 of the 12 first answers of `dear` are invalid: they have no cached tokens, and are followed up
    assert read.row("cheap: prompt") == ["72", "$1.00", "$0.000072", ""]
    assert read.row("cheap: prompt, cached by the endpoint") == ["48", "$1.00", "$0.000048", ""]
    assert read.row("cheap: answers") == ["60", "$2.00", "$0.00012", ""]
    assert read.row("dear: prompt") == ["88", "$100.00", "$0.0088", ""]
    assert read.row("dear: prompt, cached by the endpoint") == ["32", "$50.00", "$0.0016", ""]
    assert read.row("dear: answers") == ["52", "$200.00", "$0.01", ""]
    again = 4 * (26 * 100 + 4 * 50 + 5 * 200) / 1e6
    assert read.row("Follow-ups of invalid or truncated answers")[:3] == ["140", "", f"${again:.2f}"]
    assert read.row("These rows")[:3] == [f"{72 + 48 + 60 + 88 + 32 + 52 + 140}", "", f"${summary.spent:.2f}"]
    assert "12 rows sent to <bdi>cheap + dear</bdi>" in read.source
    assert read.row("1")[:2] == ["9", "75.0 %"]  # 9 of 12 rows have an agreement of 1
    assert read.row("0.5")[:2] == ["3", "25.0 %"]
    assert "agreement 50% · opinions: no | yes" in read.source


def test_an_unknown_price_is_reported_and_not_shown_as_zero(tmp_path: Path, server: ChatServer) -> None:
    run_into(tmp_path, server, pl.DataFrame({"prompt": ["a", "b"]}))
    read = Page(write_report(tmp_path / "out.csv"))
    assert "is unknown, so the cost is unknown, not zero" in read.source
    assert read.row("These rows")[2] == read.row("Prompt")[2] == read.row("ok")[4] == "unknown"
    assert "$0" not in read.source.partition("<body>")[2]
