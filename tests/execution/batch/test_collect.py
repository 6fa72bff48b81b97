"""Collecting batches: results, rejections and failed batches, over a real server."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from batch_runs import ANSWER_COST, batch_job, check_table, write_table
from batch_server import Answered, Provider, serving, usual
from chat_server import USAGE, ChatServer, completion, problem

from pipeline import Summary, ThisRun, run
from pipeline.records import Exit


def test_answers_of_a_batch_that_expired_are_kept_and_the_other_requests_asked_again(tmp_path: Path) -> None:
    write_table(tmp_path, 40)
    provider = Provider(ends=lambda number: "expired" if number <= 2 else "completed", share=0.3)
    with serving(provider) as url:
        assert run(batch_job(tmp_path, url)).exit_code is Exit.DONE
    table = check_table(tmp_path, provider, 40)
    assert sorted(table["attempts"].to_list()) == [1] * 12 + [2] * 28


def test_after_a_cancellation_at_the_provider_nothing_is_sent_until_the_next_run(tmp_path: Path) -> None:
    write_table(tmp_path, 40)
    provider = Provider(ends=lambda _number: "cancelled", share=0.3)
    with serving(provider) as url:
        stopped = run(batch_job(tmp_path, url))
    assert (stopped.exit_code, stopped.rows.ok, stopped.rows.pending) == (Exit.NEEDS_PERSON, 12, 28)
    assert "Cancelled at the provider: batch_1, batch_2." in stopped.message
    assert len(provider.batches) == 2
    with ChatServer() as server:
        live = run(batch_job(tmp_path, server.url, run__how="live"))
        assert (live.exit_code, server.arrived) == (Exit.DONE, 28)
    check_table(tmp_path, provider, 40)


def test_a_provider_that_accepts_no_schema_is_asked_in_the_next_response_format_by_all_batches(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> Answered:
        form = (body.get("response_format") or {}).get("type", "words")
        if form != "words":
            return 400, problem(f"response_format {form} is not supported.")
        return 200, completion('{"label": "a"}', usage=USAGE)

    write_table(tmp_path, 60)
    provider = Provider(answer=answer)
    with serving(provider) as url:
        summary = run(batch_job(tmp_path, url, answer__labels=["a", "b"]))
    assert (summary.exit_code, summary.rows.ok) == (Exit.DONE, 60), summary
    assert len(provider.batches) == 9, "three in each of three forms"
    assert max(provider.billed.values()) == 1


def rejecting(name: str, message: str) -> Callable[[dict[str, Any]], Answered]:
    body = msgspec.json.encode({"error": {"message": message, "param": name, "code": "unsupported_parameter"}})
    return lambda asked: (400, body) if name in asked else usual(asked)


USE_OTHER = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."


@pytest.mark.parametrize("settings", [{}, {"answer__labels": ["a", "b"]}])
def test_a_parameter_that_has_another_name_is_sent_under_that_by_all_batches_and_by_later_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, Any]
) -> None:
    provider = Provider(answer=rejecting("max_tokens", USE_OTHER))
    write_table(tmp_path, 60)
    with serving(provider) as url:
        job = batch_job(tmp_path, url, parameters={"max_tokens": 50}, **settings)
        assert run(job).exit_code is Exit.DONE
        assert len(provider.batches) == 6, "three in each spelling"
        write_table(tmp_path, 80)
        assert run(job).exit_code is Exit.DONE
    assert len(provider.batches) == 7
    assert max(provider.billed.values()) == 1
    assert capsys.readouterr().err.count("takes max_completion_tokens in place of max_tokens") == 1
    bodies = [body for content in provider.files.values() for body in content.splitlines() if b"max_completion" in body]
    assert all((b"json_schema" in body) == bool(settings) for body in bodies)


def test_a_parameter_that_changes_the_answer_stops_a_batch_and_is_named_and_the_rows_are_pending(
    tmp_path: Path,
) -> None:
    write_table(tmp_path, 30)
    provider = Provider(answer=rejecting("temperature", "Only the default (1) value is supported."))
    with serving(provider) as url:
        stopped = run(batch_job(tmp_path, url, parameters={"temperature": 0}))
        assert (stopped.exit_code, stopped.rows.pending) == (Exit.NEEDS_PERSON, 30)
        assert "`temperature = …` under [parameters]" in stopped.message
        assert run(batch_job(tmp_path, url)).exit_code is Exit.DONE
    check_table(tmp_path, provider, 30)


def test_a_parameter_that_is_refused_for_a_few_rows_is_theirs(tmp_path: Path) -> None:
    write_table(tmp_path, 20)
    no = rejecting("temperature", "temperature is not supported for such prompts")

    def answer(body: dict[str, Any]) -> Answered:
        return no(body) if body["messages"][-1]["content"] in ("question 1", "question 2") else usual(body)

    provider = Provider(answer=answer)
    with serving(provider) as url:
        summary = run(batch_job(tmp_path, url, parameters={"temperature": 0}))
    assert (summary.exit_code, summary.rows.ok, summary.rows.pending) == (Exit.INCOMPLETE, 18, 0)


def test_each_request_of_a_batch_fails_on_its_own(tmp_path: Path) -> None:
    write_table(tmp_path, 20)
    asked: dict[str, int] = {}

    def answer(body: dict[str, Any]) -> Answered | None:
        prompt = body["messages"][-1]["content"]
        asked[prompt] = asked.get(prompt, 0) + 1
        if prompt == "question 3":
            return 400, problem("This prompt is bad.")
        if prompt == "question 4" and asked[prompt] < 3:
            return 500, problem("It broke.")
        if prompt == "question 5" and asked[prompt] < 2:
            return None
        return (503, problem("Never.")) if prompt == "question 6" else usual(body)

    provider = Provider(answer=answer)
    with serving(provider) as url:
        assert run(batch_job(tmp_path, url)).exit_code is Exit.INCOMPLETE
    table = check_table(tmp_path, provider, 20, ok=18)
    assert table["error"][3] == "bad_request: This prompt is bad."
    assert table["error"][6] == "overload: Never."
    assert table["attempts"].to_list()[3:7] == [1, 3, 2, 6]


def test_a_few_bad_lines_do_not_stop_the_job(tmp_path: Path) -> None:
    write_table(tmp_path, 20)
    bad = dict.fromkeys(range(1, 9), "Odd.")
    provider = Provider(bad_lines=lambda number, _lines: bad if number == 1 else {})
    with serving(provider) as url:
        assert run(batch_job(tmp_path, url)).exit_code is Exit.INCOMPLETE
    assert check_table(tmp_path, provider, 20, ok=12)["status"].to_list()[:8] == ["failed"] * 8


def test_lines_that_the_provider_cannot_read_fail_and_the_others_are_answered(tmp_path: Path) -> None:
    write_table(tmp_path, 20)
    provider = Provider(bad_lines=lambda number, _lines: {2: "Too long.", 7: "Odd."} if number == 1 else {})
    with serving(provider) as url:
        assert run(batch_job(tmp_path, url)).exit_code is Exit.INCOMPLETE
    table = check_table(tmp_path, provider, 20, ok=18)
    assert table.filter(pl.col("status") == "failed")["error"].to_list() == [
        "bad_request: Too long.",
        "bad_request: Odd.",
    ]


def test_a_rejected_batch_stops_the_job_with_the_providers_message(tmp_path: Path) -> None:
    write_table(tmp_path, 5)
    provider = Provider(bad_lines=lambda _number, lines: dict.fromkeys(range(1, len(lines) + 1), "No such model."))
    with serving(provider) as url:
        summary: Summary = run(batch_job(tmp_path, url))
    assert summary.exit_code is Exit.NEEDS_PERSON
    assert "No such model." in summary.message
    assert summary.rows.pending == 5


def test_rows_that_all_fail_alike_stop_the_job_and_are_pending(tmp_path: Path) -> None:
    write_table(tmp_path, 30)
    provider = Provider(answer=lambda _body: (400, problem("temperature is too hot")))
    with serving(provider) as url:
        summary = run(batch_job(tmp_path, url))
        assert summary.exit_code is Exit.NEEDS_PERSON
        assert "temperature is too hot" in summary.message
        assert summary.rows.pending == 30
        provider.answer = usual
        assert run(batch_job(tmp_path, url)).exit_code is Exit.DONE
    check_table(tmp_path, provider, 30)


def page(_content: bytes) -> bytes:
    return b"<html><body>Please log in.</body></html>"


@pytest.mark.parametrize("damage", [page, lambda content: content[: len(content) * 2 // 3]])
def test_results_that_cannot_be_read_are_downloaded_again_and_never_asked_again(tmp_path: Path, damage: Any) -> None:
    write_table(tmp_path, 20)
    provider = Provider(results=damage)
    with serving(provider) as url:
        summary = run(batch_job(tmp_path, url))
        assert summary.exit_code is Exit.TRY_LATER
        assert summary.rows.pending == 20 - summary.rows.ok > 0
        assert "not asked again" in summary.message
        provider.results = lambda content: content
        assert run(batch_job(tmp_path, url)).exit_code is Exit.DONE
    check_table(tmp_path, provider, 20)


def test_results_reported_twice_or_for_unknown_requests_change_nothing(tmp_path: Path) -> None:
    other = b'{"custom_id":"who","response":{"status_code":200,"body":{}},"error":null}\n\n'
    write_table(tmp_path, 20)
    provider = Provider(results=lambda content: content + other + content)
    with serving(provider) as url:
        summary = run(batch_job(tmp_path, url))
    assert (summary.exit_code, summary.run.attempts) == (Exit.DONE, 20)
    check_table(tmp_path, provider, 20)


def test_a_finished_batch_without_its_files_of_results_is_looked_up_again(tmp_path: Path) -> None:
    write_table(tmp_path, 20)
    provider = Provider(names_results=lambda looks: looks > 4)
    with serving(provider) as url:
        assert run(batch_job(tmp_path, url)).exit_code is Exit.DONE
    check_table(tmp_path, provider, 20)


def test_a_batch_that_the_provider_does_not_know_can_be_given_up(tmp_path: Path) -> None:
    write_table(tmp_path, 20)
    with serving(Provider()) as url:
        run(batch_job(tmp_path, url, this_run=ThisRun(no_wait=True)))
    provider = Provider()
    with serving(provider) as url:
        stopped = run(batch_job(tmp_path, url))
        assert stopped.exit_code is Exit.NEEDS_PERSON
        assert "Batch batch_1 is unknown to the provider" in stopped.message
        next((tmp_path / "out.parquet.job" / "batches").glob("*.jsonl")).unlink()
        assert run(batch_job(tmp_path, url)).exit_code is Exit.DONE
    check_table(tmp_path, provider, 20)


def test_an_answer_to_a_removed_row_is_kept_and_its_cost_reported_separately(tmp_path: Path) -> None:
    write_table(tmp_path, 40)
    provider = Provider(looks=2)
    with serving(provider) as url:
        run(batch_job(tmp_path, url, this_run=ThisRun(no_wait=True)))
        write_table(tmp_path, 30)
        summary = run(batch_job(tmp_path, url))
        assert summary.exit_code is Exit.DONE
        assert summary.rows.ok == 30 == summary.run.ok
        assert summary.spent == pytest.approx(40 * ANSWER_COST)
        assert summary.elsewhere == pytest.approx(10 * ANSWER_COST)
        write_table(tmp_path, 40)
        again = run(batch_job(tmp_path, url))
    assert again.run.attempts == 0
    check_table(tmp_path, provider, 40)
