"""The wait and the limits that an endpoint asks for are read from its headers and its error bodies."""

from typing import Any

import pytest
from seen_replies import (
    DRAGGED_OUT,
    rejected,
)

from pipeline.endpoint.rate_limits import read_allowance
from pipeline.records import Allowance

# in the order in which they are believed
WAITS: list[tuple[dict[str, str], dict[str, Any], float]] = [
    ({"retry-after-ms": "1500"}, {}, 1.5),
    ({"retry-after": "0.25"}, {}, 0.25),
    (DRAGGED_OUT, {}, 30.0),
    ({}, {"metadata": {"retry_after_seconds": 7}}, 7.0),
    ({}, {"details": [{"retryDelay": "26.5s"}]}, 26.5),
    ({}, {"message": "Please try again in 6m0s."}, 360.0),
]


@pytest.mark.parametrize("first", range(len(WAITS)))
def test_the_first_wait_that_parses_is_believed(first: int) -> None:
    headers: dict[str, str] = {}
    body: dict[str, Any] = {}
    for more_headers, more_body, _ in reversed(WAITS[first:]):
        headers, body = headers | more_headers, body | more_body
    assert rejected(429, {"error": body}, headers).wait_seconds == pytest.approx(WAITS[first][2])


def test_a_wait_that_does_not_parse_gives_way_to_the_next() -> None:
    body = {
        "error": {
            "metadata": {"retry_after_seconds": True},
            "details": [{"retryDelay": "soon"}],
            "message": "retry in 2 minutes",
        }
    }
    for bad in ("-5", "nan", "inf", "1e9", "6m0s", "5, 5", "", "Wed, 99 Foo 2026 07:28:00 GMT", "٣"):
        assert rejected(429, body, {"retry-after-ms": bad, "retry-after": bad}).wait_seconds == 120.0


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": DRAGGED_OUT["retry-after"]}, None),  # without a Date there is nothing to take it from
        ({"retry-after": DRAGGED_OUT["date"], "date": DRAGGED_OUT["retry-after"]}, 0.0),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-reset": "1741305600000"}, None),
        ({"retry-after": "86400"}, 86_400.0),  # clamping is the caller's
    ],
)
def test_other_headers_on_waiting(headers: dict[str, str], wait: float | None) -> None:
    assert rejected(429, b"", headers).wait_seconds == wait


def rate_limits(limit: str, remaining: str, reset: str, of: str = "requests") -> dict[str, str]:
    values = {"limit": limit, "remaining": remaining, "reset": reset}
    return {f"x-ratelimit-{name}-{of}": value for name, value in values.items()}


@pytest.mark.parametrize(
    ("headers", "requests", "tokens"),
    [
        ({}, None, None),
        (rate_limits("600", "599", "100ms"), 600.0, None),
        (rate_limits("30000", "29000", "2s", of="tokens"), None, 30_000.0),
        (rate_limits("14400", "14399", "6s"), None, None),  # Groq's, per day
        (rate_limits("600", "600", "0s"), None, None),  # nothing to work the period out from
        (rate_limits("600", "599", "soon"), None, None),
        (rate_limits("-1", "-1", "0s"), None, None),  # Azure
        (rate_limits("0", "0", "0s"), None, None),
        ({"x-ratelimit-limit-req-minute": "60", **rate_limits("14400", "14399", "6s")}, 60.0, None),  # Mistral
        ({"x-ratelimit-limit-tokens-minute": "500000"}, None, 500_000.0),
    ],
)
def test_only_a_limit_that_is_shown_to_be_per_minute_is_an_allowance(
    headers: dict[str, str], requests: float | None, tokens: float | None
) -> None:
    assert read_allowance(headers) == Allowance(requests, tokens)


NAMED = (
    (
        "Rate limit exceeded for user: u. Limit type: requests. Current limit: 600, Remaining: 0. Limit resets at: x",
        Allowance(600),
    ),
    ("Rate limit exceeded for team: a. Limit type: tokens. Current limit: 9000, Remaining: 0.", Allowance(None, 9000)),
    (
        "Limit reached on tokens per minute (TPM): Limit 6000, Used 3513, Requested 3166. Please try again in 6.78s.",
        Allowance(None, 6000),
    ),
    ("Rate limit reached for gpt-4 on requests per min. Limit: 3 / min. Please try again in 20s.", Allowance(3)),
    ("You are using a Trial key, which is limited to 10 API calls / minute", Allowance(10)),
    ("Rate limit exceeded: 600 per 1 minute", Allowance(600)),
    ("exceeded the limit of 10 requests per second", Allowance(600)),
    ("would exceed the rate limit for your organization of 20,000 input tokens per minute", Allowance()),
    ("Rate limit reached on requests per day (RPD): Limit 200, Used 200", Allowance()),
    ("Too many requests. Please try again in 2 minutes.", Allowance()),
)


@pytest.mark.parametrize(("message", "allowance"), NAMED)
def test_a_limit_that_the_message_names_is_read_if_it_is_one_for_a_minute(message: str, allowance: Allowance) -> None:
    assert rejected(429, {"error": {"message": message}}).allowance == allowance


def test_a_limit_of_requests_at_once_is_no_rate() -> None:
    message = (
        "Rate limit exceeded for api_key: 88dc. Limit type: max_parallel_requests. Current limit: 5, Remaining: 0."
    )
    rejection = rejected(429, {"error": {"message": message}})
    assert (rejection.pressure, rejection.allowance) == ("window", Allowance())
