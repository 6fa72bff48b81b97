"""The token counts that a reply reports, under the names of every provider and gateway, as one neutral Usage."""

import re
from functools import lru_cache

from ..records import Usage
from .error_bodies import clean_message

COUNT = re.compile(r"[0-9]{1,16}(?:\.0{1,9})?")
"""A number of tokens as text."""

COUNT_BELOW = 2**53
"""Where JSON numbers stop being exact: no honest count is near it, and sums stay storable."""

TIER_CHARACTERS_MAX = 40

PROMPT_NAMES = ("prompt_tokens", "input_tokens")
REASONING_NAMES = ("reasoning_tokens", "thinking_tokens")
COMPLETION_NAMES = ("completion_tokens", "output_tokens")
TOTAL_NAMES = (*PROMPT_NAMES, *COMPLETION_NAMES, "total_tokens")
CACHED_NAMES = (
    "prompt_cache_hit_tokens",  # DeepSeek
    "cached_tokens",
    "cache_read_tokens",
    "cache_read_input_tokens",
    "cacheReadInputTokens",
)
WRITE_NAMES = ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens", "cacheWriteInputTokens")
BY_AGE_NAMES = ("cache_write_tokens_details", "cache_creation", "cache_creation_token_details")
"""Where the writes to a cache are told apart by how long it lasts: OpenAI, Anthropic, LiteLLM."""
LONG_WRITE_NAMES = ("ttl_12h_tokens", "ephemeral_1h_input_tokens", "ttl_1h_tokens")
"""Those that are kept for an hour or more."""


def read_usage(reported: object, tier: object = None) -> Usage:
    """Read the token counts of a `usage` object. `tier`: the service tier that stands beside it.

    A missing, negative, fractional or boolean count is None, not 0. "12" and 12.0 are 12.

    Some servers leave the tokens of a cache out of the prompt's (Anthropic's own interface, Bedrock); they are added.
    """
    if not isinstance(reported, dict):
        return Usage(tier=_tier_of(tier))
    prompt_details = _details(reported, "prompt_tokens_details", "input_tokens_details", "prompt_cache_details")
    completion_details = _details(reported, "completion_tokens_details", "output_tokens_details")
    cached = _first_count(CACHED_NAMES, prompt_details, reported)
    written = _first_count(WRITE_NAMES, prompt_details, reported)
    by_age = _details(prompt_details, *BY_AGE_NAMES) or _details(reported, *BY_AGE_NAMES)
    if written is None and by_age:
        written = sum(_count(value) or 0 for value in by_age.values())
    prompt = _first_count(PROMPT_NAMES, reported)
    completion, total = _first_count(COMPLETION_NAMES, reported), _count(reported.get("total_tokens"))
    in_cache = (cached or 0) + (written or 0)
    if prompt is not None and in_cache:
        rest = None if total is None else total - (completion or 0)
        # Anthropic's names without OpenAI's parts, or a part that is more than the whole
        is_other = _count(reported.get("prompt_tokens")) is None and not prompt_details
        if rest == prompt + in_cache or (rest != prompt and (is_other or in_cache > prompt)):
            prompt += in_cache
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        reasoning_tokens=_first_count(REASONING_NAMES, completion_details, reported),
        cached_tokens=cached,
        total_tokens=total,
        cache_write_tokens=written,
        long_cache_write_tokens=_first_count(LONG_WRITE_NAMES, by_age),
        tier=_tier_of(tier) or _tier_of(reported.get("service_tier")),
        untrue=_untrue(reported),
    )


def _tier_of(reported: object) -> str:
    return _tier_word(reported[:TIER_CHARACTERS_MAX]) if isinstance(reported, str) else ""


@lru_cache(100)
def _tier_word(reported: str) -> str:
    return clean_message(reported).casefold()


def _untrue(reported: dict[str, object]) -> str:
    """A count that no number of tokens can be, in words; empty if there is none."""
    for name in TOTAL_NAMES:
        value = reported.get(name)
        if value is not None and _count(value) is None:
            return f"{name}: {str(value)[:40]}"
    return ""


def _details(reported: dict[str, object], *names: str) -> dict[str, object]:
    for name in names:
        value = reported.get(name)
        if isinstance(value, dict):
            return value
    return {}


def _first_count(names: tuple[str, ...], *holders: dict[str, object]) -> int | None:
    for holder in holders:
        for name in names if holder else ():
            if name in holder and (count := _count(holder[name])) is not None:
                return count
    return None


def _count(value: object) -> int | None:
    if type(value) is float and value.is_integer():
        value = int(value)
    elif isinstance(value, str) and COUNT.fullmatch(value):
        value = int(value.partition(".")[0])
    return value if type(value) is int and 0 <= value < COUNT_BELOW else None
