"""Whose fault is a rejection: the row's, or that of the key, the model or the address? One short request finds out.

Each case counts the requests at the server.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from chat_server import Canned, ChatServer, Seen, problem
from command_line import asking, typed
from live_run import make_job, numbered, run

from pipeline.execution.live.key_check import PROMPT
from pipeline.records import Exit

PAGE = b"<!DOCTYPE html><html><head><title>Attention Required!</title></head><body>You have been blocked</body></html>"
REJECTIONS = {
    "firewall": Canned(403, PAGE, {"content-type": "text/html"}),
    "key": Canned(401, problem("Incorrect API key provided.", code="invalid_api_key")),
    "path": Canned(404, problem("Not found.")),
}
each_rejection = pytest.mark.parametrize("name", REJECTIONS)


@pytest.fixture(autouse=True)
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of 40 rows, where commands are typed; nobody waits long between two tries."""
    monkeypatch.setattr("pipeline.pacing.retry.BACKOFF_MAX_SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)
    Path("in.csv").write_text("q\n" + "".join(f"r{number}\n" for number in range(40)))


def rejecting(name: str, rows: Iterable[int]) -> Callable[[Seen, int], Canned | None]:
    prompts = {f"Say r{row}" for row in rows}
    return lambda seen, _: REJECTIONS[name] if seen.prompt in prompts else None


def checks(server: ChatServer) -> int:
    return sum(seen.prompt == PROMPT for seen in server.log)


def asked(server: ChatServer, *more: str) -> tuple[int, str]:
    done = typed("run", "in.csv", "-o", "out.csv", *asking(server), *more)
    return done.returncode, done.stderr


@each_rejection
def test_the_last_rows_of_a_run_fail_for_their_own_sake_if_the_key_is_good(name: str) -> None:
    with ChatServer(rejecting(name, [38, 39])) as server:
        code, said = asked(server)
        assert (code, server.arrived, checks(server)) == (Exit.INCOMPLETE, 38 + 2 * 3 + 1, 1), said
        assert "38 ok" in said
        assert said.count("One short request checks these") == 1
        assert typed("resume", "out.csv").returncode == Exit.INCOMPLETE
        assert server.arrived == 38 + 2 * 3 + 1


@pytest.mark.parametrize("name", ["key", "firewall"])
def test_a_resume_of_which_every_row_is_rejected_ends_and_the_next_asks_nothing(name: str) -> None:
    with ChatServer(rejecting(name, [37, 38, 39])) as server:
        assert asked(server, "--limit", "37")[0] == Exit.DONE
        code, said = asked(server)
        assert (code, server.arrived, checks(server)) == (Exit.INCOMPLETE, 37 + 3 * 3 + 1, 1), said
        assert typed("resume", "out.csv").returncode == Exit.INCOMPLETE
        assert server.arrived == 37 + 3 * 3 + 1


@pytest.mark.parametrize("name", ["key", "firewall"])
def test_rejected_rows_before_the_good_ones_do_not_stop_a_resume(name: str) -> None:
    with ChatServer(rejecting(name, range(5, 25))) as server:
        assert asked(server, "--limit", "5")[0] == Exit.DONE
        code, said = asked(server)
        assert (code, server.arrived - checks(server)) == (Exit.INCOMPLETE, 20 + 20 * 3), said
        assert checks(server) <= {"firewall": 1, "key": 6}[name]


@pytest.mark.parametrize(("name", "answered"), [("firewall", 5), ("key", 38), ("path", 39)])
def test_a_key_that_was_revoked_before_a_resume_stops_it_and_no_row_fails(name: str, answered: int) -> None:
    is_revoked = False
    with ChatServer(lambda *_: REJECTIONS[name] if is_revoked else None) as server:
        assert asked(server, "--limit", str(answered))[0] == Exit.DONE
        is_revoked = True
        code, said = asked(server)
        assert (code, checks(server)) == (Exit.NEEDS_PERSON, 1), said
        assert server.arrived <= answered + 2 * 3 + 1
        is_revoked = False
        code, said = asked(server)
        assert (code, "failed" in said) == (Exit.DONE, False), said


@each_rejection
def test_a_key_that_is_revoked_before_the_last_rows_stops_the_run_and_no_row_fails(tmp_path: Path, name: str) -> None:
    def reply(seen: Seen, _attempt: int) -> Canned | None:
        return None if seen.prompt in numbered(38) else REJECTIONS[name]

    with ChatServer(reply) as server:
        left = run(tmp_path, make_job(server.url), numbered(40), raises=True)
    assert left.stop.exit_code is Exit.NEEDS_PERSON
    assert (len(left.outcomes), server.arrived, checks(server)) == (38, 38 + 2 * 3 + 1, 1)


def test_the_check_is_within_the_cap_and_in_the_costs(tmp_path: Path) -> None:
    priced = {"prices__input": 0.0, "prices__output": 1000.0, "parameters__max_tokens": 50}

    def reply(seen: Seen, _attempt: int) -> Canned | None:
        return REJECTIONS["key"] if seen.prompt in ("row 2", "row 3") else None

    with ChatServer(reply) as server:
        left = run(tmp_path, make_job(server.url, limits__max_cost=1.0, **priced), numbered(4))
        assert (left.marks["row 3"], left.tally.attempts, checks(server)) == ("failed", 2 + 6 + 1, 1)
        assert left.tally.cost == pytest.approx(3 * 6 / 1000)
        assert next(seen.body["max_tokens"] for seen in server.log if seen.prompt == PROMPT) == 16


def test_a_check_that_fails_for_a_while_is_repeated_and_one_that_fails_for_good_stops_to_be_tried_later(
    tmp_path: Path,
) -> None:
    def reply(seen: Seen, attempt: int) -> Canned | None:
        if seen.prompt == PROMPT:
            return None if attempt == 3 else Canned(503, problem("Busy."), {"retry-after": "0.01"})
        return REJECTIONS["key"] if seen.prompt == "row 3" else None

    with ChatServer(reply) as server:
        left = run(tmp_path, make_job(server.url), numbered(4))
    assert (left.marks["row 3"], checks(server)) == ("failed", 3)
