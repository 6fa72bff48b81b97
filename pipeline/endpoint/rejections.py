"""Classify an attempt that gave no answer: its kind, and what the kind means for the row, the job and the throttle.

Rules over codes and phrases see only what `error_bodies` extracted, never the raw body: bodies echo prompts, and a
prompt may contain any phrase. Rules that need the job's history (has anything succeeded, how often did this happen)
are in `pacing`, which starts from the kind.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus

from msgspec.structs import replace

from ..records import Allowance, Pressure, Record, Rejection, Reply, Usage, Verdict
from .error_bodies import ErrorDetails, body_preview, is_html, page_title
from .error_codes import kind_of_codes
from .rate_limits import header_wait, stated_allowance


class Kind(Record, frozen=True):
    """What follows from the kind of a rejection alone."""

    verdict: Verdict
    """Where the job's history decides: `stop` if the kind stops a job once it recurs, `retry` if after a few attempts
    the row fails."""
    pressure: Pressure | None
    """What the throttle learns from it."""
    meaning: str
    """The cause and, for a stop, the remedy: shown where the server sent no message."""
    maybe_paid: bool = False
    """The attempt may have used tokens of the endpoint's limit."""
    is_turned_away: bool = False
    """The endpoint did no work. After any other kind it may have, and may bill it."""


KINDS: dict[str, Kind] = {
    "connect": Kind("retry", "window", "the endpoint could not be reached", is_turned_away=True),
    "tls": Kind(
        "stop",
        None,
        "the endpoint's certificate could not be verified: check base_url and the clock",
        is_turned_away=True,
    ),
    "url": Kind(
        "stop", None, "requests cannot be sent to base_url: it must begin with http:// or https://", is_turned_away=True
    ),
    "timeout": Kind("retry", "window", "no answer within the time allowed", maybe_paid=True),
    "cut": Kind("retry", None, "the connection was lost before the answer was complete", maybe_paid=True),
    "protocol": Kind("retry", None, "the reply was not HTTP"),
    "too_large": Kind("row", None, "the answer is larger than the limit of 32 MiB", maybe_paid=True),
    "rate": Kind(
        "retry", "rate", "the endpoint's limit of requests or tokens per minute was reached", is_turned_away=True
    ),
    "overload": Kind("retry", "window", "the endpoint is overloaded"),
    "capacity": Kind(
        "retry", None, "the service tier that was asked for has no capacity at present", is_turned_away=True
    ),
    "gateway_timeout": Kind(
        "retry", "window", "a gateway stopped waiting for the answer: endpoint.stream = true may help", maybe_paid=True
    ),
    "server": Kind("retry", None, "the endpoint failed"),
    "quota": Kind(
        "retry",
        "rate",
        "the endpoint says that the account's quota is used up: check its plan and billing",
        is_turned_away=True,
    ),
    "daily": Kind("stop", None, "the daily quota is used up: resume when it is renewed", is_turned_away=True),
    "too_long": Kind("row", None, "the request is longer than the model or the limits allow", is_turned_away=True),
    "filtered": Kind("row", None, "the endpoint's content filter rejected the prompt", is_turned_away=True),
    "auth": Kind(
        "stop",
        None,
        "the key was not accepted: check the variable that api_key_env names, or api_key_command",
        is_turned_away=True,
    ),
    "forbidden": Kind(
        "stop",
        None,
        "the endpoint rejects the request: the key may not use the model, or a firewall is in the way",
        is_turned_away=True,
    ),
    "billing": Kind(
        "stop", None, "the account is out of credit or budget: top it up, then resume", is_turned_away=True
    ),
    "not_found": Kind(
        "stop", None, "the endpoint knows no such path or model: check base_url and model", is_turned_away=True
    ),
    "bad_request": Kind("row", None, "the endpoint does not accept the request", is_turned_away=True),
    "garbled": Kind("retry", None, "the body is not a complete JSON object", maybe_paid=True),
    "html": Kind("retry", None, "a web page came back instead of JSON: is base_url the API's?"),
    "no_choices": Kind("retry", None, "the answer holds no choices"),
    "broken": Kind("retry", None, "the model's server failed while it was answering"),
    "empty": Kind("retry", None, "the answer is empty"),
}
"""Every kind of rejection. The names are public and stable: the column `error` shows them as `kind: message`."""

STATUS_KINDS: dict[int, str] = {
    **dict.fromkeys((401, 407), "auth"),
    403: "forbidden",
    **dict.fromkeys((402, 412), "billing"),  # 412: Fireworks, a suspended account
    **dict.fromkeys((404, 405, 410), "not_found"),
    **dict.fromkeys((408, 409, 423, 424, 425, 499), "server"),  # 424: text-generation-inference, generation failed
    413: "too_long",
    429: "rate",
    **dict.fromkeys((504, 524), "gateway_timeout"),  # the model's server may go on, and bill its answer
    **dict.fromkeys((498, 502, 503, 520, 521, 522, 523, 529), "overload"),
}
"""The kind of a status where no code or phrase decides. Any other 3xx is not_found, 4xx bad_request, 5xx server."""

CLIENT_ERRORS = frozenset(range(400, 500))
ERRORS = frozenset(range(400, 600))

PHRASES: tuple[tuple[str, frozenset[int], re.Pattern[str]], ...] = (
    (
        "auth",
        frozenset({400, 403}),
        re.compile(
            r"\b(?:incorrect|invalid|expired|wrong|revoked) (?:\w{1,20} )?(?:api[ _-]?key|access token)\b"
            r"|\b(?:api[ _-]?key|access token)\b.{0,40}\b(?:invalid|incorrect|expired|revoked|not (?:valid|found))\b",
            re.IGNORECASE,
        ),
    ),
    (
        "too_long",
        frozenset({400, 413, 422}),
        re.compile(
            r"maximum (?:context|model|prompt) length|longer than the model's context length|prompt is too long"
            r"|exceeds? the available context size|exceeds? the maximum number of tokens allowed|exceed context limit"
            r"|(?:prompt|input|context) (?:length|tokens?|is) .{0,40}(?:exceed|too long|too large)",
            re.IGNORECASE,
        ),
    ),
    (
        "forbidden",
        frozenset({400, 403}),
        re.compile(
            r"(?:accept|agree to) (?:the|our) |(?:account|organization) .{0,40}(?:suspended|disabled|banned|blocked)"
            r"|location is not supported|not available in your (?:country|region)",
            re.IGNORECASE,
        ),
    ),
    (
        "billing",
        ERRORS - {401},
        re.compile(
            r"reached your (?:specified )?(?:workspace )?API usage limits|credit balance is too low"
            r"|insufficient (?:balance|credits?|funds)|out of credits?|credits are depleted|billing to be enabled"
            r"|enable billing|spend(?:ing)? (?:limit|cap)|monthly (?:budget|spend)|key limit exceeded"
            r"|reached the set inference limit|free trial quota"
            r"|account .{0,40}overdue"
            r"|\u4f59\u989d\u4e0d\u8db3|\u6b20\u8d39",  # not enough balance, in arrears
            re.IGNORECASE,
        ),
    ),
    (
        "filtered",
        CLIENT_ERRORS - {401, 404, 429} | {500},
        re.compile(
            r"content violates usage guidelines|prompt was flagged|content exists risk|inappropriate content"
            r"|sensitive (?:content|information|words?)|data inspection"
            r"|(?:content|safety|moderation) (?:polic\w{1,8}|filter|system|check)"
            r"|terms of (?:service|use)|acceptable use|usage polic|flagged (?:by|as|for)|unsafe content"
            r"|\u654f\u611f|\u4e0d\u5b89\u5168|\u8fdd\u89c4",  # sensitive, unsafe, against the rules
            re.IGNORECASE,
        ),
    ),
    (
        "capacity",
        frozenset({429, 498, 503}),
        re.compile(
            r"resource unavailable|capacity_exceeded|\bflex\b.{0,60}capacity|capacity.{0,60}\bflex\b", re.IGNORECASE
        ),
    ),
    (
        "rate",
        frozenset({400, 403, *range(500, 600)}),
        re.compile(
            r"throttl(?:ing|ed)|too many (?:requests|tokens, please wait)"
            r"|rate.?limit(?:ed| reached| exceeded)|\bQPS\b|\bRPM limit",
            re.IGNORECASE,
        ),
    ),
    (
        "not_found",
        frozenset({400, 403, 404, 405, 500, 501}),
        re.compile(
            r"unexpected endpoint or method|(?:invalid|unknown|no such|unsupported) (?:url|endpoint|route|path)"
            r"|(?:url|endpoint|route|path) (?:was |is )?not (?:found|supported|defined)|cannot post\b"
            r"|model .{0,200}(?:does not exist|not found|is not available|is not loaded)|no models? loaded",
            re.IGNORECASE,
        ),
    ),
    ("daily", frozenset({429}), re.compile(r"\blimit: 0(?![0-9.])|free-models-per-day", re.IGNORECASE)),
    (
        "overload",
        frozenset({403, 408, 409, 425, 429, *range(500, 600)}),
        re.compile(r"\bconcurren|pending requests exceeded|max_parallel_requests", re.IGNORECASE),
    ),
)
"""(kind, the statuses it may come with, the phrase in the message), tried in this order after the codes."""

ECHOED = re.compile(
    r'"[^"]{0,400}"|input_value=.{0,4000}|(?:parse|decode)\b[^:]{0,60}:.{0,4000}', re.IGNORECASE | re.DOTALL
)
"""What a message repeats of a prompt or of an answer: no phrase is looked for in it."""

LITELLM = "litellm."
"""How messages begin in which LiteLLM's proxy quotes the whole error of the provider whose account it uses."""

PASSED_ON = re.compile(r"""["']message["']: ?(?:"([^"]{1,400})|'([^']{1,400}))""")
"""The provider's words in such a message."""

SAID_CHARACTERS = 400
"""How much of the rest is looked at."""

NOT_IF: dict[str, re.Pattern[str]] = {
    "filtered": re.compile(r"unavailable|time[d-]? ?out|failed to", re.IGNORECASE),
    "not_found": re.compile(r"image|picture|scheme|download|file", re.IGNORECASE),
}
"""Words beside which a phrase means something else: a filter that failed itself, a picture's address in a row."""

SIZES = re.compile(r"\blimit:?\s+([0-9][0-9,]{0,15}).{0,80}?\brequested:?\s+([0-9][0-9,]{0,15})", re.IGNORECASE)
"""OpenAI's and Groq's "Limit 30000, Used 29000, Requested 2000": a request above the limit can never succeed."""

FORMAT_PHRASES = re.compile(r"response_format|json_schema|json_object|grammar|structured|guided", re.IGNORECASE)
"""The words by which endpoints complain about `response_format`."""

NO_SUCH_ENDPOINT = re.compile(r"no endpoints? found|not support", re.IGNORECASE)
"""The words by which a gateway says that none of its providers takes all of a request (OpenRouter)."""

QUOTA_PAUSE_SECONDS = 10.0
"""The shortest wait after a quota's rejection: some gateways report a quota when they are busy. It is tried again."""

_REASON_PHRASES = {status.value: status.phrase for status in HTTPStatus}


def reject(
    reply: Reply, kind: str, message: str, details: ErrorDetails | None = None, usage: Usage | None = None
) -> Rejection:
    """Make the rejection that a reply of this kind is. A wait in the headers goes before one in the body."""
    known = KINDS[kind]
    wait = None if reply.fault and not reply.status else header_wait(reply.headers)
    wait = details.wait_seconds if wait is None and details else wait
    if kind == "quota":
        wait = max(wait or 0.0, QUOTA_PAUSE_SECONDS)
    return Rejection(
        verdict=known.verdict,
        kind=kind,
        message=message or known.meaning,
        status=reply.status,
        pressure=known.pressure,
        wait_seconds=wait,
        usage=usage if usage != Usage() else None,
        maybe_paid=known.maybe_paid,
        is_turned_away=known.is_turned_away or _has_no_room(reply.status, kind, wait),
        parameter=details.parameter if details is not None else "",
        allowance=stated_allowance(details.message) if details is not None and kind == "rate" else Allowance(),
    )


def kind_of_error(status: int, details: ErrorDetails, headers: Mapping[str, str]) -> str:
    """Find the kind of an error from its status, codes, message and headers. The first rule that applies decides."""
    if status == 402 and header_wait(headers) is not None:
        return "rate"
    if status == 403 and details.is_moderation:
        return "filtered"
    if (known := kind_of_codes(details.codes)) is not None:
        return known
    if status == 429 and any("perday" in quota for quota in details.quota_ids):
        return "daily"
    if status in {413, 429} and (sizes := SIZES.search(details.message)):
        limit, requested = (int(size.replace(",", "")) for size in sizes.groups())
        return "daily" if limit == 0 else "too_long" if requested > limit else "rate"
    said = ECHOED.sub(" ", details.message)[:SAID_CHARACTERS]
    if details.message.startswith(LITELLM) and (passed_on := PASSED_ON.search(details.message)):
        said += f" {passed_on[1] or passed_on[2]}"
    for kind, statuses, phrase in PHRASES:
        if status in statuses and phrase.search(said) and not (kind in NOT_IF and NOT_IF[kind].search(said)):
            return kind
    kind = STATUS_KINDS.get(status) or _kind_of_class(status)
    # A "false" is not obeyed: it is meant for clients that retry without limit, and attempts are limited here.
    return "server" if kind == "bad_request" and headers.get("x-should-retry", "").lower() == "true" else kind


def unless_echoed(rejection: Rejection, body: bytes) -> Rejection:
    """The rejection, or what its status means alone if the phrase that decided its kind stands in the request's `body`.

    Servers repeat parts of a prompt in many ways, and a table may hold any phrase.
    """
    for kind, statuses, phrase in PHRASES:
        if kind != rejection.kind or rejection.status not in statuses:
            continue
        found = phrase.search(rejection.message)
        if found is None or found[0].lower().encode() not in body.lower():
            continue
        known = KINDS[plain := STATUS_KINDS.get(rejection.status) or _kind_of_class(rejection.status)]
        return replace(
            rejection,
            kind=plain,
            verdict=known.verdict,
            pressure=known.pressure,
            maybe_paid=known.maybe_paid,
            is_turned_away=known.is_turned_away,
        )
    return rejection


def describe_status(status: int, kind: str, reply: Reply) -> str:
    """Describe an error without a message: its status, and the beginning of its plain text or what its kind means."""
    if is_html(reply):
        title = page_title(reply.body)
        preview = f"a web page with the title {title!r}" if title else ""
    else:
        preview = body_preview(reply.body)
    return f"HTTP {status} {_REASON_PHRASES.get(status, '')}".rstrip() + f": {preview or KINDS[kind].meaning}"


def rejects_response_format(rejection: Rejection) -> bool:
    """Tell whether an endpoint may have rejected a request because of its `response_format`."""
    if rejection.kind in ("broken", "filtered", "too_long", "billing", "quota"):
        return False
    if rejection.kind == "bad_request" and rejection.status in (400, 422):
        return True
    if rejection.kind == "not_found" and NO_SUCH_ENDPOINT.search(rejection.message):
        return True
    return rejection.status >= 400 and rejection.kind != "rate" and bool(FORMAT_PHRASES.search(rejection.message))


def _kind_of_class(status: int) -> str:
    if status < 300:
        return "protocol"
    return "not_found" if status < 400 else "bad_request" if status < 500 else "server"


def _has_no_room(status: int, kind: str, wait_seconds: float | None) -> bool:
    """Whether an endpoint had no room for a request: 529 says so, and a 503 that also says how long to wait."""
    return status == 529 or (status == 503 and kind == "overload" and wait_seconds is not None)
