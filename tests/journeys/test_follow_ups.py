"""Each kind of answer ends in its status after so many requests: over a real server, and over a kill in between."""

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
from chat_server import Canned, ChatServer, Seen, completion

GOOD = '{"label": "yes", "why": "so"}'
SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["yes", "no"]}, "why": {"type": "string"}},
    "required": ["label", "why"],
}


class Kind(NamedTuple):
    """What a server says at first and when asked again, and what must become of the row."""

    first: dict[str, Any]
    again: dict[str, Any]
    status: str
    requests: int
    repaired: str | None = None


def stop(text: str) -> dict[str, Any]:
    return {"text": text, "finish_reason": "stop"}


def cut(text: str) -> dict[str, Any]:
    return {"text": text, "finish_reason": "length"}


KINDS = {
    "plain": Kind(stop(GOOD), stop(GOOD), "ok", 1),
    "fence": Kind(stop(f"```json\n{GOOD}\n```"), stop(GOOD), "ok", 1, "fence"),
    "prose": Kind(stop(f"Sure! {GOOD} Anything else?"), stop(GOOD), "ok", 1, "prose"),
    "broken": Kind(stop("{'label': 'yes', 'why': 'so'"), stop(GOOD), "ok", 1, "json-repair"),
    "wrong word": Kind(stop('{"label": "meh", "why": "so"}'), stop(GOOD), "ok", 2, "asked again"),
    "wrong word for ever": Kind(stop('{"label": "meh", "why": "so"}'), stop('{"label": "eh"}'), "invalid", 3),
    "missing field": Kind(stop('{"label": "yes"}'), stop(GOOD), "ok", 2, "asked again"),
    "missing field for ever": Kind(stop("{}"), stop('{"label": "yes"}'), "invalid", 3),
    "cut": Kind(cut('{"label": "ye'), stop(GOOD), "ok", 2),
    "cut for ever": Kind(cut('{"label": "ye'), cut('{"label": "yes", "wh'), "truncated", 2),
    "cut, then wrong": Kind(cut('{"label": "ye'), stop("{}"), "invalid", 4),
    "refusal": Kind({"text": None, "refusal": "I cannot."}, stop(GOOD), "refused", 1),
    "refusal in plain words": Kind(stop("I'm sorry, I can't help."), stop("I can't."), "invalid", 3),
    "filtered": Kind({"text": "", "finish_reason": "content_filter"}, stop(GOOD), "filtered", 1),
}


def kind_of(seen: Seen) -> str:
    return str(seen.body["messages"][0]["content"])


def is_first(seen: Seen) -> bool:
    return len(seen.body["messages"]) == 1 and seen.body["max_tokens"] == 50


def line(folder: Path, url: str) -> list[str]:
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    pl.DataFrame({"prompt": list(KINDS)}).write_csv(folder / "in.csv")
    settings = {
        "answer.schema": folder / "schema.json",
        "answer.grow_on_truncation": 500,
        "parameters.max_tokens": 50,
        "limits.max_cost": 1.0,
        "prices.input": 1.0,
        "prices.output": 1.0,
    }
    flags = [f"--set={name}={value}" for name, value in settings.items()]
    told = [str(folder / "in.csv"), "-o", str(folder / "out.parquet"), "--base-url", url, "-m", "m", "-q"]
    return [sys.executable, "-m", "pipeline", "run", *told, "--concurrency", str(len(KINDS)), *flags]


def as_it_must_be(folder: Path) -> None:
    out = pl.read_parquet(folder / "out.parquet").select("prompt", "status", "repaired", "attempts", "label", "cost")
    assert {row[0]: row[1:4] for row in out.iter_rows()} == {
        name: (kind.status, kind.repaired, kind.requests) for name, kind in KINDS.items()
    }
    fits = out.filter(pl.col("status") == "ok")
    assert fits["label"].to_list() == ["yes"] * fits.height
    assert out["cost"].to_list() == pytest.approx([18e-6 * kind.requests for kind in KINDS.values()])


def test_every_kind_of_answer_ends_in_its_status_after_so_many_requests(tmp_path: Path) -> None:
    def reply(seen: Seen, _attempt: int) -> Canned:
        kind = KINDS[kind_of(seen)]
        return Canned(body=completion(**(kind.first if is_first(seen) else kind.again)))

    with ChatServer(reply) as server:
        assert subprocess.run(line(tmp_path, server.url), check=False).returncode == 3
        sent = Counter(map(kind_of, server.log))
    assert sent == {name: kind.requests for name, kind in KINDS.items()}
    as_it_must_be(tmp_path)


def test_a_kill_after_the_first_answers_changes_no_status_and_pays_for_none_of_them_again(tmp_path: Path) -> None:
    killed = False

    def reply(seen: Seen, _attempt: int) -> Canned:
        kind = KINDS[kind_of(seen)]
        if is_first(seen):
            return Canned(body=completion(**kind.first))
        return Canned(body=completion(**kind.again)) if killed else Canned(hang=True)

    followed = [name for name, kind in KINDS.items() if kind.requests > 1]
    with ChatServer(reply) as server:
        child = subprocess.Popen(line(tmp_path, server.url))
        server.wait_for(len(KINDS) + len(followed))  # what follows has left, so its first answer is on disk
        child.kill()
        assert child.wait() == -signal.SIGKILL
        killed = True
        assert subprocess.run(line(tmp_path, server.url), check=False).returncode == 3
        firsts = Counter(kind_of(seen) for seen in server.log if is_first(seen))
        later = Counter(kind_of(seen) for seen in server.log if not is_first(seen))
    assert {firsts[name] for name in followed} == {1}
    # what was answered last may not have been on disk yet, and what hung is asked once more
    assert all(firsts[name] <= 2 for name in KINDS)
    assert later == {name: KINDS[name].requests for name in followed}
    as_it_must_be(tmp_path)
