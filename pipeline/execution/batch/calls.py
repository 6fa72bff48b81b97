"""Calls to a provider's Batch API, each made again for as long as that makes sense."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ...endpoint import parse_json, read_reply
from ...job import Job, duration_seconds
from ...pacing import BACKOFF_MAX_SECONDS, Attempts, RetryPolicy
from ...records import Exit, Failure, Rejection, Reply, Stopped
from ..context import NotesContext

ENDS_SECONDS = 12.0
"""After a stop, a call that is on its way may end for so long."""
MISSING = (404, 405, 501)

Call = Callable[[], Coroutine[Any, Any, Reply]]


class Calls:
    """How one run calls: a stop ends every wait; silence, refusals and a wrong key are judged as everywhere."""

    def __init__(self, job: Job, context: NotesContext) -> None:
        self._context, self._base_url = context, job.endpoint.base_url
        self._patience = RetryPolicy(
            context.clock(),
            context.rng,
            give_up_after_seconds=duration_seconds(job.limits.give_up_after),
            waits=job.this_run.wait_for_endpoint,
        )
        self._tries = Attempts()
        self._in_vain = 0

    async def once(self, call: Call) -> Reply:
        """What one call gives. Raises Stopped if a stop is asked, and it does not end soon after."""
        calling = asyncio.create_task(call())
        stop_requested, drain_aborted = (
            asyncio.create_task(each.wait()) for each in (self._context.stop_requested, self._context.drain_aborted)
        )
        try:
            await asyncio.wait({calling, stop_requested}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({calling, drain_aborted}, timeout=ENDS_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if calling.done():
                return calling.result()
        finally:
            for task in (calling, stop_requested, drain_aborted):
                task.cancel()
            await asyncio.wait({calling, stop_requested, drain_aborted})
        raise self._context.stopping or Stopped("The call was given up.")

    async def json(self, call: Call, needs: str = "", *, may_miss: bool = False) -> dict[str, Any]:
        """What a call gives. Raises Stopped if it will not work, or a stop is asked meanwhile.

        `needs`: what must be in it, or it is no answer of a Batch API, but such as a proxy's page. `may_miss`: that
        what it names is not there is told by a LookupError.
        """
        if not self._in_vain and self._patience.answers:
            self._patience.answered(self._context.clock())  # the silence until now was ours
        while True:
            reply = await self.once(call)
            if is_well(reply, needs):
                self._patience.answered(self._context.clock())
                self._tries, self._in_vain = Attempts(), 0
                return object_in(reply)
            if may_miss and reply.status in MISSING:
                raise LookupError(refusal_in(reply).message)
            await self.wait_after(refusal_in(reply))

    async def wait_after(self, refusal: Rejection) -> None:
        """Wait as long as is fit after a call that did not work. Raises Stopped as `json` does."""
        if refusal.kind == "not_found" and not self._patience.answers:
            raise Stopped(
                f"HTTP {refusal.status}: there is no Batch API at {self._base_url}. It said: {refusal.message}\n"
                "Check endpoint.base_url, or ask live: --set run.how=live"
            )
        self._context.log_rejection(refusal)
        decision = self._patience.decide(refusal, self._tries, self._context.clock())
        if isinstance(decision, Failure):
            code = Exit.NEEDS_PERSON if decision.lasting else Exit.TRY_LATER
            raise Stopped(f"The provider's Batch API does not work. It said: {refusal.message}", code)
        if isinstance(decision, Stopped):
            raise decision
        self._in_vain += 1
        # who says "too many" without a time is not asked again at once: no throttle stands between
        least = min(BACKOFF_MAX_SECONDS, 2.0**self._in_vain) if refusal.kind in ("rate", "quota") else 0.0
        await self._context.pause(max(decision.after_seconds, least if refusal.wait_seconds is None else 0.0))
        if self._context.stopping is not None:
            raise self._context.stopping


def is_well(reply: Reply, needs: str) -> bool:
    """The call worked, and has given what it must."""
    return 200 <= reply.status < 300 and not reply.fault and (not needs or needs in object_in(reply))


def refusal_in(reply: Reply) -> Rejection:
    """What a call that did not work says; one that seems to have, says nothing that can be used."""
    said = read_reply(reply)
    return (
        said if isinstance(said, Rejection) else Rejection("retry", "garbled", "no answer of a Batch API", reply.status)
    )


def object_in(reply: Reply) -> dict[str, Any]:
    """The JSON object that a call gave; empty if it gave none."""
    value = parse_json(reply.body)
    return value if isinstance(value, dict) else {}


def objects_in(value: object) -> list[dict[str, Any]]:
    """The JSON objects of a list; none if it is no list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
