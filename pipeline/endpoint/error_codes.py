"""What the codes and types of errors mean, by the tables of their providers.

Mistral's codes overlap with Zhipu's: 1300 is a rate limit there and a policy here, so it is not in the table.
"""

from .error_bodies import plain_code

CODE_KINDS: dict[str, str] = {
    "content_filter": "filtered",
    "content_exists_risk": "filtered",  # DeepSeek
    "sensitive_content_detected": "filtered",  # Volcengine
    "input_text_sensitive_content_detected": "filtered",
    "output_text_sensitive_content_detected": "filtered",
    "input_text_risk_detection": "filtered",
    "content_moderation_failed": "filtered",
    "moderation_blocked": "filtered",  # OpenAI, pictures
    "invalid_prompt": "filtered",  # OpenAI, reasoning models
    "guardrail_intervened": "filtered",  # Bedrock
    "1301": "filtered",  # Zhipu
    "base_resp_1026": "filtered",  # MiniMax, the prompt
    "base_resp_1027": "filtered",  # MiniMax, the answer
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
    "1261": "too_long",  # Zhipu
    "enforced_spend_limit_reached": "billing",  # Anthropic, with 429
    "contract_spend_limit_reached": "billing",
    "organization_on_hold": "billing",
    "billing_error": "billing",
    "credit_balance_exhausted": "billing",  # OpenAI, beside insufficient_quota
    "organization_usage_limit_exceeded": "billing",
    "organization_spend_limit_exceeded": "billing",
    "project_spend_limit_exceeded": "billing",
    "base_resp_1008": "billing",  # MiniMax
    "1113": "billing",  # Zhipu
    "1309": "billing",
    "set_limit_exceeded": "billing",  # Volcengine
    "insufficient_balance": "billing",
    "insufficient_credits": "billing",
    "account_overdue_error": "billing",  # Volcengine
    "arrearage": "billing",  # DashScope
    "base_resp_1004": "auth",
    "base_resp_2049": "auth",
    "base_resp_1000": "server",
    "base_resp_1001": "server",
    "base_resp_1024": "server",
    "base_resp_1033": "server",
    "base_resp_1002": "rate",
    "base_resp_2045": "rate",
    "base_resp_1039": "rate",  # tokens a minute
    "base_resp_1041": "overload",
    "base_resp_1042": "bad_request",
    "base_resp_2013": "bad_request",
    "base_resp_2056": "daily",  # of five hours
    "base_resp_2061": "forbidden",
    "resource_unavailable": "capacity",  # OpenAI, flex
    "capacity_exceeded": "capacity",  # Groq, flex
    "throttling_exception": "rate",  # Bedrock
    "throttling": "rate",  # DashScope
    "throttling_rate_quota": "rate",
    "too_many_requests_exception": "rate",
    "request_limit_exceeded": "rate",
    "1302": "rate",  # Zhipu
    "1303": "rate",
    "1305": "rate",
    "1304": "daily",
    "1308": "daily",  # of five hours
    "1310": "daily",  # of a week or a month
    "1312": "overload",
    "1110": "forbidden",
    "1111": "forbidden",
    "1112": "forbidden",
    "1121": "forbidden",
    "1220": "forbidden",
    "1311": "forbidden",
    "1313": "forbidden",
    "1211": "not_found",
    "1221": "not_found",
    "1222": "not_found",
    "insufficient_user_quota": "billing",  # one-api and new-api, with 403
    "pre_consume_token_quota_failed": "billing",
    "budget_exceeded": "billing",  # LiteLLM, with 400
    "insufficient_quota": "quota",
    "billing_hard_limit_reached": "quota",
    "exceeded_current_quota_error": "quota",  # Moonshot
    "json_validate_failed": "broken",  # Groq: the model wrote what does not fit the schema
    "tool_use_failed": "broken",
    "model_not_found": "not_found",
    "invalid_api_key": "auth",
    "api_key_invalid": "auth",  # Gemini, with 400
    "invalid_endpoint": "not_found",  # Volcengine: closed
    "server_overloaded": "overload",  # Volcengine, with 429
    "overloaded": "overload",
    "overloaded_error": "overload",
    "engine_overloaded_error": "overload",
}
"""The kind of an error code or type. It outweighs the status. Of several codes the first decides.

Upper and lower case, `_`, `-` and dots make no difference: `SensitiveContentDetected` is `sensitive_content_detected`.
"""

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
"""The HTTP status that a code stands for in an error sent with status 200. An error without one of these is a 500."""

_PLAIN_CODE_KINDS = {plain_code(code): kind for code, kind in CODE_KINDS.items()}
_PLAIN_CODE_STATUS = {plain_code(code): status for code, status in CODE_STATUS.items()}


def kind_of_codes(codes: frozenset[str]) -> str | None:
    """The kind of an error with these codes; None if none of them is known.

    A number counts only where no word stands beside it: other providers use the same numbers for other things, and give
    a type as well.
    """
    if not all(code.isdecimal() for code in codes):
        codes = frozenset(code for code in codes if not code.isdecimal())
    return next((kind for code, kind in _PLAIN_CODE_KINDS.items() if code in codes), None)


def status_of_codes(codes: frozenset[str]) -> int:
    """Find the HTTP status that an error sent with status 200 stands for; 500 if its codes name none."""
    return next((status for code, status in _PLAIN_CODE_STATUS.items() if code in codes), 500)
