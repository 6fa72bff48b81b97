"""What codes and types of errors mean, in every spelling, and which one decides."""

import pytest
from seen_replies import error, rejected

from pipeline.endpoint.error_bodies import plain_code
from pipeline.endpoint.error_codes import CODE_KINDS, CODE_STATUS, kind_of_codes, status_of_codes


def test_the_first_known_code_decides_and_no_two_spellings_of_the_table_are_one_code() -> None:
    assert kind_of_codes(frozenset({"insufficientquota", "projectspendlimitexceeded"})) == "billing"
    assert kind_of_codes(frozenset({"unheardof"})) is None
    assert len({plain_code(code) for code in CODE_KINDS}) == len(CODE_KINDS)
    assert len({plain_code(code) for code in CODE_STATUS}) == len(CODE_STATUS)


def test_a_code_stands_for_a_status_where_the_reply_has_none() -> None:
    assert status_of_codes(frozenset({"resourceexhausted"})) == 429
    assert status_of_codes(frozenset({"unheardof"})) == 500


# docs.z.ai/api-reference/api-code, docs.bigmodel.cn/cn/api/api-code
@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (429, "1113", "billing"),
        (429, "1121", "forbidden"),
        (429, "1112", "forbidden"),
        (400, "1211", "not_found"),
        (400, "1210", "bad_request"),
        (403, "1220", "forbidden"),
        (400, "1261", "too_long"),
        (400, "1301", "filtered"),
        (429, "1302", "rate"),
        (429, "1304", "daily"),
        (429, "1305", "rate"),
        (429, "1308", "daily"),
        (429, "1309", "billing"),
        (429, "1310", "daily"),
        (429, "1312", "overload"),
    ],
)
def test_zhipus_codes(status: int, code: str, kind: str) -> None:
    assert rejected(status, {"error": {"code": code, "message": "…"}}).kind == kind


def test_mistrals_rate_limit_has_a_code_that_is_a_policy_at_zhipu() -> None:
    body = {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "param": None, "code": "1300"}
    assert rejected(429, body).kind == "rate"


# platform.minimax.io/docs/api-reference/errorcode
@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        (1000, "unknown error", "server"),
        (1002, "rate limit", "rate"),
        (1004, "not authorized", "auth"),
        (1008, "insufficient balance", "billing"),
        (1026, "input new_sensitive", "filtered"),
        (1027, "output new_sensitive", "filtered"),
        (1039, "token limit", "rate"),
        (1041, "conn limit", "overload"),
        (1042, "invisible character ratio limit", "bad_request"),
        (2013, "invalid params", "bad_request"),
        (2045, "rate growth limit", "rate"),
        (2049, "invalid api key", "auth"),
        (2056, "usage limit exceeded", "daily"),
    ],
)
def test_minimaxs_codes_in_a_reply_with_status_200(code: int, words: str, kind: str) -> None:
    rejection = rejected(200, {"choices": None, "base_resp": {"status_code": code, "status_msg": words}})
    assert (rejection.kind, rejection.message) == (kind, words)


# www.volcengine.com/docs/82379/1099476
@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "InvalidEndpoint.ClosedEndpoint", "not_found"),
        (400, "InputTextRiskDetection", "filtered"),
        (400, "SensitiveContentDetected.SevereViolation", "filtered"),
        (401, "AuthenticationError", "auth"),
        (403, "AccountOverdueError", "billing"),
        (403, "AccessDenied", "forbidden"),
        (404, "ModelNotOpen", "not_found"),
        (429, "SetLimitExceeded", "billing"),
        (429, "ServerOverloaded", "overload"),
        (429, "ModelAccountTpmRateLimitExceeded", "rate"),
    ],
)
def test_volcengines_codes(status: int, code: str, kind: str) -> None:
    assert rejected(status, error("…", code=code)).kind == kind


@pytest.mark.parametrize("code", ["1113", "1301", "1211"])
def test_a_number_means_something_only_where_no_word_stands_beside_it(code: str) -> None:
    assert rejected(400, {"error": {"message": "…", "code": code}}).kind != "bad_request"
    assert rejected(400, {"error": {"message": "…", "code": code, "type": "invalid_request"}}).kind == "bad_request"
