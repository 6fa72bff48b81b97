"""Runs in batches from end to end, over a real server with files and batches."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import crashing_batch
import polars as pl
import pytest
from batch_runs import ANSWER_COST, batch_job, check_table, command_words, spent, start, write_table
from batch_server import Answered, Provider, serving
from chat_server import USAGE, ChatServer, completion
from children import small_disk
from crashing_batch import STEPS

from pipeline import BadJob, ThisRun, run
from pipeline.records import Exit
from pipeline.results.status import job_status, status_text


def test_every_request_gets_its_own_answer_in_any_order_of_results(tmp_path: Path) -> None:
    write_table(tmp_path, 130)
    provider = Provider()
    with serving(provider) as url:
        summary = run(batch_job(tmp_path, url))
    assert summary.exit_code is Exit.DONE
    table = check_table(tmp_path, provider, 130)
    assert [batch["request_counts"]["total"] for batch in provider.batches.values()] == [20] * 6 + [10]
    assert provider.calls.index("GET /batches/batch_1") > provider.calls.index("POST /batches")
    assert provider.calls[:14].count("POST /batches") == 7, "all are open at once"
    assert table["cost"].sum() == pytest.approx(130 * ANSWER_COST) == summary.spent == spent(tmp_path)
    assert table["attempts"].unique().to_list() == [1]
    assert table["asked_at"].null_count() == 0 == len(provider.files)


@pytest.mark.parametrize(("step", "times"), [(step, 1 + 2 * (number % 2)) for number, step in enumerate(STEPS)])
def test_a_kill_at_any_step_loses_no_batch_and_pays_none_twice(tmp_path: Path, step: str, times: int) -> None:
    write_table(tmp_path, 50)
    provider = Provider()
    program = str(Path(crashing_batch.__file__))
    with serving(provider) as url:
        with start(program, step, str(times), *command_words(tmp_path, url)) as killed:
            assert killed.wait(timeout=60) == -signal.SIGKILL, killed.stderr.read() if killed.stderr else ""
        assert run(batch_job(tmp_path, url)).exit_code is Exit.DONE
    table = check_table(tmp_path, provider, 50)
    assert table["cost"].sum() == pytest.approx(50 * ANSWER_COST)
    # the ledger may be ahead of the store by one answer
    assert round(spent(tmp_path) / ANSWER_COST, 6) in (50, 51)


def test_a_pilot_while_batches_are_open_asks_no_follow_ups_of_other_rows(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> Answered:
        return 200, completion("neither", usage=USAGE)

    labels = {"answer__labels": ["a", "b"], "answer__repairs": 1}
    write_table(tmp_path, 20)
    provider = Provider(answer=answer)
    with serving(provider) as url:
        run(batch_job(tmp_path, url, this_run=ThisRun(no_wait=True), **labels))
        pilot = run(batch_job(tmp_path, url, this_run=ThisRun(limit=5), **labels))
        assert (pilot.exit_code, pilot.rows.rows, pilot.rows.invalid) == (Exit.INCOMPLETE, 5, 5)
        assert sum(provider.billed.values()) == 20 + 5, "all first answers, and the repairs of the pilot"
        whole = run(batch_job(tmp_path, url, **labels))
    assert (whole.rows.invalid, sum(provider.billed.values())) == (20, 40)
    assert max(provider.billed.values()) == 1


def test_samples_of_several_models_are_sent_in_batches_of_one_model_each(tmp_path: Path) -> None:
    write_table(tmp_path, 30)
    provider = Provider()
    samples = {"answer__samples": 2, "answer__models": ["m", "n"], "answer__labels": ["positive", "negative"]}
    with serving(provider) as url:
        summary = run(batch_job(tmp_path, url, **samples))
        made = [
            (len(lines := provider.lines(batch)), {each["body"]["model"] for each in lines})
            for batch in provider.batches.values()
            if batch["input_file_id"] in provider.files
        ]
        assert summary.rows.ok == 30, (summary, made)
    assert sum(provider.billed.values()) == 120
    assert max(provider.billed.values()) == 1


def test_a_job_with_open_batches_is_shown_and_exported(tmp_path: Path) -> None:
    write_table(tmp_path, 20)
    with serving(Provider()) as url:
        run(batch_job(tmp_path, url, this_run=ThisRun(no_wait=True)))
    program = [sys.executable, "-m", "pipeline"]
    subprocess.run([*program, "show", tmp_path / "out.parquet", "--status", "pending"], check=True, capture_output=True)
    subprocess.run([*program, "export", tmp_path / "out.parquet", "-o", tmp_path / "so-far.csv"], check=True)
    assert pl.read_csv(tmp_path / "so-far.csv")["status"].to_list() == ["pending"] * 20


def test_a_full_disk_stops_the_job_and_loses_no_batch(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "3m") as folder:
        write_table(folder, 20)
        provider = Provider(results=lambda content: content + b" " * 4_000_000)
        with serving(provider) as url:
            stopped = run(batch_job(folder, url))
            assert stopped.exit_code is Exit.NEEDS_PERSON
            assert "Check the disk" in stopped.message
            provider.results = lambda content: content
            assert run(batch_job(folder, url)).exit_code is Exit.DONE
        check_table(folder, provider, 20)


def test_a_run_with_no_wait_sends_and_collects_what_it_can_and_reports_the_open_batches(tmp_path: Path) -> None:
    write_table(tmp_path, 50)
    provider = Provider(looks=3)
    no_wait = ThisRun(no_wait=True)
    with serving(provider) as url:
        summaries, listed, shown = [], [], ""
        for _ in range(4):
            summaries.append(run(batch_job(tmp_path, url, this_run=no_wait)))
            status = job_status(tmp_path / "out.parquet")
            listed.append([batch.id for batch in status.batches])
            shown += status_text(status)
    assert [summary.exit_code for summary in summaries] == [Exit.TRY_LATER, Exit.TRY_LATER, Exit.DONE, Exit.DONE]
    assert "3 batches with the provider, 0 of 50 requests done" in summaries[0].message
    assert listed == [["batch_1", "batch_2", "batch_3"], ["batch_1", "batch_2", "batch_3"], [], []]
    assert "batch  3 with the provider, 0 of 50 requests done" in shown
    assert len(provider.batches) == 3
    check_table(tmp_path, provider, 50)


def test_a_stopped_run_is_resumed_after_a_restart_of_the_provider(tmp_path: Path) -> None:
    write_table(tmp_path, 50)
    provider = Provider(looks=4)
    with serving(provider) as url:
        stopped = run(batch_job(tmp_path, url, limits__max_runtime="1s", run__poll_seconds=30))
    assert stopped.exit_code is Exit.AT_LIMIT
    assert stopped.rows.pending == 50
    assert stopped.seconds < 20
    with serving(provider) as url:
        assert run(batch_job(tmp_path, url)).exit_code is Exit.DONE
    assert len(provider.batches) == 3
    check_table(tmp_path, provider, 50)


def test_ctrl_c_does_not_wait_for_batches_and_they_go_on(tmp_path: Path) -> None:
    write_table(tmp_path, 50)
    provider = Provider(looks=2)
    with serving(provider) as url:
        with start("-m", "pipeline", *command_words(tmp_path, url, "--set", "run.poll_seconds=60")) as process:
            assert process.stderr is not None
            while not any(call == "GET /batches/batch_3" for call in provider.calls):
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            stopped_at = time.monotonic()
            assert process.wait(timeout=60) == Exit.SIGINT
            assert time.monotonic() - stopped_at < 15
            assert "pipeline resume" in process.stderr.read()
        assert run(batch_job(tmp_path, url)).exit_code is Exit.DONE
    check_table(tmp_path, provider, 50)


def test_a_job_started_live_is_finished_in_batches_and_the_reverse(tmp_path: Path) -> None:
    write_table(tmp_path, 50)
    provider = Provider(looks=2)
    with ChatServer() as server:
        first = run(batch_job(tmp_path, server.url, run__how="live", this_run=ThisRun(limit=30)))
        assert first.rows.ok == server.arrived == 30
        with serving(provider) as url:
            waiting = run(batch_job(tmp_path, url, this_run=ThisRun(no_wait=True)))
            assert waiting.rows.pending == 20
            with pytest.raises(BadJob, match="20 requests of this job are with the provider"):
                run(batch_job(tmp_path, server.url, run__how="live"))
            run(batch_job(tmp_path, url))
        check_table(tmp_path, provider, 50)
        assert sum(provider.billed.values()) == 20
        write_table(tmp_path, 60)
        assert run(batch_job(tmp_path, server.url, run__how="live")).rows.ok == 60
        assert server.arrived == 40


def test_a_model_on_this_machine_has_no_batches(tmp_path: Path) -> None:
    write_table(tmp_path, 1)
    with pytest.raises(BadJob, match="no Batch API"):
        batch_job(tmp_path, "local:smollm2-135m")
