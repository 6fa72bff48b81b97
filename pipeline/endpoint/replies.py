"""Read a reply: as an answer, or as a rejection that says what failed.

Decided in this order: how the attempt failed in transport, whether the body can be read, its status and error codes,
its error message.
"""

import json
import re

from msgspec.structs import replace

from ..records import REASONING_FIELDS, THOUGHT_TYPES, Answer, Rejection, Reply, Usage, pack_message
from .error_bodies import (
    ErrorDetails,
    body_preview,
    clean_message,
    error_document,
    error_objects,
    is_html,
    read_error_details,
)
from .error_codes import kind_of_codes, status_of_codes
from .event_stream import is_event_stream, put_together
from .finish_reasons import BROKEN, FILTERED, LENGTH, STOP, finish_reason_of
from .lenient_json import find_objects, parse_json
from .rejections import KINDS, STATUS_KINDS, describe_status, kind_of_error, reject, unless_echoed
from .usage import read_usage

NO_TEXT_TYPES = THOUGHT_TYPES | {"redacted_thinking", "refusal"}
"""The types of parts of a message that are no part of its text."""

SERVED_BY_HEADERS = ("x-inference-provider", "x-bifrost-provider", "x-portkey-provider", "ngrok-aig-model")
"""Headers by which gateways tell who answered: Hugging Face, Bifrost, Portkey, ngrok."""

SERVED_BY_CHARACTERS = 100

PART_TYPES = NO_TEXT_TYPES | {"text", "output_text", "image_url", "input_text", "tool_use", "tool_call", "reference"}
PART_NAMES = frozenset({"type", "text", "thinking", "refusal", "annotations", "signature", "id", "index", "logprobs"})
"""The types of the parts of a message, and the names that parts of other types have."""

STREAM_END = b"data: [DONE]"
CUT_GENERATION = re.compile(r"max(?:imum)? (?:completion |output )?tokens", re.IGNORECASE)
"""The words by which Groq says that an answer was cut before it fitted its schema."""

LOGPROB_MIN = -9999.0
"""The lowest log probability that is kept; infinity cannot be stored as JSON."""


def read_reply(reply: Reply, sent: bytes = b"") -> Answer | Rejection:
    """Read the answer in a reply, or classify the reply as a rejection. Pure, and never raises.

    `sent`: the request's body. What an error repeats of it decides nothing.
    An Answer has what the reply itself says; attempts, time, cost and settings are for the caller to fill. Its text is
    the tool calls as compact JSON where the model sent nothing else, the refusal where it only refused, and its
    reasoning where that is all there is.
    A Rejection's verdict is its kind's in `KINDS`, and its wait is in seconds, as the endpoint gave it, not clamped.
    """
    # Under an error status, a body that was cut short was no answer and cost nothing: the status decides, not the cut.
    # A stream that says that it is complete is so, also if its connection then stays open.
    is_late = reply.fault in {"cut", "timeout"} and (reply.status >= 300 or reply.body.rstrip().endswith(STREAM_END))
    if reply.fault and not is_late:
        return reject(reply, reply.fault, clean_message(reply.detail))
    try:
        if 200 <= reply.status < 300:
            return _read_success(reply)
        document = error_document(reply.body)
        rejection = _read_error(reply, reply.status, document, read_error_details(document))
        return _failed_generation(document) or unless_echoed(rejection, sent)
    except RecursionError:  # JSON nested so deep that it can be read but not written
        return reject(reply, "garbled", "the body is nested too deeply")


def _read_success(reply: Reply) -> Answer | Rejection:
    """Read a reply of status 2xx, which may hold an error all the same."""
    document = put_together(reply.body) if is_event_stream(reply.body) else parse_json(reply.body)
    if not isinstance(document, dict):
        document = _find_document(document, reply)
        if document is None:
            return _reject_unreadable(reply)
    choice = _first_choice(document)
    error = document.get("error")
    if choice is not None and not (error and choice.get("finish_reason") is None):
        return _read_choice(reply, document, choice)
    details = read_error_details(document)
    is_error = error or document.get("object") == "error" or kind_of_codes(details.codes)  # the second is older vLLM
    status = details.status or status_of_codes(details.codes)
    if is_error or kind_of_error(status, details, reply.headers) != STATUS_KINDS.get(status, "server"):
        return _read_error(reply, status, document, details)
    return reject(reply, "no_choices", clean_message(details.message), usage=_usage_in(document))


def _read_error(reply: Reply, status: int, document: object, details: ErrorDetails) -> Rejection:
    """Classify an error; `status` is the one that counts, which under HTTP 200 is that of the error itself."""
    kind = kind_of_error(status, details, reply.headers)
    message = details.shown_message
    if 300 <= status < 400:
        place = clean_message(reply.headers.get("location", "")) or "an address it does not name"
        message = f"HTTP {status}: redirected to {place}; redirects are never followed: check base_url"
    usage = _usage_in(document)
    return reject(reply, kind, message or describe_status(status, kind, reply), details, usage)


def _failed_generation(document: object) -> Answer | None:
    """What the model wrote where a provider reports as an error that it does not fit the schema (Groq).

    It may be empty if the answer was cut.
    """
    for error in error_objects(document):
        text, is_cut = error.get("failed_generation"), CUT_GENERATION.search(str(error.get("message")))
        if isinstance(text, str) and (text.strip() or is_cut):
            finish = LENGTH if is_cut else STOP
            return Answer(text=text, finish_reason=finish, usage=_usage_in(document))
    return None


def _usage_in(document: object) -> Usage:
    return read_usage(document.get("usage"), document.get("service_tier")) if isinstance(document, dict) else Usage()


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
    message = choice.get("message") or choice.get("delta")
    if not isinstance(message, dict):
        message = {"content": choice.get("text")}  # older servers
    finish, usage = finish_reason_of(choice.get("finish_reason")), _usage_in(document)
    if choice.get("native_finish_reason", choice.get("finish_reason")) == "refusal" and usage.completion_tokens == 0:
        usage = replace(usage, is_billed=False)  # Claude, also through gateways: tokens are reported all the same
    if choice.get("error") or finish == BROKEN:
        details = read_error_details({"error": choice.get("error") or document.get("error")})
        return reject(reply, "broken", clean_message(details.message), details, usage)
    content = message.get("content")
    refusal = message.get("refusal") or _join_parts(content, "refusal")
    if not isinstance(refusal, str) or not refusal.strip():
        refusal = None
    text, taken_from = _text_of(content), ""
    if not text or text.isspace():
        calls = message.get("tool_calls")
        if refusal:
            text = refusal
        elif isinstance(calls, list) and calls:
            text = _as_json(calls)
        elif finish not in {LENGTH, FILTERED}:
            text, taken_from = _reasoning_of(message)
            if not taken_from:
                reason = f"{KINDS['empty'].meaning} (finish_reason {finish or 'missing'})"
                return reject(reply, "empty", clean_message(reason), usage=usage)
    model = document.get("model")
    packed, fills = pack_message(message, document, text)
    return Answer(
        text=text,
        finish_reason=finish,
        model=model if isinstance(model, str) and model else None,
        usage=usage,
        refusal=refusal,
        logprobs=_read_logprobs(choice.get("logprobs")),
        taken_from=taken_from,
        message=packed,
        message_fills=fills,
        served_by=_served_by(reply, document, message),
    )


def _served_by(reply: Reply, document: dict[str, object], message: dict[str, object]) -> str:
    """Who answered, where a gateway tells it: OpenRouter, Bifrost and Vercel in the reply, others in a header."""
    found = document.get("provider") or next((reply.headers[n] for n in SERVED_BY_HEADERS if n in reply.headers), None)
    if not found and "extra_fields" in document:
        found = _inside(document, "extra_fields", "provider")
    for holder in (message, document):
        if not found and "provider_metadata" in holder:
            found = _inside(holder, "provider_metadata", "gateway", "routing", "finalProvider")
    return clean_message(found)[:SERVED_BY_CHARACTERS] if isinstance(found, str) else ""


def _inside(value: object, *names: str) -> object:
    """The value under these names, one inside the other; None if there is none."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _text_of(content: object) -> str:
    """The text of a message's content: a text, a part, a list of texts and parts, or the JSON of any other value."""
    if isinstance(content, str):
        return content
    if content is None or content in ([], {}):
        return ""
    parts = content if isinstance(content, list) else [content]
    if any(isinstance(part, dict) and not _is_part(part) for part in parts):
        return _as_json(content)
    if any(
        isinstance(part, (str, dict)) and (isinstance(part, str) or "type" in part or "text" in part) for part in parts
    ):
        texts = (part if isinstance(part, str) else _part_text(part, "text") for part in parts)
        return "".join(text for text in texts if text is not None)
    return _as_json(content)


def _is_part(value: dict[str, object]) -> bool:
    """Whether an object is a part of a message, and not the model's own JSON."""
    kind = value.get("type")
    is_named = isinstance(kind, str) and (kind in PART_TYPES or not value.keys() - PART_NAMES)
    return is_named or value.keys() == {"text"}


def _part_text(part: object, key: str) -> str | None:
    """The text under a key of a part of a message; None for a part of another kind, as of thinking."""
    if not isinstance(part, dict) or (key == "text" and str(part.get("type")) in NO_TEXT_TYPES):
        return None
    text = part.get(key)
    return text if isinstance(text, str) else None


def _join_parts(content: object, key: str) -> str:
    """Join the texts under a key of a content that is a list of parts."""
    parts = content if isinstance(content, list) else []
    return "".join(text for part in parts if (text := _part_text(part, key)) is not None)


def _reasoning_of(message: dict[str, object]) -> tuple[str, str]:
    """The text that stands in a field for reasoning, and the name of that field; both empty if there is none."""
    fields = ((name, _text_of(message.get(name))) for name in REASONING_FIELDS)
    return next(((text, name) for name, text in fields if text and not text.isspace()), ("", ""))


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _read_logprobs(reported: object) -> tuple[tuple[str, float], ...]:
    """Read an answer's tokens with their log probabilities; none at all if one of them is missing."""
    tokens = reported.get("content") if isinstance(reported, dict) else None
    read = [_read_logprob(token) for token in tokens] if isinstance(tokens, list) else []
    return tuple(pair for pair in read if pair is not None) if None not in read else ()


def _read_logprob(token: object) -> tuple[str, float] | None:
    text, logprob = (token.get(name) if isinstance(token, dict) else None for name in ("token", "logprob"))
    if not isinstance(text, str) or isinstance(logprob, bool) or not isinstance(logprob, (int, float)):
        return None
    return text, round(float(min(0.0, max(LOGPROB_MIN, logprob))), 4)
