"""Calls to the Batch API: repeated, given up or ended by a stop, over a real server."""

import signal
import time
from pathlib import Path

import pytest
from batch_runs import batch_job, check_table, command_words, start, write_table
from batch_server import Provider, serving
from chat_server import ChatServer

from pipeline import run
from pipeline.records import Exit


def test_calls_that_fail_once_are_made_again(tmp_path: Path) -> None:
    write_table(tmp_path, 50)
    failed: set[str] = set()

    def once(method: str, path: str) -> str:
        has_failed = f"{method} {path.split('/')[1]}" in failed
        failed.add(f"{method} {path.split('/')[1]}")
        return "" if has_failed or path == "/batches" else "503"

    provider = Provider(interfere=once)
    with serving(provider) as url:
        assert run(batch_job(tmp_path, url)).exit_code is Exit.DONE
    check_table(tmp_path, provider, 50)


@pytest.mark.parametrize("at", [("POST", "/files"), ("POST", "/batches"), ("GET", "/batches/batch_1")])
def test_a_web_page_is_not_taken_for_a_reply_of_the_batch_api(tmp_path: Path, at: tuple[str, str]) -> None:
    write_table(tmp_path, 20)
    pages = iter(["page"])
    provider = Provider(interfere=lambda *call: next(pages, "") if call == at else "")
    with serving(provider) as url:
        for _ in range(2):  # a page may stop a run, but not the next
            summary = run(batch_job(tmp_path, url))
    assert summary.exit_code is Exit.DONE, summary
    check_table(tmp_path, provider, 20)


def test_calls_back_off_after_a_429_without_a_time(tmp_path: Path) -> None:
    write_table(tmp_path, 20)
    busy = iter(["429", "429"])
    provider = Provider(interfere=lambda method, _path: next(busy, "") if method == "POST" else "")
    with serving(provider) as url:
        summary = run(batch_job(tmp_path, url))
    assert summary.exit_code is Exit.DONE
    assert summary.seconds > 2 + 4


@pytest.mark.parametrize("at", ["POST /files", "POST /batches", "GET /batches/batch_1"])
def test_ctrl_c_ends_a_call_that_hangs(tmp_path: Path, at: str) -> None:
    write_table(tmp_path, 20)
    provider = Provider(interfere=lambda method, path: "hang" if f"{method} {path}" == at else "")
    with serving(provider) as url, start("-m", "pipeline", *command_words(tmp_path, url)) as process:
        while at not in provider.calls:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == Exit.SIGINT
    provider.interfere = lambda _method, _path: ""
    provider.over.clear()
    with serving(provider) as url:
        assert run(batch_job(tmp_path, url)).exit_code is Exit.DONE
    check_table(tmp_path, provider, 20)


def test_a_wrong_key_costs_one_call_and_an_endpoint_without_a_batch_api_is_reported(tmp_path: Path) -> None:
    write_table(tmp_path, 30)
    provider = Provider(key="sk-right")
    with serving(provider) as url:
        summary = run(batch_job(tmp_path, url))
    assert summary.exit_code is Exit.NEEDS_PERSON
    assert "Incorrect API key" in summary.message
    assert len(provider.calls) == 1
    with ChatServer() as server:
        summary = run(batch_job(tmp_path, server.url))
    assert summary.exit_code is Exit.NEEDS_PERSON
    assert "no Batch API" in summary.message
    assert "run.how=live" in summary.message
