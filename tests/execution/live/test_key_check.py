"""One short request of our own tells rows that are rejected for their own sake from a key that is."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from chat_server import completion, problem
from live_run import FewRequests, make_job

from pipeline.execution.live.key_check import PROMPT, TOKENS_MAX, KeyCheck, short_request
from pipeline.execution.live.open_request import OpenRequest
from pipeline.execution.live.unconfirmed import Unconfirmed
from pipeline.execution.local_context import LocalContext
from pipeline.execution.parameters import Parameters
from pipeline.pacing.retry import RetryPolicy
from pipeline.records import Exit, Failure, Rejection, Reply, Request, Stopped, Tally
from pipeline.store.writer import Store

ROW = Request("a" * 64, msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "secret " * 99}]}))
NO = Rejection("stop", "forbidden", "No.", 403)
FAILED = Failure(kind="forbidden", reason="No.")


def reply(status: int, body: bytes = completion("OK"), **headers: str) -> Reply:
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, body, 0.1)


@contextmanager
def check_with(
    folder: Path, *replies: Reply | None, stops: Callable[[LocalContext], None] = lambda _: None
) -> Iterator[tuple[KeyCheck, OpenRequest, list[Request]]]:
    """A check whose requests get these replies in turn, a row that was rejected, and what was sent."""
    sent: list[Request] = []
    coming = iter(replies)

    async def send(item: OpenRequest) -> Reply | None:
        sent.append(item.sent)
        stops(context)
        return next(coming)

    job = make_job("http://127.0.0.1:9/v1")
    with closing(Store(folder / "store")) as store:
        context = LocalContext(job, store, Tally(), rng=lambda: 0.0)
        unconfirmed = Unconfirmed(FewRequests(), "m", None)  # type: ignore[arg-type]
        policy = RetryPolicy(context.clock(), context.rng, is_proven=True, checks_key=True)
        check = KeyCheck(context, FewRequests(), policy, unconfirmed, Parameters(job), send)  # type: ignore[arg-type]
        row = OpenRequest(ROW)
        check.look_at(row, NO, context.clock())
        unconfirmed.add(row, FAILED)
        yield check, row, sent


@pytest.mark.parametrize(
    "answer",
    [
        reply(200),
        reply(200, completion("", finish_reason="length")),
        reply(400, problem("max_tokens is too small")),
        reply(400, problem("content policy")),
    ],
)
def test_whatever_gets_through_confirms_the_rows_failures(tmp_path: Path, answer: Reply) -> None:
    with check_with(tmp_path, answer) as (check, row, sent):
        assert asyncio.run(check.settle()) == [(row, FAILED)]
    assert len(sent) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_rejection_of_the_short_request_too_stops_the_job(tmp_path: Path, status: int) -> None:
    with check_with(tmp_path, reply(status, problem("Not you."))) as (check, _, _sent):
        with pytest.raises(Stopped, match="Not you") as stop:
            asyncio.run(check.settle())
        assert stop.value.exit_code is Exit.NEEDS_PERSON


def test_temporary_failures_are_waited_for_and_lasting_ones_stop_the_job_to_be_tried_later(tmp_path: Path) -> None:
    busy, broken = (reply(status, problem("Busy."), retry_after="0.01") for status in (503, 500))
    with check_with(tmp_path, busy, broken, reply(200)) as (
        check,
        row,
        sent,
    ):
        assert asyncio.run(check.settle()) == [(row, FAILED)]
        assert len(sent) == 3
    gone = reply(500, problem("It broke."), retry_after="0.01")
    with check_with(tmp_path / "gone", *[gone] * 9) as (check, _, sent):
        with pytest.raises(Stopped, match=r"could not be checked.*It broke") as stop:
            asyncio.run(check.settle())
        assert (stop.value.exit_code, len(sent)) == (Exit.TRY_LATER, 6)


def test_a_stop_while_it_is_checked_confirms_nothing(tmp_path: Path) -> None:
    with check_with(tmp_path, None, stops=lambda context: context.stop(Stopped("enough"))) as (check, _, _sent):
        assert asyncio.run(check.settle()) == []


def test_failures_that_are_not_the_keys_are_settled_without_a_request(tmp_path: Path) -> None:
    with check_with(tmp_path, reply(200)) as (check, row, sent):
        row.rejected_at = None
        assert asyncio.run(check.settle()) == [(row, FAILED)]
    assert not sent


@pytest.mark.parametrize(
    ("given", "short"),
    [
        ({}, {"max_tokens": TOKENS_MAX}),
        ({"max_tokens": 500}, {"max_tokens": TOKENS_MAX}),
        ({"max_completion_tokens": 3}, {"max_completion_tokens": 3}),
        ({"max_tokens": None, "seed": 1}, {"max_tokens": TOKENS_MAX, "seed": 1}),
    ],
)
def test_the_request_has_the_jobs_parameters_and_no_rows_text(given: dict[str, Any], short: dict[str, Any]) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "secret"}], "stream": False}
    made = short_request(Request("a" * 64, msgspec.json.encode(body | given), model="other"))
    assert msgspec.json.decode(made.body) == {**body, "messages": [{"role": "user", "content": PROMPT}], **short}
    assert made.model == "other"
    assert made.max_tokens in short.values()
