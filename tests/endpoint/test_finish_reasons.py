"""Why an answer ended is known in every provider's words, and an unknown word is kept as it came."""

import pytest

from pipeline.endpoint.finish_reasons import WORDS, finish_reason_of
from pipeline.records import FINISH_REASONS

SPELLINGS = {
    "stop": ("stop", "STOP", "eos", "eos_token", "EOS", "end_turn", "COMPLETE", "stop_sequence", "eosFound", "end"),
    "length": (
        "length",
        "LENGTH",
        "max_tokens",
        "MAX_TOKENS",
        "max-tokens",
        "model_context_window_exceeded",
        "max_output_tokens",
        "max_length",
        "token_limit",
        "maxPredictedTokensReached",
        "ERROR_LIMIT",
    ),
    "content_filter": ("SAFETY", "content-filter", "sensitive", "PROHIBITED_CONTENT", "guardrail_intervened", "SPII"),
    "tool_calls": ("tool_calls", "TOOL_CALL", "tool_use", "function_call"),
    "error": ("error", "ERROR", "abort", "network_error", "insufficient_system_resource", "CANCELLED"),
}


@pytest.mark.parametrize(("word", "reason"), [(word, reason) for reason in SPELLINGS for word in SPELLINGS[reason]])
def test_each_providers_word_is_one_of_openais(word: str, reason: str) -> None:
    assert finish_reason_of(word) == reason


BY_PROVIDER = {
    "watsonx": {
        "stop": "eos_token stop_sequence",
        "length": "max_tokens token_limit time_limit",
        "error": "not_finished",
    },
    "Cohere": {
        "stop": "COMPLETE STOP_SEQUENCE",
        "length": "MAX_TOKENS ERROR_LIMIT",
        "content_filter": "ERROR_TOXIC",
        "tool_calls": "TOOL_CALL",
        "error": "ERROR TIMEOUT USER_CANCEL",
    },
    "LM Studio": {
        "stop": "eosFound stopStringFound",
        "length": "maxPredictedTokensReached contextLengthReached",
        "tool_calls": "toolCalls",
        "error": "userStopped modelUnloaded failed",
    },
    "Aleph Alpha": {"stop": "end_of_text stop_sequence_reached", "length": "maximum_tokens"},
    "TensorRT-LLM": {"stop": "END_ID STOP_WORDS", "length": "LENGTH", "error": "TIMED_OUT CANCELLED NOT_FINISHED"},
}


@pytest.mark.parametrize("provider", BY_PROVIDER)
def test_the_words_of_a_providers_reference_are_all_known(provider: str) -> None:
    for reason, words in BY_PROVIDER[provider].items():
        assert {finish_reason_of(word) for word in words.split()} == {reason}


@pytest.mark.parametrize(
    "word", ["FinishReason.STOP", "FINISH_REASON_STOP", "finish_reason: stop", "<|eot_id|>", "</s>", "[EOS]"]
)
def test_the_words_of_enums_and_a_models_own_stop_token_mean_stop(word: str) -> None:
    assert finish_reason_of(word) == "stop"


@pytest.mark.parametrize("word", [None, "", "  ", 1, True, ["stop"]])
def test_what_is_no_word_is_no_reason(word: object) -> None:
    assert finish_reason_of(word) is None


@pytest.mark.parametrize("word", ["gave_up", "nonstop", "Stop!", "stop" * 100, "<" * 1_000_000])
def test_an_unknown_word_is_kept(word: str) -> None:
    assert finish_reason_of(word) == word
    assert word not in FINISH_REASONS


def test_no_word_has_two_meanings() -> None:
    words = [word for each in WORDS.values() for word in each.split()]
    assert len(words) == len(set(words))
    assert all(finish_reason_of(word.upper()) in FINISH_REASONS for word in words)
    assert tuple(WORDS) == FINISH_REASONS
