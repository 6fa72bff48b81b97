"""Answers outlive what only changes how they are read, and, where that is wanted, an earlier contract."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from chat_server import Canned, ChatServer, Seen, completion

from pipeline import BadJob, Job, Summary, ThisRun, run

LABELS = ["good", "bad"]
ROWS = ["good one", "bad one", "good two", "odd one"]


def said(seen: Seen, _attempt: int) -> Canned:
    """The first word is the label; what is odd is asked for again, and then bad."""
    word = seen.body["messages"][0]["content"].split()[1]
    word = word if word != "odd" or len(seen.body["messages"]) == 1 else "bad"
    return Canned(body=completion(f'{{"label": "{word}"}}'))


@pytest.fixture
def server() -> Any:
    with ChatServer(said) as running:
        yield running


def ask(server: ChatServer, folder: Path, **flags: Any) -> tuple[Summary, pl.DataFrame, int]:
    """The summary, the table, and how many requests were sent."""
    pl.DataFrame({"text": ROWS}).write_csv(folder / "in.csv")
    settings = {"endpoint.base_url": server.url, "endpoint.model": "m", "prompt.template": "Label {{ text }}"}
    settings |= {"answer.labels": LABELS, "answer.repairs": 0}
    settings |= {name.replace("__", "."): value for name, value in flags.items()}
    before = len(server.log)
    job = Job.load(
        [folder / "in.csv"],
        folder / "out.parquet",
        settings=settings,
        this_run=ThisRun(verbosity=-1, assume_yes=True),
    )
    summary = run(job)
    return summary, pl.read_parquet(folder / "out.parquet"), len(server.log) - before


def test_a_renamed_column_is_read_anew_and_nothing_is_sent(server: ChatServer, tmp_path: Path) -> None:
    _, before, sent = ask(server, tmp_path)
    assert sent == 4
    _, after, sent = ask(server, tmp_path, answer__name="verdict", output__prefix="m_")
    assert sent == 0
    assert after["m_verdict"].to_list() == before["label"].to_list() == ["good", "bad", "good", None]


def test_a_wider_set_of_labels_is_another_question(server: ChatServer, tmp_path: Path) -> None:
    ask(server, tmp_path)
    assert ask(server, tmp_path, answer__labels=[*LABELS, "odd"])[2] == 4


def test_old_answers_that_fit_a_wider_set_of_labels_are_kept_where_that_is_wanted(
    server: ChatServer, tmp_path: Path
) -> None:
    ask(server, tmp_path)
    wider = {"answer__labels": [*LABELS, "odd"], "answer__keep_old": True}
    summary, table, sent = ask(server, tmp_path, **wider)
    assert (sent, summary.rows.ok) == (0, 4)
    assert table["label"].to_list() == ["good", "bad", "good", "odd"]
    assert table["label"].dtype == pl.Enum([*LABELS, "odd"])
    log = (tmp_path / "out.parquet.job" / "log.txt").read_text("utf-8")
    assert "4 answered before, 4 of them to an earlier [answer] that still fit, 0 to ask" in log
    assert ask(server, tmp_path, **wider)[2] == 0


def test_of_a_narrower_set_what_does_not_fit_is_asked(server: ChatServer, tmp_path: Path) -> None:
    ask(server, tmp_path)
    _, table, sent = ask(server, tmp_path, answer__labels=["good"], answer__keep_old=True)
    assert sent == 2
    assert table["label"].to_list() == ["good", None, "good", None]


def test_an_answer_to_another_prompt_is_not_kept(server: ChatServer, tmp_path: Path) -> None:
    ask(server, tmp_path)
    other = {"answer__labels": [*LABELS, "odd"], "prompt__template": "Mark {{ text }}", "answer__keep_old": True}
    assert ask(server, tmp_path, **other)[2] == 4


def test_another_description_is_agreed_to_with_its_price_and_another_column_name_is_not(
    server: ChatServer, tmp_path: Path
) -> None:
    def schema(description: str) -> dict[str, Any]:
        label = {"type": "string", "enum": ["good", "bad", "odd"], "description": description}
        return {"type": "object", "properties": {"label": label}, "required": ["label"]}

    def careful(**flags: Any) -> int:
        before = len(server.log)
        settings = {"endpoint.base_url": server.url, "endpoint.model": "m", "prompt.template": "Label {{ text }}"}
        settings |= {"prices.input": 1.0, "prices.output": 1.0, **flags}
        quiet = ThisRun(verbosity=-1)
        run(Job.load([tmp_path / "in.csv"], tmp_path / "out.parquet", settings=settings, this_run=quiet))
        return len(server.log) - before

    pl.DataFrame({"text": ROWS}).write_csv(tmp_path / "in.csv")
    assert careful(**{"answer.schema": schema("what it is")}) == 4
    told = (
        r"answer changed since .*: 0 of 4 answers fit\.\nTo ask 4 rows again, about \$.*, add --yes\. Nothing was sent"
    )
    with pytest.raises(BadJob, match=told):
        careful(**{"answer.schema": schema("what it is not")})
    labels = {"answer.labels": [*LABELS, "odd"]}
    with pytest.raises(BadJob, match=told):
        careful(**labels)
    assert careful(**labels, **{"answer.keep_old": True}) == 0
    assert careful(**labels, **{"answer.keep_old": True, "answer.name": "verdict", "output.prefix": "m_"}) == 0
