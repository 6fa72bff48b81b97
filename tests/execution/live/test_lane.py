"""A lane: which request is sent when, and when a row fails or the whole job stops."""

import asyncio
import io
import socket
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from chat_server import Canned, ChatServer, Seen, completion, problem
from live_run import BAD_REQUEST, HANG, SERVER_ERROR, FewRequests, make_job, numbered, only, run

from pipeline.endpoint.body_room import BODY_BYTES_MAX
from pipeline.endpoint.client import Client
from pipeline.execution.live.lane import FIRST_ROWS, Lane
from pipeline.execution.local_context import LocalContext
from pipeline.pacing.retry import ATTEMPTS, SAME_FAILURES_MAX
from pipeline.progress import NO_PAUSE, Pause, Progress
from pipeline.records import TEMPORARY, BadJob, Exit, LearnedLimits, Tally
from pipeline.store.writer import Store


def test_one_request_goes_first_and_the_others_follow_after_its_answer(tmp_path: Path) -> None:
    widths: list[int] = []

    def reply(_seen: Seen, _attempt: int) -> None:
        widths.append(server.in_flight)

    with ChatServer(reply, delay_seconds=0.3) as server:
        run(tmp_path, make_job(server.url, limits__concurrency=8), numbered(10))
    assert widths[:2] == [1, 1]  # the second came when the first had been answered
    assert server.most_in_flight == 8
    assert server.log[0].prompt == "row 0"


@pytest.mark.parametrize("concurrency", [1, 4])
def test_no_answer_waits_for_others_to_share_its_commit_when_none_can_come(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, concurrency: int
) -> None:
    def give_up_after_a_minute(_context: LocalContext, task: asyncio.Task[None]) -> None:
        asyncio.get_running_loop().call_later(60, task.cancel)

    monkeypatch.setattr("pipeline.store.writer.GROUP_SECONDS", 3600)
    job = make_job(server.url, limits__concurrency=concurrency)
    assert len(run(tmp_path, job, numbered(25), on_start=give_up_after_a_minute).answers) == 25


def test_requests_a_minute_are_obeyed(server: ChatServer, tmp_path: Path) -> None:
    run(tmp_path, make_job(server.url, limits__requests_per_minute=600, limits__concurrency=8), numbered(8))
    assert server.log[-1].at - server.log[0].at > 0.5


def test_a_row_that_fails_twice_is_answered_by_its_third_attempt(tmp_path: Path) -> None:
    with ChatServer(only("row 1", SERVER_ERROR, SERVER_ERROR, Canned(body=completion("at last")))) as server:
        done = run(tmp_path, make_job(server.url), numbered(5))
    assert done.answers["row 1"] == "at last"
    assert done.outcomes["row 1"].attempts == 3
    assert len(done.answers) == 5
    assert done.tally.attempts == server.arrived == 7


def test_a_row_that_waits_for_its_retry_takes_no_slot(tmp_path: Path) -> None:
    with ChatServer(only("row 1", SERVER_ERROR, Canned(body=completion("at last")))) as server:
        run(tmp_path, make_job(server.url, limits__concurrency=1), numbered(6), rng=0.2)
    assert [seen.prompt for seen in server.log] == ["row 0", "row 1", "row 2", "row 3", "row 4", "row 5", "row 1"]
    assert server.log[6].at - server.log[1].at >= 0.8  # 0.2 of four seconds


def test_a_retry_that_is_due_goes_before_new_rows(tmp_path: Path) -> None:
    with ChatServer(only("row 1", SERVER_ERROR, Canned(body=completion("at last")))) as server:
        run(tmp_path, make_job(server.url, limits__concurrency=1), numbered(4))
    assert [seen.prompt for seen in server.log] == ["row 0", "row 1", "row 1", "row 2", "row 3"]


def test_before_the_first_answer_a_few_rows_take_turns_one_at_a_time(tmp_path: Path) -> None:
    with ChatServer(lambda _seen, _attempt: Canned(body=completion(""))) as server:
        done = run(tmp_path, make_job(server.url), numbered(100), raises=True)
    assert done.stop.exit_code is Exit.NEEDS_PERSON
    assert not done.outcomes
    assert server.most_in_flight == 1
    assert Counter(seen.prompt for seen in server.log) == dict.fromkeys(numbered(FIRST_ROWS), 3)


def test_a_first_row_that_hangs_does_not_hold_up_the_others(tmp_path: Path) -> None:
    with ChatServer(only("row 0", Canned(hang=True), Canned(hang=True), Canned(body=completion("at last")))) as server:
        done = run(tmp_path, make_job(server.url, endpoint__timeout_seconds=0.5), numbered(5))
    assert [seen.prompt for seen in server.log][:2] == ["row 0", "row 1"]
    assert len(done.answers) == 5


def test_a_retry_after_header_pauses_the_lane_and_costs_the_row_no_attempt(tmp_path: Path) -> None:
    limited = Canned(429, problem("slow down", kind="rate_limit_error"), {"retry-after": "0.8"})

    def reply(seen: Seen, attempt: int) -> Canned | None:
        if seen.prompt == "row 1" and attempt <= 2:
            return limited
        return Canned(body=completion("ok"), delay_seconds=0.1)

    with ChatServer(reply) as server:
        done = run(tmp_path, make_job(server.url), numbered(8))
    rejected_at = [seen.at for seen in server.log if seen.prompt == "row 1"][:2]
    for at in rejected_at:  # what left before the rejection was read may arrive a moment after it
        assert not [seen for seen in server.log if 0.4 < seen.at - at < 0.8]
    assert len(done.answers) == 8
    assert done.outcomes["row 1"].attempts == 3


def test_the_screen_counts_down_during_a_pause(tmp_path: Path) -> None:
    shown = []

    class Watched(Progress):
        is_due = True  # type: ignore[assignment] # however lately it was drawn

        def show(self, tally: Tally, wait: Pause = NO_PAUSE, learnt: LearnedLimits | None = None) -> None:
            shown.append(round(wait.seconds))
            super().show(tally, wait, learnt)

    limited = Canned(429, problem("slow down"), {"retry-after": "3"})

    def watch(context: LocalContext, _task: asyncio.Task[None]) -> None:
        context.progress = Watched(stream=io.StringIO(), quiet=True)

    with ChatServer(only("row 5", limited, Canned(body=completion("ok")))) as server:
        done = run(tmp_path, make_job(server.url), numbered(8), on_start=watch)
    assert len(done.answers) == 8
    assert {3, 2, 0} <= set(shown)


def test_more_429s_than_a_row_has_attempts_do_not_fail_it(tmp_path: Path) -> None:
    limited = Canned(429, problem("slow down"), {"retry-after-ms": "5"})
    with ChatServer(only("row 1", *[limited] * (ATTEMPTS + 1), Canned(body=completion("at last")))) as server:
        done = run(tmp_path, make_job(server.url), numbered(3))
    assert done.answers["row 1"] == "at last"
    assert done.outcomes["row 1"].attempts == ATTEMPTS + 2


@pytest.mark.parametrize(
    ("answer", "kind", "attempts", "lasting"),
    [
        (BAD_REQUEST, "bad_request", 1, True),
        (Canned(400, problem("too many tokens", code="context_length_exceeded")), "too_long", 1, True),
        (Canned(400, problem("no", code="content_filter")), "filtered", 1, True),
        (Canned(body=bytes(BODY_BYTES_MAX + 1)), "too_large", 1, True),
        (Canned(body=b'{"choices": []}'), "no_choices", 4, True),
        (Canned(body=completion("")), "empty", 3, True),
        (SERVER_ERROR, "server", ATTEMPTS, False),
        (Canned(body=b'{"choi'), "garbled", ATTEMPTS, False),
        (Canned(body=completion("half"), cut_after=20), "cut", ATTEMPTS, False),
        (Canned(close=True), "cut", ATTEMPTS, False),
        (Canned(garbage=True), "protocol", ATTEMPTS, False),
        (Canned(body=completion("part", finish_reason="error")), "broken", ATTEMPTS, False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_row_fails_for_its_own_reason_and_the_others_are_answered(
    answer: Canned, kind: str, attempts: int, lasting: bool, tmp_path: Path
) -> None:
    with ChatServer(only("row 1", answer)) as server:
        done = run(tmp_path, make_job(server.url), numbered(6))
    failure = done.failure("row 1")
    assert (failure.kind, failure.attempts, failure.lasting) == (kind, attempts, lasting)
    assert failure.reason
    assert done.marks["row 1"] == (("filtered" if kind == "filtered" else "failed") if lasting else TEMPORARY)
    assert len(done.answers) == 5
    assert done.tally.attempts == server.arrived == 5 + attempts
    turned_away = kind in ("bad_request", "too_long", "filtered", "empty", "broken")  # the last two tell their tokens
    assert done.tally.maybe_paid == (0 if turned_away else attempts)


def test_a_hanging_row_costs_its_deadline_and_is_tried_again(tmp_path: Path) -> None:
    with ChatServer(only("row 1", HANG, Canned(body=completion("at last")))) as server:
        done = run(tmp_path, make_job(server.url, endpoint__timeout_seconds=0.5), numbered(3))
    assert done.answers["row 1"] == "at last"
    assert (done.outcomes["row 1"].attempts, done.tally.maybe_paid) == (2, 1)


def test_a_reply_that_repeats_the_key_is_stored_without_it(tmp_path: Path) -> None:
    leak = Canned(400, problem("who are you, sk-secret-0123?"))
    with ChatServer(only("row 1", leak)) as server:
        done = run(tmp_path, make_job(server.url, endpoint__api_key_default="sk-secret-0123"), numbered(2))
    assert done.failure("row 1").reason == "who are you, ***?"
    assert not any(b"sk-secret-0123" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_a_wrong_key_costs_one_request_and_the_message_quotes_the_server(tmp_path: Path) -> None:
    with ChatServer(key="right-key-9999") as server:
        job = make_job(server.url, endpoint__api_key_default="wrong-key-0000")
        done = run(tmp_path, job, numbered(20), raises=True)
    assert server.arrived == done.tally.attempts == 1
    assert "Incorrect API key provided: ***." in str(done.stop)
    assert done.stop.exit_code is Exit.NEEDS_PERSON
    assert not done.outcomes


def test_a_key_that_is_not_set_costs_nothing(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(BadJob, match="NO_SUCH_KEY"):
        run(tmp_path, make_job(server.url, endpoint__api_key_env="NO_SUCH_KEY"), numbered(2))
    assert server.arrived == 0


def test_first_rows_that_are_all_refused_stop_the_job_and_are_not_failed(tmp_path: Path) -> None:
    with ChatServer(lambda _seen, _attempt: BAD_REQUEST) as server:
        done = run(tmp_path, make_job(server.url, limits__concurrency=16), numbered(50), raises=True)
    assert "temperature is too high" in str(done.stop)
    assert not done.outcomes
    assert server.arrived == done.tally.attempts == SAME_FAILURES_MAX
    assert done.tally.failed == 0


def test_first_rows_that_are_rejected_before_an_answer_are_failed(tmp_path: Path) -> None:
    bad = numbered(SAME_FAILURES_MAX - 1)
    with ChatServer(lambda seen, _attempt: BAD_REQUEST if seen.prompt in bad else None) as server:
        done = run(tmp_path, make_job(server.url), numbered(10))
    assert [done.failure(prompt).kind for prompt in bad] == ["bad_request"] * len(bad)
    assert all(done.failure(prompt).lasting for prompt in bad)
    assert len(done.answers) == 10 - len(bad)
    assert done.tally.attempts == 10


def test_a_short_table_whose_every_row_is_rejected_is_failed_to_its_end(tmp_path: Path) -> None:
    with ChatServer(lambda _seen, _attempt: BAD_REQUEST) as server:
        done = run(tmp_path, make_job(server.url), numbered(SAME_FAILURES_MAX - 1))
    assert len(done.outcomes) == done.tally.failed == SAME_FAILURES_MAX - 1


def test_bad_requests_after_an_answer_never_stop_the_job(tmp_path: Path) -> None:
    with ChatServer(lambda seen, _attempt: None if seen.prompt == "row 0" else BAD_REQUEST) as server:
        done = run(tmp_path, make_job(server.url), numbered(30))
    assert (done.tally.ok, done.tally.failed, done.tally.attempts) == (1, 29, 30)


def test_an_endpoint_that_cannot_be_reached_is_given_up_after_three_tries(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    done = run(tmp_path, make_job(f"http://127.0.0.1:{port}/v1"), numbered(20), raises=True)
    assert done.stop.exit_code is Exit.TRY_LATER
    assert done.tally.attempts == 3
    assert not done.outcomes


def test_what_is_in_flight_when_the_key_is_revoked_is_recorded(tmp_path: Path) -> None:
    revoked = Canned(401, problem("revoked"))

    def reply(seen: Seen, _attempt: int) -> Canned | None:
        if seen.prompt in ("row 0", "row 1"):
            return Canned(body=completion("ok"), delay_seconds=0.5)
        return revoked

    with ChatServer(reply) as server:
        done = run(tmp_path, make_job(server.url), numbered(40), raises=True)
    assert "revoked" in str(done.stop)
    assert set(done.outcomes) == {"row 0", "row 1"}
    assert done.tally.attempts == server.arrived


@pytest.mark.parametrize(("room", "together"), [(35_000, 3), (1, 1)])
def test_requests_are_in_flight_together_as_far_as_there_is_room_and_one_always_is(
    room: int, together: int, tmp_path: Path
) -> None:
    prompts = [f"{number} {'x' * 10_000}" for number in range(6)]
    with ChatServer(delay_seconds=0.1) as server, closing(Store(tmp_path / "store")) as store:
        job = make_job(server.url, limits__concurrency=8)
        context = LocalContext(job, store, Tally())

        async def work() -> None:
            async with Client(job.endpoint, None) as client:
                lane = Lane(job, "m", FewRequests(*prompts), context, client)
                lane.flight_bytes_max = room
                await lane.work()

        asyncio.run(work())
    assert (context.asked.ok, server.most_in_flight) == (6, together)


def test_an_outage_draws_no_more_large_requests_than_there_is_room_for(tmp_path: Path) -> None:
    prompts = [f"{number} {'x' * 10_000}" for number in range(11)]
    arrived_before_a_retry: list[int] = []

    def reply(seen: Seen, attempt: int) -> Canned | None:
        if attempt > 1:
            arrived_before_a_retry.append(len(server.log))
        return SERVER_ERROR if attempt == 1 and not seen.prompt.startswith("10") else None

    with ChatServer(reply) as server, closing(Store(tmp_path / "store")) as store:
        job = make_job(server.url, limits__concurrency=2)
        context = LocalContext(job, store, Tally(), rng=lambda: 0.3)

        async def work() -> None:
            async with Client(job.endpoint, None) as client:
                lane = Lane(job, "m", FewRequests(*prompts), context, client)
                lane.flight_bytes_max = 35_000
                await lane.work()

        asyncio.run(work())
    assert context.asked.ok == 11
    assert arrived_before_a_retry[0] <= 8
