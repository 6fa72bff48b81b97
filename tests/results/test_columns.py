"""Every row of the output has its added columns, of the right types, and unknown values are null."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from job_files import MINIMAL
from started_job import StartedJob

from pipeline.execution.local_context import LocalContext
from pipeline.job.job import Job, ThisRun, settings_id
from pipeline.planning.keys import keys_path
from pipeline.planning.plan import make_plan
from pipeline.prompts.prompts import Prompts
from pipeline.records import STATUSES, TOKEN_COUNTS, Answer, BadJob, Failure, Outcome, Tally, Usage
from pipeline.results.columns import FIXED, ROWS_AT_ONCE, OutputTable, output_schema
from pipeline.store.reader import PART_BYTES, Reader
from pipeline.store.writer import Store
from pipeline.tables.open import open_table

AT = datetime(2026, 11, 22, 3, 10, 0, 123456, tzinfo=UTC)
HOW = {"attempts": 2, "asked_at": AT, "latency_seconds": 0.25, "cost": 0.5}
USED = Usage(10, 2, 1, 4, 12)
OK = Answer(text="yes", finish_reason="stop", model="m-1", usage=USED, **HOW)
ONCE = {"answer.repairs": 0}
NO_CELLS = dict.fromkeys(FIXED)
KINDS = {
    "type": "object",
    "properties": {
        "word": {"type": "string"},
        "stars": {"type": "integer"},
        "score": {"type": "number"},
        "good": {"type": "boolean"},
        "mood": {"enum": ["glad", "sad"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "who": {"type": "object"},
        "any": {},
        "maybe": {"type": ["integer", "null"]},
        "mixed": {"type": ["integer", "string"]},
        "choice": {"type": ["string", "null"], "enum": ["a", "b", "b", None]},
        "odd": {"enum": ["a", 1]},
        "all": True,
    },
}


def job_with(**job_settings: Any) -> Job:
    return Job.load(["in.parquet"], "out.csv", settings={**MINIMAL, **job_settings})


def written(
    folder: Path, table: pl.DataFrame, outcomes: dict[str, Outcome], **job_settings: Any
) -> tuple[pl.DataFrame, Tally]:
    """The output of a table whose prompts have these outcomes, and its tally; both checked against the schema."""
    table.write_parquet(folder / "in.parquet")
    job = job_with(**job_settings)
    opened = open_table([str(folder / "in.parquet")], folder)
    prompts = Prompts(job, list(opened.schema))
    store = Store(folder / "store")
    with closing(store), closing(Reader(store.folder)) as reader:
        context = LocalContext(job, store, Tally())

        async def record() -> None:
            for prompt, outcome in outcomes.items():
                requests = prompts.requests({"prompt": prompt})
                assert isinstance(requests, list)
                await context.record(requests[0], outcome)

        asyncio.run(record())
        make_plan(job, opened, prompts, reader, folder)
        cells = OutputTable(job, opened, keys_path(folder), reader)
        frame = pl.concat([output_schema(job, opened).to_frame(), *cells.frames()])
    assert frame.schema == output_schema(job, opened)
    assert frame.select(table.columns).equals(table)
    return frame, cells.tally


def table_of(*prompts: str | None) -> pl.DataFrame:
    return pl.DataFrame({"id": range(len(prompts)), "prompt": prompts}, schema={"id": pl.Int32, "prompt": pl.String})


def added(folder: Path, prompts: Sequence[str | None], outcomes: dict[str, Outcome], **settings: Any) -> list[Any]:
    return written(folder, table_of(*prompts), outcomes, **settings)[0].drop("id", "prompt").to_dicts()


SHOWN = {
    "answer": "yes",
    "finish_reason": "stop",
    "model": "m-1",
    "prompt_tokens": 10,
    "completion_tokens": 2,
    "reasoning_tokens": 1,
    "cached_tokens": 4,
    "total_tokens": 12,
    "cost": 0.5,
    "latency_seconds": 0.25,
    "attempts": 2,
    "asked_at": AT,
}
UNCOUNTED = dict.fromkeys(TOKEN_COUNTS[:5])


@pytest.mark.parametrize(
    ("outcome", "cells"),
    [
        (OK, {**SHOWN, "status": "ok"}),
        (
            msgspec.structs.replace(OK, finish_reason="length"),
            {**SHOWN, "status": "truncated", "finish_reason": "length"},
        ),
        (
            msgspec.structs.replace(OK, text="", finish_reason="content_filter"),
            {**SHOWN, "answer": "", "status": "filtered", "finish_reason": "content_filter"},
        ),
        (
            msgspec.structs.replace(OK, text="I will not.", refusal="I will not."),
            {**SHOWN, "answer": "I will not.", "status": "refused"},
        ),
        (
            Failure(kind="too_long", reason="4,097 tokens", **HOW),
            {
                "status": "failed",
                "error": "too_long: 4,097 tokens",
                "cost": 0.5,
                "latency_seconds": 0.25,
                "attempts": 2,
                "asked_at": AT,
            },
        ),
        (
            Failure(kind="filtered", reason="policy"),
            {"status": "filtered", "error": "filtered: policy", "attempts": 0},
        ),
        (Failure(kind="timeout", reason="slow", lasting=False, attempts=6), {
            "status": "failed", "error": "timeout: slow", "attempts": 6,
        }),
    ],
)  # fmt: skip
def test_each_outcome_has_its_cells(tmp_path: Path, outcome: Outcome, cells: dict[str, Any]) -> None:
    name = {"settings": settings_id(job_with().seen_by_model())}
    assert added(tmp_path, ["a"], {"a": outcome}) == [{**NO_CELLS, **name, **cells}]


def test_a_row_without_an_outcome_is_pending_and_all_else_is_null(tmp_path: Path) -> None:
    assert added(tmp_path, ["a"], {}) == [{**NO_CELLS, "status": "pending"}]


def test_a_row_that_cannot_be_asked_says_why_and_cost_nothing(tmp_path: Path) -> None:
    rows = added(tmp_path, ["a", None], {"a": OK})
    assert rows[1] == {
        **NO_CELLS, "status": "failed", "error": "prompt: the prompt is null", "cost": 0.0, "attempts": 0,
    }  # fmt: skip


def test_unknown_counts_and_costs_are_null_and_never_0(tmp_path: Path) -> None:
    [row] = added(tmp_path, ["a"], {"a": Answer(text="yes", attempts=1)})
    assert {name: row[name] for name in (*UNCOUNTED, "cost", "latency_seconds", "asked_at", "model")} == {
        **UNCOUNTED, "cost": None, "latency_seconds": None, "asked_at": None, "model": None,
    }  # fmt: skip


def test_added_columns_follow_those_of_the_input_in_order_and_with_their_types(tmp_path: Path) -> None:
    frame, _ = written(tmp_path, table_of("a"), {}, **{"answer.labels": ["yes", "no"]})
    assert frame.columns[:4] == ["id", "prompt", "answer", "label"]
    assert dict(frame.schema) == {
        "id": pl.Int32(),
        "prompt": pl.String(),
        "label": pl.Enum(["yes", "no"]),
        "repaired": pl.String(),
        **FIXED,
    }


def test_equal_rows_repeat_the_answer_at_no_cost_and_no_attempts(tmp_path: Path) -> None:
    frame, tally = written(tmp_path, table_of("a", "b", "a", "a"), {"a": OK, "b": OK})
    first, _, *others = frame.drop("id", "prompt").to_dicts()
    assert others == [{**first, "cost": 0.0, "attempts": 0}] * 2
    assert frame["cost"].sum() == tally.cost == 1.0
    assert tally == Tally(ok=4, usage=USED + USED, cost=1.0, attempts=4)


def test_an_equal_row_of_an_unpriced_one_costs_0_and_the_first_is_unknown(tmp_path: Path) -> None:
    unpriced = msgspec.structs.replace(OK, cost=None)
    frame, tally = written(tmp_path, table_of("a", "a"), {"a": unpriced})
    assert frame["cost"].to_list() == [None, 0.0]
    assert (tally.unpriced, tally.cost) == (1, 0.0)


def test_a_label_has_its_column_under_the_name_that_was_asked_for(tmp_path: Path) -> None:
    held = {"a": Answer(text='{"label": "yes"}'), "b": Answer(text='{"label": "meh"}')}
    rows = added(tmp_path, ["a", "b", "c"], held, **{"answer.labels": ["yes", "no"], "answer.name": "verdict"}, **ONCE)
    assert [row["verdict"] for row in rows] == ["yes", None, None]
    assert [row["status"] for row in rows] == ["ok", "invalid", "pending"]


@pytest.mark.parametrize("text", ["perhaps", "", '{"label": "meh"}', '{"label": 3}', "{}"])
def test_an_answer_that_does_not_fit_keeps_its_raw_text_and_says_what_is_wrong(tmp_path: Path, text: str) -> None:
    [row] = added(tmp_path, ["a"], {"a": Answer(text=text)}, **{"answer.labels": ["yes"]}, **ONCE)
    assert (row["status"], row["answer"], row["label"]) == ("invalid", text, None)
    assert row["error"].startswith(("invalid: not JSON", "invalid: at /"))


def test_a_truncated_answer_has_no_typed_cells_and_no_error(tmp_path: Path) -> None:
    cut = Answer(text='{"label": "y', finish_reason="length")
    [row] = added(tmp_path, ["a"], {"a": cut}, **{"answer.labels": ["yes"]})
    assert (row["status"], row["answer"], row["label"], row["error"]) == ("truncated", '{"label": "y', None, None)


def test_every_property_has_a_column_of_its_type(tmp_path: Path) -> None:
    value = {
        "word": "größer \U0001f642",
        "stars": 4,
        "score": 0.5,
        "good": True,
        "mood": "glad",
        "tags": ["ä", "b"],
        "who": {"name": "Ada"},
        "any": None,
        "maybe": None,
        "mixed": 3,
        "choice": None,
        "odd": 1,
        "all": [1],
    }
    frame, _ = written(tmp_path, table_of("a"), {"a": Answer(text=json.dumps(value))}, **{"answer.schema": KINDS})
    assert dict(frame.select(list(value)).schema) == {
        "word": pl.String(),
        "stars": pl.Int64(),
        "score": pl.Float64(),
        "good": pl.Boolean(),
        "mood": pl.Enum(["glad", "sad"]),
        "tags": pl.List(pl.String()),
        "who": pl.String(),
        "any": pl.String(),
        "maybe": pl.Int64(),
        "mixed": pl.String(),
        "choice": pl.Enum(["a", "b"]),
        "odd": pl.String(),
        "all": pl.String(),
    }
    row = frame.row(0, named=True)
    as_text = {"who": '{"name": "Ada"}', "mixed": "3", "odd": "1", "all": "[1]"}
    assert {name: row[name] for name in value} == {**value, **as_text}


@pytest.mark.parametrize(
    ("text", "cell"), [("3", 3), ("3.0", 3), ("null", None), (str(2**63 - 1), 2**63 - 1), (str(-(2**63)), -(2**63))]
)
def test_a_whole_number_of_64_bits_is_a_cell(tmp_path: Path, text: str, cell: int | None) -> None:
    answer = f'{{"maybe": {text}}}'
    [row] = added(tmp_path, ["a"], {"a": Answer(text=answer)}, **{"answer.schema": KINDS})
    assert (row["status"], row["maybe"], row["answer"]) == ("ok", cell, answer)


@pytest.mark.parametrize("text", [str(2**63), str(-(2**63) - 1), "1e30"])
def test_a_whole_number_that_its_column_cannot_hold_is_invalid_and_the_text_has_it(tmp_path: Path, text: str) -> None:
    answer = f'{{"maybe": {text}}}'
    [row] = added(tmp_path, ["a"], {"a": Answer(text=answer)}, **{"answer.schema": KINDS}, **ONCE)
    assert (row["status"], row["maybe"], row["answer"]) == ("invalid", None, answer)
    assert row["error"] == "invalid: at /maybe: a number larger than its column can hold"


@pytest.mark.parametrize(
    ("number", "status"),
    [("-1e308", "ok"), ("1e-400", "ok"), (str(2**64), "ok"), ("1" + "0" * 400, "invalid"), ("-1e400", "invalid")],
)
def test_a_number_of_any_size_is_a_cell_or_invalid(tmp_path: Path, number: str, status: str) -> None:
    [row] = added(tmp_path, ["a"], {"a": Answer(text=f'{{"score": {number}}}')}, **{"answer.schema": KINDS}, **ONCE)
    assert (row["status"], row["score"]) == (status, float(number) if status == "ok" else None)


def test_a_prefix_is_put_before_every_added_column(tmp_path: Path) -> None:
    frame, _ = written(
        tmp_path, table_of("a"), {"a": Answer(text='{"label": "yes"}')},
        **{"output.prefix": "m_", "answer.labels": ["yes"]},
    )  # fmt: skip
    assert frame.columns[:6] == ["id", "prompt", "m_answer", "m_label", "m_repaired", "m_status"]
    assert all(name.startswith("m_") for name in frame.columns[2:])
    assert frame["m_label"].to_list() == ["yes"]


@pytest.mark.parametrize("wanted", [[], ["label"], ["cost", "label", "status"]])
def test_output_columns_come_in_the_order_of_the_setting(tmp_path: Path, wanted: list[str]) -> None:
    held = {"a": msgspec.structs.replace(OK, text='{"label": "yes"}')}
    frame, tally = written(tmp_path, table_of("a", "b"), held, **{"output.columns": wanted, "answer.labels": ["yes"]})
    assert frame.columns == ["id", "prompt", *wanted]
    assert frame.height == 2
    assert tally == Tally(ok=1, pending=1, usage=USED, cost=0.5, attempts=2)


def test_an_added_column_with_the_name_of_an_input_column_is_refused_with_the_line_to_add(tmp_path: Path) -> None:
    pl.DataFrame({"prompt": ["a"], "status": ["new"], "cost": [1]}).write_parquet(tmp_path / "in.parquet")
    table = open_table([str(tmp_path / "in.parquet")], tmp_path)
    with pytest.raises(
        BadJob, match=r'status, cost\.\n(.|\n)*\n\[output\]\nprefix = "model_"\n(.|\n)*Nothing was sent'
    ):
        output_schema(job_with(), table)
    assert "model_status" in output_schema(job_with(**{"output.prefix": "model_"}), table)


def test_the_prefix_that_is_printed_is_free(tmp_path: Path) -> None:
    pl.DataFrame({"prompt": ["a"], "status": ["new"], "model_cost": [1]}).write_parquet(tmp_path / "in.parquet")
    table = open_table([str(tmp_path / "in.parquet")], tmp_path)
    with pytest.raises(BadJob, match='prefix = "_model_"'):
        output_schema(job_with(), table)
    assert output_schema(job_with(**{"output.prefix": "_model_"}), table)


def test_a_name_clashes_only_if_its_column_is_wanted(tmp_path: Path) -> None:
    table = pl.DataFrame({"prompt": ["a"], "status": ["new"]})
    frame, _ = written(tmp_path, table, {"a": OK}, **{"output.columns": ["answer"]})
    assert frame.columns == ["prompt", "status", "answer"]


def test_tables_longer_than_a_slice_keep_their_order(tmp_path: Path) -> None:
    rows = ROWS_AT_ONCE + 10
    prompts = [str(row % 3) for row in range(rows)]
    outcomes: dict[str, Outcome] = {name: Answer(text=f"re:{name}") for name in "01"}
    frame, tally = written(tmp_path, table_of(*prompts), outcomes)
    assert frame["answer"].to_list() == [None if name == "2" else f"re:{name}" for name in prompts]
    assert (tally.rows, tally.pending) == (rows, prompts.count("2"))


def test_a_frame_ends_where_the_answers_of_its_rows_become_large(tmp_path: Path) -> None:
    table_of(*"ab", None, *"cdefgh", None).write_parquet(tmp_path / "in.parquet")
    heights, rows_said = [], []
    with StartedJob(tmp_path, [str(tmp_path / "in.parquet")], "out.csv", ThisRun(), {}) as started:
        large = Answer(text="Yes. " * (PART_BYTES // 20))
        started.record(large, OK, None, large, large, large, large, OK, large)
        with closing(Reader(started.job.folder / "store")) as reader:
            cells = OutputTable(started.job, started.table, started.keys, reader)
            for frame in cells.frames(rows_said.append):
                heights.append(frame.height)
                for name, text in frame.select("prompt", "answer").iter_rows():
                    assert text == {None: None, "b": "yes", "g": "yes"}.get(name, large.text)
            assert cells.row_bytes > PART_BYTES // 8
    assert heights == rows_said == [5, 5]
    assert cells.tally.rows == 10


def test_a_table_without_rows_has_the_columns(tmp_path: Path) -> None:
    frame, tally = written(tmp_path, table_of(), {})
    assert frame.height == 0
    assert tally == Tally()


COUNTS = st.none() | st.integers(0, 1000)
COSTS = st.none() | st.integers(0, 64).map(lambda sixteenths: sixteenths / 16)
HOWS = {"attempts": st.integers(0, 9), "cost": COSTS}
TEXTS = st.sampled_from(['{"label": "yes"}', "yes", ""])
ENDS = st.sampled_from([None, "stop", "length", "content_filter"])
OUTCOMES = st.builds(
    Answer, text=TEXTS, finish_reason=ENDS, usage=st.builds(Usage, COUNTS, COUNTS), **HOWS
) | st.builds(
    Failure, kind=st.sampled_from(["filtered", "timeout"]), reason=st.just("x"), lasting=st.booleans(), **HOWS
)


@settings(max_examples=15, deadline=None)
@given(
    prompts=st.lists(st.sampled_from([None, "a", "b", "c"]), max_size=8).map(lambda rows: ["z", *rows]),
    outcomes=st.dictionaries(st.sampled_from("abc"), OUTCOMES),
)
def test_the_tally_agrees_with_the_table(
    tmp_path_factory: pytest.TempPathFactory, prompts: list[str | None], outcomes: dict[str, Outcome]
) -> None:
    folder = tmp_path_factory.mktemp("job")
    frame, tally = written(folder, table_of(*prompts), outcomes, **{"answer.labels": ["yes", "no"]}, **ONCE)
    assert [getattr(tally, status) for status in STATUSES] == [
        frame.filter(pl.col("status") == status).height for status in STATUSES
    ]
    assert tally.rows == frame.height
    assert tally.cost == frame["cost"].sum()
    assert tally.attempts == frame["attempts"].sum()
    firsts = frame.unique("prompt", keep="first", maintain_order=True).filter(pl.col("prompt").is_not_null())
    assert tally.unpriced == firsts.filter(pl.col("cost").is_null() & (pl.col("status") != "pending")).height
    known = firsts.drop_nulls("prompt_tokens")["prompt_tokens"]
    assert tally.usage.prompt_tokens == (known.sum() if len(known) else None)
