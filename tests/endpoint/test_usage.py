"""Token counts are read under every provider's names, and kept as they were reported."""

from typing import Any

import pytest

from pipeline.endpoint.usage import read_usage
from pipeline.records import Usage


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
        (None, Usage()),
        ([], Usage()),
        ({"prompt_tokens": None, "completion_tokens": 0}, Usage(completion_tokens=0)),
        ({"prompt_tokens": True, "completion_tokens": -1, "total_tokens": 1.5}, Usage(untrue="prompt_tokens: True")),
        ({"prompt_tokens": "7 tokens", "total_tokens": 10**30}, Usage(untrue="prompt_tokens: 7 tokens")),
        ({"prompt_tokens": 5, "completion_tokens": -1}, Usage(5, untrue="completion_tokens: -1")),
        ({"prompt_tokens": 7.0, "completion_tokens": "4", "total_tokens": "11.0"}, Usage(7, 4, total_tokens=11)),
        ({"input_tokens": 7, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 2}}, Usage(7, 4, None, 2)),
        ({"input_tokens": 7, "output_tokens": 4, "cache_read_input_tokens": 20}, Usage(27, 4, None, 20)),
        ({"prompt_tokens": None, "input_tokens": 7, "reasoning_tokens": 3}, Usage(7, None, 3)),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 0}}, Usage(prompt_tokens=9, cached_tokens=0)),
        ({"prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 5}, Usage(cached_tokens=4)),
        ({"prompt_tokens_details": None, "cache_read_input_tokens": 4}, Usage(cached_tokens=4)),
        ({"completion_tokens_details": {"reasoning_tokens": 3}}, Usage(reasoning_tokens=3)),
        (  # OpenAI since GPT-5.6
            {
                "prompt_tokens": 2000,
                "prompt_tokens_details": {
                    "cached_tokens": 128,
                    "cache_write_tokens": 1024,
                    "cache_write_tokens_details": {"ttl_30m_tokens": 1000, "ttl_12h_tokens": 24},
                },
            },
            Usage(2000, cached_tokens=128, cache_write_tokens=1024, long_cache_write_tokens=24),
        ),
        (  # Anthropic: the prompt's tokens are those of neither kind
            {
                "input_tokens": 10,
                "output_tokens": 4,
                "cache_read_input_tokens": 100,
                "cache_creation_input_tokens": 50,
                "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 30},
                "service_tier": "standard",
            },
            Usage(160, 4, cached_tokens=100, cache_write_tokens=50, long_cache_write_tokens=30, tier="standard"),
        ),
        (  # LiteLLM: OpenAI's names, Anthropic's beside them
            {"prompt_tokens": 160, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 50},
            Usage(160, cached_tokens=100, cache_write_tokens=50),
        ),
        (  # a gateway that leaves cached tokens out of the prompt's
            {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 100}},
            Usage(110, cached_tokens=100),
        ),
        (  # the total says that the cache is inside
            {"input_tokens": 2000, "output_tokens": 5, "total_tokens": 2005, "cached_tokens": 1900},
            Usage(2000, 5, cached_tokens=1900, total_tokens=2005),
        ),
        (  # the total says that the cache is apart
            {
                "prompt_tokens": 4000,
                "completion_tokens": 5,
                "total_tokens": 7005,
                "cache_creation_input_tokens": 3000,
            },
            Usage(7000, 5, total_tokens=7005, cache_write_tokens=3000),
        ),
        (
            {"input_tokens": 10, "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2}},
            Usage(13, cache_write_tokens=3, long_cache_write_tokens=2),
        ),
        (  # LiteLLM, newer
            {
                "prompt_tokens": 5000,
                "prompt_tokens_details": {
                    "cache_creation_tokens": 4000,
                    "cache_creation_token_details": {"ephemeral_1h_input_tokens": 4000},
                },
            },
            Usage(5000, cache_write_tokens=4000, long_cache_write_tokens=4000),
        ),
        (  # DashScope
            {"prompt_tokens": 90, "prompt_tokens_details": {"cache_creation_input_tokens": 80}},
            Usage(90, cache_write_tokens=80),
        ),
    ],
)
def test_usage_is_kept_as_reported_and_unknown_is_never_zero(reported: Any, usage: Usage) -> None:
    assert read_usage(reported) == usage


@pytest.mark.parametrize(("tier", "beside"), [("flex", None), (None, "FLEX"), ("flex", "standard")])
def test_the_tier_beside_the_usage_comes_before_the_one_in_it(tier: str | None, beside: str | None) -> None:
    reported = {"prompt_tokens": 1} if beside is None else {"prompt_tokens": 1, "service_tier": beside}
    assert read_usage(reported, tier).tier == "flex"


def test_a_tier_that_is_no_word_is_none() -> None:
    assert read_usage({"service_tier": 5}, ["flex"]).tier == ""
