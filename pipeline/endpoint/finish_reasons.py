"""Why an answer ended, in OpenAI's words: providers, gateways and local servers have a hundred words for five reasons.

The words are those of the providers' API references and of issues about clients that did not know them, as of 2026.
"""

import re

from ..records import FINISH_REASONS
from .error_bodies import plain_code

STOP, LENGTH, FILTERED, TOOL_CALLS, BROKEN = FINISH_REASONS

WORDS: dict[str, str] = {
    STOP: (
        "stop eos eos_token eos_found end_of_text end_of_sequence end_of_turn end_of_message end end_turn "
        "stop_sequence stop_sequence_reached stop_string_found stop_token stop_word stop_str word complete completed "
        "stop_words end_id done finish finished normal success unspecified unknown not_specified matched_stop"
    ),
    LENGTH: (
        "length max_length max_tokens max_token max_new_tokens max_output_tokens max_completion_tokens maximum_tokens "
        "max_predicted_tokens_reached model_length model_context_window_exceeded context_length "
        "context_length_exceeded context_length_reached context_window_exceeded token_limit token_limit_reached "
        "output_token_limit limit error_limit incomplete truncated time_limit compaction pause_turn repetition"
    ),
    FILTERED: (
        "content_filter content_filtered content_filtering content_policy filter filtered safety sensitive "
        "recitation blocklist prohibited_content spii language image_safety image_prohibited_content image_recitation "
        "model_armor escalation jailbreak guardrail_intervened guardrail guardrails error_toxic moderation blocked "
        "refusal"
    ),
    TOOL_CALLS: "tool_calls tool_call tool_use function_call function_calls tool tools",
    BROKEN: (
        "error network_error server_error internal_error failed failure abort aborted cancel canceled cancelled "
        "user_cancel user_stopped interrupted timeout timed_out deadline_exceeded not_finished malformed_response "
        "insufficient_system_resource malformed_model_output malformed_function_call malformed_tool_use "
        "unexpected_tool_call too_many_tool_calls missing_thought_signature image_other no_image "
        "model_unloaded load unload"
    ),
}
"""The words for each reason. `refusal` is Anthropic's, and its text, if there is any, was cut by a classifier."""

PREFIX = re.compile(r"(?:finish|stop)(?:ed)?reason[._: -]?")
"""What enums put before the word, as `FinishReason.STOP` and `FINISH_REASON_STOP`."""

STOP_TOKEN = re.compile(r"(?:<[|\uff5c]?|\[)?[\w\u2581|\uff5c/]{1,40}(?:[|\uff5c]?>|\])")
"""A model's own stop token, as `<|eot_id|>` and `</s>`."""

WORD_CHARACTERS_MAX = 60
"""A longer word is none of these, and is not looked up."""

_REASONS = {plain_code(word): reason for reason, words in WORDS.items() for word in words.split()}


def finish_reason_of(word: object) -> str | None:
    """The reason in OpenAI's words; None if there is none; the word itself if it is not known.

    Upper and lower case, `_`, `-` and spaces make no difference.
    """
    if not isinstance(word, str) or not word.strip():
        return None
    known = _REASONS.get(word)
    if known is not None:
        return known
    if len(word) > WORD_CHARACTERS_MAX:
        return word
    plain = plain_code(word.strip())
    plain = PREFIX.sub("", plain, count=1) or plain
    return _REASONS.get(plain) or (STOP if STOP_TOKEN.fullmatch(word.strip()) else word)
