"""Prices of a job's models, and the number of tokens that requests are expected to use."""

import re

from ..job import Job
from ..records import Tally, Usage

PER_MILLION = 1e-6

BYTES_PER_TOKEN = 4.0
"""Bytes of text per token, assumed before the first answer. English prose has about 4.7, Chinese about 2."""

COMPLETION_TOKENS = 100
"""Tokens of an answer, assumed before the first one."""

IMAGE_TOKENS = 1_000
"""Prompt tokens that an image is expected to use. gpt-4o counts 765 for a square, Claude about 1,500, Gemini 258
and more."""

IMAGE = re.compile(rb'"image_url":(?:\{(?:"detail":"\w+",)?"url":"(data:)?)?')
"""Matches an image part in a request's body up to its address; captures how that begins if it holds the image itself.

The same words inside a text do not match, since their quotes are escaped there.
"""


def text_and_images(body: bytes) -> tuple[int, int]:
    """Return the bytes of a request's body without its images' data, and the number of its images."""
    if b'"image_url":' not in body:
        return len(body), 0
    starts = [found.start(1) for found in IMAGE.finditer(body)]
    data_bytes = sum(body.find(b'"', start) - start for start in starts if start >= 0)
    return len(body) - data_bytes, len(starts)


def token_bytes(body: bytes) -> int:
    """Size of a request's body in bytes, as a measure of its tokens.

    Each image counts as the text of IMAGE_TOKENS tokens, independent of the size of its data.
    """
    text_bytes, images = text_and_images(body)
    return text_bytes + round(images * IMAGE_TOKENS * BYTES_PER_TOKEN)


def expected_usage(known: Tally, request_bytes: int, requests: int, output_tokens_max: int | None = None) -> Usage:
    """Tokens that a number of requests will likely use, in proportion to the answers tallied so far.

    `request_bytes`: the `token_bytes` of all the requests together. `output_tokens_max`: the limit that a request sets
    for its answer, which the assumption before the first answer does not exceed.
    """
    prompt_tokens, output_tokens = known.usage.prompt_tokens, known.usage.billed_output_tokens
    if not known.answers or not prompt_tokens or output_tokens is None:
        assumed = min(COMPLETION_TOKENS, output_tokens_max or COMPLETION_TOKENS)
        return Usage(round(request_bytes / BYTES_PER_TOKEN), requests * assumed)
    return Usage(
        round(request_bytes * prompt_tokens / known.request_bytes), round(requests * output_tokens / known.answers)
    )


class PriceList:
    """The prices of a job's models: those in `[prices]`, else those listed by genai-prices; a local model is free.

    For a job that runs in batches, the listed batch prices count. Prices in `[prices]` count as they are given, for
    batches too.

    Listed prices count only if the base URL is that of a provider that genai-prices knows: another server may give a
    model any name. All costs are estimates of what the provider will bill.
    """

    def __init__(self, job: Job) -> None:
        self._endpoint, self._own, self._models = job.endpoint, job.prices, job.models
        self._context = {"processing": "batch"} if job.run.how == "batch" else None
        self._free = job.endpoint.is_local
        self._unlisted: set[str] = set()
        """Models that genai-prices does not know."""
        self.unknown = next((model for model in job.models if not self.knows(model)), None)
        """The first of the job's models without a known price; None if all prices are known."""

    def knows(self, model: str) -> bool:
        """Whether the price of a model is known."""
        return self.cost(Usage(1, 1), model) is not None

    def cost(self, usage: Usage, model: str = "") -> float | None:
        """Cost of some usage in US dollars; None if the price or a token count is unknown.

        `model`: whose prices count; the job's first model if empty.
        """
        if self._free:
            return 0.0
        prompt_tokens, output_tokens = usage.prompt_tokens, usage.billed_output_tokens
        if prompt_tokens is None or output_tokens is None:
            return None
        cached_tokens = min(usage.cached_tokens or 0, prompt_tokens)
        model = model or self._models[0]
        own = self._own.of(model)
        # the section of the job file requires both or neither
        if own.input is None or own.output is None:
            return self._listed_cost(prompt_tokens, cached_tokens, output_tokens, model)
        cached_price = own.input if own.cached_input is None else own.cached_input
        fresh_tokens = prompt_tokens - cached_tokens
        return PER_MILLION * (fresh_tokens * own.input + cached_tokens * cached_price + output_tokens * own.output)

    def expected_cost(self, usage: Usage) -> float | None:
        """Cost in US dollars if the job's models share the usage equally; None if one model's price is unknown."""
        costs = [self.cost(usage, model) for model in self._models]
        known = [cost for cost in costs if cost is not None]
        return sum(known) / len(costs) if len(known) == len(costs) else None

    def worst_cost(self, prompt_tokens: int, output_tokens: int, model: str = "") -> float | None:
        """The most that these tokens can cost in US dollars, for any share of cached prompt tokens; None if unknown."""
        fresh = self.cost(Usage(prompt_tokens, output_tokens), model)
        if fresh is None or self._own.of(model or self._models[0]).cached_input is None:
            return fresh  # no listed price of a cached token is above that of a fresh one
        return max(fresh, self.cost(Usage(prompt_tokens, output_tokens, cached_tokens=prompt_tokens), model) or 0.0)

    def _listed_cost(self, prompt_tokens: int, cached_tokens: int, output_tokens: int, model: str) -> float | None:
        if model in self._unlisted:
            return None
        import genai_prices  # noqa: PLC0415 - takes a second to import, and many jobs do not need it

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
