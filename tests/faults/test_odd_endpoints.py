"""Endpoints as they are: what providers, gateways and local servers really send, from reports about other tools.

Each case counts the requests at the server: nothing is asked more often than its rule says.
"""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from chat_server import Canned, ChatServer, Reply, Seen, completion, problem
from command_line import asking, typed
from live_run import make_job, numbered, only, run

from pipeline.records import Answer, Exit, Failure, Stopped

LABELS = {"answer__labels": ["positive", "negative"], "limits__concurrency": 1}
GOOD = Canned(body=completion('{"label": "negative"}'))
PAGE = b"<!DOCTYPE html><html><head><title>Attention Required!</title></head><body>You have been blocked</body></html>"


def always(canned: Canned) -> Reply:
    return lambda _seen, _attempt: canned


def one_row(tmp_path: Path, canned: Canned, **settings: Any) -> tuple[Answer | Failure | None, str, int]:
    """The outcome of one row that is always answered like this, its mark, and how many requests that took."""
    with ChatServer(always(canned)) as server:
        left = run(tmp_path, make_job(server.url, **settings), ["a row"], raises=True)
    return left.outcomes.get("a row"), left.marks.get("a row", ""), server.arrived


@pytest.mark.parametrize("finish", ["eos", "eos_token", "end_turn", "STOP", "COMPLETE", None, "", "a_new_word"])
def test_an_answer_that_fits_is_an_answer_whatever_word_it_ends_with(tmp_path: Path, finish: str | None) -> None:
    _, mark, requests = one_row(tmp_path, Canned(body=completion("positive", finish_reason=finish)), **LABELS)
    assert (mark, requests) == ("ok", 1)


@pytest.mark.parametrize("finish", ["model_context_window_exceeded", "LENGTH", "max_output_tokens", "token_limit"])
def test_an_answer_that_was_cut_is_truncated_by_any_name(tmp_path: Path, finish: str) -> None:
    outcome, mark, requests = one_row(tmp_path, Canned(body=completion("Once upon", finish_reason=finish)))
    assert (mark, requests) == ("truncated", 1)
    assert isinstance(outcome, Answer)
    assert outcome.finish_reason == "length"


@pytest.mark.parametrize(
    "content",
    [
        '{"label": "Positive"}',
        json.dumps('{"label": "positive"}'),
        '[{"label": "positive"}]',
        "[THINK]negative?[/THINK]positive",
        'Or negative.</think>{"label": "positive"}',
    ],
)
def test_a_label_with_one_level_of_dress_is_paid_for_once(tmp_path: Path, content: str) -> None:
    outcome, mark, requests = one_row(tmp_path, Canned(body=completion(content)), **LABELS)
    assert (mark, requests) == ("ok", 1)
    assert isinstance(outcome, Answer)
    assert outcome.text == content


@pytest.mark.parametrize(
    "content",
    [{"label": "positive"}, [{"label": "positive"}], ["posi", "tive"], [{"type": "text", "text": "positive"}]],
)
def test_content_that_is_no_text_is_read(tmp_path: Path, content: Any) -> None:
    body = json.loads(completion(""))
    body["choices"][0]["message"]["content"] = content
    _, mark, requests = one_row(tmp_path, Canned(body=json.dumps(body).encode()), **LABELS)
    assert (mark, requests) == ("ok", 1)


@pytest.mark.parametrize("settings", [LABELS, {}])
@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_an_answer_in_the_field_for_reasoning_is_taken_and_told(
    tmp_path: Path, field: str, settings: dict[str, Any]
) -> None:
    with ChatServer(always(Canned(body=completion(None, **{field: "positive"})))) as server:
        left = run(tmp_path, make_job(server.url, **settings), numbered(3))
    assert [answer.text for answer in left.outcomes.values() if isinstance(answer, Answer)] == ["positive"] * 3
    assert all(answer.taken_from == field for answer in left.outcomes.values() if isinstance(answer, Answer))
    assert server.arrived == 3
    assert left.said.count(f"in the field {field}") == 1


def test_a_server_that_streams_unless_told_not_to_is_told_and_one_that_streams_all_the_same_is_read(
    tmp_path: Path,
) -> None:
    chunks = [{"delta": {"content": "posi"}}, {"delta": {"content": "tive"}, "finish_reason": "stop"}]
    events = [
        json.dumps({"choices": [chunk], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}) for chunk in chunks
    ]
    body = "".join(f"data: {event}\n\n" for event in events).encode() + b"data: [DONE]\n\n"

    with ChatServer(always(Canned(body=body, headers={"content-type": "text/event-stream"}))) as server:
        left = run(tmp_path, make_job(server.url, **LABELS), ["a row"])
    assert left.marks == {"a row": "ok"}
    assert (server.arrived, left.tally.usage.completion_tokens) == (1, 2)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 12.0, "completion_tokens": 3.0},
        {"prompt_tokens": "12", "completion_tokens": "3"},
        {"input_tokens": 12, "output_tokens": 3},
    ],
)
def test_counts_in_other_dress_are_read(tmp_path: Path, usage: dict[str, Any]) -> None:
    outcome, *_ = one_row(tmp_path, Canned(body=completion("yes", usage=usage)))
    assert isinstance(outcome, Answer)
    assert (outcome.usage.prompt_tokens, outcome.usage.completion_tokens) == (12, 3)


REJECTIONS = {
    "firewall": Canned(403, PAGE, {"content-type": "text/html"}),
    "permission": Canned(403, problem("You may not ask this.")),
    "key": Canned(401, problem("Incorrect API key provided.", code="invalid_api_key")),
    "path": Canned(404, problem("Not found.")),
}


@pytest.mark.parametrize("name", REJECTIONS)
def test_a_rejection_that_only_one_row_gets_is_that_rows_and_a_later_run_does_not_stop_at_it(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.pacing.retry.BACKOFF_MAX_SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)
    Path("in.csv").write_text("q\n" + "".join(f"r{number}\n" for number in range(40)))
    with ChatServer(only("Say r12", REJECTIONS[name])) as server:
        first = typed("run", "in.csv", "-o", "out.csv", *asking(server))
        assert (first.returncode, server.arrived) == (Exit.INCOMPLETE, 39 + 3), first.stderr
        assert "39 ok" in first.stderr
        assert (name != "firewall") or "Attention Required!" in Path("out.csv").read_text()
        assert all(seen.body["stream"] is False for seen in server.log)
        again = typed("resume", "out.csv", "--retry", "failed")
        assert again.returncode == Exit.INCOMPLETE, again.stderr
        assert typed("resume", "out.csv").returncode == Exit.INCOMPLETE
        assert server.arrived == 39 + 3 + 3 + 1


@pytest.mark.parametrize("name", REJECTIONS)
def test_a_rejection_that_every_row_gets_stops_after_one_request(tmp_path: Path, name: str) -> None:
    with ChatServer(always(REJECTIONS[name])) as server:
        left = run(tmp_path, make_job(server.url), numbered(20), raises=True)
    assert left.stop.exit_code is Exit.NEEDS_PERSON
    assert (server.arrived, left.outcomes) == (1, {})


def test_a_key_that_is_rejected_from_some_row_on_stops_the_job_and_no_row_is_failed_for_it(tmp_path: Path) -> None:
    def reply(seen: Seen, _attempt: int) -> Canned | None:
        return REJECTIONS["key"] if seen.prompt not in numbered(20) else None

    with ChatServer(reply) as server:
        left = run(tmp_path, make_job(server.url, limits__concurrency=1), numbered(100), raises=True)
    assert left.stop.exit_code is Exit.NEEDS_PERSON
    assert len(left.outcomes) == 20
    assert server.arrived <= 20 + 3 * 20


@pytest.mark.parametrize(
    "canned",
    [
        Canned(body=b'{"error":"Unexpected endpoint or method. (POST /chat/completions)"}'),
        Canned(404, b"Cannot POST /chat/completions"),
        Canned(body=PAGE, headers={"content-type": "text/html"}),
    ],
)
def test_an_address_without_its_v1_stops_after_one_request_and_is_named(tmp_path: Path, canned: Canned) -> None:
    with ChatServer(always(canned)) as server:
        left = run(tmp_path, make_job(server.url), numbered(20), raises=True)
    assert (left.stop.exit_code, server.arrived) == (Exit.NEEDS_PERSON, 1)
    assert "base_url" in str(left.stop)


@pytest.mark.parametrize(
    ("canned", "words"),
    [
        (
            {"choices": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}},
            "insufficient balance",
        ),
        ({"error_code": 19, "error_msg": "Insufficient balance of tokens"}, "Insufficient balance of tokens"),
    ],
)
def test_words_in_other_fields_are_shown_and_understood(tmp_path: Path, canned: dict[str, Any], words: str) -> None:
    with ChatServer(always(Canned(body=json.dumps(canned).encode()))) as server:
        left = run(tmp_path, make_job(server.url), numbered(20), raises=True)
    assert isinstance(left.error, Stopped)
    assert (server.arrived, words in str(left.error)) == (1, True)


@pytest.mark.parametrize("words", ["Content Exists Risk", "violation of provider Terms Of Service"])
def test_filtered_rows_at_the_beginning_do_not_stop_the_job(tmp_path: Path, words: str) -> None:
    def reply(seen: Seen, _attempt: int) -> Canned | None:
        return Canned(400, problem(words)) if int(seen.prompt.removeprefix("row ")) in range(1, 7) else None

    with ChatServer(reply) as server:
        left = run(tmp_path, make_job(server.url), numbered(26))
    assert [mark for mark in left.marks.values() if mark != "ok"] == ["filtered"] * 6
    assert server.arrived == 26


@pytest.mark.parametrize("status", [504, 524])
def test_a_gateways_time_out_counts_against_the_cap_and_is_tried_a_few_times(tmp_path: Path, status: int) -> None:
    priced = {"prices__input": 0.0, "prices__output": 1000.0, "parameters__max_tokens": 1000, "limits__concurrency": 1}
    with ChatServer(only("row 3", Canned(status, b"upstream request timeout"))) as server:
        left = run(tmp_path / "free", make_job(server.url, **priced), numbered(6))
        assert server.arrived == 5 + 3
        assert left.tally.held == pytest.approx(3.0)
    assert left.outcomes["row 3"].status == "failed"
    with ChatServer(only("row 0", Canned(status, b""))) as server:
        capped = make_job(server.url, limits__max_cost=3.0, **priced)
        left = run(tmp_path / "capped", capped, ["row 0"], raises=True)
    assert server.arrived <= 3
    assert left.tally.held <= 3.0


@pytest.mark.parametrize("status", [400, 500])
def test_throttling_under_another_status_is_a_rate_and_fails_no_row(tmp_path: Path, status: int) -> None:
    busy = Canned(status, problem("ThrottlingException: Too many requests, please wait before trying again."))

    def reply(_seen: Seen, _attempt: int) -> Canned | None:
        return busy if 5 < server.arrived < 12 else None

    with ChatServer(reply) as server:
        left = run(tmp_path, make_job(server.url, limits__concurrency=8), numbered(12))
    assert set(left.marks.values()) == {"ok"}
    assert server.arrived <= 12 + 6


@pytest.mark.parametrize("at", [1, 3])
def test_a_generation_that_failed_its_schema_is_that_rows_answer_and_the_form_stays(tmp_path: Path, at: int) -> None:
    error = {"message": "Failed to generate JSON.", "code": "json_validate_failed", "failed_generation": '{"label": "p'}

    def reply(_seen: Seen, _attempt: int) -> Canned:
        return Canned(400, json.dumps({"error": error}).encode()) if server.arrived == at else GOOD

    with ChatServer(reply) as server:
        left = run(tmp_path, make_job(server.url, **LABELS), numbered(5))
    assert (left.tally.ok, server.arrived) == (5, 5 + 1)
    assert all(seen.body["response_format"]["type"] == "json_schema" for seen in server.log)
    outcome = left.outcomes[server.log[at - 1].prompt]
    assert isinstance(outcome, Answer)
    assert outcome.text == '{"label": "p'
    assert any(message["content"] == outcome.text for seen in server.log for message in seen.body["messages"])


def test_a_form_at_which_a_server_only_fails_is_followed_by_the_next(tmp_path: Path) -> None:
    def reply(seen: Seen, _attempt: int) -> Canned:
        form = seen.body.get("response_format", {}).get("type")
        return Canned(500, b"Internal Server Error") if form == "json_schema" else GOOD

    with ChatServer(reply) as server:
        left = run(tmp_path, make_job(server.url, **LABELS), numbered(5))
    assert (set(left.marks.values()), server.arrived) == ({"ok"}, 5 + 2)


@pytest.mark.parametrize("untold", ["It sounds rather bad to me.", '```json\n{"sentiment": "rather bad"}\n```'])
def test_a_form_that_is_taken_and_ignored_is_stated_in_words_from_the_first_misfit_on_and_in_later_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, untold: str
) -> None:
    def reply(seen: Seen, _attempt: int) -> Canned:
        is_told = "JSON Schema" in json.dumps(seen.body["messages"])
        return GOOD if is_told else Canned(body=completion(untold))

    monkeypatch.chdir(tmp_path)
    Path("in.csv").write_text("q\n" + "".join(f"r{number}\n" for number in range(10)))
    labels = ("--set", 'answer.labels=["positive","negative"]')
    with ChatServer(reply) as server:
        first = typed("run", "in.csv", "-o", "out.csv", *asking(server), *labels, "--limit", "5")
        assert (first.returncode, server.arrived) == (Exit.DONE, 5 + 1), first.stderr
        assert first.stderr.count("ignores it: the schema is stated in the prompt") == 1
        later = typed("run", "in.csv", "-o", "out.csv", *asking(server), *labels)
        assert (later.returncode, server.arrived) == (Exit.DONE, 10 + 1), later.stderr


def test_one_answer_in_prose_after_one_that_fits_changes_no_form(tmp_path: Path) -> None:
    with ChatServer(lambda seen, _: Canned(body=completion("Hm.")) if seen.prompt == "row 3" else GOOD) as server:
        run(tmp_path, make_job(server.url, **LABELS, answer__repairs=0), numbered(8))
    assert all(seen.body["response_format"]["type"] == "json_schema" for seen in server.log)


@pytest.mark.parametrize("slow_seconds", [0, 1.5])
def test_rows_that_name_a_model_that_does_not_exist_fail_by_name_and_the_others_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow_seconds: float
) -> None:
    def reply(seen: Seen, _attempt: int) -> Canned:
        if seen.body["model"] == "gpt-typo":
            return Canned(404, problem("The model `gpt-typo` does not exist.", code="model_not_found"))
        return Canned(body=completion("yes"), delay_seconds=slow_seconds)

    monkeypatch.chdir(tmp_path)
    rows = [f"r{number},{'gpt-typo' if number < 12 else 'm'}" for number in range(20)]
    Path("in.csv").write_text("q,which\n" + "\n".join(rows) + "\n")
    with ChatServer(reply) as server:
        done = typed("run", "in.csv", "-o", "out.csv", *asking(server), "--set", "columns.model=which")
    assert (done.returncode, server.arrived) == (Exit.INCOMPLETE, 20), done.stderr
    assert "8 ok" in done.stderr
    errors = pl.read_csv("out.csv")["error"].drop_nulls().to_list()
    assert len(errors) == 12
    assert all("'gpt-typo' in the column 'which'" in error for error in errors)


def test_if_no_model_that_rows_name_exists_the_job_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.csv").write_text("q,which\n" + "".join(f"r{number},m{number % 2}\n" for number in range(6)))
    with ChatServer(always(Canned(404, problem("Not found.")))) as server:
        done = typed("run", "in.csv", "-o", "out.csv", *asking(server), "--set", "columns.model=which")
    assert done.returncode == Exit.NEEDS_PERSON, done.stderr
    assert server.arrived <= 6
    assert "base_url" in done.stderr


def test_a_parameter_that_has_another_name_is_sent_under_that_and_later_runs_begin_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.csv").write_text("q\n" + "".join(f"r{number}\n" for number in range(10)))
    cap = ("--set", "parameters.max_tokens=50")
    refusal = Canned(400, problem("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."))
    with ChatServer(lambda seen, _: refusal if "max_tokens" in seen.body else None) as server:
        first = typed("run", "in.csv", "-o", "out.csv", *asking(server), *cap, "--limit", "5")
        assert (first.returncode, server.arrived) == (Exit.DONE, 5 + 1), first.stderr
        assert first.stderr.count("takes max_completion_tokens in place of max_tokens") == 1
        later = typed("run", "in.csv", "-o", "out.csv", *asking(server), *cap)
        assert (later.returncode, server.arrived) == (Exit.DONE, 10 + 1), later.stderr
    assert {seen.body.get("max_completion_tokens") for seen in server.log[1:]} == {50}


@pytest.mark.parametrize("settings", [{}, LABELS])
def test_a_parameter_that_changes_the_answer_stops_after_one_request_and_is_named(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    error = {"message": "Only the default (1) value is supported.", "param": "temperature", "code": "unsupported_value"}
    with ChatServer(always(Canned(400, json.dumps({"error": error}).encode()))) as server:
        job = make_job(server.url, parameters={"temperature": 0}, **settings)
        left = run(tmp_path, job, numbered(20), raises=True)
    assert (left.stop.exit_code, server.arrived) == (Exit.NEEDS_PERSON, 1)
    assert "`temperature = …` under [parameters]" in str(left.stop)
