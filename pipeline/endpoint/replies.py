"""What a Reply means: an answer, or a refusal and what it asks of us.

Decided in this order: how the attempt broke off, whether the body can be read, its status and error code, its error
message. A rule over words sees only the extracted message, code and type, never the raw body: bodies echo prompts, and
prompts may say anything. Rules that need the job's history (how often, has anything succeeded) are not made here: they
start from a refusal's kind.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import msgspec

from ..records import Allowance, Answer, Pressure, Record, Rejection, Reply, Usage, Verdict
from ..text import one_line


class Kind(Record, frozen=True):
    """All that follows from the kind of a refusal alone."""

    verdict: Verdict
    """For a kind whose verdict hangs on the job's history: the one that holds if it happens again and again (`stop`),
    or, where a row fails after a few attempts, `retry`."""
    pressure: Pressure | None
    """What it teaches the throttle."""
    meaning: str
    """For a person, where the server had no words of its own: the cause and, for a stop, the remedy."""
    maybe_paid: bool = False
    """The endpoint may have done the work, and billed it, before the attempt broke off."""


KINDS: dict[str, Kind] = {
    "connect": Kind("retry", "window", "the endpoint could not be reached"),
    "tls": Kind("stop", None, "the endpoint's certificate could not be verified: check base_url and the clock"),
    "url": Kind("stop", None, "base_url is not an address that can be asked: it begins with http:// or https://"),
    "timeout": Kind("retry", "window", "no answer within the time allowed", maybe_paid=True),
    "cut": Kind("retry", None, "the answer broke off", maybe_paid=True),
    "protocol": Kind("retry", None, "what came back was not HTTP"),
    "too_large": Kind("row", None, "the answer is larger than will be read", maybe_paid=True),
    "rate": Kind("retry", "rate", "the endpoint asks for fewer requests or tokens a minute"),
    "overload": Kind("retry", "window", "the endpoint is overloaded"),
    "server": Kind("retry", None, "the endpoint failed"),
    "quota": Kind("retry", "rate", "the endpoint says that the account's quota is used up: check its plan and billing"),
    "daily": Kind("stop", None, "the quota of the day is used up: resume when it is renewed"),
    "too_long": Kind("row", None, "the request is longer than the model or the limits allow"),
    "filtered": Kind("row", None, "the endpoint's content filter turned the prompt away"),
    "auth": Kind("stop", None, "the key was not accepted: check the variable that api_key_env names"),
    "billing": Kind("stop", None, "the account is out of credit or budget: top it up, then resume"),
    "not_found": Kind("stop", None, "the endpoint knows no such path or model: check base_url and model"),
    "bad_request": Kind("row", None, "the endpoint does not accept the request"),
    "garbled": Kind("retry", None, "the body is not a whole JSON object", maybe_paid=True),
    "html": Kind("retry", None, "a web page came back instead of JSON: is base_url the API's?"),
    "no_choices": Kind("retry", None, "the answer holds no choices"),
    "broken": Kind("retry", None, "the model's server failed while it was answering"),
    "empty": Kind("retry", None, "the answer is empty"),
}
"""Every kind of refusal. The names are stable: the column `error` shows them as `kind: message`."""

STATUS_KINDS: dict[int, str] = {
    **dict.fromkeys((401, 403, 407), "auth"),
    **dict.fromkeys((402, 412), "billing"),  # 412: Fireworks, a suspended account
    **dict.fromkeys((404, 405, 410), "not_found"),
    **dict.fromkeys((408, 409, 423, 424, 425, 499), "server"),  # 424: text-generation-inference, generation failed
    413: "too_long",
    429: "rate",
    **dict.fromkeys((498, 502, 503, 504, 520, 521, 522, 523, 524, 529), "overload"),
}
"""What a status means where the error's words say no more. Others: 3xx not_found, 4xx bad_request, from 500 server."""

CODE_KINDS: dict[str, str] = {
    "content_filter": "filtered",
    "responsibleaipolicyviolation": "filtered",  # Azure, in innererror or inner_error
    "content_policy_violation": "filtered",
    "prompt_blocked": "filtered",
    "sensitive_words_detected": "filtered",  # new-api
    "data_inspection_failed": "filtered",  # DashScope
    "context_length_exceeded": "too_long",
    "exceed_context_size_error": "too_long",  # llama.cpp
    "string_above_max_length": "too_long",
    "tokens_limit_reached": "too_long",  # GitHub Models
    "request_too_large": "too_long",  # Anthropic
    "insufficient_user_quota": "billing",  # one-api and new-api, with 403
    "pre_consume_token_quota_failed": "billing",
    "budget_exceeded": "billing",  # LiteLLM, with 400
    "insufficient_quota": "quota",
    "billing_hard_limit_reached": "quota",
    "exceeded_current_quota_error": "quota",  # Moonshot
    "model_not_found": "not_found",
    "invalid_api_key": "auth",
    "api_key_invalid": "auth",  # Gemini, with 400
    "overloaded": "overload",
    "overloaded_error": "overload",
    "engine_overloaded_error": "overload",
}
"""Codes and types, in lower case, that outweigh the status they come with; an earlier line outweighs a later one."""

CODE_STATUS: dict[str, int] = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "resource_exhausted": 429,
    "unavailable": 503,
    "deadline_exceeded": 504,
    "authentication_error": 401,
    "unauthenticated": 401,
    "permission_error": 403,
    "permission_denied": 403,
    "not_found_error": 404,
    "not_found": 404,
    "invalid_request_error": 400,
    "invalid_argument": 400,
}
"""The status that an error under a 200 stands for when it says so in a word; any other is taken for a 500."""

CLIENT_ERRORS = frozenset(range(400, 500))
PHRASES: tuple[tuple[str, frozenset[int], re.Pattern[str]], ...] = (
    (
        "too_long",
        frozenset({400, 413, 422}),
        re.compile(
            r"maximum (?:context|model|prompt) length|longer than the model's context length|prompt is too long"
            r"|exceeds? the available context size|exceeds? the maximum number of tokens allowed|exceed context limit",
            re.IGNORECASE,
        ),
    ),
    (
        "filtered",
        frozenset({400, 403}),
        re.compile(r"content violates usage guidelines|prompt was flagged as potentially violating", re.IGNORECASE),
    ),
    (
        "billing",
        CLIENT_ERRORS,
        re.compile(r"reached your specified API usage limits|credit balance is too low", re.IGNORECASE),
    ),
    ("daily", frozenset({429}), re.compile(r"\blimit: 0(?![0-9.])|free-models-per-day", re.IGNORECASE)),
    (
        "overload",
        frozenset({403, 408, 409, 425, 429, *range(500, 600)}),
        re.compile(r"\bconcurren|pending requests exceeded", re.IGNORECASE),
    ),
)
"""(kind, the statuses it may come with, words of the extracted message), tried in this order after the codes."""

SIZES = re.compile(r"\blimit:?\s+([0-9][0-9,]{0,15}).{0,80}?\brequested:?\s+([0-9][0-9,]{0,15})", re.IGNORECASE)
"""OpenAI's and Groq's "Limit 30000, Used 29000, Requested 2000"."""

FINISH_REASONS = {
    "max_tokens": "length",
    "MAX_TOKENS": "length",
    "model_length": "length",  # Mistral
    "SAFETY": "content_filter",
    "sensitive": "content_filter",  # Zhipu
}
"""Other spellings, so that a truncated answer is not taken for a whole one."""

BROKEN_FINISHES = frozenset({"error", "network_error", "abort"})

MESSAGE_CHARACTERS = 500
SEARCHED_CHARACTERS = 4_000
SALVAGED_CHARACTERS = 64_000

_PHRASE_OF_STATUS = {status.value: status.phrase for status in HTTPStatus}
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")
_FIELD = re.compile(r'"(message|detail|code|type)"\s*:\s*(?:"((?:[^"\\]|\\.){0,2000})|([0-9]{3})\b)', re.DOTALL)
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{0,15})?|\.[0-9]{1,15}")
_DURATION = re.compile(
    r"([0-9]{1,9}(?:\.[0-9]{1,12})?) ?(ms|milliseconds?|d|days?|h|hours?|m|min|minutes?|s|sec|seconds?)(?![a-z])",
    re.IGNORECASE,
)
_TRY_AGAIN = re.compile(r"(?:try again|retry) (?:in|after) ", re.IGNORECASE)
_UNIT_SECONDS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}

_decode: Callable[[bytes], object] = msgspec.json.Decoder().decode


def read_reply(reply: Reply) -> Answer | Rejection:
    """One attempt's meaning. Pure, and never raises, whatever the status, the headers and the bytes.

    An Answer has text, finish_reason, model, usage, refusal and logprobs; the rest is the caller's to add.
    Tool calls become the text as compact JSON; a model's refusal becomes the text where there is no other.
    A Refusal's verdict is its kind's in `KINDS`. Its wait is the number the endpoint said, in seconds, not clamped.
    """
    # A body that broke off under an error status was no answer and cost nothing: the status says more than the break.
    if reply.fault and not (reply.fault in {"cut", "timeout"} and reply.status >= 300):
        return _refuse(reply, reply.fault, clean_message(reply.detail) or KINDS[reply.fault].meaning)
    try:
        if 200 <= reply.status < 300:
            return _read_success(reply)
        return _read_error(reply, reply.status, _error_document(reply.body))
    except RecursionError:  # JSON nested just deep enough to be read, and too deep to be written
        return _refuse(reply, "garbled", "the body is nested too deeply")


REQUEST_LIMITS = ("x-ratelimit-limit-req-minute", "x-ratelimit-limit-requests")
TOKEN_LIMITS = ("x-ratelimit-limit-tokens-minute", "x-ratelimit-limit-tokens")
"""Mistral's, which name the minute, before everyone else's, which must be shown to be for a minute."""


FORM_WORDS = re.compile(r"response_format|json_schema|json_object|grammar|structured|guided", re.IGNORECASE)


def rejects_response_format(refusal: Rejection) -> bool:
    """Whether it may be the form of the wanted answer (`response_format`) that an endpoint does not take."""
    if refusal.kind in ("bad_request", "not_found") and refusal.status in (400, 404, 422):
        return True
    return refusal.status >= 400 and refusal.kind != "rate" and FORM_WORDS.search(refusal.message) is not None


def read_allowance(headers: Mapping[str, str]) -> Allowance:
    """What rate-limit headers say is allowed in a minute. Pure; what misleads is None, and nothing is raised.

    OpenAI's names say no period (Groq's requests are for a day): it is worked out from `remaining` and `reset`, the
    time until the bucket is full again, and only a minute counts. Azure's -1 and 0, and what does not parse, are none.
    """
    return Allowance(_a_minute(headers, REQUEST_LIMITS), _a_minute(headers, TOKEN_LIMITS))


def _a_minute(headers: Mapping[str, str], names: tuple[str, str]) -> float | None:
    said = _number(headers.get(names[0]))
    if said:
        return said
    limit = _number(headers.get(names[1]))
    if not limit:
        return None
    left = _number(headers.get(names[1].replace("-limit-", "-remaining-", 1)))
    full_after = _duration(headers.get(names[1].replace("-limit-", "-reset-", 1), ""))
    if left is None or full_after is None or left >= limit:
        return None
    period_seconds = full_after * limit / (limit - left)
    return limit if 40 <= period_seconds <= 80 else None


def read_usage(reported: object) -> Usage:
    """The token counts in a `usage` object; one that is missing, negative, a fraction or a boolean is None, never 0."""
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


def parse_json(body: bytes) -> object:
    """The JSON value in the bytes, None if there is none; forgives what strict readers refuse and is still unambiguous.

    That is: a byte order mark, UTF-16 and UTF-32, NaN, raw control characters, bytes that are no text and halves of
    surrogate pairs (both become U+FFFD, so that every string can be stored).
    """
    try:
        return _decode(body)
    except (ValueError, RecursionError):
        pass
    try:
        value: object = json.loads(body.decode(json.detect_encoding(body), "replace"), strict=False)
        text = json.dumps(value, ensure_ascii=False)
        return json.loads(_LONE_SURROGATE.sub("\ufffd", text)) if _LONE_SURROGATE.search(text) else value
    except (ValueError, RecursionError):
        return None


def clean_message(text: str) -> str:
    """One line of at most 500 characters, without control characters, terminal sequences, invisible and bidi marks."""
    line = one_line(text[:SEARCHED_CHARACTERS])
    return line if len(line) <= MESSAGE_CHARACTERS else line[: MESSAGE_CHARACTERS - 1] + "…"


# ---- a status of 2xx


def _read_success(reply: Reply) -> Answer | Rejection:
    """An answer, or an error, or an unreadable body, under a status that claims success."""
    document = parse_json(reply.body)
    if not isinstance(document, dict):
        document = _document_within(document, reply)
        if document is None:
            return _unreadable(reply)
    choice = _first_choice(document)
    error = document.get("error")
    if choice is not None and not (error and choice.get("finish_reason") is None):
        return _read_choice(reply, document, choice)
    if error or document.get("object") == "error":  # the latter is older vLLM
        said = _said(document)
        words = (status for code, status in CODE_STATUS.items() if code in said.words)
        return _read_error(reply, said.status or next(words, 500), document, said)
    usage = read_usage(document.get("usage"))
    return _refuse(reply, "no_choices", clean_message(_said(document).message), usage=usage)


def _first_choice(document: dict[str, object]) -> dict[str, object] | None:
    choices = document.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    return choice if isinstance(choice, dict) else None


def _document_within(value: object, reply: Reply) -> dict[str, object] | None:
    """The error or answer in a body that is no JSON object itself: in a list, in a string, or after some rubbish."""
    found = _nodes(value) if value is not None else [] if _is_html(reply) else _salvaged_objects(reply.body)
    return next((node for node in found if node.get("error") or "message" in (_first_choice(node) or {})), None)


def _unreadable(reply: Reply) -> Rejection:
    if _is_html(reply):
        return _refuse(reply, "html", KINDS["html"].meaning)
    start = _beginning(reply.body)
    return _refuse(
        reply, "garbled", f"{KINDS['garbled'].meaning}; it begins: {start}" if start else "the body is empty"
    )


def _is_html(reply: Reply) -> bool:
    start = reply.body[:2_000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<!--")):
        return True
    return start.startswith(b"<") and "html" in reply.headers.get("content-type", "")


def _beginning(body: bytes) -> str:
    return clean_message(body[:2_000].decode("utf-8", "replace"))[:200]


def _read_choice(reply: Reply, document: dict[str, object], choice: dict[str, object]) -> Answer | Rejection:
    message = choice.get("message")
    if not isinstance(message, dict):
        message = {}
    content = message.get("content")
    text = content if isinstance(content, str) else _joined_parts(content, "text")
    finish = choice.get("finish_reason")
    finish = FINISH_REASONS.get(finish, finish) if isinstance(finish, str) else None
    usage = read_usage(document.get("usage"))
    if choice.get("error") or finish in BROKEN_FINISHES:
        said = _said({"error": choice.get("error") or document.get("error")})
        return _refuse(reply, "broken", clean_message(said.message), said, usage)
    refusal = message.get("refusal") or _joined_parts(content, "refusal")
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
            return _refuse(reply, "empty", clean_message(reason), usage=usage)
    model = document.get("model")
    return Answer(
        text=text,
        finish_reason=finish,
        model=model if isinstance(model, str) and model else None,
        usage=usage,
        refusal=refusal,
        logprobs=_logprobs(choice.get("logprobs")),
    )


def _logprobs(reported: object) -> tuple[tuple[str, float], ...]:
    """The tokens of an answer with their log probabilities; none if one of them is not told."""
    tokens = reported.get("content") if isinstance(reported, dict) else None
    read = [_logprob(token) for token in tokens] if isinstance(tokens, list) else []
    return tuple(pair for pair in read if pair is not None) if None not in read else ()


def _logprob(token: object) -> tuple[str, float] | None:
    text, logprob = (token.get(name) if isinstance(token, dict) else None for name in ("token", "logprob"))
    if not isinstance(text, str) or isinstance(logprob, bool) or not isinstance(logprob, (int, float)):
        return None
    return text, round(min(0.0, max(-9999.0, float(logprob))), 4)


def _joined_parts(content: object, key: str) -> str:
    """The strings under `key` of a content that came as a list of parts; other parts (thinking) are left out."""
    if not isinstance(content, list):
        return ""
    found = (
        part.get(key) for part in content if isinstance(part, dict) and part.get("type", key) in (key, "output_text")
    )
    return "".join(text for text in found if isinstance(text, str))


def _count(value: object) -> int | None:
    # 2**53 is where JSON numbers stop being exact; no honest count is near it, and sums stay storable
    return value if type(value) is int and 0 <= value < 2**53 else None


# ---- an error, whatever the status


class _Said(Record, frozen=True):
    """What an error body says, found wherever the provider puts it."""

    message: str = ""
    aside: str = ""
    """A gateway's copy of its provider's words: shown, but no rule reads it, since they are not about our account."""
    words: frozenset[str] = frozenset()
    """Its codes, types and reasons, in lower case."""
    status: int | None = None
    """A code that is an HTTP error status."""
    quotas: tuple[str, ...] = ()
    """Gemini's quotaId of each violated quota, in lower case."""
    moderated: bool = False
    """OpenRouter's metadata of a moderation."""
    wait_seconds: float | None = None


def _read_error(reply: Reply, status: int, document: object, said: _Said | None = None) -> Rejection:
    said = said or _said(document)
    kind = _kind_of_error(status, said, reply.headers)
    message = clean_message(
        f"{said.message}: {said.aside}" if said.message and said.aside else said.message or said.aside
    )
    if 300 <= status < 400:
        place = clean_message(reply.headers.get("location", "")) or "an address it does not name"
        message = f"HTTP {status}: redirected to {place}; redirects are never followed: check base_url"
    usage = read_usage(document.get("usage")) if isinstance(document, dict) else None
    return _refuse(reply, kind, message or _statement(kind, status, reply), said, usage)


def _kind_of_error(status: int, said: _Said, headers: Mapping[str, str]) -> str:
    """The kind that a status and an error's words amount to; the first rule that applies decides."""
    if status == 402 and _header_wait(headers) is not None:
        return "rate"
    if status == 403 and said.moderated:
        return "filtered"
    for code, kind in CODE_KINDS.items():
        if code in said.words:
            return kind
    if status == 429 and any("perday" in quota for quota in said.quotas):
        return "daily"
    if status in {413, 429} and (sizes := SIZES.search(said.message, 0, SEARCHED_CHARACTERS)):
        limit, requested = (int(size.replace(",", "")) for size in sizes.groups())
        return "daily" if limit == 0 else "too_long" if requested > limit else "rate"
    for kind, statuses, words in PHRASES:
        if status in statuses and words.search(said.message, 0, SEARCHED_CHARACTERS):
            return kind
    kind = STATUS_KINDS.get(status) or _kind_of_century(status)
    # A "false" is not obeyed: it speaks to a caller with one request in hand, and attempts here are counted anyway.
    return "server" if kind == "bad_request" and headers.get("x-should-retry", "").lower() == "true" else kind


def _kind_of_century(status: int) -> str:
    if status < 300:
        return "protocol"
    return "not_found" if status < 400 else "bad_request" if status < 500 else "server"


def _refuse(reply: Reply, kind: str, message: str, said: _Said | None = None, usage: Usage | None = None) -> Rejection:
    known = KINDS[kind]
    wait = None if reply.fault and not reply.status else _header_wait(reply.headers)
    return Rejection(
        verdict=known.verdict,
        kind=kind,
        message=message or known.meaning,
        status=reply.status,
        pressure=known.pressure,
        wait_seconds=said.wait_seconds if wait is None and said else wait,
        usage=usage if usage != Usage() else None,
        maybe_paid=known.maybe_paid,
    )


def _statement(kind: str, status: int, reply: Reply) -> str:
    """What to say when the error has no message: the status, and a plain text's beginning or what the kind means."""
    said = "" if _is_html(reply) else _beginning(reply.body)
    return f"HTTP {status} {_PHRASE_OF_STATUS.get(status, '')}".rstrip() + f": {said or KINDS[kind].meaning}"


# ---- finding the words in an error body


def _error_document(body: bytes) -> object:
    """What an error body holds: its JSON, or the object behind stray characters, or fields picked from the text."""
    document = _unpacked(parse_json(body))
    if isinstance(document, (dict, list)):
        return document
    known = {"error", "errors", "message", "detail", "code"}
    found = next((node for node in _salvaged_objects(body) if known & node.keys()), None)
    return found or {"error": _picked_fields(body)}


def _salvaged_objects(body: bytes) -> list[dict[str, object]]:
    """The JSON objects that begin at the first few braces: `{ {"error": …}}`, and lines before the JSON."""
    text = body[:SALVAGED_CHARACTERS].decode("utf-8", "replace")
    read = json.JSONDecoder(strict=False).raw_decode
    found, start = [], text.find("{")
    for _ in range(4):
        if start < 0:
            break
        with suppress(ValueError, RecursionError):
            found.append(parse_json(text[start : read(text, start)[1]].encode()))
        start = text.find("{", start + 1)
    return [value for value in found if isinstance(value, dict)]


def _picked_fields(body: bytes) -> dict[str, object]:
    """The first message, code and type in a text that no parser reads; what a string quotes is escaped and not seen."""
    picked: dict[str, object] = {}
    for name, quoted, number in _FIELD.findall(body[:SALVAGED_CHARACTERS].decode("utf-8", "replace")):
        value = parse_json(f'"{quoted}"'.encode())
        picked.setdefault(name, number or (value if isinstance(value, str) else quoted))
    return picked


def _unpacked(value: object) -> object:
    """The JSON inside a string, if that is what the string is: gateways wrap a provider's error so."""
    if isinstance(value, str) and value.lstrip()[:1] in {"{", "["}:
        inner = parse_json(value.encode("utf-8", "replace"))
        return value if inner is None else inner
    return value


def _nodes(value: object, depth: int = 5) -> list[dict[str, object]]:
    """The object that an error is in, and those inside it that say more: outermost first."""
    value = _unpacked(value)
    if isinstance(value, list):
        value = next((item for item in value if isinstance(item, dict)), None)
    if depth == 0 or not isinstance(value, dict):
        return []
    keys = ("error", "errors", "detail", "innererror", "inner_error", "innerError", "message")
    return [value, *(node for key in keys for node in _nodes(value.get(key), depth - 1))]


def _said(document: object) -> _Said:
    nodes = _nodes(document)
    details = [detail for node in nodes for detail in _objects(node.get("details"))]
    metadata = [meta for node in nodes if isinstance(meta := node.get("metadata"), dict)]
    names = ("code", "type", "status", "reason", "error_type", "error_code")
    values = [node.get(name) for node in (*nodes, *details) for name in names]
    message = _message(document)
    raw = next((meta["raw"] for meta in metadata if meta.get("raw")), "")
    return _Said(
        message=message,
        aside=_message(raw),
        words=frozenset(value.lower() for value in values if isinstance(value, str)),
        status=next((int(str(value)) for value in values if _is_error_status(value)), None),
        quotas=tuple(
            str(violation.get("quotaId", "")).lower()
            for detail in details
            for violation in _objects(detail.get("violations"))
        ),
        moderated=any("flagged_input" in meta or "reasons" in meta for meta in metadata),
        wait_seconds=_said_wait(metadata, details, message),
    )


def _message(value: object, depth: int = 5) -> str:
    """The words for a person in an error of any shape, "" if there are none."""
    inner = _unpacked(value)
    if isinstance(inner, str):
        return inner
    if depth == 0:
        return ""
    if isinstance(inner, list):
        return "; ".join(filter(None, (_message(item, depth - 1) for item in inner[:5])))
    if not isinstance(inner, dict):
        return ""
    # An error that is only a word ("Bad Request") says less than the message beside it.
    keys = ("error", "message") if isinstance(inner.get("error"), (dict, list)) else ("message",)
    found = (_message(inner.get(key), depth - 1) for key in (*keys, "msg", "detail", "error", "errors"))
    message = next((text for text in found if text.strip()), "")
    if message and isinstance(place := inner.get("loc"), list):  # FastAPI
        return f"{'.'.join(str(step) for step in place[:8] if isinstance(step, (str, int)))}: {message}"
    return message


def _objects(value: object) -> list[dict[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _is_error_status(value: object) -> bool:
    return isinstance(value, (int, str)) and re.fullmatch(r"[45][0-9][0-9]", str(value)[:4]) is not None


# ---- how long to wait


def _header_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds, from `retry-after-ms` or else `retry-after`: a number, or a date less the answer's own `Date`.

    The x-ratelimit-reset headers are never read: they say when a bucket is full, not when the next request may leave.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1_000
    after = headers.get("retry-after", "")
    seconds = _number(after)
    return _seconds_between(headers.get("date", ""), after) if seconds is None else seconds


def _said_wait(metadata: list[dict[str, object]], details: list[dict[str, object]], message: str) -> float | None:
    """Seconds, from OpenRouter's metadata, else Gemini's RetryInfo, else "try again in 1.2s" in the message."""
    waits = [_number(meta.get("retry_after_seconds")) for meta in metadata]
    waits += [_duration(delay) for detail in details if isinstance(delay := detail.get("retryDelay"), str)]
    if found := _TRY_AGAIN.search(message, 0, SEARCHED_CHARACTERS):
        waits.append(_duration(message[found.end() : found.end() + 100]))
    return next((wait for wait in waits if wait is not None), None)


def _number(value: object) -> float | None:
    if isinstance(value, str):
        return float(value.strip()) if _NUMBER.fullmatch(value.strip()) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value < 1e15 else None


def _duration(text: str) -> float | None:
    """Seconds in "26s", "6m0s", "1h2m3.5s", "20ms" or "2 minutes" at the beginning of the text."""
    seconds, place = None, 0
    while part := _DURATION.match(text, place):
        number, unit = part.groups()
        scale = 0.001 if unit.lower().startswith(("ms", "milli")) else _UNIT_SECONDS[unit[0].lower()]
        seconds, place = (seconds or 0.0) + float(number) * scale, part.end()
    return seconds


def _seconds_between(start: str, end: str) -> float | None:
    """From one HTTP date to another, 0 if it lies before; None if either does not parse, for there is no clock here."""
    try:
        return max(0.0, (_moment(end) - _moment(start)).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _moment(date: str) -> datetime:
    moment = parsedate_to_datetime(date)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
