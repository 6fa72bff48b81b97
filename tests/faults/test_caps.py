"""A cost cap holds against everything that an endpoint may say, or leave out, of what it bills."""

from contextlib import closing
from pathlib import Path

import pytest
from chat_server import Canned, ChatServer, Seen, completion
from command_line import asking, typed
from live_run import make_job, numbered, run
from random_bills import try_server

from pipeline.records import Exit
from pipeline.store.notes import read_ledger
from pipeline.store.reader import Reader

PRICED = {"prices__input": 0.0, "prices__output": 1e6, "parameters__max_tokens": 10}


@pytest.mark.parametrize("seed", range(1, 9))
def test_no_bill_is_above_the_cap_by_more_than_one_group_in_flight_could_cost_beyond_its_reservation(
    seed: int, tmp_path: Path
) -> None:
    trial = try_server(seed, tmp_path)
    assert trial.overshoot <= trial.allowed_beyond + 1e-9, trial
    assert trial.bill <= trial.booked + trial.allowed_beyond + 1e-9, trial


def test_empty_replies_without_usage_end_at_the_cap(tmp_path: Path) -> None:
    odd = [Canned(body=completion("", usage=None)), Canned(body=b'{"choices": []}'), Canned(body=b"{")]

    def reply(seen: Seen, attempt: int) -> Canned | None:
        return odd[attempt % 3] if seen.prompt != "row 0" else None

    with ChatServer(reply) as server:
        job = make_job(server.url, limits__max_cost=50.0, limits__concurrency=16, **PRICED)
        done = run(tmp_path, job, numbered(100), raises=True)
    assert done.stop.exit_code is Exit.AT_LIMIT
    assert server.arrived <= 6  # one for six dollars, and as many at ten as fit
    assert done.spent <= 50


def test_what_is_in_flight_is_on_disk_also_without_a_cap(tmp_path: Path) -> None:
    noted = []

    def reply(_seen: Seen, _attempt: int) -> Canned | None:
        with closing(Reader(tmp_path / "store")) as reader:
            ledger = read_ledger(reader)
            noted.append(0.0 if ledger is None else ledger.aside)
        return None

    with ChatServer(reply) as server:
        run(tmp_path, make_job(server.url, limits__concurrency=8, **PRICED), numbered(30))
    assert min(noted) >= 10, "the most that the first request can cost"


def test_one_of_two_models_does_not_end_the_run_while_the_other_notes_what_it_reserves(
    tmp_path: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.csv").write_text("q\none\ntwo\n")
    priced = ("--set", "prices.input=0", "--set", "prices.output=1000000", "--set", "parameters.max_tokens=10")
    models = ("--set", 'answer.models=["m","n"]', "--set", "answer.samples=2")
    done = typed("run", "in.csv", "-o", "out.csv", *asking(server), *priced, *models, "--max-cost", "15")
    assert done.returncode == Exit.AT_LIMIT, done.stderr
    assert server.arrived == 1
    assert "$6 of $15 is spent" in done.stderr
