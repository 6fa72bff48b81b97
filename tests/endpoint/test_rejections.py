"""An attempt without an answer is a rejection of a known kind, by what the endpoint says and not by what it echoes."""

import json
from typing import Any

import pytest
from seen_replies import (
    AMETHYST_401,
    ECHO,
    ERRORS,
    FAULTS,
    error,
    rejected,
)

from pipeline.endpoint.body_room import BODY_BYTES_MAX
from pipeline.endpoint.rejections import CODE_KINDS, KINDS, PHRASES, STATUS_KINDS, rejects_response_format


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
