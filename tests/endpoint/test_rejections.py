"""An attempt without an answer is a rejection of a known kind, by what the endpoint says and not by what it echoes."""

import json
from typing import Any

import pytest
from seen_replies import (
    AMETHYST_401,
    ECHO,
    ERRORS,
    FAULTS,
    QUOTA_SENTENCE,
    error,
    gemini,
    rejected,
    reply,
)

from pipeline.endpoint.body_room import BODY_BYTES_MAX
from pipeline.endpoint.error_codes import CODE_KINDS
from pipeline.endpoint.rejections import KINDS, PHRASES, STATUS_KINDS, rejects_response_format
from pipeline.endpoint.replies import read_reply
from pipeline.records import Rejection


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind", "wait"), [e[1:] for e in ERRORS], ids=[e[0] for e in ERRORS]
)
def test_each_known_error_has_its_kind_and_wait(
    status: int, headers: dict[str, str], body: Any, kind: str, wait: float | None
) -> None:
    rejection = rejected(status, body, headers)
    assert (rejection.kind, rejection.wait_seconds) == (kind, wait)
    assert (rejection.verdict, rejection.pressure) == (KINDS[kind].verdict, KINDS[kind].pressure)
    assert rejection.status == status
    assert rejection.message


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_of_the_transport_is_a_kind_of_its_own(fault: str) -> None:
    rejection = rejected(0, b"", fault=fault, detail="[Errno 111]\n refused")
    assert (rejection.verdict, rejection.pressure, rejection.maybe_paid) == FAULTS[fault]
    assert (rejection.kind, rejection.message) == (fault, "[Errno 111] refused")
    assert rejected(0, b"", fault=fault).message == KINDS[fault].meaning


@pytest.mark.parametrize("fault", ["cut", "timeout"])
def test_an_error_status_says_more_than_the_break_after_it_and_was_not_paid(fault: str) -> None:
    rejection = rejected(401, AMETHYST_401[:60], fault=fault)
    assert (rejection.kind, rejection.maybe_paid) == ("auth", False)


# kind → verdict, pressure: the public table, written a second time
VERDICTS = {
    "rate": ("retry", "rate"),
    "overload": ("retry", "window"),
    "capacity": ("retry", None),
    "gateway_timeout": ("retry", "window"),
    "server": ("retry", None),
    "quota": ("retry", "rate"),
    "daily": ("stop", None),
    "too_long": ("row", None),
    "filtered": ("row", None),
    "auth": ("stop", None),
    "forbidden": ("stop", None),
    "billing": ("stop", None),
    "not_found": ("stop", None),
    "bad_request": ("row", None),
    "garbled": ("retry", None),
    "html": ("retry", None),
    "no_choices": ("retry", None),
    "broken": ("retry", None),
    "empty": ("retry", None),
}


def test_the_table_of_kinds_is_whole() -> None:
    assert {name: (kind.verdict, kind.pressure) for name, kind in KINDS.items()} == {
        **{fault: known[:2] for fault, known in FAULTS.items()},
        **VERDICTS,
    }
    assert {*STATUS_KINDS.values(), *CODE_KINDS.values(), *(kind for kind, _, _ in PHRASES)} <= KINDS.keys()
    assert {example[4] for example in ERRORS} == VERDICTS.keys()


def test_a_redirect_is_named_with_its_target() -> None:
    message = rejected(302, b"<html>moved</html>", {"location": "https://other.test/\x1b[31mv1"}).message
    assert message == "HTTP 302: redirected to https://other.test/v1; redirects are never followed: check base_url"


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "Bad value", "code": "invalid_value"}, "request": {"prompt": ECHO}},
        {
            "detail": [
                {"loc": ["body"], "msg": "Bad value", "input": {"error": {"code": "insufficient_quota"}, "p": ECHO}}
            ]
        },
        json.dumps({"error": {"message": "Bad value"}, "prompt": f'"code": "content_filter" {ECHO}'}).encode()[:-2],
        f"no JSON at all: {ECHO}".encode(),
        f"<html>{ECHO}</html>".encode(),
    ],
)
def test_phrases_of_a_prompt_that_a_body_echoes_decide_nothing(body: Any) -> None:
    rejection = rejected(400, body)
    assert (rejection.kind, rejection.wait_seconds) == ("bad_request", None)


def test_codes_in_a_prompt_quoted_by_a_truncated_body_decide_nothing() -> None:
    body = json.dumps(error("Bad value: " + json.dumps(error("x", code="insufficient_quota")))).encode()
    assert rejected(400, body[:-8]).kind == "bad_request"


def test_a_providers_message_behind_a_gateway_is_shown_but_decides_nothing() -> None:
    raw = json.dumps(error("their quota", code="insufficient_quota"))
    rejection = rejected(429, error("Provider returned error", code=429, metadata={"raw": raw}))
    assert (rejection.kind, rejection.message) == ("rate", "Provider returned error: their quota")


def test_the_limit_that_a_too_large_answer_is_reported_with_is_the_one_in_force() -> None:
    assert KINDS["too_large"].meaning.endswith(f"{BODY_BYTES_MAX // 2**20} MiB")


@pytest.mark.parametrize(
    ("status", "message", "is_likely"),
    [
        (400, "odd", True),
        (404, "no such path", False),
        (422, "odd", True),
        (500, "grammar could not be compiled", True),
        (500, "unknown field: response_format", True),
        (500, "odd", False),
        (401, "odd", False),
        (429, "structured outputs: rate limit reached", False),
    ],
)
def test_a_request_that_may_be_rejected_for_its_response_format_is_recognised(
    status: int, message: str, is_likely: bool
) -> None:
    assert rejects_response_format(rejected(status, error(message))) == is_likely


def test_a_request_that_was_not_answered_at_all_was_not_rejected_for_its_response_format() -> None:
    assert not rejects_response_format(rejected(0, b"", fault="cut", detail="json_schema"))


# platform.claude.com/docs/en/api/errors and …/rate-limits; anthropics/claude-code#38035
ANTHROPIC_TIER = (
    "You have reached your API usage limits: your organization has crossed its monthly API usage threshold, set based "
    "on your organization's API tier. You will regain access on 2026-09-01 at 00:00 UTC."
)
ANTHROPIC_OWN = "You have reached your specified {}API usage limits. You will regain access on 2026-04-01 at 00:00 UTC."
GEMINI_CAP = "Your project has exceeded its monthly spending cap. Please go to AI Studio at https://ai.studio/spend"
GEMINI_PREPAID = (
    "Your prepayment credits are depleted. Please go to AI Studio at https://ai.studio/projects to manage your project "
    "and billing. Learn more at https://ai.google.dev/gemini-api/docs/billing#prepay. "
)
GEMINI_FREE = (
    f"{QUOTA_SENTENCE}\n* Quota exceeded for metric: generativelanguage.googleapis.com/"
    "generate_content_free_tier_requests, limit: 0, model: gemini-2.5-pro\nPlease retry in 26.4s."
)


def anthropic(message: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message, **more}, "request_id": "req_1"}


def google(message: str, status: str = "RESOURCE_EXHAUSTED", code: int = 429) -> list[dict[str, Any]]:
    return [error(message, code=code, status=status)]


def through_litellm(body: dict[str, Any], *, as_json: bool = True) -> dict[str, Any]:
    quoted = json.dumps(body) if as_json else repr(body)
    words = f"litellm.RateLimitError: AnthropicException - {quoted}. Received Model Group=claude"
    return error(words, type="throttling_error", param=None, code="429")


SPENT: list[tuple[int, Any, str]] = [
    (429, anthropic("…", "rate_limit_error", details={"error_code": "enforced_spend_limit_reached"}), "billing"),
    (429, anthropic("…", "rate_limit_error", details={"error_code": "contract_spend_limit_reached"}), "billing"),
    (429, anthropic(ANTHROPIC_TIER, "rate_limit_error"), "billing"),
    (429, [anthropic(ANTHROPIC_TIER, "rate_limit_error")], "billing"),
    (429, through_litellm(anthropic(ANTHROPIC_TIER, "rate_limit_error")), "billing"),
    (429, through_litellm(anthropic("Out of credits", "x"), as_json=False), "billing"),
    (400, anthropic(ANTHROPIC_OWN.format(""), "invalid_request_error"), "billing"),
    (400, anthropic(ANTHROPIC_OWN.format("workspace "), "invalid_request_error"), "billing"),
    (400, through_litellm(anthropic(ANTHROPIC_OWN.format(""), "invalid_request_error")), "billing"),
    (400, anthropic("Your credit balance is too low to access the Anthropic API.", "invalid_request_error"), "billing"),
    (400, anthropic("This organization has been disabled.", "invalid_request_error"), "forbidden"),
    (402, anthropic("…", "billing_error"), "billing"),
    (429, google(GEMINI_CAP), "billing"),
    (429, google(GEMINI_CAP)[0], "billing"),
    (429, google(GEMINI_PREPAID), "billing"),
    (429, google(GEMINI_FREE), "daily"),
    (429, gemini("GenerateRequestsPerDayPerProjectPerModel-FreeTier"), "daily"),
    (429, gemini("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "GenerateRequestsPerDay"), "daily"),
    (400, google("User location is not supported for the API use.", "FAILED_PRECONDITION", 400), "forbidden"),
    (403, google("This API method requires billing to be enabled.", "PERMISSION_DENIED", 403), "billing"),
    (429, error("…", type="insufficient_quota", code="organization_spend_limit_exceeded"), "billing"),
    (429, error("…", type="insufficient_quota", code="credit_balance_exhausted"), "billing"),
]


@pytest.mark.parametrize(("status", "body", "kind"), SPENT)
def test_a_limit_on_spending_stops_the_job_whatever_the_status(status: int, body: Any, kind: str) -> None:
    rejection = rejected(status, body)
    assert (rejection.kind, rejection.verdict, rejection.is_turned_away) == (kind, "stop", True)


@pytest.mark.parametrize(
    "body",
    [
        google("Resource has been exhausted (e.g. check quota)."),
        google(QUOTA_SENTENCE),
        gemini("GenerateContentInputTokensPerModelPerMinute-FreeTier"),
        anthropic("This request would exceed your rate limit of 30,000 input tokens per minute.", "rate_limit_error"),
        anthropic("…", "rate_limit_error", details={"error_code": "ramp_limit_exceeded"}),
        through_litellm(anthropic("Number of request tokens has exceeded your rate limit", "rate_limit_error")),
    ],
)
def test_a_limit_of_the_pace_is_no_limit_on_spending(body: Any) -> None:
    assert rejected(429, body).kind == "rate"


def test_what_a_gateway_quotes_of_a_prompt_decides_nothing() -> None:
    quoted = json.dumps({"prompt": ECHO, "input": "spending cap, terms of service"})
    assert rejected(400, error(f"litellm.BadRequestError: OpenAIException - bad value {quoted}")).kind == "bad_request"


# continuedev/continue#10778, openai/codex#1352: xAI
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***z."}, "auth"),
        (400, error("API key not valid. Please pass a valid API key."), "auth"),
        (403, error("The access token expired"), "auth"),
        (400, error("Invalid token at position 7 of the JSON"), "bad_request"),
        (400, error("temperature is not valid"), "bad_request"),
    ],
)
def test_a_key_that_is_rejected_under_another_status_is_told_by_its_words(status: int, body: Any, kind: str) -> None:
    assert rejected(status, body).kind == kind


@pytest.mark.parametrize(
    ("status", "message", "prompt"),
    [
        (400, 'Invalid text: "he said "insufficient balance" to me" in it', 'he said "insufficient balance" to me'),
        (422, "Invalid value: 'my account is overdue'. Expected an image.", "My account is overdue"),
        (400, "cannot use https://h.example/out-of-credits insufficient funds", "see Insufficient funds"),
        (400, "no: too many requests were made by my neighbour", "too many requests were made by my neighbour"),
        (400, "unreadable: the API key is invalid, I think", "the API key is invalid, I think"),
    ],
)
def test_a_phrase_that_an_error_repeats_of_the_prompt_decides_nothing(status: int, message: str, prompt: str) -> None:
    sent = json.dumps({"model": "m", "messages": [{"role": "user", "content": prompt}]}).encode()
    rejection = read_reply(reply(status, error(message)), sent)
    assert isinstance(rejection, Rejection)
    assert (rejection.kind, rejection.verdict) == ("bad_request", "row")
    other = read_reply(reply(status, error(message)), b'{"model": "m"}')
    assert isinstance(other, Rejection)
    assert other.kind != "bad_request"
