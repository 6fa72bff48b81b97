"""The cost cap: reserve the most that a request can cost before it is sent, and settle it when its reply has come."""

from ..job import Job
from ..records import BadJob, Exit, Request, Stopped
from .prices import PriceList, text_and_images

IMAGE_TOKENS_MAX = 50_000
"""The most prompt tokens that an image can use, independent of its size in bytes.

The most expensive known rule is gpt-4o-mini's: 2,833 tokens, and 5,667 for each of up to eight tiles, are 48,169. Most
others stay below 10,000.
"""


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
        self._output_tokens_max = max([*job.output_caps.values(), job.limits.reserve_tokens or 0]) or None
        self._endpoint = job.endpoint
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
        if self._output_tokens_max is None:
            raise BadJob(
                "limits.max_cost is set, but nothing bounds the length of an answer.\n"
                "Set parameters.max_tokens (or max_completion_tokens). If the endpoint accepts neither, set\n"
                "limits.reserve_tokens to the number of tokens in the longest answer that you expect."
            )
        self.cap = cap

    def reserve(self, request: Request) -> float | None:
        """Reserve the most that one attempt can cost, and return it in US dollars; None if the cap leaves no room.

        A text never has more tokens than bytes, and an image has at most IMAGE_TOKENS_MAX by every known rule. Not
        covered is a cost that no number in the request limits: hidden reasoning beyond `max_tokens`.
        """
        worst = self.worst(request)
        if self.cap is not None and (worst is None or self.spent + self.reserved + worst > self.cap):
            return None
        self.reserved += worst or 0.0
        return worst

    def worst(self, request: Request) -> float | None:
        """The most that one attempt can cost in US dollars; 0 without a cap, None if the price is unknown."""
        if self.cap is None:
            return 0.0
        output_tokens = request.max_tokens or self._output_tokens_max or 0
        text_bytes, images = text_and_images(request.body)
        return self._prices.worst_cost(text_bytes + images * IMAGE_TOKENS_MAX, output_tokens, request.model)

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
        if self.worst(request) is None:
            return Stopped(
                f"limits.max_cost is set, but no price is known of {request.model!r}, so its cost cannot be limited.\n"
                f'Give the price in [prices] or [prices.models."{request.model}"] (US dollars per million tokens).'
            )
        return Stopped(
            f"limits.max_cost is reached: ${self.spent:,.4g} of ${self.cap or 0:,.4g} is spent or reserved, "
            "and the next request might cost more than is left.\nTo go on, raise it in the job file, or type the run "
            "again with a higher --max-cost.",
            Exit.AT_LIMIT,
        )
