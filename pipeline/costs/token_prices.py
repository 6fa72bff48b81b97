"""The prices of one model for each kind of token, and what some usage costs at them."""

from typing import NamedTuple

from msgspec.structs import replace

from ..job import ModelPrices
from ..records import Record, Usage

PER_MILLION = 1e-6

CACHE_WRITE_FACTOR = 1.25
"""The usual price of a token that is written to a cache for some minutes, as a multiple of that of a prompt token:
OpenAI's since GPT-5.6, and Anthropic's."""

LONG_CACHE_WRITE_FACTOR = 2.0
"""The price of a token that is written for an hour or more, as a multiple of that for some minutes: OpenAI's for 12
hours, and a little more than Anthropic's 1.6 for one."""

WRITTEN_TOKENS_MIN = 512
"""No provider writes a shorter prompt to its cache: Anthropic from 512 or more tokens on, OpenAI from 1,024."""

LISTED_KEYS = {
    "input": "input",
    "output": "output",
    "cached_input": "cache_read",
    "cache_write": "cache_write",
    "long_cache_write": "cache_write_1h",
}
"""The names of genai-prices for each kind of token."""


class CostParts(NamedTuple):
    """What an answer cost in US dollars, by kind of token."""

    fresh_prompt: float
    cached_prompt: float
    cache_writes: float
    output: float


class TokenPrices(Record, frozen=True):
    """US dollars per million tokens of each kind."""

    input: float
    output: float
    cached_input: float
    """Prompt tokens that were read from a cache."""
    cache_write: float
    """Prompt tokens that were written to a cache for some minutes."""
    long_cache_write: float
    """Prompt tokens that were written to a cache for an hour or more."""

    def times(self, factor: float) -> "TokenPrices":
        """All prices multiplied by a factor."""
        return TokenPrices(
            self.input * factor,
            self.output * factor,
            self.cached_input * factor,
            self.cache_write * factor,
            self.long_cache_write * factor,
        )


class PriceSteps(NamedTuple):
    """A model's prices by the length of the prompt: a long one makes all tokens of its request dearer."""

    steps: tuple[tuple[int, TokenPrices], ...]
    """Pairs of a number of prompt tokens and the prices of the prompts that have more, in ascending order; the first
    number is below 0."""

    def of(self, prompt_tokens: float) -> TokenPrices:
        """The prices of a request with a prompt of this length."""
        prices = self.steps[0][1]
        for above, dearer in self.steps[1:]:
            if prompt_tokens > above:
                prices = dearer
        return prices

    def parts(self, usage: Usage, requests: int = 1) -> CostParts | None:
        """What the usage of this number of requests costs, which are taken to be alike; None if a count is unknown.

        More tokens from or to a cache than the prompt has are not billed.
        """
        prompt_tokens, output_tokens = usage.prompt_tokens, usage.billed_output_tokens
        if prompt_tokens is None or output_tokens is None:
            return None
        prices = self.of(prompt_tokens / requests)
        cached = min(usage.cached_tokens or 0, prompt_tokens)
        written = min(usage.cache_write_tokens or 0, prompt_tokens - cached)
        long = min(usage.long_cache_write_tokens or 0, written)
        return CostParts(
            PER_MILLION * prices.input * (prompt_tokens - cached - written),
            PER_MILLION * prices.cached_input * cached,
            PER_MILLION * (prices.cache_write * (written - long) + prices.long_cache_write * long),
            PER_MILLION * prices.output * output_tokens,
        )

    def most(self, prompt_tokens: int, output_tokens: int, *, has_long_writes: bool) -> float:
        """The most that a request with at most this number of tokens can cost, whatever part of it a cache takes."""
        most = 0.0
        for above, prices in self.steps:
            if prompt_tokens > above:
                per_prompt_token = max(prices.input, prices.cached_input)
                if prompt_tokens >= WRITTEN_TOKENS_MIN:
                    written = max(prices.cache_write, prices.long_cache_write if has_long_writes else 0.0)
                    per_prompt_token = max(per_prompt_token, written)
                most = max(most, prompt_tokens * per_prompt_token + output_tokens * prices.output)
        return PER_MILLION * most

    def times(self, factor: float) -> "PriceSteps":
        """All prices multiplied by a factor."""
        return PriceSteps(tuple((above, prices.times(factor)) for above, prices in self.steps))


def own_prices(own: ModelPrices) -> PriceSteps | None:
    """The prices that the job file gives; None if it gives none. What is left out has its usual relation to `input`."""
    if own.input is None or own.output is None:
        return None
    write = CACHE_WRITE_FACTOR * own.input if own.cache_write is None else own.cache_write
    first = TokenPrices(
        own.input,
        own.output,
        own.input if own.cached_input is None else own.cached_input,
        write,
        LONG_CACHE_WRITE_FACTOR * write if own.long_cache_write is None else own.long_cache_write,
    )
    steps = [(-1, first)]
    if own.long_prompt_tokens is not None:
        long_input, long_output = own.long_input or 0.0, own.long_output or 0.0
        of_cache = first.times(long_input / own.input) if own.input else TokenPrices(*[long_input] * 5)
        steps.append((own.long_prompt_tokens, replace(of_cache, input=long_input, output=long_output)))
    return PriceSteps(tuple(steps))


def listed_prices(listed: object) -> PriceSteps | None:
    """The prices of an entry of genai-prices (a `ModelPrice`); None if it has none for tokens.

    As in that library, a kind of token without a price of its own costs as much as the kind that it is a part of; only
    writes to a cache for an hour or more cost LONG_CACHE_WRITE_FACTOR times as much as those for some minutes.
    """
    kinds = {name: getattr(listed, f"{key}_mtok", None) for name, key in LISTED_KEYS.items()}
    if kinds["input"] is None and kinds["output"] is None:
        return None
    starts = {tier.start for price in kinds.values() for tier in getattr(price, "tiers", ())}
    return PriceSteps(tuple((start, _listed_at(kinds, start)) for start in (-1, *sorted(starts))))


def _listed_at(kinds: dict[str, object], start: int) -> TokenPrices:
    """The prices of prompts that are longer than `start`."""
    found = {name: _listed_price(price, start) for name, price in kinds.items()}
    fresh, cached, write, long = (found[name] for name in LISTED_KEYS if name != "output")
    fresh = fresh or 0.0
    if write is None:
        write, long = fresh, fresh
    cached, long = fresh if cached is None else cached, LONG_CACHE_WRITE_FACTOR * write if long is None else long
    return TokenPrices(fresh, found["output"] or 0.0, cached, write, long)


def _listed_price(price: object, start: int) -> float | None:
    """A price of the list: a number, or one that rises in steps with the length of the prompt."""
    if price is None:
        return None
    reached = [tier.price for tier in getattr(price, "tiers", ()) if tier.start <= start]
    return float(str(reached[-1] if reached else getattr(price, "base", price)))
