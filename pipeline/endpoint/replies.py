"""Read a reply: as an answer, or as a rejection that says what failed.

Decided in this order: how the attempt failed in transport, whether the body can be read, its status and error codes,
its error message.
"""

import json

from ..records import Answer, Rejection, Reply, Usage
from .error_bodies import (
    ErrorDetails,
    body_preview,
    clean_message,
    error_document,
    error_objects,
    is_html,
    read_error_details,
)
from .lenient_json import find_objects, parse_json
from .rejections import KINDS, describe_status, kind_of_error, reject, status_of_codes

FINISH_REASONS = {
    "max_tokens": "length",
    "MAX_TOKENS": "length",
    "model_length": "length",  # Mistral
    "SAFETY": "content_filter",
    "sensitive": "content_filter",  # Zhipu
}
"""Other spellings of OpenAI's finish reasons. Unknown, they would let a truncated answer pass as a complete one."""

BROKEN_FINISHES = frozenset({"error", "network_error", "abort"})
"""Finish reasons of an answer that the model's server failed to complete."""

LOGPROB_MIN = -9999.0
"""The lowest log probability that is kept; infinity cannot be stored as JSON."""


def read_reply(reply: Reply) -> Answer | Rejection:
    """Read the answer in a reply, or classify the reply as a rejection. Pure, and never raises.

    An Answer has text, finish_reason, model, usage, refusal and logprobs; its other fields are for the caller to fill.
    Its text is the tool calls as compact JSON where the model sent nothing else, or the refusal where it only refused.
    A Rejection's verdict is its kind's in `KINDS`, and its wait is in seconds, as the endpoint gave it, not clamped.
    """
    # Under an error status, a body that was cut short was no answer and cost nothing: the status decides, not the cut.
    if reply.fault and not (reply.fault in {"cut", "timeout"} and reply.status >= 300):
        return reject(reply, reply.fault, clean_message(reply.detail))
    try:
        if 200 <= reply.status < 300:
            return _read_success(reply)
        document = error_document(reply.body)
        return _read_error(reply, reply.status, document, read_error_details(document))
    except RecursionError:  # JSON nested so deep that it can be read but not written
        return reject(reply, "garbled", "the body is nested too deeply")


def read_usage(reported: object) -> Usage:
    """Read the token counts of a `usage` object. A missing, negative, fractional or boolean one is None, not 0."""
    if not isinstance(reported, dict):
        return Usage()
    prompt = reported.get("prompt_tokens_details")
    completion = reported.get("completion_tokens_details")
    cached = _count(prompt.get("cached_tokens")) if isinstance(prompt, dict) else None
    if cached is None:
        cached = _count(reported.get("prompt_cache_hit_tokens"))  # DeepSeek
    if cached is None:
        cached = _count(reported.get("cache_read_input_tokens"))  # Anthropic
    return Usage(
        prompt_tokens=_count(reported.get("prompt_tokens")),
        completion_tokens=_count(reported.get("completion_tokens")),
        reasoning_tokens=_count(completion.get("reasoning_tokens")) if isinstance(completion, dict) else None,
        cached_tokens=cached,
        total_tokens=_count(reported.get("total_tokens")),
    )


def _read_success(reply: Reply) -> Answer | Rejection:
    """Read a reply of status 2xx, which may hold an error all the same."""
    document = parse_json(reply.body)
    if not isinstance(document, dict):
        document = _find_document(document, reply)
        if document is None:
            return _reject_unreadable(reply)
    choice = _first_choice(document)
    error = document.get("error")
    if choice is not None and not (error and choice.get("finish_reason") is None):
        return _read_choice(reply, document, choice)
    details = read_error_details(document)
    if error or document.get("object") == "error":  # the latter is older vLLM
        return _read_error(reply, details.status or status_of_codes(details.codes), document, details)
    return reject(reply, "no_choices", clean_message(details.message), usage=read_usage(document.get("usage")))


def _read_error(reply: Reply, status: int, document: object, details: ErrorDetails) -> Rejection:
    """Classify an error; `status` is the one that counts, which under HTTP 200 is that of the error itself."""
    kind = kind_of_error(status, details, reply.headers)
    message = details.shown_message
    if 300 <= status < 400:
        place = clean_message(reply.headers.get("location", "")) or "an address it does not name"
        message = f"HTTP {status}: redirected to {place}; redirects are never followed: check base_url"
    usage = read_usage(document.get("usage")) if isinstance(document, dict) else None
    return reject(reply, kind, message or describe_status(status, kind, reply), details, usage)


def _first_choice(document: dict[str, object]) -> dict[str, object] | None:
    choices = document.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    return choice if isinstance(choice, dict) else None


def _find_document(value: object, reply: Reply) -> dict[str, object] | None:
    """Find the answer or the error in a body that is not a JSON object: in a list, in a string, or amid other text."""
    found = error_objects(value) if value is not None else [] if is_html(reply) else find_objects(reply.body)
    return next((each for each in found if each.get("error") or "message" in (_first_choice(each) or {})), None)


def _reject_unreadable(reply: Reply) -> Rejection:
    if is_html(reply):
        return reject(reply, "html", "")
    preview = body_preview(reply.body)
    return reject(
        reply, "garbled", f"{KINDS['garbled'].meaning}; it begins: {preview}" if preview else "the body is empty"
    )


def _read_choice(reply: Reply, document: dict[str, object], choice: dict[str, object]) -> Answer | Rejection:
    message = choice.get("message")
    if not isinstance(message, dict):
        message = {}
    content = message.get("content")
    text = content if isinstance(content, str) else _join_parts(content, "text")
    finish = choice.get("finish_reason")
    finish = FINISH_REASONS.get(finish, finish) if isinstance(finish, str) else None
    usage = read_usage(document.get("usage"))
    if choice.get("error") or finish in BROKEN_FINISHES:
        details = read_error_details({"error": choice.get("error") or document.get("error")})
        return reject(reply, "broken", clean_message(details.message), details, usage)
    refusal = message.get("refusal") or _join_parts(content, "refusal")
    if not isinstance(refusal, str) or not refusal.strip():
        refusal = None
    if not text or text.isspace():
        calls = message.get("tool_calls")
        if refusal:
            text = refusal
        elif isinstance(calls, list) and calls:
            text = json.dumps(calls, ensure_ascii=False, separators=(",", ":"))
        elif finish not in {"length", "content_filter"}:
            reason = f"{KINDS['empty'].meaning} (finish_reason {finish or 'missing'})"
            return reject(reply, "empty", clean_message(reason), usage=usage)
    model = document.get("model")
    return Answer(
        text=text,
        finish_reason=finish,
        model=model if isinstance(model, str) and model else None,
        usage=usage,
        refusal=refusal,
        logprobs=_read_logprobs(choice.get("logprobs")),
    )


def _read_logprobs(reported: object) -> tuple[tuple[str, float], ...]:
    """Read an answer's tokens with their log probabilities; none at all if one of them is missing."""
    tokens = reported.get("content") if isinstance(reported, dict) else None
    read = [_read_logprob(token) for token in tokens] if isinstance(tokens, list) else []
    return tuple(pair for pair in read if pair is not None) if None not in read else ()


def _read_logprob(token: object) -> tuple[str, float] | None:
    text, logprob = (token.get(name) if isinstance(token, dict) else None for name in ("token", "logprob"))
    if not isinstance(text, str) or isinstance(logprob, bool) or not isinstance(logprob, (int, float)):
        return None
    return text, round(min(0.0, max(LOGPROB_MIN, float(logprob))), 4)


def _join_parts(content: object, key: str) -> str:
    """Join the strings under `key` of a content that is a list of parts. Other parts, as of thinking, are left out."""
    if not isinstance(content, list):
        return ""
    found = (
        part.get(key) for part in content if isinstance(part, dict) and part.get("type", key) in (key, "output_text")
    )
    return "".join(text for text in found if isinstance(text, str))


def _count(value: object) -> int | None:
    # 2**53 is where JSON numbers stop being exact; no honest count is near it, and sums stay storable
    return value if type(value) is int and 0 <= value < 2**53 else None
