"""What it costs: the prices of one model, what a job will likely use, and a budget held before a request leaves."""

from .job import Job
from .records import BadJob, Exit, Request, Stopped, Tally, Usage

PER_MILLION = 1e-6
OUTPUT_CAPS = ("max_completion_tokens", "max_tokens")
"""The parameters that bound an answer's length."""

BYTES_PER_TOKEN = 4.0
COMPLETION_TOKENS = 100
"""What is guessed before the first answer; English prose has about 4.7 bytes a token, Chinese about 2."""


def expected_usage(known: Tally, request_bytes: int, requests: int) -> Usage:
    """Tokens that so many requests of so many bytes in all will likely use, by the answers tallied so far."""
    prompt_tokens, output_tokens = known.usage.prompt_tokens, known.usage.billed_output_tokens
    if not known.answers or not prompt_tokens or output_tokens is None:
        return Usage(round(request_bytes / BYTES_PER_TOKEN), requests * COMPLETION_TOKENS)
    return Usage(
        round(request_bytes * prompt_tokens / known.request_bytes), round(requests * output_tokens / known.answers)
    )


class Tariff:
    """The prices of a job's model: `[prices]` over the price list; a model on this machine costs nothing.

    In batches the list's batch rates count; `[prices]` are taken for what is paid, however the requests travel.

    The list (genai-prices) is asked only when the base URL is that of a provider it knows: a local server may call
    its model by any name. All figures are estimates of what the provider will bill.
    """

    def __init__(self, job: Job) -> None:
        self._endpoint, self._own = job.endpoint, job.prices
        self._context = {"processing": "batch"} if job.run.how == "batch" else None
        self._free = job.endpoint.is_local
        self._listed = not self._free and job.prices.input is None
        self.known = not self._listed or self._listed_cost(1, 0, 1) is not None
        """There is a price."""

    def cost(self, usage: Usage) -> float | None:
        """US dollars for what was used; None if the price or a count is unknown."""
        if self._free:
            return 0.0
        prompt_tokens, output_tokens = usage.prompt_tokens, usage.billed_output_tokens
        if prompt_tokens is None or output_tokens is None or not self.known:
            return None
        cached_tokens = min(usage.cached_tokens or 0, prompt_tokens)
        if self._listed:
            return self._listed_cost(prompt_tokens, cached_tokens, output_tokens)
        # the section admits input and output together alone, so both are there
        input_price, output_price = self._own.input or 0.0, self._own.output or 0.0
        cached_price = input_price if self._own.cached_input is None else self._own.cached_input
        fresh_tokens = prompt_tokens - cached_tokens
        return PER_MILLION * (fresh_tokens * input_price + cached_tokens * cached_price + output_tokens * output_price)

    def worst_cost(self, prompt_tokens: int, output_tokens: int) -> float | None:
        """US dollars for so many tokens at most, however many of the prompt's the endpoint had cached."""
        fresh = self.cost(Usage(prompt_tokens, output_tokens))
        if fresh is None or self._own.cached_input is None:  # the list prices no cached token above a fresh one
            return fresh
        return max(fresh, self.cost(Usage(prompt_tokens, output_tokens, cached_tokens=prompt_tokens)) or 0.0)

    def _listed_cost(self, prompt_tokens: int, cached_tokens: int, output_tokens: int) -> float | None:
        import genai_prices  # noqa: PLC0415 - takes a second to import, and many jobs do without

        used = genai_prices.Usage(
            input_tokens=prompt_tokens, cache_read_tokens=cached_tokens, output_tokens=output_tokens
        )
        try:
            found = genai_prices.calc_price(
                used, self._endpoint.model, provider_api_url=self._endpoint.base_url, price_context=self._context
            )
        except LookupError:
            return None
        return float(found.total_price)


class Budget:
    """What may still be spent: the worst case is reserved before a request leaves, and settled when it has landed."""

    def __init__(self, job: Job, tariff: Tariff, spent: float) -> None:
        """`spent`: US dollars so far, over the job folder's life. Raises BadJob for a cap that could not be held."""
        self.cap = None if job.endpoint.is_local else job.limits.max_cost
        self.spent = spent
        self.reserved = 0.0
        """US dollars set aside for what is in flight."""
        self._tariff = tariff
        given = [*(job.parameters.get(name) for name in OUTPUT_CAPS), job.limits.reserve_tokens]
        # -1 is without end to some servers, and true is an int to Python
        self._output_tokens_max = max((cap for cap in given if type(cap) is int and cap > 0), default=None)
        if self.cap is None:
            return
        if not tariff.known:
            raise BadJob(
                f"limits.max_cost is set, but no price is known of {job.endpoint.model!r} at {job.endpoint.host}.\n"
                "Give it in [prices] (US dollars per million tokens). Nothing was sent."
            )
        if self._output_tokens_max is None:
            raise BadJob(
                "limits.max_cost is set, but nothing bounds the length of an answer.\n"
                "Set parameters.max_tokens (or max_completion_tokens); where the endpoint takes neither, set\n"
                "limits.reserve_tokens to the longest answer that is to be expected. Nothing was sent."
            )

    def reserve(self, request: Request) -> float | None:
        """US dollars set aside for the worst case of one attempt; None if the cap has no room for it.

        A text prompt never has more tokens than its body has bytes. What no number in the request bounds is not held:
        an image named by its address, hidden reasoning that a model does beyond `max_tokens`.
        """
        worst = self.worst(request)
        if self.cap is not None and (worst is None or self.spent + self.reserved + worst > self.cap):
            return None
        self.reserved += worst or 0.0
        return worst

    def worst(self, request: Request) -> float | None:
        """US dollars that one attempt costs at most, 0 without a cap; None if that is not to be told."""
        if self.cap is None:
            return 0.0
        return self._tariff.worst_cost(len(request.body), self._output_tokens_max or 0)

    def settle(self, reserved: float, paid: float) -> None:
        """The attempt has landed: what was set aside for it becomes what it cost."""
        self.reserved -= reserved
        self.spent += paid

    def exhausted(self) -> Stopped:
        """The stop that follows when nothing in flight can make room any more."""
        return Stopped(
            f"limits.max_cost is reached: ${self.spent:,.4g} of ${self.cap or 0:,.4g} is spent or set aside, "
            "and the next request might cost more than is left.\nRaise it with --max-cost to go on.",
            Exit.AT_LIMIT,
        )
