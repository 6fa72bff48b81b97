"""A job is looked at as it stands, running, stopped or dead, and nothing that it says harms a terminal."""

import asyncio
import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from chat_server import ChatServer

from pipeline.execution.live.live import answer_all
from pipeline.execution.local_context import LocalContext
from pipeline.folder import history
from pipeline.folder.folder import make_job_folder
from pipeline.job.job import Job, ThisRun
from pipeline.planning.chains import Chains
from pipeline.planning.keys import keys_hash, keys_path
from pipeline.planning.pending import pending_requests
from pipeline.planning.plan import Plan, make_plan, select_rows
from pipeline.prompts.prompts import Prompts
from pipeline.records import Answer, BadJob, Failure, Outcome, Status, Tally, Usage
from pipeline.results.export import export_table
from pipeline.results.show import show_rows
from pipeline.runs.preview import preview_requests
from pipeline.store.writer import Reader, Store
from pipeline.tables.table import Table, open_table

MINIMAL = {"endpoint.base_url": "http://127.0.0.1:9/v1", "endpoint.model": "m"}
ASKED = {"prompt.template": "Is this good?\n{{ review }}"}
GOOD = Answer(text="yes", finish_reason="stop", usage=Usage(10, 2, total_tokens=12), latency_seconds=0.25, cost=0.0042)
LONG = Failure(kind="too_long", reason="4,097 tokens are too many")


class Begun(AbstractContextManager["Begun"]):
    """A job that was begun in the folder where its output will be, and whose process may be gone."""

    def __init__(
        self, folder: Path, inputs: list[str], output: str, this_run: ThisRun, settings: dict[str, Any]
    ) -> None:
        self.job = Job.load(inputs, folder / output, settings={**MINIMAL, **settings}, this_run=this_run)
        make_job_folder(self.job.folder)
        whole = open_table(inputs, self.job.folder)
        self.table: Table = select_rows(self.job.this_run, whole)
        self.prompts = Prompts(self.job, list(self.table.schema))
        self._store = Store(self.job.folder / "store")
        self._reader = Reader(self.job.folder / "store")
        self.context = LocalContext(self.job, self._store, Tally())
        self.plan: Plan = make_plan(self.job, self.table, self.prompts, self._reader, self.job.folder)
        self.keys = keys_path(self.job.folder)
        history.record_start(self.job, ["run"], whole.content_hash, whole.path, keys_hash(self.keys))

    def record(self, *outcomes: Outcome | None) -> None:
        """The outcomes of the first rows; None leaves one pending."""

        async def all_of_them() -> None:
            for row, outcome in zip(self.rows(), outcomes, strict=False):
                requests = self.prompts.requests(row)
                if outcome is not None:
                    assert isinstance(requests, list)
                    await self.context.record(requests[0], outcome)

        asyncio.run(all_of_them())

    def rows(self) -> list[dict[str, Any]]:
        return [row for frame in self.table.slices() for row in frame.to_dicts()]

    def answer(self) -> None:
        chains = Chains(self.job, self._reader)
        requests = pending_requests(self.table, self.prompts, self.plan, self.keys, chains)
        asyncio.run(answer_all(self.job, requests, self.context))

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self._store.close()


Begin = Callable[..., Begun]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    with ExitStack() as open_things:

        def begun(*inputs: str, output: str = "out.csv", this_run: ThisRun | None = None, **settings: Any) -> Begun:
            names = [name if name == "-" else str(tmp_path / name) for name in inputs]
            return open_things.enter_context(Begun(tmp_path, names, output, this_run or ThisRun(), settings))

        yield begun


@pytest.fixture
def reviews(tmp_path: Path) -> str:
    (tmp_path / "in.csv").write_text("id,review\n1,Lovely.\n2,Dreadful.\n3,So so.\n4,\n", "utf-8")
    return "in.csv"


def shown(job: Begun, status: Status | None = None, row: int | None = None, most: int = 20) -> list[str]:
    return list(show_rows(job.job.output_path, status=status, row=row, most=most))


def test_rows_are_shown_with_prompt_answer_and_numbers(begin: Begin, reviews: str) -> None:
    job = begin(reviews, **ASKED)
    job.record(GOOD, LONG)
    why = "the template prints a null; write {{ column or '' }} where one may stand"
    assert shown(job) == [
        "row 1 · ok · 12 tokens · $0.0042 · 0.2 s\n    Is this good?\n    Lovely.\n  → yes\n",
        "row 2 · failed\n    Is this good?\n    Dreadful.\n  ! too_long: 4,097 tokens are too many\n",
        "row 3 · pending\n    Is this good?\n    So so.\n",
        f"row 4 · failed\n    ({why})\n  ! prompt: {why}\n",
    ]


def test_rows_of_one_status_are_shown_up_to_as_many_as_are_wanted(begin: Begin, reviews: str) -> None:
    job = begin(reviews, **ASKED)
    job.record(GOOD, LONG, GOOD)
    assert [text.split(" · ")[0] for text in shown(job, "ok")] == ["row 1", "row 3"]
    assert [text.split(" · ")[0].split("\n")[0] for text in shown(job, "failed")] == ["row 2", "row 4"]
    assert len(shown(job, "ok", most=1)) == 1
    assert len(shown(job, most=2)) == 2
    assert shown(job, "pending") == ["None of 4 rows is pending."]


def test_one_row_is_shown_by_its_number(begin: Begin, reviews: str) -> None:
    job = begin(reviews, **ASKED)
    job.record(GOOD, LONG)
    [text] = shown(job, row=2)
    assert text.startswith("row 2 · failed")
    assert shown(job, "failed", row=2) == [text]
    assert shown(job, "ok", row=2) == ["Row 2 is not ok."]
    assert shown(job, row=5) == ["There is no row 5: the table has 4."]


def test_a_table_without_rows_is_said_to_be_empty(begin: Begin, tmp_path: Path) -> None:
    pl.DataFrame({"prompt": []}, schema={"prompt": pl.String}).write_parquet(tmp_path / "in.parquet")
    assert shown(begin("in.parquet")) == ["The input has no rows."]


def test_what_could_harm_a_terminal_is_not_shown(begin: Begin, tmp_path: Path) -> None:
    pl.DataFrame({"prompt": ["bell\x07 \x1b[2J"]}).write_parquet(tmp_path / "in.parquet")
    job = begin("in.parquet")
    job.record(Answer(text="\x1b]0;title\x07 \u202eflipped\r\nnext"))
    [text] = shown(job)
    assert text == "row 1 · ok\n    bell� �\n  → � �flipped\n    next\n"


@pytest.mark.parametrize("prefix", ["m_", ""])
def test_a_row_is_shown_whole_whatever_columns_the_output_wants_and_whatever_their_prefix(
    begin: Begin, tmp_path: Path, prefix: str
) -> None:
    pl.DataFrame({"prompt": ["a"], "status": ["theirs"]}).write_parquet(tmp_path / "in.parquet")
    job = begin("in.parquet", **{"output.prefix": prefix, "output.columns": ["answer"]})
    job.record(GOOD)
    assert shown(job) == ["row 1 · ok · 12 tokens · $0.0042 · 0.2 s\n    a\n  → yes\n"]


@pytest.mark.parametrize(
    ("content", "prompt"),
    [
        ("Good?", "Good?"),
        ([{"type": "text", "text": "Größe?"}], '[{"type":"text","text":"Größe?"}]'),
    ],
)
def test_a_job_over_whole_chats_shows_the_last_message(
    begin: Begin, tmp_path: Path, content: object, prompt: str
) -> None:
    chat = [{"role": "system", "content": content}, {"role": "user", "content": content}]
    pl.DataFrame({"messages": [chat]}).write_parquet(tmp_path / "in.parquet")
    job = begin("in.parquet")
    job.record(GOOD)
    assert f"\n    {prompt}\n" in shown(job)[0]


def test_an_answer_that_does_not_fit_is_shown_with_what_is_wrong(begin: Begin, reviews: str) -> None:
    job = begin(reviews, **ASKED, **{"answer.labels": ["yes", "no"], "answer.repairs": 0})
    job.record(Answer(text="Yes, I think."))
    [text] = shown(job, "invalid")
    assert "  → Yes, I think.\n  ! invalid: not JSON" in text


def test_a_job_is_exported_as_far_as_it_is_known(begin: Begin, reviews: str, tmp_path: Path) -> None:
    job = begin(reviews, **ASKED)
    job.record(GOOD, None, LONG)
    path, tally = export_table(job.job.folder, None)
    assert path == tmp_path / "out.csv"
    table = pl.read_csv(path)
    assert table["id"].to_list() == [1, 2, 3, 4]
    assert table["status"].to_list() == ["ok", "pending", "failed", "failed"]
    assert table["answer"].to_list() == ["yes", None, None, None]
    assert tally == Tally(ok=1, pending=1, failed=2, usage=GOOD.usage, cost=0.0042, unpriced=1)


@pytest.mark.parametrize("other", ["other.parquet", "other.ndjson.gz", "other.arrow"])
def test_a_job_is_exported_to_another_format_and_its_own_output_left_alone(
    begin: Begin, reviews: str, tmp_path: Path, other: str
) -> None:
    job = begin(reviews, **ASKED)
    job.record(GOOD)
    assert export_table(tmp_path / "out.csv", tmp_path / other)[0] == tmp_path / other
    readers = {".parquet": pl.read_parquet, ".gz": pl.read_ndjson, ".arrow": pl.read_ipc}
    table = readers[Path(other).suffix](tmp_path / other)
    assert table["status"].to_list() == ["ok", "pending", "pending", "failed"]
    assert not (tmp_path / "out.csv").exists()


def test_a_pilot_is_exported_and_shown_with_its_rows_alone(begin: Begin, reviews: str, tmp_path: Path) -> None:
    job = begin(reviews, this_run=ThisRun(limit=2), **ASKED)
    job.record(GOOD)
    assert export_table(job.job.folder, None)[1] == Tally(ok=1, pending=1, usage=GOOD.usage, cost=0.0042)
    assert len(shown(job)) == 2
    assert pl.read_csv(tmp_path / "out.csv").height == 2


@pytest.mark.parametrize("name", ["in.csv", "second.csv"])
def test_an_export_never_overwrites_what_the_table_was_read_from(begin: Begin, tmp_path: Path, name: str) -> None:
    for each in ("in.csv", "second.csv"):
        (tmp_path / each).write_text("prompt\na\n", "utf-8")
    job = begin("*.csv")
    with pytest.raises(BadJob, match="no input is written over"):
        export_table(job.job.folder, tmp_path / name)
    assert (tmp_path / name).read_text("utf-8") == "prompt\na\n"


def test_an_export_never_overwrites_the_snapshot(begin: Begin, reviews: str) -> None:
    job = begin(reviews, **ASKED)
    with pytest.raises(BadJob, match="no input is written over"):
        export_table(job.job.folder, job.table.path)


def test_a_csv_that_is_gone_is_read_from_its_snapshot(begin: Begin, reviews: str, tmp_path: Path) -> None:
    job = begin(reviews, **ASKED)
    job.record(GOOD)
    (tmp_path / reviews).unlink()
    assert export_table(job.job.folder, None)[1].ok == 1
    assert len(shown(job)) == 4


def test_a_job_from_standard_input_is_shown_and_exported(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"prompt\nGood?\n")))
    job = begin("-")
    job.record(GOOD)
    assert "    Good?\n" in shown(job)[0]
    assert export_table(job.job.folder, tmp_path / "other.csv")[1].ok == 1


def test_a_parquet_that_has_changed_since_is_refused(begin: Begin, tmp_path: Path) -> None:
    pl.DataFrame({"prompt": ["a"]}).write_parquet(tmp_path / "in.parquet")
    job = begin("in.parquet")
    pl.DataFrame({"prompt": ["b"]}).write_parquet(tmp_path / "in.parquet")
    with pytest.raises(BadJob, match=r"in\.parquet has changed since the last run"):
        shown(job)
    with pytest.raises(BadJob, match="has changed"):
        export_table(job.job.folder, None)
    assert not (tmp_path / "out.csv").exists()


def test_a_folder_in_which_nothing_was_run_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "out.csv.job").mkdir()
    (tmp_path / "out.csv.job" / "history.jsonl").write_bytes(b"")
    with pytest.raises(BadJob, match="nothing was ever run here"):
        export_table(tmp_path / "out.csv", None)


def test_a_job_that_is_being_asked_can_be_looked_at(begin: Begin, tmp_path: Path, server: ChatServer) -> None:
    pl.DataFrame({"prompt": [f"p{row}" for row in range(20)]}).write_parquet(tmp_path / "in.parquet")
    job = begin("in.parquet", **{"endpoint.base_url": server.url})
    seen: list[int] = []

    def looking(seen_request: object, attempt: int) -> None:
        seen.append(export_table(job.job.folder, tmp_path / "so_far.csv")[1].ok)

    server.reply = looking
    job.answer()
    assert seen == sorted(seen)
    assert (seen[0], len(seen)) == (0, 20)
    assert export_table(job.job.folder, tmp_path / "so_far.csv")[1] == Tally(
        ok=20, usage=job.context.asked.usage, unpriced=20, attempts=20
    )


def previewed(tmp_path: Path, inputs: list[str], rows: int, **settings: Any) -> list[str]:
    job = Job.load([str(tmp_path / name) for name in inputs], settings={**MINIMAL, **settings})
    return list(preview_requests(job, rows))


def test_a_preview_is_what_would_be_sent(tmp_path: Path, reviews: str) -> None:
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


def test_a_preview_tells_which_rows_cannot_be_asked_and_writes_nothing(tmp_path: Path, reviews: str) -> None:
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


def test_a_preview_finds_what_makes_the_job_a_bad_one(tmp_path: Path, reviews: str) -> None:
    with pytest.raises(BadJob, match="did you mean 'review'"):
        previewed(tmp_path, [reviews], 1, **{"prompt.template": "{{ reveiw }}"})
    (tmp_path / "clash.csv").write_text("prompt,status\na,b\n", "utf-8")
    with pytest.raises(BadJob, match=r"\[output\]"):
        previewed(tmp_path, ["clash.csv"], 1)
    with pytest.raises(BadJob, match="not a JSON Schema"):
        previewed(tmp_path, [reviews], 1, **ASKED, **{"answer.schema": {"type": "object", "required": 1}})
