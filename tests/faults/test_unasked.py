"""An endpoint that sends responses which nobody asked for: no row gets the answer of another."""

import ssl
from pathlib import Path
from typing import Any

import pytest
from chat_server import answer_to
from live_run import Run, make_job, numbered, run
from unasked_server import Manner, UnaskedServer

ROWS = 48

MANNERS = {
    "doubled": Manner(),
    "doubled now and then": Manner(share=0.2, latency=(0, 0.02)),
    "1 ms late": Manner(late=(0.001, 0.001)),
    "20 ms late": Manner(late=(0.02, 0.02)),
    "late, from a slow server": Manner(late=(0.02, 0.02), latency=(0.05, 0.05)),
    "late by any time, from a server of any speed": Manner(share=0.5, late=(0, 0.1), latency=(0, 0.1)),
    "rarely, after many good answers": Manner(share=0.1, late=(0.001, 0.05), latency=(0, 0.03), after=30),
    "in halves": Manner(share=0.4, late=(0, 0.04), latency=(0, 0.04), halves=True),
    "of status 408": Manner(share=0.4, late=(0, 0.04), latency=(0, 0.04), status=b"408 Request Timeout"),
    "of status 500": Manner(share=0.4, late=(0, 0.04), latency=(0, 0.04), status=b"500 Oh"),
}


def wrong_rows(answered: Run) -> list[str]:
    return [prompt for prompt, text in answered.answers.items() if text != answer_to(prompt)]


def ask(folder: Path, server: UnaskedServer, rows: int = ROWS, **settings: Any) -> Run:
    return run(folder, make_job(server.url, **settings), numbered(rows))


@pytest.mark.parametrize("concurrency", [8])
@pytest.mark.parametrize("manner", MANNERS.values(), ids=MANNERS)
def test_every_row_gets_its_own_answer_whatever_else_the_endpoint_sends(
    tmp_path: Path, manner: Manner, concurrency: int
) -> None:
    with UnaskedServer(manner) as server:
        answered = ask(tmp_path, server, limits__concurrency=concurrency)
    assert (wrong_rows(answered), len(answered.answers), answered.tally.ok) == ([], ROWS, ROWS)
    again = 2 if manner.status.startswith(b"200") else 4  # an unasked error is taken for a rejection, and retried
    assert len(server.prompts) <= again * ROWS


@pytest.mark.parametrize("slower", [1.5])
def test_the_last_rows_get_their_own_answers_from_a_server_that_became_slow(tmp_path: Path, slower: float) -> None:
    with UnaskedServer(Manner(late=(0.02, 0.02), latency=(0.2, 0.2), slower=slower)) as server:
        answered = ask(tmp_path, server, 3, limits__concurrency=1)
    assert (wrong_rows(answered), answered.tally.ok, server.unasked) == ([], 3, 1)


@pytest.mark.parametrize("requests_per_minute", [600, 3000])
def test_every_row_gets_its_own_answer_at_any_pace(tmp_path: Path, requests_per_minute: int) -> None:
    with UnaskedServer(MANNERS["20 ms late"]) as server:
        answered = ask(tmp_path, server, 24, limits__requests_per_minute=requests_per_minute)
    assert (wrong_rows(answered), answered.tally.ok) == ([], 24)


@pytest.mark.parametrize("manner", ["doubled", "late, from a slow server", "in halves", "of status 408"])
def test_every_row_gets_its_own_answer_over_tls(
    tmp_path: Path, manner: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with UnaskedServer(MANNERS[manner], tls) as server:
        answered = ask(tmp_path, server, limits__concurrency=16)
    assert (wrong_rows(answered), answered.tally.ok) == ([], ROWS)


def test_every_row_gets_its_own_answer_through_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with UnaskedServer(MANNERS["late, from a slow server"]) as server:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
        job = make_job("http://endpoint.invalid/v1", limits__concurrency=16)
        answered = run(tmp_path, job, numbered(ROWS))
    assert (wrong_rows(answered), answered.tally.ok) == ([], ROWS)


@pytest.mark.parametrize("early_after", [0, 0.005])
def test_no_row_gets_what_an_endpoint_sends_before_it_is_asked(tmp_path: Path, early_after: float) -> None:
    manner = Manner(early=True, early_after=early_after, latency=(0.02, 0.04))
    with UnaskedServer(manner) as server:
        answered = run(tmp_path, make_job(server.url), numbered(3), raises=True)
    assert answered.answers == {}
    assert len(server.prompts) <= 3


def test_what_is_asked_again_is_told_once_and_counted_once(tmp_path: Path) -> None:
    with UnaskedServer(MANNERS["late, from a slow server"]) as server:
        answered = ask(tmp_path, server, limits__concurrency=4)
    assert answered.said.count("The endpoint sent a response that no request had asked for.") == 1
    assert answered.tally.rows == ROWS < len(server.prompts) <= answered.tally.attempts


def test_a_doubtful_answer_takes_its_follow_ups_with_it(tmp_path: Path) -> None:
    manner = Manner(share=0.3, late=(0.001, 0.05), latency=(0.01, 0.05))
    with UnaskedServer(manner) as server:
        settings = {"answer__labels": ["yes", "no"], "limits__concurrency": 8}
        answered = run(tmp_path, make_job(server.url, **settings), numbered(ROWS))
    assert wrong_rows(answered) == []
    assert (answered.tally.rows, answered.tally.invalid) == (ROWS, ROWS)


def test_a_connection_to_a_good_endpoint_is_kept_for_many_requests(tmp_path: Path) -> None:
    with UnaskedServer(Manner(share=0, latency=(0, 0.01))) as server:
        answered = ask(tmp_path, server, 200, limits__concurrency=4)
    assert answered.tally.ok == len(server.prompts) == 200
    assert server.connections <= 4 + 200 / 32 + 4
