"""Calls to a provider's Batch API: each is repeated until it succeeds, cannot succeed, or a stop is requested."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ...endpoint import parse_json, read_reply
from ...job import Job, duration_seconds
from ...pacing import BACKOFF_MAX_SECONDS, Attempts, RetryPolicy
from ...records import Exit, Failure, Rejection, Reply, Stopped
from ..context import NotesContext

CALL_DRAIN_SECONDS = 12.0
"""How long a call that is under way may still take after a stop."""

MISSING_STATUSES = (404, 405, 501)
"""HTTP statuses of an object that does not exist, or of a call that the provider does not offer."""

Call = Callable[[], Coroutine[Any, Any, Reply]]
"""Makes one call; a method of BatchApi with its arguments."""


class Calls:
    """Makes the calls of one run. Rejections are judged by a RetryPolicy, as in every executor."""

    def __init__(self, job: Job, context: NotesContext) -> None:
        self._context, self._base_url = context, job.endpoint.base_url
        self._retry_policy = RetryPolicy(
            context.clock(),
            context.rng,
            give_up_after_seconds=duration_seconds(job.limits.give_up_after),
            waits=job.this_run.wait_for_endpoint,
        )
        self._attempts = Attempts()
        self._failed_in_a_row = 0

    async def once(self, call: Call) -> Reply:
        """Make a call a single time, and return its reply, good or bad.

        Raises Stopped if a stop is requested and the call takes longer than CALL_DRAIN_SECONDS after it.
        """
        calling = asyncio.create_task(call())
        stop_requested, drain_aborted = (
            asyncio.create_task(each.wait()) for each in (self._context.stop_requested, self._context.drain_aborted)
        )
        try:
            await asyncio.wait({calling, stop_requested}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait(
                {calling, drain_aborted}, timeout=CALL_DRAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if calling.done():
                return calling.result()
        finally:
            for task in (calling, stop_requested, drain_aborted):
                task.cancel()
            await asyncio.wait({calling, stop_requested, drain_aborted})
        raise self._context.stopping or Stopped("The call was given up.")

    async def json(self, call: Call, needs: str = "", *, may_miss: bool = False) -> dict[str, Any]:
        """Make a call until it succeeds, and return the JSON object of its reply.

        `needs`: a name that the object must have; without it the reply is not from a Batch API, but for example a
        proxy's page. `may_miss`: raise LookupError, with the provider's message, if the provider does not have what is
        asked for. Raises Stopped if the call cannot succeed, or a stop is requested meanwhile.
        """
        if not self._failed_in_a_row and self._retry_policy.answers:
            self._retry_policy.answered(self._context.clock())  # no call was made until now, so there was no silence
        while True:
            reply = await self.once(call)
            if succeeded(reply, needs):
                self._retry_policy.answered(self._context.clock())
                self._attempts, self._failed_in_a_row = Attempts(), 0
                return object_in(reply)
            if may_miss and reply.status in MISSING_STATUSES:
                raise LookupError(rejection_in(reply).message)
            await self.wait_after(rejection_in(reply))

    async def wait_after(self, rejection: Rejection) -> None:
        """Wait before a rejected call is made again. Raises Stopped if it cannot succeed, or a stop is requested."""
        if rejection.kind == "not_found" and not self._retry_policy.answers:
            raise Stopped(
                f"HTTP {rejection.status}: there is no Batch API at {self._base_url}. It said: {rejection.message}\n"
                "Check endpoint.base_url, or ask live: --set run.how=live"
            )
        self._context.log_rejection(rejection)
        decision = self._retry_policy.decide(rejection, self._attempts, self._context.clock())
        if isinstance(decision, Failure):
            code = Exit.NEEDS_PERSON if decision.lasting else Exit.TRY_LATER
            raise Stopped(f"The provider's Batch API does not work. It said: {rejection.message}", code)
        if isinstance(decision, Stopped):
            raise decision
        self._failed_in_a_row += 1
        # calls have no throttle that would pause them after "too many requests" without a time
        backoff = min(BACKOFF_MAX_SECONDS, 2.0**self._failed_in_a_row) if rejection.kind in ("rate", "quota") else 0.0
        await self._context.pause(max(decision.after_seconds, backoff if rejection.wait_seconds is None else 0.0))
        if self._context.stopping is not None:
            raise self._context.stopping


def succeeded(reply: Reply, needs: str) -> bool:
    """Whether a call succeeded, with a reply that has a value under the name `needs`, if one is given."""
    return (
        200 <= reply.status < 300 and not reply.fault and (not needs or object_in(reply).get(needs) not in (None, ""))
    )


def rejection_in(reply: Reply) -> Rejection:
    """The rejection in the reply of a call that did not succeed."""
    result = read_reply(reply)
    if isinstance(result, Rejection):
        return result
    return Rejection("retry", "garbled", "no answer of a Batch API", reply.status)


def object_in(reply: Reply) -> dict[str, Any]:
    """The JSON object in a reply; empty if there is none."""
    value = parse_json(reply.body)
    return value if isinstance(value, dict) else {}


def objects_in(value: object) -> list[dict[str, Any]]:
    """The JSON objects in a list; none if the value is not a list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
