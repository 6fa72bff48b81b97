"""The requests that a plan sends are rendered when their turn comes, and are those that were planned."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from planned_table import OK, PlannedTable

from pipeline.prompts.prompts import Prompts
from pipeline.records import Answer, Stopped


def test_an_input_that_changes_during_a_run_stops_it(tmp_path: Path, make: Callable[..., PlannedTable]) -> None:
    rows = make("a", "b")
    plan = rows.plan()
    pl.DataFrame({"prompt": ["a", "other"]}).write_parquet(tmp_path / "in.parquet")
    with pytest.raises(Stopped, match="was changed while the job was reading it"):
        rows.asked(plan)


def test_a_row_that_renders_another_prompt_than_planned_stops_the_run(make: Callable[..., PlannedTable]) -> None:
    rows = make("a", "b")
    plan = rows.plan()
    rows.prompts = Prompts(rows.job().model_copy(update={"parameters": {"seed": 1}}), ["prompt"])
    with pytest.raises(Stopped, match=r"not the one that was planned(.|\n)*Every answer so far is kept"):
        rows.asked(plan)


def test_a_chain_that_has_answers_is_continued_with_its_follow_up(make: Callable[..., PlannedTable]) -> None:
    rows = make("a", "b", **{"answer.labels": ["yes", "no"]})
    rows.record_chains((rows.request("b"), [Answer(text="Hm."), Answer(text="Perhaps.")]))
    first, repair = rows.asked(rows.plan())
    assert first == rows.request("a")
    assert repair == rows.chains(rows.request("b"))[0].next_request
    assert (repair.repair, b"Perhaps." in repair.body) == (2, True)


def test_of_the_samples_of_a_row_only_those_without_an_answer_are_asked(make: Callable[..., PlannedTable]) -> None:
    rows = make("a", "b", **{"answer.samples": 2})
    rows.record_chains((rows.request("a", 1), [OK]))
    assert rows.asked(rows.plan()) == [rows.request("a", 0), rows.request("b", 0), rows.request("b", 1)]
