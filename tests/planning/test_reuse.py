"""Answers are reused after a change that the model does not see, and with keep_old after a change of the contract."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from chat_server import Canned, ChatServer, Seen, completion

from pipeline import BadJob, Job, Summary, ThisRun, run

LABELS = ["good", "bad"]
ROWS = ["good one", "bad one", "good two", "odd one"]


def reply(seen: Seen, _attempt: int) -> Canned:
    """The label is the first word of the row; that of an odd row becomes bad when it is asked again."""
    word = seen.body["messages"][0]["content"].split()[1]
    word = word if word != "odd" or len(seen.body["messages"]) == 1 else "bad"
    return Canned(body=completion(f'{{"label": "{word}"}}'))


@pytest.fixture
def server() -> Any:
    with ChatServer(reply) as running:
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


def test_after_a_column_is_renamed_nothing_is_sent(server: ChatServer, tmp_path: Path) -> None:
    _, before, sent = ask(server, tmp_path)
    assert sent == 4
    _, after, sent = ask(server, tmp_path, answer__name="verdict", output__prefix="m_")
    assert sent == 0
    assert after["m_verdict"].to_list() == before["label"].to_list() == ["good", "bad", "good", None]


def test_with_another_label_every_row_is_asked_again(server: ChatServer, tmp_path: Path) -> None:
    ask(server, tmp_path)
    assert ask(server, tmp_path, answer__labels=[*LABELS, "odd"])[2] == 4


def test_with_keep_old_answers_that_fit_a_larger_set_of_labels_are_reused(server: ChatServer, tmp_path: Path) -> None:
    ask(server, tmp_path)
    wider = {"answer__labels": [*LABELS, "odd"], "answer__keep_old": True}
    summary, table, sent = ask(server, tmp_path, **wider)
    assert (sent, summary.rows.ok) == (0, 4)
    assert table["label"].to_list() == ["good", "bad", "good", "odd"]
    assert table["label"].dtype == pl.Enum([*LABELS, "odd"])
    log = (tmp_path / "out.parquet.job" / "log.txt").read_text("utf-8")
    assert "4 answered before, 4 of them under an earlier [answer] that are still valid, 0 to ask" in log
    assert ask(server, tmp_path, **wider)[2] == 0


def test_with_keep_old_rows_whose_answer_does_not_fit_a_smaller_set_are_asked(
    server: ChatServer, tmp_path: Path
) -> None:
    ask(server, tmp_path)
    _, table, sent = ask(server, tmp_path, answer__labels=["good"], answer__keep_old=True)
    assert sent == 2
    assert table["label"].to_list() == ["good", None, "good", None]


def test_an_answer_to_another_prompt_is_not_reused(server: ChatServer, tmp_path: Path) -> None:
    ask(server, tmp_path)
    other = {"answer__labels": [*LABELS, "odd"], "prompt__template": "Mark {{ text }}", "answer__keep_old": True}
    assert ask(server, tmp_path, **other)[2] == 4


def test_a_changed_description_needs_consent_to_its_price_and_a_changed_column_name_does_not(
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
    message = (
        r"answer changed since .*: 0 of 4 stored answers can be used\.\nTo ask 4 rows again, about \$.*, add --yes"
    )
    with pytest.raises(BadJob, match=message):
        careful(**{"answer.schema": schema("what it is not")})
    labels = {"answer.labels": [*LABELS, "odd"]}
    with pytest.raises(BadJob, match=message):
        careful(**labels)
    assert careful(**labels, **{"answer.keep_old": True}) == 0
    assert careful(**labels, **{"answer.keep_old": True, "answer.name": "verdict", "output.prefix": "m_"}) == 0
