"""Find the message, the codes and the details in an error body, in whichever shape a provider sends it."""

import html
import re

from ..records import Record, Reply
from ..text import clip, one_line
from .lenient_json import find_fields, find_objects, parse_json, parse_nested
from .rate_limits import body_wait

MESSAGE_CHARACTERS = 500
"""The longest message that is kept of an error."""

SEARCHED_CHARACTERS = 4_000
"""How much of a message is cleaned, and searched for phrases."""

PREVIEW_BYTES = 2_000
"""How much of a body is read to recognise HTML, or to show its beginning."""

PAGE_TITLE = re.compile(rb"<(?:title|h1)(?:\s[^>]{0,200})?>\s{0,200}([^<]{1,300})", re.IGNORECASE)
"""The title of a web page, or its first heading."""

PREVIEW_CHARACTERS = 200
"""How much of a body without a message is shown in the message's place."""

MESSAGE_NAMES = ("msg", "error_msg", "errorMessage", "error_message", "err_msg", "status_msg", "base_resp", "Message")
"""Where else than in `message` servers put their words, or what holds them: Baidu, AWS, MiniMax and gateways."""

DEPTH_MAX = 5
"""How deep an error may be nested in other errors."""

LIST_ITEMS_MAX = 5
"""How many messages of a list are shown."""


PARAMETER_WORDS = (
    re.compile(
        r"""["']loc["']: ?[\[(]["']body["'], ?["']([a-z_]{2,40})["']"""
    ),  # pydantic's, quoted as Python writes it
    re.compile(
        r"(?:unsupported|unknown|unrecognized|unexpected|invalid|additional|extra)\s(?:request )?"
        r"(?:parameters?|arguments?|keyword arguments?|values?|fields?|propert(?:y|ies))"
        r"(?: supplied| provided| found)?:?\s[\"'`]{0,2}([a-z_]{2,40})\b",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?:parameter |argument |field |property |^|body[.:] ?)[\"'`]{0,2}([a-z_]{2,40})[\"'`]{0,2}:? "
        r"(?:is not (?:supported|allowed|permitted)|does not support|extra inputs are not permitted"
        r"|is not a (?:valid|known) parameter)",
        re.IGNORECASE,
    ),
    re.compile(
        r"does not support (?:the )?(?:parameter )?[\"'`]{0,2}([a-z]{1,20}(?:_[a-z]{1,20}){0,4})\b", re.IGNORECASE
    ),
)
"""The words by which servers without a field for it name the parameter that they do not take."""

SEPARATORS = str.maketrans("", "", "_- .")

CODE_CHARACTERS_MAX = 100
"""A longer code is none that is known."""


class ErrorDetails(Record, frozen=True):
    """What an error body says."""

    message: str = ""
    """The message for a person, uncleaned, at most SEARCHED_CHARACTERS long."""
    upstream_message: str = ""
    """A gateway's copy of its provider's message. It is shown, but no rule reads it: it is not about our account."""
    codes: frozenset[str] = frozenset()
    """Error codes, types and reasons, as `plain_code` has them."""
    status: int | None = None
    """A code that is an HTTP error status."""
    quota_ids: tuple[str, ...] = ()
    """Gemini's `quotaId` of each violated quota, in lower case."""
    is_moderation: bool = False
    """OpenRouter's metadata of a moderation is there."""
    wait_seconds: float | None = None
    """How long the body asks to wait."""
    parameter: str = ""
    """The parameter of the request that is complained about."""

    @property
    def shown_message(self) -> str:
        """Both messages, cleaned."""
        return clean_message(": ".join(filter(None, (self.message, self.upstream_message))))


def plain_code(code: str) -> str:
    """A code without what differs from one provider to the next: capitals, `_`, `-`, spaces and dots."""
    return code.casefold().translate(SEPARATORS)


def clean_message(text: str) -> str:
    """Make one line of at most 500 characters, without control, invisible and bidi characters or terminal sequences."""
    return clip(one_line(text[:SEARCHED_CHARACTERS]), MESSAGE_CHARACTERS)


def is_html(reply: Reply) -> bool:
    """Tell whether a reply is a web page, by its beginning or its content type."""
    start = reply.body[:PREVIEW_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<!--")):
        return True
    return start.startswith(b"<") and "html" in reply.headers.get("content-type", "")


def page_title(body: bytes) -> str:
    """Return the title of a web page, or its first heading, cleaned; "" if it has none."""
    found = PAGE_TITLE.search(body[: 4 * PREVIEW_BYTES])
    return clean_message(html.unescape(found[1].decode("utf-8", "replace")))[:PREVIEW_CHARACTERS] if found else ""


def body_preview(body: bytes) -> str:
    """Return the first 200 characters of a body that has no message, cleaned."""
    return clean_message(body[:PREVIEW_BYTES].decode("utf-8", "replace"))[:PREVIEW_CHARACTERS]


def error_document(body: bytes) -> object:
    """Return an error body's JSON, else the error object amid its text, else the fields found in that text."""
    document = parse_nested(parse_json(body))
    if isinstance(document, (dict, list)):
        return document
    known = {"error", "errors", "message", "detail", "code"}
    found = next((each for each in find_objects(body) if known & each.keys()), None)
    return found or {"error": find_fields(body)}


def error_objects(document: object, depth: int = DEPTH_MAX) -> list[dict[str, object]]:
    """List the object that an error is in, then the more specific errors nested in it, outermost first."""
    value = parse_nested(document)
    if isinstance(value, list):
        value = next((item for item in value if isinstance(item, dict)), None)
    if depth == 0 or not isinstance(value, dict):
        return []
    keys = ("error", "errors", "detail", "innererror", "inner_error", "innerError", "message", "base_resp")
    return [value, *(each for key in keys for each in error_objects(value.get(key), depth - 1))]


def read_error_details(document: object) -> ErrorDetails:
    """Collect what an error's JSON says, at whichever depth it stands. Raises RecursionError at extreme nesting."""
    errors = error_objects(document)
    details = [detail for error in errors for detail in _objects(error.get("details"))]
    metadata = [meta for error in errors if isinstance(meta := error.get("metadata"), dict)]
    names = ("code", "type", "status", "reason", "error_type", "error_code", "errorCode", "__type")
    values = [each.get(name) for each in (*errors, *details) for name in names]
    values += [f"base_resp {each['status_code']}" for each in errors if isinstance(each.get("status_code"), int)]
    message = _message(document)[:SEARCHED_CHARACTERS]
    return ErrorDetails(
        message=message,
        upstream_message=_message(next((meta["raw"] for meta in metadata if meta.get("raw")), "")),
        codes=_codes(values),
        status=next((int(str(value)) for value in values if _is_error_status(value)), None),
        quota_ids=tuple(
            str(violation.get("quotaId", "")).lower()
            for detail in details
            for violation in _objects(detail.get("violations"))
        ),
        is_moderation=any("flagged_input" in meta or "reasons" in meta for meta in metadata),
        wait_seconds=body_wait(metadata, details, message),
        parameter=_parameter(errors, message),
    )


def _parameter(errors: list[dict[str, object]], message: str) -> str:
    """The parameter that an error is about, by its field `param`, FastAPI's `loc`, or its words; "" if none is named.

    Of `reasoning.effort` the first name counts.
    """
    for error in errors:
        param, place = error.get("param"), error.get("loc")
        steps = [step for step in place if isinstance(step, str) and step != "body"] if isinstance(place, list) else []
        if name := param if isinstance(param, str) and param else (steps or [""])[0]:
            return name[:CODE_CHARACTERS_MAX].split(".")[0].split("[")[0]
    found = next((found for pattern in PARAMETER_WORDS if (found := pattern.search(message))), None)
    return found[1] if found else ""


def _codes(values: list[object]) -> frozenset[str]:
    """The codes among these values. Of `SensitiveContentDetected.SevereViolation` the first word counts, too."""
    codes = [value for value in values if isinstance(value, str) and len(value) <= CODE_CHARACTERS_MAX]
    codes += [str(value) for value in values if type(value) is int]
    return frozenset(plain_code(each) for code in codes for each in (code, *code.split(".")[:1], *code.split("#")[-1:]))


def _message(value: object, depth: int = DEPTH_MAX) -> str:
    """Return the message for a person in an error of any shape, "" if there is none."""
    inner = parse_nested(value)
    if isinstance(inner, str):
        return inner
    if depth == 0:
        return ""
    if isinstance(inner, list):
        return "; ".join(filter(None, (_message(item, depth - 1) for item in inner[:LIST_ITEMS_MAX])))
    if not isinstance(inner, dict):
        return ""
    # An error that is only a word ("Bad Request") says less than the message beside it.
    first = ("error", "message") if isinstance(inner.get("error"), (dict, list)) else ("message",)
    keys = dict.fromkeys((*first, *MESSAGE_NAMES, "detail", "error", "errors"))  # none is read twice
    found = (_message(inner.get(key), depth - 1) for key in keys)
    message = next((text for text in found if text.strip()), "")
    if message and isinstance(place := inner.get("loc"), list):  # FastAPI
        return f"{'.'.join(str(step) for step in place[:8] if isinstance(step, (str, int)))}: {message}"
    return message


def _objects(value: object) -> list[dict[str, object]]:
    """The objects in a list, or the one that stands alone."""
    if isinstance(value, dict):
        return [value]
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _is_error_status(value: object) -> bool:
    return isinstance(value, (int, str)) and re.fullmatch(r"[45][0-9][0-9]", str(value)[:4]) is not None
