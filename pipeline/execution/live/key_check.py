"""Tell rows that are rejected for their own sake from a key, a model or an address that is: by one request of our own.

Where a lane has answered before, in this run or an earlier one, rows that the endpoint does not let through prove
nothing about the job: a firewall may dislike their text. An answer to a row that was sent later shows that the key is
good. Where none comes, one short request without any row's text is sent. Answered, the rows are to blame; rejected, the
job stops, and no row fails for it.

Stored answers are no help, as to ask one of them again costs more; nor is a note of the keys that were rejected in
earlier runs: the first run after the key was revoked would fail the rows.
"""

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from ...answers import decode_body
from ...endpoint import read_reply
from ...job import OUTPUT_CAPS
from ...pacing import BACKOFF_MAX_SECONDS, REJECTED_ROWS_MAX, RetryAfter, RetryPolicy
from ...records import Answer, Exit, Failure, Rejection, Reply, Request, Stopped
from ...text import compact_json
from ..context import RunContext, settle
from ..parameters import Parameters
from .open_request import OpenRequest
from .source import RequestSource
from .unconfirmed import Unconfirmed

PROMPT = "Say OK."
"""The whole prompt of the request that checks a key."""

TOKENS_MAX = 16
"""The most tokens of its answer. Some endpoints take no smaller number."""

BUDGET_SECONDS = 0.2
"""How often the budget is looked at while it has no room."""

ACCEPTED_KINDS = frozenset({"empty", "rate", "capacity"})
"""Rejections that come after the key, the model and the address were accepted."""

Send = Callable[[OpenRequest], Awaitable[Reply | None]]
"""Sends a request and returns the reply; None if it was given up."""


class KeyCheck:
    """Checks the key, the model and the address of one lane when rows make them doubtful."""

    def __init__(
        self,
        context: RunContext,
        source: RequestSource,
        retry_policy: RetryPolicy,
        unconfirmed: Unconfirmed,
        parameters: Parameters,
        send: Send,
    ) -> None:
        self._context, self._source = context, source
        self._retry_policy, self._unconfirmed = retry_policy, unconfirmed
        self._parameters, self._send = parameters, send
        self._is_told = False
        self._rejected: Request | None = None
        """The last request that was rejected in a way that may be the key's fault; the check is sent as it was."""

    def look_at(self, item: OpenRequest, rejection: Rejection, now: float) -> None:
        """Take note of a rejection, and of when its request was rejected for its key, model or address at first."""
        if rejection.kind in REJECTED_ROWS_MAX:
            self._rejected = item.request
            item.rejected_at = now if item.rejected_at is None else item.rejected_at

    async def settle(self) -> list[tuple[OpenRequest, Failure]]:
        """The failures that no answer will confirm any more; checked first if any may be the key's fault."""
        return await self.ask() if self._unconfirmed.has_key_in_doubt else self._unconfirmed.take()

    async def ask(self) -> list[tuple[OpenRequest, Failure]]:
        """Ask one short request, and return the failures that its answer confirms; none if a stop came first.

        Raises Stopped if it is rejected too, if it cannot be sent, or if the budget has no room for it.
        """
        sent_at = self._context.clock()
        if not await self._is_good():
            return []
        self._retry_policy.answered(self._context.clock())
        return self._unconfirmed.take(sent_at)

    async def _is_good(self) -> bool:
        """Send one short request, again after temporary failures; True if it got through, False after a stop."""
        assert self._rejected is not None  # noqa: S101 - only a rejection makes a key doubtful
        item = OpenRequest(short_request(self._rejected))
        item.sent = self._parameters.encode(item.request)
        policy = self._retry_policy.like_new(self._context.clock())
        if not self._is_told:
            self._is_told = True
            self._context.say("Rows are rejected for their key, model or address. One short request checks these.")
        while self._context.stopping is None:
            result = await self._ask(item)
            if result is None:
                continue  # given up as the machine slept, or for a stop
            if isinstance(result, Answer) or result.verdict == "row" or result.kind in ACCEPTED_KINDS:
                return True
            self._context.log_rejection(result)
            decision = policy.decide(result, item.tries, self._context.clock())
            if isinstance(decision, Stopped):
                raise decision
            if not isinstance(decision, RetryAfter):
                if decision.lasting:
                    return True
                raise Stopped(f"The key could not be checked. The endpoint replied: {result.message}", Exit.TRY_LATER)
            backoff = min(BACKOFF_MAX_SECONDS, 2.0**item.tries.sent) if result.wait_seconds is None else 0.0
            await self._context.pause(max(decision.after_seconds, backoff))
        return False

    async def _ask(self, item: OpenRequest) -> Answer | Rejection | None:
        """Make one attempt within the budget, and count it."""
        budget = self._context.budget
        worst = budget.worst(item.sent)
        await self._context.note_reservation(worst or 0.0)
        while (reserved := budget.reserve(worst)) is None and budget.cap is not None:
            if not self._source.in_flight:
                raise budget.exhausted(item.sent)
            await self._context.pause(BUDGET_SECONDS)  # replies will free some of it
            if self._context.stopping is not None:
                return None
        item.reserved = reserved or 0.0
        item.tries.sent += 1
        item.is_withdrawn = item.is_doubtful = False
        reply = await self._send(item)
        if reply is None:
            return None
        result = read_reply(reply)
        settle(self._context, item.sent, result, item.reserved)
        item.reserved = 0.0
        return None if item.is_doubtful else result


def short_request(rejected: Request) -> Request:
    """A request to the same model, with the same parameters, that is short and has nothing of a row's text."""
    body = decode_body(rejected.body)
    caps = {name: str(body[name], "ascii") for name in OUTPUT_CAPS if name in body} or {"max_tokens": ""}
    most = min(int(cap) if cap.isdigit() else TOKENS_MAX for cap in (*caps.values(), str(TOKENS_MAX)))
    short = {**body, "messages": [{"role": "user", "content": PROMPT}]} | dict.fromkeys(caps, most)
    return replace(rejected, body=compact_json(short), max_tokens=most)
