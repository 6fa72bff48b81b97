"""The cost cap: reserve the most that a request can cost before it is sent, and settle it when its reply has come."""

from typing import NamedTuple

from ..job import Job
from ..records import Answer, BadJob, Exit, Rejection, Request, Stopped, Usage
from .bounds import Bounds
from .prices import PriceList, text_and_images

TOKEN_BYTES_MAX = 512
"""The longest token, in bytes: the vocabularies in use have none above 128 characters (long runs of spaces)."""


class Charge(NamedTuple):
    """What one attempt cost, in US dollars."""

    paid: float | None
    """By the tokens that the endpoint reported; None for an answer whose tokens or price are unknown."""
    held: float = 0.0
    """The most that it may have cost, if `paid` is not certain; it counts against the cap in place of `paid`."""
    is_maybe_billed: bool = False
    """The attempt gave no answer, and may be billed all the same."""
    said: str = ""
    """A line for the screen on what was learned from the attempt; empty if there is none."""

    @property
    def against_cap(self) -> float:
        """What counts against the cap, in US dollars."""
        return self.held or self.paid or 0.0


class Budget:
    """The part of `limits.max_cost` that is still free: neither spent nor reserved for requests in flight."""

    def __init__(self, job: Job, prices: PriceList, spent: float) -> None:
        """`spent`: US dollars that the job folder has cost so far. Raises BadJob for a cap that cannot be enforced."""
        self.cap: float | None = None
        """US dollars that may be spent over the life of the job folder; None if there is no limit."""
        self.spent = spent
        """US dollars spent over the life of the job folder."""
        self.reserved = 0.0
        """US dollars reserved for requests in flight."""
        self._prices = prices
        self._bounds = Bounds(job, prices)
        self._endpoint = job.endpoint
        self._has_told_of_counts = False
        try:
            self.change_cap(job.limits.max_cost)
        except BadJob as error:
            raise BadJob(f"{error} Nothing was sent.") from None

    def change_cap(self, cap: float | None) -> None:
        """Enforce another cap from now on; reservations already made stay as they are.

        Raises BadJob for a cap that cannot be enforced.
        """
        if cap is None or self._endpoint.is_local:
            self.cap = None
            return
        if self._prices.unknown is not None:
            raise BadJob(
                f"limits.max_cost is set, but no price is known of {self._prices.unknown!r} at {self._endpoint.host}.\n"
                "Give it in [prices] (US dollars per million tokens)."
            )
        if self._bounds.output_tokens_max is None:
            raise BadJob(
                "limits.max_cost is set, but nothing bounds the length of an answer.\n"
                "Set parameters.max_tokens (or max_completion_tokens). If the endpoint accepts neither, set\n"
                "limits.reserve_tokens to the number of tokens in the longest answer that you expect."
            )
        self.cap = cap

    def reserve(self, worst: float | None) -> float | None:
        """Reserve the most that one attempt can cost (`worst`), and return it; None if the cap leaves no room.

        Without a cap there is always room, and the amount is an estimate.
        """
        if self.cap is not None and (worst is None or self.spent + self.reserved + worst > self.cap):
            return None
        self.reserved += worst or 0.0
        return worst

    def worst(self, request: Request) -> float | None:
        """The most that one attempt can cost in US dollars; None if a cap is set and the price is unknown.

        What no number in the request limits, as hidden reasoning beyond `max_tokens`, counts once it was seen.
        """
        if self.cap is None and not self._prices.knows(request.model):
            return 0.0
        return self._bounds.cost(request)

    def charge(self, sent: Request, result: Answer | Rejection, reserved: float | None = None) -> Charge:
        """What an attempt cost, whatever its reply says or leaves out; later reservations learn from it.

        One rule for every executor: tokens that are reported, and can be true, are taken at their price. Without them
        an attempt that may have been billed counts at its reservation, or at the length of its answer if that is more;
        only an attempt that was plainly turned away is free. `sent`: the request as it was sent. `reserved`: in US
        dollars; None for the most that it can be now.
        """
        usage = result.usage or Usage()
        untrue = _untrue_count(usage, sent, result)
        if not untrue and usage.prompt_tokens is not None and usage.billed_output_tokens is not None:
            said, paid = self.learn(sent, usage), self._prices.cost(usage, sent.model)
            return Charge(paid, self._most(sent, reserved) if paid is None else 0.0, said=said)
        if isinstance(result, Rejection) and result.is_turned_away:
            return Charge(0.0)
        most, said = self._most(sent, reserved), self._said_of(untrue)
        if isinstance(result, Answer):
            prompt_tokens = max(usage.prompt_tokens or 0, self._bounds.tokens(sent).prompt)
            least = self._prices.worst_cost(prompt_tokens, len(result.text.encode()), sent.model)
            paid = self._prices.cost(Usage(), sent.model)
            return Charge(paid, max(most, least or 0.0), said=said)
        return Charge(0.0, most, is_maybe_billed=True, said=said)

    def _said_of(self, untrue: str) -> str:
        """The line for the screen about a count that cannot be true, the first time."""
        if not untrue or self._has_told_of_counts:
            return ""
        self._has_told_of_counts = True
        return (
            f"The endpoint reports token counts that cannot be true: {untrue}. The cost of such attempts is not known; "
            "against limits.max_cost each of them counts at the most that it can have cost."
        )

    def _most(self, sent: Request, reserved: float | None) -> float:
        return (self.worst(sent) or 0.0) if reserved is None else reserved

    def learn(self, sent: Request, usage: Usage) -> str:
        """Reserve more from now on if an attempt at this request, as it was sent, used more than was expected.

        Returns a line for the screen where that happens for the first time; else "".
        """
        said = self._bounds.learn(sent, usage)
        if self._prices.learn_tier(usage.tier, sent.model):
            said += (
                f"\nThe endpoint uses the service tier {usage.tier}, which costs more. The cost cap reserves for it."
            )
        return said.lstrip()

    @property
    def is_passed(self) -> bool:
        """Whether more is spent and reserved than the cap allows."""
        return self.cap is not None and self.spent + self.reserved > self.cap

    def settle(self, reserved: float, paid: float) -> None:
        """Replace the reservation of an attempt that is over by its cost, both in US dollars."""
        self.reserved -= reserved
        self.spent += paid

    def exhausted(self, request: Request) -> Stopped:
        """The stop to raise if this request has no room, and nothing in flight can free any."""
        worst = self.worst(request)
        if worst is None:
            return Stopped(
                f"limits.max_cost is set, but no price is known of {request.model!r}, so its cost cannot be limited.\n"
                f'Give the price in [prices] or [prices.models."{request.model}"] (US dollars per million tokens).'
            )
        return Stopped(
            f"limits.max_cost is reached: ${self.spent:,.4g} of ${self.cap or 0:,.4g} is spent or reserved, "
            f"and the next request might cost ${worst:,.4g}, which is more than is left.\n"
            "To go on, raise it in the job file, or type the run again with a higher --max-cost.",
            Exit.AT_LIMIT,
        )


def _untrue_count(usage: Usage, sent: Request, result: Answer | Rejection) -> str:
    """A reported count that cannot be true, in words; empty if all can.

    Every prompt has tokens, and every text of an answer; and no token is longer than TOKEN_BYTES_MAX.
    """
    if usage.untrue:
        return usage.untrue
    text = result.text if isinstance(result, Answer) else ""
    output = usage.billed_output_tokens
    most_bytes = (usage.prompt_tokens or 0) * TOKEN_BYTES_MAX
    is_long = usage.prompt_tokens is not None and most_bytes < len(sent.body)
    if is_long and most_bytes < text_and_images(sent.body)[0]:
        return f"{usage.prompt_tokens:,} prompt tokens for a request of {len(sent.body):,} bytes"
    if output is not None and output * TOKEN_BYTES_MAX < len(text):
        return f"{output:,} completion tokens for an answer of {len(text):,} characters"
    return ""
