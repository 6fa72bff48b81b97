"""A wall clock that is set back or forward: no row is paid twice for it, and none is passed over."""

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import builders
import pytest
from chat_server import Canned, ChatServer, Seen, completion, problem

from pipeline import ThisRun, run
from pipeline.records import Exit, Outcome, Status
from pipeline.store import Reader, read_outcome

ROWS, WIDTH, HOUR = 40, 4, 3600
SHIFTED_RUN = Path(__file__).parents[1] / "support" / "shifted_run.py"
CUT = completion("Half of", finish_reason="length")


def outcomes(folder: Path) -> Iterator[Outcome]:
    with closing(Reader(folder / "out.csv.job" / "store")) as reader:
        for chunk in reader.marks():
            yield from (read_outcome(stored or b"") for stored in reader.get_many([key for key, _ in chunk]))


def retried(folder: Path) -> int:
    return sum(outcome.retry != "" for outcome in outcomes(folder))


def run_at(clock: int, folder: Path, server: ChatServer) -> subprocess.Popen[bytes]:
    """The retry in a process of its own, whose wall clock is that many seconds away from this one's."""
    words = builders.command_line(server.url, folder / "in.csv", folder / "out.csv", "-q", "--retry", "truncated")
    words += ["--concurrency", str(WIDTH), "--set", "endpoint.name=x"]
    return subprocess.Popen([sys.executable, str(SHIFTED_RUN), str(clock), *words[len(builders.PIPELINE) :]])


@pytest.mark.parametrize("clocks", [(0, -HOUR, -HOUR), (-2 * HOUR, HOUR, -HOUR)], ids=["set back", "there and back"])
def test_a_retry_that_is_killed_pays_again_for_what_was_not_yet_committed_whatever_becomes_of_the_clock(
    tmp_path: Path, clocks: tuple[int, ...]
) -> None:
    builders.questions(tmp_path / "in.csv", range(ROWS))
    answers = iter([Canned(body=CUT)] * ROWS)

    def reply(_seen: Seen, _attempt: int) -> Canned:
        return next(answers, Canned(body=CUT, delay_seconds=0.02))

    with ChatServer(reply) as server:
        run(builders.job(server.url, tmp_path / "in.csv", tmp_path / "out.csv", endpoint__name="x"))
        not_committed = before = 0
        for clock in clocks[:-1]:
            arrived = server.arrived
            child = run_at(clock, tmp_path, server)
            server.wait_for(arrived + ROWS // 3)
            child.kill()
            assert child.wait() == -signal.SIGKILL
            done = retried(tmp_path)
            not_committed += server.arrived - arrived - (done - before)
            before = done
        assert run_at(clocks[-1], tmp_path, server).wait() == Exit.DONE
        assert retried(tmp_path) == ROWS
        assert min(Counter(seen.prompt for seen in server.log).values()) == 2
        assert server.arrived - 2 * ROWS == not_committed <= 2 * 2 * WIDTH


def test_a_retry_that_was_stopped_goes_on_with_its_statuses_in_any_order(tmp_path: Path) -> None:
    table = builders.questions(tmp_path / "in.csv", range(6))
    free, no_credit = Canned(413, problem("too long")), Canned(402, problem("You have no credit left."))
    # an answer first, since nothing is called failed before; the retry is stopped by its fourth request
    replies = iter([None, *[free] * 4, Canned(body=CUT), free, free, Canned(body=CUT), no_credit])

    def rerun(*statuses: Status) -> tuple[Exit, int]:
        before = server.arrived
        again = ThisRun(retry=statuses, verbosity=-1)
        done = run(builders.job(server.url, table, tmp_path / "out.csv", again, limits__concurrency=1))
        return done.exit_code, server.arrived - before

    with ChatServer(lambda _seen, _attempt: next(replies, None)) as server:
        assert rerun() == (Exit.INCOMPLETE, 6)
        assert rerun("truncated", "failed")[0] is Exit.NEEDS_PERSON
        left = 5 - retried(tmp_path)
        assert rerun("failed", "truncated") == (Exit.DONE, left)
