"""Sending batches: never twice, within the queue and the budget, over a real server."""

import signal
from pathlib import Path

import crashing_batch
import pytest
from batch_runs import ANSWER_COST, batch_job, check_table, command_words, start, write_table
from batch_server import Provider, serving

from pipeline import ThisRun, run
from pipeline.records import Exit


def test_a_batch_whose_creation_was_not_confirmed_is_not_created_twice(tmp_path: Path) -> None:
    write_table(tmp_path, 50)
    lost = iter(["lose", "500", "close"])
    provider = Provider(interfere=lambda method, path: next(lost, "") if (method, path) == ("POST", "/batches") else "")
    with serving(provider) as url:
        assert run(batch_job(tmp_path, url)).exit_code is Exit.DONE
    check_table(tmp_path, provider, 50)
    assert len(provider.batches) == 3


def test_a_batch_whose_creation_was_confirmed_without_its_id_is_not_created_twice(tmp_path: Path) -> None:
    write_table(tmp_path, 20)
    without = iter([{"id": None}])
    provider = Provider(shows=lambda batch: {**batch, **next(without, {})})
    with serving(provider) as url:
        assert run(batch_job(tmp_path, url)).exit_code is Exit.DONE
    check_table(tmp_path, provider, 20)
    assert len(provider.batches) == 1


def test_a_list_of_batches_that_comes_to_no_end_stops_the_job_and_nothing_is_sent(tmp_path: Path) -> None:
    write_table(tmp_path, 20)
    others = {f"b{n}": {"id": f"b{n}", "input_file_id": "other", "status": "completed"} for n in range(3)}
    creation = ("POST", "/batches")
    provider = Provider(batches=others, ignores_after=True, interfere=lambda *call: "500" if call == creation else "")
    with serving(provider) as url:
        summary = run(batch_job(tmp_path, url))
        provider.interfere = lambda *_call: ""
        assert run(batch_job(tmp_path, url)).message == summary.message
    assert (summary.exit_code, summary.rows.pending, len(provider.batches)) == (Exit.NEEDS_PERSON, 20, 3)
    assert "comes to no end" in summary.message


def test_a_batch_is_not_created_twice_at_a_provider_that_lists_no_batches(tmp_path: Path) -> None:
    write_table(tmp_path, 20)
    provider = Provider(lists=False)
    program = str(Path(crashing_batch.__file__))
    with serving(provider) as url:
        with start(program, "after create", "1", *command_words(tmp_path, url)) as killed:
            assert killed.wait(timeout=60) == -signal.SIGKILL
        stopped = run(batch_job(tmp_path, url))
        assert stopped.exit_code is Exit.NEEDS_PERSON
        assert "nothing is paid for twice" in stopped.message
        batch_file = next((tmp_path / "out.parquet.job" / "batches").glob("*.jsonl"))
        assert f"remove\n{batch_file}\n" in stopped.message
        assert run(batch_job(tmp_path, url)).message == stopped.message
        assert len(provider.batches) == 1
        provider.batches["batch_1"]["status"] = "cancelled"
        batch_file.unlink()
        assert run(batch_job(tmp_path, url)).exit_code is Exit.DONE
    assert len(provider.batches) == 2
    check_table(tmp_path, provider, 20)


@pytest.mark.parametrize("tells", [True, False])
def test_fewer_requests_are_sent_at_a_time_when_the_providers_queue_is_full(tmp_path: Path, tells: bool) -> None:
    write_table(tmp_path, 100)
    provider = Provider(queue_tokens=1500, tells_queue=tells)  # about 30 requests
    with serving(provider) as url:
        assert run(batch_job(tmp_path, url)).exit_code is Exit.DONE
    check_table(tmp_path, provider, 100)
    failed = sum(batch["status"] == "failed" for batch in provider.batches.values())
    assert 1 <= failed <= 6


def test_a_cap_that_is_set_later_counts_what_open_batches_can_cost(tmp_path: Path) -> None:
    write_table(tmp_path, 40)
    provider = Provider()
    with serving(provider) as url:
        settings = {"parameters__max_tokens": 10}
        run(batch_job(tmp_path, url, this_run=ThisRun(no_wait=True, limit=20), **settings))
        capped = run(batch_job(tmp_path, url, limits__max_cost=0.0009, **settings))
    assert capped.exit_code is Exit.AT_LIMIT
    assert sum(provider.billed.values()) * ANSWER_COST <= 0.0009


def test_spending_stays_within_the_cap_across_batches_and_kills(tmp_path: Path) -> None:
    write_table(tmp_path, 60)
    provider = Provider()
    cap = {"limits__max_cost": 0.0015, "parameters__max_tokens": 10}
    program = str(Path(crashing_batch.__file__))
    flags = ("--max-cost", "0.0015", "--set", "parameters.max_tokens=10")
    with serving(provider) as url:
        with start(program, "after create", "1", *command_words(tmp_path, url, *flags)) as killed:
            assert killed.wait(timeout=60) == -signal.SIGKILL
        capped = run(batch_job(tmp_path, url, **cap))
        assert capped.exit_code is Exit.AT_LIMIT, capped
        assert 0 < sum(provider.billed.values()) < 60
        assert sum(provider.billed.values()) * ANSWER_COST <= 0.0015
        assert capped.rows.ok == sum(provider.billed.values())
        assert run(batch_job(tmp_path, url, **{**cap, "limits__max_cost": 1.0})).exit_code is Exit.DONE
    check_table(tmp_path, provider, 60)
