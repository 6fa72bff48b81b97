"""What a run says before, after a pilot, and at its end."""

from pathlib import Path

import pytest
from builders import job, questions
from chat_server import ChatServer

from pipeline import run
from pipeline.costs.forecast import Interval, PilotResult
from pipeline.runs.texts import pilot_text, summary_text
from pipeline.text import money


def test_what_was_spent_on_rows_that_are_gone_is_named_apart(tmp_path: Path, server: ChatServer) -> None:
    out, priced = tmp_path / "out.csv", {"prices__input": 1.0, "prices__output": 1.0}
    everything = run(job(server.url, questions(tmp_path / "in.csv", range(20)), out, **priced))
    assert everything.elsewhere == pytest.approx(0.0)
    fewer = run(job(server.url, questions(tmp_path / "in.csv", range(5)), out, **priced))
    assert fewer.rows.cost + fewer.elsewhere == pytest.approx(fewer.spent) == pytest.approx(everything.spent)
    assert fewer.elsewhere == pytest.approx(everything.spent * 15 / 20)
    assert f"{money(fewer.elsewhere)} of it for rows that are not in this table" in summary_text(
        job(server.url, tmp_path / "in.csv", out), fewer
    )


def test_a_pilot_names_medians_spreads_the_rest_and_the_line_that_asks_it() -> None:
    pilot = PilotResult(8, 7, (55.0, 63.0, 77.0), (22.0, 22.0, 32.0), Interval(0.5, 2.0), Interval(60.0, 300.0))
    lines = pilot_text(pilot, 52, ["run", "in.csv", "--sample", "8", "-o", "my out.csv", "--sample=9"]).splitlines()
    assert lines == [
        "7 of 8 sampled rows have a valid answer (88%).",
        "  prompt tokens    median 63, 80 % between 55 and 77",
        "  answer tokens    median 22, 80 % between 22 and 32",
        "  other 52 rows  $0.50 to $2.00, 60 s to 5 min (90 % prediction interval)",
        "  Ask them: pipeline run in.csv -o 'my out.csv'",
    ]


def test_what_a_pilot_cannot_know_is_left_out() -> None:
    lines = pilot_text(PilotResult(1, 0, (), (), None, None), 9, None).splitlines()
    assert lines == [
        "0 of 1 sampled rows have a valid answer (0%).",
        "  other 9 rows  cost unknown (90 % prediction interval)",
    ]
