"""Models that only stream, and servers that stream without token counts. Each case counts the requests."""

import json
from pathlib import Path

import polars as pl
import pytest
from chat_server import Canned, ChatServer, Seen, problem
from command_line import asking, typed

from pipeline.records import Exit

# modelscope/ms-agent#489 (vLLM), openai/openai-agents-python#442 (Mistral), BerriAI/litellm#8978 (behind LiteLLM)
LOC = "{'type': 'extra_forbidden', 'loc': %s, 'msg': 'Extra inputs are not permitted', 'input': {}}"
NO_STREAM_OPTIONS = {
    "vllm": Canned(
        400, json.dumps({"object": "error", "message": "[" + LOC % "('body', 'stream_options')" + "]"}).encode()
    ),
    "mistral": Canned(
        422,
        json.dumps(
            {"message": {"detail": [{"loc": ["body", "stream_options", "include_usage"], "msg": "Extra inputs"}]}}
        ).encode(),
    ),
    "litellm": Canned(
        400, problem("litellm: {'detail': [" + LOC % "['body', 'stream_options', 'include_usage']" + "]}")
    ),
    "argument": Canned(400, problem("Unrecognized request argument supplied: stream_options")),
}


@pytest.mark.parametrize("name", NO_STREAM_OPTIONS)
def test_a_stream_without_token_counts_is_asked_for_where_these_are_not_and_later_runs_begin_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    body = b'data: {"choices": [{"delta": {"content": "yes"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
    monkeypatch.chdir(tmp_path)
    Path("in.csv").write_text("q\n" + "".join(f"r{number}\n" for number in range(10)))
    streamed = ("--set", "endpoint.stream=true", "--set", "parameters.max_tokens=50")
    capped = ("--max-cost", "1", "--set", "prices.input=0", "--set", "prices.output=100")

    def reply(seen: Seen, _attempt: int) -> Canned:
        return NO_STREAM_OPTIONS[name] if "stream_options" in seen.body else Canned(body=body)

    with ChatServer(reply) as server:
        first = typed("run", "in.csv", "-o", "out.csv", *asking(server), *streamed, *capped, "--limit", "5")
        assert (first.returncode, server.arrived) == (Exit.DONE, 5 + 1), first.stderr
        assert first.stderr.count("does not take stream_options") == 1
        assert "counts at the most that it can cost" in first.stderr
        later = typed("run", "in.csv", "-o", "out.csv", *asking(server), *streamed)
        assert (later.returncode, server.arrived) == (Exit.DONE, 10 + 1), later.stderr
    assert pl.read_csv("out.csv")["completion_tokens"].to_list() == [None] * 10


def test_a_model_that_only_streams_is_asked_with_a_setting_that_changes_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = [
        {"choices": [{"delta": {"role": "assistant", "content": "ye"}}]},
        {"choices": [{"delta": {"content": "s"}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}},
    ]
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode() + b"data: [DONE]\n\n"

    def reply(seen: Seen, _attempt: int) -> Canned:
        return Canned(body=body) if seen.body["stream"] is True else Canned(400, problem("This model only streams."))

    monkeypatch.chdir(tmp_path)
    Path("in.csv").write_text("q\n" + "".join(f"r{number}\n" for number in range(6)))
    with ChatServer(reply) as server:
        assert typed("run", "in.csv", "-o", "out.csv", *asking(server)).returncode == Exit.NEEDS_PERSON
        refused = server.arrived
        streamed = typed("run", "in.csv", "-o", "out.csv", *asking(server), "--set", "endpoint.stream=true")
        assert (streamed.returncode, server.arrived) == (Exit.DONE, refused + 6), streamed.stderr
        assert all(seen.body["stream_options"] == {"include_usage": True} for seen in server.log[refused:])
        assert typed("run", "in.csv", "-o", "out.csv", *asking(server)).returncode == Exit.DONE
        assert server.arrived == refused + 6
    table = pl.read_csv("out.csv")
    assert table["answer"].to_list() == ["yes"] * 6
    assert table["completion_tokens"].to_list() == [2] * 6
