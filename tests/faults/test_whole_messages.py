"""Everything that was paid for is kept: thoughts, tool calls, sources, who answered in which tier."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from chat_server import Canned, ChatServer, Seen, completion
from command_line import typed

from pipeline import Job, ThisRun, run
from pipeline.results import show_rows

CALLS = [{"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}]
RICH = {"reasoning_content": "Because it is warm.", "tool_calls": CALLS}
REPORTED = ["reasoning", "tool_calls", "citations", "tier", "served_by", "cache_write_tokens"]


def reply(seen: Seen, _attempt: int) -> Canned:
    """The first row gets a bare answer, the others one with everything beside it."""
    body = json.loads(completion("good"))
    if "plain" not in seen.prompt:
        body["choices"][0]["message"] |= RICH
        body |= {"provider": "Fireworks", "service_tier": "priority", "citations": ["https://a.example"]}
        body["usage"]["prompt_tokens_details"] = {"cache_write_tokens": 3}
    return Canned(body=json.dumps(body).encode())


def table_of(folder: Path, url: str, columns: dict[str, list[str]], output: str, **settings: Any) -> pl.DataFrame:
    pl.DataFrame(columns).write_csv(folder / "in.csv")
    named = {"endpoint.base_url": url, "endpoint.model": "m", **settings}
    run(Job.load([folder / "in.csv"], folder / output, settings=named, this_run=ThisRun(verbosity=-1)))
    return pl.read_csv(folder / output) if output.endswith("csv") else pl.read_parquet(folder / output)


def test_what_came_beside_the_text_has_columns_of_its_own(tmp_path: Path) -> None:
    with ChatServer(reply) as server:
        table = table_of(tmp_path, server.url, {"prompt": ["plain", "rich"]}, "out.parquet")
    plain, rich = table.select(REPORTED).to_dicts()
    assert plain == dict.fromkeys(REPORTED)
    assert json.loads(rich.pop("tool_calls")) == CALLS
    assert rich == {
        "reasoning": "Because it is warm.",
        "citations": ["https://a.example"],
        "tier": "priority",
        "served_by": "Fireworks",
        "cache_write_tokens": 3,
    }


def test_columns_that_no_answer_fills_are_left_out_also_from_csv(tmp_path: Path) -> None:
    with ChatServer(reply) as server:
        table = table_of(tmp_path, server.url, {"prompt": ["plain"]}, "out.csv")
        assert not set(REPORTED) & set(table.columns)
        later = table_of(tmp_path, server.url, {"prompt": ["plain", "rich"]}, "out.csv")
    assert set(REPORTED) < set(later.columns)


def test_they_give_way_to_columns_of_the_input_and_of_the_answer(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"reasoning": {"type": "string"}}, "required": ["reasoning"]}
    with ChatServer(reply) as server:
        table = table_of(tmp_path, server.url, {"prompt": ["rich"], "tier": ["gold"]}, "out.parquet")
        assert table["tier"].to_list() == ["gold"]
        assert table["served_by"].to_list() == ["Fireworks"]
        settings = {"answer.schema": schema, "answer.repairs": 0}
        typed_table = table_of(tmp_path, server.url, {"prompt": ["rich"]}, "typed.parquet", **settings)
    assert typed_table.columns.count("reasoning") == 1
    assert typed_table["reasoning"].to_list() == [None]


def test_a_column_that_is_asked_for_is_there_though_nothing_fills_it(tmp_path: Path) -> None:
    with ChatServer(reply) as server:
        settings = {"output.columns": ["answer", "reasoning"]}
        table = table_of(tmp_path, server.url, {"prompt": ["plain"]}, "out.parquet", **settings)
    assert table.columns == ["prompt", "answer", "reasoning"]
    assert table["reasoning"].to_list() == [None]


@pytest.mark.parametrize(("flags", "is_shown"), [([], False), (["--reasoning"], True)])
def test_show_prints_the_thoughts_where_they_are_asked_for(tmp_path: Path, flags: list[str], *, is_shown: bool) -> None:
    with ChatServer(reply) as server:
        table_of(tmp_path, server.url, {"prompt": ["rich"]}, "out.parquet")
    [text] = show_rows(tmp_path / "out.parquet", status=None, row=None, most=1, reasoning=bool(flags))
    assert ("  ~ Because it is warm." in text) == is_shown
    assert ("Because" in typed("show", str(tmp_path / "out.parquet"), *flags).stdout) == is_shown
