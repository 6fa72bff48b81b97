"""Service tiers: each row is priced by the one that answered, and a change of tier asks nothing again."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from chat_server import USAGE, Canned, ChatServer, Reply, Seen, completion

from pipeline import Job, Summary, ThisRun, run
from pipeline.records import Exit

NO_CAPACITY = b'{"error": {"message": "Resource Unavailable", "code": "resource_unavailable"}}'
PRICES = {"prices.input": 1.0, "prices.output": 1.0}


def ask(url: str, folder: Path, rows: list[str], **settings: Any) -> tuple[Summary, pl.DataFrame]:
    pl.DataFrame({"prompt": rows}).write_csv(folder / "in.csv")
    named = {"endpoint.base_url": url, "endpoint.model": "m", **PRICES, **settings}
    job = Job.load([folder / "in.csv"], folder / "out.parquet", settings=named, this_run=ThisRun(verbosity=-1))
    summary = run(job)
    return summary, pl.read_parquet(folder / "out.parquet")


def in_tiers(*, has_capacity: bool) -> Reply:
    """A server whose half-price tier has capacity or not, and which says which tier answered."""

    def reply(seen: Seen, _attempt: int) -> Canned:
        tier = seen.body["service_tier"]
        if tier == "flex" and not has_capacity:
            return Canned(429, NO_CAPACITY)
        return Canned(body=json.dumps(json.loads(completion("fine")) | {"service_tier": tier}).encode())

    return reply


@pytest.mark.parametrize(("has_capacity", "tier", "factor"), [(True, "flex", 0.5), (False, "default", 1.0)])
def test_each_row_at_half_price_is_priced_by_the_tier_that_answered(
    tmp_path: Path, *, has_capacity: bool, tier: str, factor: float
) -> None:
    with ChatServer(in_tiers(has_capacity=has_capacity)) as server:
        settings = {"run.how": "flex", "run.flex_patience": "0s", "limits.concurrency": 1}
        summary, table = ask(server.url, tmp_path, ["a", "b", "c"], **settings)
        asked = [seen.body["service_tier"] for seen in server.log]
    assert table["tier"].to_list() == [tier] * 3
    used = USAGE["prompt_tokens"] + USAGE["completion_tokens"]
    assert table["cost"].to_list() == pytest.approx([factor * used / 1e6] * 3)
    assert summary.spent == pytest.approx(3 * factor * used / 1e6)
    assert asked == (["flex"] * 3 if has_capacity else ["flex", "default", "default", "default"])
    assert asked.count(tier) == 3


def test_a_job_that_waits_for_the_half_price_tier_does_not_give_up(tmp_path: Path) -> None:
    def reply(_seen: Seen, _attempt: int) -> Canned:
        return Canned(498, NO_CAPACITY) if len(server.log) < 3 else Canned(body=completion("fine"))

    settings = {"run.how": "flex", "run.flex_patience": "never", "limits.give_up_after": "0s"}
    with ChatServer(reply) as server:
        summary, table = ask(server.url, tmp_path, ["a row"], **settings)
    assert summary.exit_code is Exit.DONE
    assert table["answer"].to_list() == ["fine"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("service_tier", "flex"),
        ("prompt_cache_key", "mine"),
        ("provider", {"order": ["a"]}),
        ("metadata", {"job": "7"}),
        ("store", False),
        ("priority", 3),
    ],
)
def test_a_parameter_that_the_model_does_not_see_is_sent_and_asks_nothing_again(
    tmp_path: Path, name: str, value: Any
) -> None:
    with ChatServer(lambda _seen, _attempt: Canned(body=completion("fine"))) as server:
        ask(server.url, tmp_path, ["a row"])
        ask(server.url, tmp_path, ["a row", "another"], **{f"parameters.{name}": value})
        assert [seen.body.get(name) for seen in server.log] == [None, value]


def test_going_from_live_to_half_price_asks_nothing_again(tmp_path: Path) -> None:
    with ChatServer(lambda _seen, _attempt: Canned(body=completion("fine"))) as server:
        ask(server.url, tmp_path, ["a row"])
        ask(server.url, tmp_path, ["a row"], **{"run.how": "flex"})
        assert len(server.log) == 1


def test_with_some_capacity_every_row_is_answered_at_half_price(tmp_path: Path) -> None:
    def reply(seen: Seen, attempt: int) -> Canned:
        answer = in_tiers(has_capacity=True)(seen, attempt)
        return answer if attempt > 1 else Canned(429, NO_CAPACITY, {"retry-after": "0.05"})

    with ChatServer(reply) as server:
        summary, table = ask(server.url, tmp_path, [f"row {number}" for number in range(40)], **{"run.how": "flex"})
        assert len(server.log) == 80
    assert summary.exit_code is Exit.DONE
    assert table["tier"].to_list() == ["flex"] * 40


def test_a_long_wait_for_capacity_does_not_stop_the_job(tmp_path: Path) -> None:
    settings = {"run.how": "flex", "run.flex_patience": "never", "limits.max_runtime": "1s"}
    refused = Canned(429, NO_CAPACITY, {"retry-after": "600"})
    with ChatServer(lambda _seen, _attempt: refused) as server:
        summary, _ = ask(server.url, tmp_path, ["a row"], **settings)
    assert summary.exit_code is Exit.AT_LIMIT
    assert "max_runtime" in summary.message
