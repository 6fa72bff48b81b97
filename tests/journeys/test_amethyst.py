"""An endpoint by its own bytes: usage with hidden reasoning, and its refusal of a key."""

from pathlib import Path

import polars as pl
import pytest
from builders import counts
from chat_server import Canned, ChatServer

from pipeline import Job, ThisRun, run
from pipeline.records import Exit

AMETHYST_GOOD = (
    '{"id":"chatcmpl-2492f079-1c51-4475-82f0-4a5f236e6178","object":"chat.completion","created":1753979785,'
    '"model":"gemini-2.5-pro","choices":[{"index":0,"message":{"role":"assistant","content":"你好！很高兴与你交谈。",'
    '"reasoning_content":"","tool_calls":[]},"finish_reason":"stop"}],'
    '"usage":{"prompt_tokens":5,"completion_tokens":36,"total_tokens":1007}}'
).encode()


AMETHYST_401 = b'{\n    {"error":{"code":"http_error","message":"Missing Authorization header"}}\n}'


def amethyst(url: str, tmp_path: Path) -> Job:
    (tmp_path / "in.csv").write_text("prompt\n你好，世界！\nSecond\n", "utf-8")
    config = Path(__file__).parent.parent.parent / "configs" / "amethyst.toml"
    prices = {"prices.input": 1.0, "prices.output": 10.0}
    flags = {"endpoint.base_url": url, "limits.requests_per_minute": 6000.0, **prices}
    return Job.load(
        [tmp_path / "in.csv"], tmp_path / "out.parquet", config=config, settings=flags, this_run=ThisRun(verbosity=-1)
    )


def test_amethysts_answer_keeps_its_usage_and_bills_the_hidden_reasoning_as_output(tmp_path: Path) -> None:
    with ChatServer(lambda _seen, _attempt: Canned(body=AMETHYST_GOOD)) as server:
        summary = run(amethyst(server.url, tmp_path))
        assert server.log[0].body == {
            "model": "gemini-2.5-pro",
            "messages": [{"role": "user", "content": "你好，世界！"}],
            "stream": False,
        }
        assert server.log[0].headers["authorization"] == "Bearer sk-AmethystFree"
        assert server.log[0].headers["content-type"] == "application/json"
    assert summary.exit_code is Exit.DONE
    row = pl.read_parquet(tmp_path / "out.parquet").row(0, named=True)
    assert row["answer"] == "你好！很高兴与你交谈。"
    assert (row["prompt_tokens"], row["completion_tokens"], row["total_tokens"]) == (5, 36, 1007)
    assert row["reasoning_tokens"] is None
    assert row["cost"] == pytest.approx((5 * 1.0 + 1002 * 10.0) / 1e6)


def test_amethysts_401_stops_the_job_after_one_request_and_its_words_are_shown(tmp_path: Path) -> None:
    with ChatServer(lambda _seen, _attempt: Canned(status=401, body=AMETHYST_401)) as server:
        summary = run(amethyst(server.url, tmp_path))
        assert server.arrived == 1
    assert summary.exit_code is Exit.NEEDS_PERSON
    assert "Missing Authorization header" in summary.message
    assert counts(summary) == {"pending": 2}
    assert not (tmp_path / "out.parquet").exists()
