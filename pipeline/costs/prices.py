"""Prices of a job's models, and the number of tokens that requests are expected to use."""

import math
import re
import time
from collections.abc import Callable

from ..job import Job
from ..records import Tally, Usage
from .token_prices import CostParts, PriceSteps, listed_prices, own_prices

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
    per_byte = request_bytes / known.request_bytes
    cached, written, long = (
        None if count is None else round(per_byte * count)
        for count in (known.usage.cached_tokens, known.usage.cache_write_tokens, known.usage.long_cache_write_tokens)
    )
    return Usage(
        round(per_byte * prompt_tokens),
        round(requests * output_tokens / known.answers),
        cached_tokens=cached,
        cache_write_tokens=written,
        long_cache_write_tokens=long,
    )


TIER_FACTORS = {"flex": 0.5, "priority": 2.0, "fast": 2.0, "ultrafast": 6.0}
"""What the service tiers of OpenAI and Google cost, as a multiple of the standard one, where no price says it. Others,
such as `default`, `auto` or Groq's `on_demand`, cost the same."""

DEAR_TIERS = ("priority", "fast")
"""What the provider may choose by the project's own setting, where a job asks for `auto`."""

FOUND_MAX = 1000
"""How many prices are kept: a server may name a new tier in each reply."""

LISTED_SECONDS = 60.0
"""How long a listed price is used before it is looked up again: a few depend on the time of day."""

LONG_CACHE = (b'"ttl":"1h"', b'"ttl":"12h"')
"""How requests ask for a cache that lasts an hour or more, and costs more to write (Anthropic, OpenAI)."""


class PriceList:
    """The prices of a job's models: those in `[prices]`, else those listed by genai-prices; a local model is free.

    A listed price depends on the service tier that a reply names, on the length of the prompt, and on whether the job
    runs in batches. Prices in `[prices]` count as they are given, for batches too. A dearer tier without a listed price
    counts at TIER_FACTORS; a cheaper one counts at the standard price, so that a cost is rather too high.

    Listed prices count only if the base URL is that of a provider that genai-prices knows: another server may give a
    model any name. All costs are estimates of what the provider will bill.
    """

    def __init__(self, job: Job, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds: listed prices are looked up again after LISTED_SECONDS."""
        self._endpoint, self._own, self._models, self._clock = job.endpoint, job.prices, job.models, clock
        self._processing = {"processing": "batch"} if job.run.how == "batch" else {}
        asked = "flex" if job.run.how == "flex" else job.parameters.get("service_tier")
        self._asked_tier = asked if isinstance(asked, str) else ""
        self._free = job.endpoint.is_local
        self._unlisted: set[str] = set()
        """Models that genai-prices does not know."""
        self._found: dict[tuple[str, str], tuple[float, PriceSteps | None]] = {}
        """By model and tier: until when the prices may be used, and what they are; None if they are unknown."""
        self._tiers = {"", self._asked_tier, *(DEAR_TIERS if self._asked_tier == "auto" else ())}
        """The tiers that requests may be billed by: the standard one, the one that is asked for, and those seen."""
        self.unknown = next((model for model in job.models if not self.knows(model)), None)
        """The first of the job's models without a known price; None if all prices are known."""

    def knows(self, model: str) -> bool:
        """Whether the price of a model is known."""
        return self._free or self._prices_of(model or self._models[0], "") is not None

    def cost(self, usage: Usage, model: str = "") -> float | None:
        """Cost of some usage in US dollars; None if the price or a token count is unknown.

        `model`: whose prices count; the job's first model if empty.
        """
        if self._free or not usage.is_billed:
            return 0.0
        prices = self._prices_of(model or self._models[0], usage.tier)
        parts = None if prices is None else prices.parts(usage)
        return None if parts is None else sum(parts)

    def parts(self, usage: Usage, model: str) -> CostParts:
        """The same by kind of token; all 0 if it is unknown."""
        prices = self._prices_of(model, usage.tier) if usage.is_billed else None
        return (None if prices is None else prices.parts(usage)) or CostParts(0.0, 0.0, 0.0, 0.0)

    def expected_cost(self, usage: Usage, requests: int) -> float | None:
        """Cost in US dollars if the job's models share the usage of this number of requests equally.

        It is taken at the service tier that the job asks for. None if one model's price is unknown.
        """
        if self._free:
            return 0.0
        found = [self._prices_of(model, self._asked_tier) for model in self._models]
        parts = [prices.parts(usage, max(1, requests)) for prices in found if prices is not None]
        known = [sum(each) for each in parts if each is not None]
        return sum(known) / len(found) if len(known) == len(found) else None

    def worst_cost(
        self, prompt_tokens: int, output_tokens: int, model: str = "", *, has_long_writes: bool = False
    ) -> float | None:
        """The most that a request with these tokens can cost in US dollars; None if the price is unknown.

        It may be any share of its prompt that is read from a cache or written to one, and any tier that is asked for or
        was seen. `has_long_writes`: it asks for a cache that lasts an hour or more.
        """
        if self._free:
            return 0.0
        found = [self._prices_of(model or self._models[0], tier) for tier in self._tiers]
        most = [
            prices.most(prompt_tokens, output_tokens, has_long_writes=has_long_writes)
            for prices in found
            if prices is not None
        ]
        return max(most, default=None)

    def learn_tier(self, tier: str, model: str) -> bool:
        """Reserve for the tier of a reply from now on; True if it is dearer than those that were expected so far."""
        if tier in self._tiers:
            return False
        factors = self._factors(model or self._models[0])
        if tier not in factors:
            return False
        most = max(factors.get(known, 1.0) for known in self._tiers)
        self._tiers.add(tier)
        return factors[tier] > most

    def _factors(self, model: str) -> dict[str, float]:
        """What each tier costs for a model, as a multiple of the standard one."""
        return {**TIER_FACTORS, **self._own.tiers, **self._own.of(model).tiers}

    def _prices_of(self, model: str, tier: str) -> PriceSteps | None:
        """The prices of a model in a service tier; None if they are unknown."""
        found = self._found.get((model, tier))
        if found is None or found[0] <= self._clock():
            found = self._look_up(model, tier)
            if len(self._found) < FOUND_MAX:
                self._found[model, tier] = found
        return found[1]

    def _look_up(self, model: str, tier: str) -> tuple[float, PriceSteps | None]:
        """The prices, and until when they may be used."""
        own, factors = self._own.of(model), self._factors(model)
        prices = own_prices(own)
        if prices is not None:
            return math.inf, prices.times(factors.get(tier, 1.0))
        until = self._clock() + LISTED_SECONDS
        given = {**self._own.tiers, **own.tiers}.get(tier)
        if given is None:
            return until, self._listed_prices(model, tier if tier in factors else "")
        standard = self._listed_prices(model, "")
        return until, None if standard is None else standard.times(given)

    def _listed_prices(self, model: str, tier: str) -> PriceSteps | None:
        """The listed prices of a model in one of the tiers of TIER_FACTORS, or in the standard one."""
        if self._free or model in self._unlisted:
            return None
        import genai_prices  # noqa: PLC0415 - takes a second to import, and many jobs do not need it

        context = {**self._processing, **({"service_tier": tier} if tier else {})}
        try:
            found = genai_prices.calc_price(
                genai_prices.Usage(input_tokens=1, output_tokens=1),
                model.removeprefix("models/"),  # as Gemini's own interface names its models
                provider_api_url=self._endpoint.base_url,
                price_context=context,
            )
        except LookupError:
            self._unlisted.add(model)
            return None
        prices = listed_prices(found.model_price)
        is_listed = any(variant.when.get("service_tier") == tier for variant in found.model.price_variants or ())
        if prices is None or is_listed or not tier or found.provider.id == "anthropic":
            return prices  # Anthropic's priority is capacity that was paid for in advance
        return prices.times(max(1.0, TIER_FACTORS[tier]))
