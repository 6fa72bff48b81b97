"""Read an endpoint's rate limits: how long it asks to wait, and how much its headers allow per minute.

Everything here is pure: no clock is read, and a value that does not parse counts as absent.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from ..records import Allowance

REQUEST_LIMITS = ("x-ratelimit-limit-req-minute", "x-ratelimit-limit-requests")
"""The headers that limit requests: Mistral's, which names the minute, then the one of OpenAI and all others."""

TOKEN_LIMITS = ("x-ratelimit-limit-tokens-minute", "x-ratelimit-limit-tokens")
"""The headers that limit tokens, in the same order."""

PERIOD_SECONDS_MIN, PERIOD_SECONDS_MAX = 40, 80
"""A period worked out from `remaining` and `reset` counts as one minute within these bounds."""

_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{0,15})?|\.[0-9]{1,15}")
_DURATION = re.compile(
    r"([0-9]{1,9}(?:\.[0-9]{1,12})?) ?(ms|milliseconds?|d|days?|h|hours?|m|min|minutes?|s|sec|seconds?)(?![a-z])",
    re.IGNORECASE,
)
_TRY_AGAIN = re.compile(r"(?:try again|retry) (?:in|after) ", re.IGNORECASE)
_STATED = (
    # LiteLLM's proxy: "Limit type: requests. Current limit: 600, Remaining: 0."
    re.compile(r"limit type: (?P<what>requests|tokens)\. current limit: (?P<number>[0-9,]{1,15})", re.IGNORECASE),
    # OpenAI, Groq: "on tokens per min (TPM): Limit 6000, Used 3513", "on requests per min. Limit: 3 / min."
    re.compile(
        r"(?P<what>requests|tokens) per (?P<unit>min|sec)[^:0-9]{0,20}[:.] ?limit:? (?P<number>[0-9,]{1,15})",
        re.IGNORECASE,
    ),
    # Cohere's trial keys are limited to 10 API calls / minute; slowapi says "Rate limit exceeded: 600 per 1 minute"
    re.compile(
        r"(?<![0-9.,])(?P<number>[0-9][0-9,]{0,14}(?:\.0)?) ?(?P<what>requests?|queries|(?:API )?calls?|tokens?)? ?"
        r"(?:per|/|every) ?(?:1 |one |a )?(?P<unit>min|sec)(?:ute|ond)?s?\b",
        re.IGNORECASE,
    ),
)
"""The words by which servers name the limit that was hit. Input or output tokens alone are none that can be kept."""

_UNIT_SECONDS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}


def read_allowance(headers: Mapping[str, str]) -> Allowance:
    """Read how many requests and tokens per minute the rate-limit headers allow. Never raises.

    The `x-ratelimit-limit-*` headers name no period: most mean a minute, but Groq limits requests per day. The period
    is worked out from `remaining` and `reset`, the time until the token bucket is full again; a limit for anything but
    a minute is None. So is Azure's -1 or 0, and what does not parse.
    """
    return Allowance(_per_minute(headers, REQUEST_LIMITS), _per_minute(headers, TOKEN_LIMITS))


def header_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by `retry-after-ms`, else by `retry-after`: a number, or a date minus the reply's own `Date`.

    The x-ratelimit-reset headers are ignored: they say when a bucket is full, not when the next request is allowed.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1_000
    after = headers.get("retry-after", "")
    seconds = _number(after)
    return _seconds_between(headers.get("date", ""), after) if seconds is None else seconds


def body_wait(metadata: list[dict[str, object]], details: list[dict[str, object]], message: str) -> float | None:
    """Seconds to wait by OpenRouter's metadata, else Gemini's RetryInfo, else "try again in 1.2s" in the message."""
    waits = [_number(meta.get("retry_after_seconds")) for meta in metadata]
    waits += [_duration(delay) for detail in details if isinstance(delay := detail.get("retryDelay"), str)]
    if found := _TRY_AGAIN.search(message):
        waits.append(_duration(message[found.end() : found.end() + 100]))
    return next((wait for wait in waits if wait is not None), None)


def stated_allowance(message: str) -> Allowance:
    """Read the limits for a minute that the message of a rejection names."""
    found: dict[str, float] = {}
    for each in (match for pattern in _STATED for match in pattern.finditer(message)):
        parts = each.groupdict()
        what = "tokens" if (parts["what"] or "").lower().startswith("token") else "requests"
        per_minute = float(parts["number"].replace(",", "")) * (60 if (parts.get("unit") or "").lower() == "sec" else 1)
        if per_minute:
            found.setdefault(what, per_minute)
    return Allowance(found.get("requests"), found.get("tokens"))


def _per_minute(headers: Mapping[str, str], names: tuple[str, str]) -> float | None:
    minute_limit = _number(headers.get(names[0]))
    if minute_limit:
        return minute_limit
    limit = _number(headers.get(names[1]))
    if not limit:
        return None
    left = _number(headers.get(names[1].replace("-limit-", "-remaining-", 1)))
    full_after = _duration(headers.get(names[1].replace("-limit-", "-reset-", 1), ""))
    if left is None or full_after is None or left >= limit:
        return None
    period_seconds = full_after * limit / (limit - left)
    return limit if PERIOD_SECONDS_MIN <= period_seconds <= PERIOD_SECONDS_MAX else None


def _number(value: object) -> float | None:
    if isinstance(value, str):
        return float(value.strip()) if _NUMBER.fullmatch(value.strip()) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value < 1e15 else None


def _duration(text: str) -> float | None:
    """Seconds of a duration that the text begins with: "26s", "6m0s", "1h2m3.5s", "20ms" or "2 minutes"."""
    seconds, place = None, 0
    while part := _DURATION.match(text, place):
        number, unit = part.groups()
        scale = 0.001 if unit.lower().startswith(("ms", "milli")) else _UNIT_SECONDS[unit[0].lower()]
        seconds, place = (seconds or 0.0) + float(number) * scale, part.end()
    return seconds


def _seconds_between(start: str, end: str) -> float | None:
    """Seconds from one HTTP date to another, 0 if the end lies before the start, None if either does not parse."""
    try:
        return max(0.0, (_moment(end) - _moment(start)).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _moment(date: str) -> datetime:
    moment = parsedate_to_datetime(date)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
