"""Results that do not account for their batch: nothing is paid for again unasked, and nothing deleted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from batch_runs import ANSWER_COST, batch_job, check_table, spent, write_table
from batch_server import Provider, serving

from pipeline import Summary, ThisRun, run
from pipeline.execution.batch.account import Account, Counts, account_of, counts_of, what_is_missing
from pipeline.records import Exit
from pipeline.store.notes import read_ledger
from pipeline.store.reader import Reader

ROWS = 40
Batch = dict[str, Any]


def finished(change: Callable[[Batch], Batch]) -> Callable[[Batch], Batch]:
    """Change what is shown of the second batch once it is finished."""

    def shown(batch: Batch) -> Batch:
        is_finished = batch["status"] not in ("validating", "in_progress")
        return {**batch, **change(batch)} if is_finished and batch["number"] == 2 else batch

    return shown


def counted(completed: int, failed: int = 0) -> Batch:
    return {"request_counts": {"total": 20, "completed": completed, "failed": failed}}


NO_FILES = {"output_file_id": None, "error_file_id": None}
STATES: dict[str, Callable[[Batch], Batch]] = {
    "names no files": lambda _batch: NO_FILES,
    "names no files and counts nothing": lambda _batch: {**NO_FILES, **counted(0)},
    "names no files and has no counts": lambda _batch: {**NO_FILES, "request_counts": None},
    "has the file of another batch": lambda _batch: {"output_file_id": "output_file_id-batch_1"},
    "has the file of another batch and no counts": lambda _batch: {
        "output_file_id": "output_file_id-batch_1",
        "request_counts": {},
    },
    "has a file that is not there": lambda _batch: {"output_file_id": "file-none"},
    "expired, and names no file of what it counts": lambda _batch: {"status": "expired", **NO_FILES},
    "failed, and counts answers": lambda _batch: {"status": "failed", **NO_FILES, "errors": None},
    "is nothing that is known": lambda _batch: {"status": "done", "output_file_id": "file-none"},
    "has a list for its status": lambda _batch: {"status": ["completed"], "output_file_id": "file-none"},
    "counts more than it has": lambda _batch: {**counted(99), "output_file_id": "output_file_id-batch_1"},
}
CONTENTS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "is empty": lambda _lines: [],
    "lacks lines": lambda lines: lines[:13],
    "lacks lines and has others twice": lambda lines: lines[:10] * 2,
    "ends within a line": lambda lines: [*lines[:7], lines[7][:40]],
    "is a web page": lambda _lines: [b"<html>Please log in.</html>"],
    "has ids of nobody": lambda lines: [line.replace(b'"custom_id": "', b'"custom_id": "x') for line in lines],
}


def state_of(provider: Provider) -> tuple[int, bool, int]:
    """Batches that were created; whether the second's files are all there; the most that a request was billed."""
    names = (provider.batches["batch_2"]["input_file_id"], "output_file_id-batch_2")
    return len(provider.batches), all(name in provider.files for name in names), max(provider.billed.values())


def check_put_aside(folder: Path, provider: Provider, url: str, ok: int, **settings: Any) -> Summary:
    """Run twice: the second batch is put aside each time, and told of; all others are done."""
    for _ in range(2):
        summary = run(batch_job(folder, url, **settings))
        assert (summary.exit_code, summary.rows.ok, summary.rows.pending) == (Exit.TRY_LATER, ok, ROWS - ok), summary
        assert state_of(provider) == (2, True, 1)
        path = next((folder / "out.parquet.job" / "batches").glob("*.jsonl"))
        assert all(word in summary.message for word in ("Batch batch_2 ", "not asked again", f"remove\n{path}\n"))
        assert summary.spent == pytest.approx(ok * ANSWER_COST)
    return summary


@pytest.mark.parametrize("state", STATES)
def test_a_batch_whose_results_are_not_there_is_put_aside_and_its_answers_fetched_later(
    tmp_path: Path, state: str
) -> None:
    write_table(tmp_path, ROWS)
    provider = Provider(shows=finished(STATES[state]))
    with serving(provider) as url:
        check_put_aside(tmp_path, provider, url, 20)
        provider.shows = lambda batch: batch
        assert run(batch_job(tmp_path, url)).exit_code is Exit.DONE
    check_table(tmp_path, provider, ROWS)
    assert spent(tmp_path) == pytest.approx(ROWS * ANSWER_COST)


@pytest.mark.parametrize("content", CONTENTS)
def test_of_results_that_are_cut_or_mixed_up_the_answers_are_kept_and_the_rest_is_fetched_later(
    tmp_path: Path, content: str
) -> None:
    def sent(whole: bytes) -> bytes:
        is_second = whole == provider.files.get("output_file_id-batch_2")
        return b"".join(CONTENTS[content](whole.splitlines(keepends=True))) if is_second else whole

    write_table(tmp_path, ROWS)
    provider = Provider(results=sent)
    kept = {"lacks lines": 13, "lacks lines and has others twice": 10, "ends within a line": 7}.get(content, 0)
    with serving(provider) as url:
        check_put_aside(tmp_path, provider, url, 20 + kept)
        provider.results = lambda whole: whole
        assert run(batch_job(tmp_path, url)).exit_code is Exit.DONE
    check_table(tmp_path, provider, ROWS)
    assert spent(tmp_path) == pytest.approx(ROWS * ANSWER_COST)


def test_results_that_are_given_up_by_the_user_are_asked_anew_and_count_against_the_cap(tmp_path: Path) -> None:
    write_table(tmp_path, ROWS)
    provider = Provider(shows=finished(lambda _batch: NO_FILES))
    cap = {"limits__max_cost": 0.01, "parameters__max_tokens": 6}
    with serving(provider) as url:
        message = check_put_aside(tmp_path, provider, url, 20, **cap).message
        Path(message.partition("remove\n")[2].splitlines()[0]).unlink()
        assert run(batch_job(tmp_path, url, **cap)).exit_code is Exit.DONE
    assert sorted(provider.billed.values()) == [1] * 20 + [2] * 20, "as the message said"
    reader = Reader(tmp_path / "out.parquet.job" / "store")
    ledger = read_ledger(reader)
    reader.close()
    assert ledger.cost + ledger.held >= 60 * ANSWER_COST
    assert ledger.maybe_paid == 20


def test_answers_that_were_kept_of_a_batch_are_not_reserved_or_held_once_more(tmp_path: Path) -> None:
    write_table(tmp_path, ROWS)
    provider = Provider(results=lambda whole: b"".join(whole.splitlines(keepends=True)[:15]))
    cap = {"limits__max_cost": 0.01, "parameters__max_tokens": 6}
    with serving(provider) as url:
        first = run(batch_job(tmp_path, url, **cap))
        provider.batches.clear()
        second = run(batch_job(tmp_path, url, **cap))
        for path in (tmp_path / "out.parquet.job" / "batches").glob("*.jsonl"):
            path.unlink()
        assert run(batch_job(tmp_path, url, **cap)).exit_code is Exit.DONE
    assert (first.exit_code, first.rows.ok, second.exit_code, second.rows.ok) == (75, 30, 1, 30)
    reader = Reader(tmp_path / "out.parquet.job" / "store")
    assert read_ledger(reader).maybe_paid == 10
    reader.close()


def test_a_look_without_waiting_tells_at_once_what_is_missing(tmp_path: Path) -> None:
    write_table(tmp_path, ROWS)
    provider = Provider(looks=1, shows=finished(lambda _batch: NO_FILES))
    with serving(provider) as url:
        run(batch_job(tmp_path, url, this_run=ThisRun(no_wait=True)))
        summary = run(batch_job(tmp_path, url, this_run=ThisRun(no_wait=True)))
    assert (summary.exit_code, summary.rows.ok) == (Exit.TRY_LATER, 20)
    assert "Batch batch_2 is completed, but there is no file of its results." in summary.message


def test_what_is_missing_of_rows_that_are_no_longer_asked_does_not_hold_up_the_table(tmp_path: Path) -> None:
    write_table(tmp_path, ROWS)
    provider = Provider(shows=finished(lambda _batch: NO_FILES))
    with serving(provider) as url:
        assert run(batch_job(tmp_path, url)).exit_code is Exit.TRY_LATER
        write_table(tmp_path, 20)
        first_run = set(provider.batches)
        (tmp_path / "in.csv").write_text((tmp_path / "in.csv").read_text() + "question 99\n")
        assert run(batch_job(tmp_path, url)).exit_code is Exit.DONE
    assert len(provider.batches) == len(first_run) + 1
    assert state_of(provider)[1:] == (True, 1)


def test_a_file_that_two_batches_share_is_left_at_the_provider(tmp_path: Path) -> None:
    name = "output_file_id-batch_1"

    def shown(batch: Batch) -> Batch:
        if batch["status"] == "completed" and provider.batches["batch_2"]["status"] != "completed":
            provider.finish(provider.batches["batch_2"])
            provider.files[name] += provider.files["output_file_id-batch_2"]
        return {**batch, "output_file_id": name} if batch["status"] == "completed" else batch

    write_table(tmp_path, ROWS)
    provider = Provider(shows=shown)
    with serving(provider) as url:
        assert run(batch_job(tmp_path, url)).exit_code is Exit.DONE
    check_table(tmp_path, provider, ROWS)
    assert name in provider.files


def test_a_status_that_is_unknown_or_goes_back_is_told_and_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = iter(["finalising", "in_progress", "finalising", "validating"])
    write_table(tmp_path, 20)
    provider = Provider(
        shows=lambda batch: {**batch, **({"status": word} if batch["looks"] and (word := next(words, "")) else {})}
    )
    with serving(provider) as url:
        assert run(batch_job(tmp_path, url)).exit_code is Exit.DONE
    assert capsys.readouterr().err.count("unknown here: finalising") == 1
    check_table(tmp_path, provider, 20)


@pytest.mark.parametrize("status", ["finalising", "in_progress"])
def test_a_batch_that_never_ends_is_put_aside_after_days(
    tmp_path: Path, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OVERDUE_DAYS", "OVERDUE_DAYS_OF_UNKNOWN"):
        monkeypatch.setattr(f"pipeline.execution.batch.collect.{name}", 0)
    write_table(tmp_path, 20)
    provider = Provider(shows=lambda batch: {**batch, "status": status, **NO_FILES})
    with serving(provider) as url:
        summary = run(batch_job(tmp_path, url))
        monkeypatch.undo()
        assert (summary.exit_code, summary.rows.pending) == (Exit.TRY_LATER, 20)
        assert f"Batch batch_1 is still {status} after 0 days" in summary.message
        provider.shows = lambda batch: batch
        assert run(batch_job(tmp_path, url)).exit_code is Exit.DONE
    check_table(tmp_path, provider, 20)


def test_the_results_of_a_status_that_is_unknown_are_taken_if_they_are_whole(tmp_path: Path) -> None:
    write_table(tmp_path, ROWS)
    provider = Provider(shows=finished(lambda _batch: {"status": "succeeded"}))
    with serving(provider) as url:
        assert run(batch_job(tmp_path, url)).exit_code is Exit.DONE
    check_table(tmp_path, provider, ROWS)


def test_a_batch_that_is_not_found_for_a_moment_is_looked_up_again(tmp_path: Path) -> None:
    misses = iter(["404"] * 3)
    write_table(tmp_path, ROWS)
    provider = Provider(interfere=lambda method, path: next(misses, "") if (method, path[-2:]) == ("GET", "_2") else "")
    with serving(provider) as url:
        assert run(batch_job(tmp_path, url)).exit_code is Exit.DONE
    check_table(tmp_path, provider, ROWS)


def test_a_failed_batch_without_a_reason_stops_the_job_and_its_rows_are_pending(tmp_path: Path) -> None:
    write_table(tmp_path, 20)
    provider = Provider(bad_lines=lambda _number, _lines: {0: ""}, shows=lambda batch: {**batch, "errors": None})
    with serving(provider) as url:
        summary = run(batch_job(tmp_path, url))
    assert (summary.exit_code, summary.rows.pending) == (Exit.NEEDS_PERSON, 20)
    assert "It said: no reason" in summary.message


COMPLETED = Counts(20, 0)


@pytest.mark.parametrize(
    ("status", "counts", "account", "missing"),
    [
        ("completed", COMPLETED, Account(20, 20, 0, (False,)), ""),
        ("completed", Counts(), Account(20, 20, 0, (False,)), ""),
        ("completed", Counts(0, 20), Account(0, 20, 0, (False,)), ""),
        ("completed", Counts(19, 0), Account(19, 19, 0, (False,)), ""),
        ("completed", COMPLETED, Account(0, 20, 0, (False,)), "20 of its 20 results are missing"),
        ("completed", Counts(), Account(19, 19, 0, (False,)), "1 of its 20 results are missing"),
        ("completed", Counts(0, 0), Account(19, 19, 0, (False,)), "1 of its 20 results are missing"),
        ("completed", Counts(0, 0), Account(), "there is no file of its results"),
        ("completed", Counts(20, 1), Account(19, 20, 0, (False, False)), ""),
        ("RUNNING", Counts(2, 0), Account(2, 2, 0, (False,)), "18 of its 20 results are missing"),
        ("expired", Counts(6, 0), Account(6, 6, 0, (False,)), ""),
        ("expired", Counts(0, 0), Account(), ""),
        ("expired", Counts(), Account(), "there is no file of its results"),
        ("expired", Counts(6, 0), Account(5, 20, 0, (False,)), "1 of its 20 results are missing"),
        ("cancelled", Counts(6, 0), Account(6, 6, 1, (True,)), "1 lines of its results cannot be read"),
    ],
)
def test_what_is_missing_is_what_may_have_been_paid_for_and_has_no_result(
    status: str, counts: Counts, account: Account, missing: str
) -> None:
    assert what_is_missing(status, counts, 20, account) == missing


def test_an_account_counts_each_request_once_and_sees_lines_of_others(tmp_path: Path) -> None:
    def line(key: str, status: int) -> bytes:
        return json.dumps({"custom_id": key, "response": {"status_code": status, "body": {}}}).encode() + b"\n"

    own, mixed = tmp_path / "own", tmp_path / "mixed"
    own.write_bytes(line("a", 200) * 2 + line("b", 400))
    mixed.write_bytes(line("b", 200) + line("x", 200) + b"[]\n")
    assert account_of([own, mixed], {"a", "b", "c"}, json.loads) == Account(2, 2, 1, (False, True))
    assert account_of([], {"a"}, json.loads) == Account()


@pytest.mark.parametrize("said", [None, [], {}, {"completed": "3"}, {"completed": -1, "failed": None}])
def test_counts_that_are_no_numbers_are_unknown(said: object) -> None:
    assert counts_of({"request_counts": said}) == Counts()


def test_results_that_are_there_in_part_under_an_unknown_status_are_waited_for_and_paid_once(tmp_path: Path) -> None:
    looks = 0

    def shown(batch: Batch) -> Batch:
        nonlocal looks
        looks += 1
        return {"status": "RUNNING", **counted(2)} if looks < 6 else {}

    def sent(whole: bytes) -> bytes:
        is_second = whole == provider.files.get("output_file_id-batch_2")
        return b"".join(whole.splitlines(keepends=True)[:2]) if is_second and looks < 6 else whole

    write_table(tmp_path, ROWS)
    provider = Provider(shows=finished(shown), results=sent)
    with serving(provider) as url:
        assert run(batch_job(tmp_path, url)).exit_code is Exit.DONE
    check_table(tmp_path, provider, ROWS)
    assert len(provider.batches) == 2


def test_a_batch_that_failed_for_a_line_that_it_does_not_have_stops_the_job(tmp_path: Path) -> None:
    errors = {"data": [{"code": "invalid", "line": 21, "message": "no such line"}]}
    failed = {"status": "failed", **NO_FILES, **counted(0), "errors": errors}
    write_table(tmp_path, ROWS)
    provider = Provider(shows=finished(lambda _batch: failed))
    with serving(provider) as url:
        summary = run(batch_job(tmp_path, url))
    assert summary.exit_code is Exit.NEEDS_PERSON
    assert "no such line" in summary.message
    assert len(provider.batches) == 2


def test_requests_of_an_earlier_run_that_no_row_asks_for_are_not_sent_again(tmp_path: Path) -> None:
    errors = {"data": [{"code": "token_limit_exceeded", "line": None, "message": "Enqueued token limit reached."}]}
    write_table(tmp_path, ROWS)
    provider = Provider(looks=10_000)
    with serving(provider) as url:
        run(batch_job(tmp_path, url, this_run=ThisRun(no_wait=True)))
        earlier = len(provider.batches)
        failed = {"status": "failed", **NO_FILES, **counted(0), "errors": errors}
        provider.shows = lambda batch: {**batch, **failed} if batch["number"] <= earlier else batch
        provider.looks = 0
        summary = run(batch_job(tmp_path, url, this_run=ThisRun(assume_yes=True), prompt__template="Other {{ q }}"))
    assert summary.exit_code is Exit.DONE
    assert max(provider.billed.values()) == 1
