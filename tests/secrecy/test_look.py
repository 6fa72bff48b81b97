"""Keys of the shapes of all providers look like secrets; placeholders, words, names of models and dates do not."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from keys import PLACEHOLDERS, SHAPES, invented_key, invented_token, invented_uuid

from pipeline.secrecy.look import is_secret, randomness


@pytest.mark.parametrize("provider", SHAPES)
def test_a_key_of_a_providers_shape_is_a_secret(provider: str) -> None:
    missed = [key for seed in range(200) if not is_secret(key := invented_key(provider, seed))]
    assert missed == []


def test_tokens_and_uuids_are_secrets() -> None:
    assert [seed for seed in range(200) if not is_secret(invented_token(seed))] == []
    assert [seed for seed in range(200) if not is_secret(invented_uuid(seed))] == []


@pytest.mark.parametrize("placeholder", PLACEHOLDERS)
def test_a_placeholder_is_no_secret(placeholder: str) -> None:
    assert not is_secret(placeholder)


@pytest.mark.parametrize(
    "text",
    [
        "2023-06-01",
        "assistants=v2",
        "my project",
        "prompt-caching-2024-07-31,max-tokens-3-5-sonnet-2024-07-15",
        "https://example.com/my-app",
        "2024-10-21T12:34:56.789Z",
        "Wed, 21 Oct 2015 07:28:00 GMT",
        "accounts/fireworks/models/llama-v3p1-405b-instruct",
        f"org-{invented_key('Mistral')}",
        "Donaudampfschifffahrtsgesellschaft",
        "",
    ],
)
def test_what_headers_usually_say_is_no_secret(text: str) -> None:
    assert not is_secret(text)


WORDS = st.sampled_from(["the", "answer", "could", "not", "find", "anything", "positive", "neutral", "label", "token"])


@given(st.lists(WORDS, min_size=1, max_size=12), st.sampled_from(["-", "_", " ", ".", ""]))
def test_words_are_no_secret_however_many_and_however_joined(words: list[str], joint: str) -> None:
    assert not is_secret(joint.join(words))


def test_a_key_is_found_behind_words() -> None:
    assert is_secret(f"my-company-production-{invented_key('Mistral')}")


def test_a_text_of_megabytes_is_judged_at_once() -> None:
    began = time.process_time()
    assert not any(map(is_secret, ("a" * 5_000_000, "sk-" * 2_000_000, "ab12" * 1_000_000)))
    assert time.process_time() - began < 1


def test_what_is_repeated_is_random_once() -> None:
    assert randomness("x7q2" * 50) == randomness("x7q2" * 2)
