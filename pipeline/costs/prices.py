"""What it costs: each model's prices, what a job will likely use, and a budget held before a request leaves."""

import re

from ..job import Job
from ..records import BadJob, Exit, Request, Stopped, Tally, Usage

PER_MILLION = 1e-6
BYTES_PER_TOKEN = 4.0
COMPLETION_TOKENS = 100
"""What is guessed before the first answer; English prose has about 4.7 bytes a token, Chinese about 2."""

IMAGE_TOKENS_MAX = 50_000
"""So many tokens an image costs at most, whatever its bytes. The dearest rule that is known is gpt-4o-mini's: 2,833
tokens, and 5,667 for each of at most eight tiles, are 48,169. Most others stay below 10,000."""
IMAGE_TOKENS = 1_000
"""So many it likely costs: gpt-4o takes 765 for a square, Claude about 1,500, Gemini from 258."""
IMAGE = re.compile(rb'"image_url":(?:\{(?:"detail":"\w+",)?"url":"(data:[^"\\]*)")?')
"""An image in a body; in a text its quotes would be escaped. The address that is caught holds the image itself."""


def text_and_images(body: bytes) -> tuple[int, int]:
    """How many bytes of a request's body are not those of images, and how many images go with it."""
    if b'"image_url":' not in body:
        return len(body), 0
    held = [found.end(1) - found.start(1) for found in IMAGE.finditer(body)]
    return len(body) - sum(held), len(held)


def token_bytes(body: bytes) -> int:
    """Bytes that tell of a request's likely tokens: an image counts as so many of text, whatever it weighs."""
    text, images = text_and_images(body)
    return text + round(images * IMAGE_TOKENS * BYTES_PER_TOKEN)


def expected_usage(known: Tally, request_bytes: int, requests: int, output_tokens_max: int | None = None) -> Usage:
    """Tokens that so many requests of so many bytes in all will likely use, by the answers tallied so far.

    `output_tokens_max`: what the request's own limit allows an answer, so that a guess is never above it.
    """
    prompt_tokens, output_tokens = known.usage.prompt_tokens, known.usage.billed_output_tokens
    if not known.answers or not prompt_tokens or output_tokens is None:
        guess = min(COMPLETION_TOKENS, output_tokens_max or COMPLETION_TOKENS)
        return Usage(round(request_bytes / BYTES_PER_TOKEN), requests * guess)
    return Usage(
        round(request_bytes * prompt_tokens / known.request_bytes), round(requests * output_tokens / known.answers)
    )


class PriceList:
    """The prices of a job's models: `[prices]` over the price list; a model on this machine costs nothing.

    In batches the list's batch rates count; `[prices]` are taken for what is paid, however the requests travel.

    The list (genai-prices) is asked only when the base URL is that of a provider it knows: a local server may call
    its model by any name. All figures are estimates of what the provider will bill.
    """

    def __init__(self, job: Job) -> None:
        self._endpoint, self._own, self._models = job.endpoint, job.prices, job.models
        self._context = {"processing": "batch"} if job.run.how == "batch" else None
        self._free = job.endpoint.is_local
        self._unlisted: set[str] = set()
        self.unknown = next((model for model in job.models if not self.knows(model)), None)
        """A model of the job of which there is no price; None if there are all."""

    def knows(self, model: str) -> bool:
        """There is a price."""
        return self.cost(Usage(1, 1), model) is not None

    def cost(self, usage: Usage, model: str = "") -> float | None:
        """US dollars for what a model used, the job's own if none is named; None if the price or a count is unknown."""
        if self._free:
            return 0.0
        prompt_tokens, output_tokens = usage.prompt_tokens, usage.billed_output_tokens
        if prompt_tokens is None or output_tokens is None:
            return None
        cached_tokens = min(usage.cached_tokens or 0, prompt_tokens)
        model = model or self._models[0]
        own = self._own.of(model)
        # the section admits input and output together alone, so both are there or none
        if own.input is None or own.output is None:
            return self._listed_cost(prompt_tokens, cached_tokens, output_tokens, model)
        cached_price = own.input if own.cached_input is None else own.cached_input
        fresh_tokens = prompt_tokens - cached_tokens
        return PER_MILLION * (fresh_tokens * own.input + cached_tokens * cached_price + output_tokens * own.output)

    def expected_cost(self, usage: Usage) -> float | None:
        """US dollars if each of the job's models has an equal share in what will be used; None if one is unknown."""
        costs = [self.cost(usage, model) for model in self._models]
        known = [cost for cost in costs if cost is not None]
        return sum(known) / len(costs) if len(known) == len(costs) else None

    def worst_cost(self, prompt_tokens: int, output_tokens: int, model: str = "") -> float | None:
        """US dollars for so many tokens at most, however many of the prompt's the endpoint had cached."""
        fresh = self.cost(Usage(prompt_tokens, output_tokens), model)
        if fresh is None or self._own.of(model or self._models[0]).cached_input is None:
            return fresh  # the list prices no cached token above a fresh one
        return max(fresh, self.cost(Usage(prompt_tokens, output_tokens, cached_tokens=prompt_tokens), model) or 0.0)

    def _listed_cost(self, prompt_tokens: int, cached_tokens: int, output_tokens: int, model: str) -> float | None:
        if model in self._unlisted:
            return None
        import genai_prices  # noqa: PLC0415 - takes a second to import, and many jobs do without

        used = genai_prices.Usage(
            input_tokens=prompt_tokens, cache_read_tokens=cached_tokens, output_tokens=output_tokens
        )
        try:
            found = genai_prices.calc_price(
                used, model, provider_api_url=self._endpoint.base_url, price_context=self._context
            )
        except LookupError:
            self._unlisted.add(model)
            return None
        return float(found.total_price)


class Budget:
    """What may still be spent: the worst case is reserved before a request leaves, and settled when it has landed."""

    def __init__(self, job: Job, tariff: PriceList, spent: float) -> None:
        """`spent`: US dollars so far, over the job folder's life. Raises BadJob for a cap that could not be held."""
        self.cap: float | None = None
        self.spent = spent
        self.reserved = 0.0
        """US dollars set aside for what is in flight."""
        self._tariff = tariff
        self._output_tokens_max = max([*job.output_caps.values(), job.limits.reserve_tokens or 0]) or None
        self._endpoint = job.endpoint
        try:
            self.change_cap(job.limits.max_cost)
        except BadJob as error:
            raise BadJob(f"{error} Nothing was sent.") from None

    def change_cap(self, cap: float | None) -> None:
        """Hold another cap from now on; what is in flight was not set aside for it. Raises BadJob if it cannot be."""
        if cap is None or self._endpoint.is_local:
            self.cap = None
            return
        if self._tariff.unknown is not None:
            raise BadJob(
                f"limits.max_cost is set, but no price is known of {self._tariff.unknown!r} at {self._endpoint.host}.\n"
                "Give it in [prices] (US dollars per million tokens)."
            )
        if self._output_tokens_max is None:
            raise BadJob(
                "limits.max_cost is set, but nothing bounds the length of an answer.\n"
                "Set parameters.max_tokens (or max_completion_tokens); where the endpoint takes neither, set\n"
                "limits.reserve_tokens to the longest answer that is to be expected."
            )
        self.cap = cap

    def reserve(self, request: Request) -> float | None:
        """US dollars set aside for the worst case of one attempt; None if the cap has no room for it.

        A text never has more tokens than bytes, and an image never more than IMAGE_TOKENS_MAX by any rule that is
        known. What no number in the request bounds is not held: hidden reasoning beyond `max_tokens`.
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
        output_tokens = request.max_tokens or self._output_tokens_max or 0
        text, images = text_and_images(request.body)
        return self._tariff.worst_cost(text + images * IMAGE_TOKENS_MAX, output_tokens, request.model)

    @property
    def is_passed(self) -> bool:
        """More is spent or set aside than the cap allows."""
        return self.cap is not None and self.spent + self.reserved > self.cap

    def settle(self, reserved: float, paid: float) -> None:
        """The attempt has landed: what was set aside for it becomes what it cost."""
        self.reserved -= reserved
        self.spent += paid

    def exhausted(self, request: Request) -> Stopped:
        """The stop that follows when nothing in flight can make room any more for this request."""
        if self.worst(request) is None:
            return Stopped(
                f"limits.max_cost is set, but no price is known of {request.model!r}: give it in [prices], or in\n"
                f'[prices.models."{request.model}"] (US dollars per million tokens). What may be paid is not known.'
            )
        return Stopped(
            f"limits.max_cost is reached: ${self.spent:,.4g} of ${self.cap or 0:,.4g} is spent or set aside, "
            "and the next request might cost more than is left.\nRaise it with --max-cost to go on.",
            Exit.AT_LIMIT,
        )
