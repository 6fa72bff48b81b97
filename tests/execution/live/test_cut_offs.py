"""Attempts that are cut off after the same time name the setting that helps; other failures do not."""

from pathlib import Path

import pytest
from chat_server import Canned, ChatServer, Seen
from live_run import make_job, numbered, run

from pipeline.execution.live.cut_offs import APART_SECONDS, CutOffs
from pipeline.records import Rejection

TIME_OUT = Rejection("retry", "gateway_timeout", "upstream request timeout", 504)
CUT = Rejection("retry", "cut", "the connection was lost")
BAD_GATEWAY = Rejection("retry", "overload", "Bad gateway", 502)


def lines(*attempts: tuple[str, Rejection, float, float], longest: float = 0.0, is_streamed: bool = False) -> list[str]:
    """What was said after attempts: (row, rejection, seconds, the moment of its end)."""
    made = CutOffs(is_streamed=is_streamed)
    made.answered(longest)
    return [line for attempt in attempts if (line := made.rejected(*attempt))]


@pytest.mark.parametrize("seconds", [30.0, 60.0, 100.0, 120.0, 300.0, 600.0])
@pytest.mark.parametrize("rejection", [TIME_OUT, CUT, BAD_GATEWAY])
def test_three_attempts_that_end_after_the_same_time_name_the_setting_once(
    rejection: Rejection, seconds: float
) -> None:
    times = [seconds, seconds * 1.02, seconds * 0.99, seconds]
    (line,) = lines(*((f"row {n}", rejection, time, 1000.0 * n) for n, time in enumerate(times)))
    assert line.startswith(f"3 requests were cut off after about {seconds * 0.99:,.0f} s each")
    assert "endpoint.stream = true" in line


@pytest.mark.parametrize(
    "attempts",
    [
        [("a", CUT, 60.0, 100.0), ("b", CUT, 60.0, 200.0)],
        [("a", CUT, 60.0, 100.0), ("b", CUT, 30.0, 200.0), ("c", CUT, 90.0, 300.0)],
        [("a", CUT, 60.0, 100.0 * n) for n in range(5)],
        [(f"row {n}", CUT, 3.0, 100.0 * n) for n in range(5)],
        [(f"row {n}", Rejection("retry", "overload", "Busy", 503), 60.0, 100.0 * n) for n in range(5)],
        [(f"row {n}", Rejection("retry", "timeout", "no answer"), 60.0, 100.0 * n) for n in range(5)],
    ],
    ids=["too few", "other times", "one row", "at once", "overload", "our own deadline"],
)
def test_what_may_have_another_reason_says_nothing(attempts: list[tuple[str, Rejection, float, float]]) -> None:
    assert lines(*attempts) == []


@pytest.mark.parametrize("rejection", [CUT, BAD_GATEWAY])
def test_a_server_that_stops_breaks_off_everything_at_one_moment_and_is_no_gateway(rejection: Rejection) -> None:
    at_once = [(f"row {n}", rejection, 60.0, 100.0 + n * APART_SECONDS / 100) for n in range(20)]
    assert lines(*at_once) == []
    assert len(lines(*((key, TIME_OUT, seconds, at) for key, _, seconds, at in at_once))) == 1


def test_an_answer_that_took_longer_shows_that_no_gateway_cuts_off() -> None:
    cut = [(f"row {n}", TIME_OUT, 60.0, 100.0 * n) for n in range(5)]
    assert lines(*cut, longest=90.0) == []
    assert lines(*cut, longest=59.0)


def test_a_job_that_streams_already_is_told_nothing() -> None:
    assert lines(*((f"row {n}", TIME_OUT, 60.0, 100.0 * n) for n in range(5)), is_streamed=True) == []


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_job_behind_such_a_gateway_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_streamed: bool
) -> None:
    monkeypatch.setattr("pipeline.execution.live.cut_offs.SECONDS_MIN", 0.1)
    monkeypatch.setattr("pipeline.pacing.retry.BACKOFF_MAX_SECONDS", 0.01)

    def reply(_seen: Seen, _attempt: int) -> Canned | None:
        is_late = server.arrived in (2, 3, 4)
        return Canned(504, b"upstream request timeout", delay_seconds=0.2) if is_late else None

    with ChatServer(reply) as server:
        left = run(tmp_path, make_job(server.url, endpoint__stream=is_streamed), numbered(4))
    assert left.said.count("Set endpoint.stream = true") == (not is_streamed)
