"""Replies and errors as real endpoints sent them, each with its kind and wait."""

import json
from typing import Any

from pipeline.endpoint.replies import read_reply
from pipeline.records import Answer, Rejection, Reply

AMETHYST_GOOD = (
    '{"id":"chatcmpl-2492f079-1c51-4475-82f0-4a5f236e6178","object":"chat.completion","created":1753979785,'
    '"model":"gemini-2.5-pro","choices":[{"index":0,"message":{"role":"assistant","content":"你好\uff01很高兴与你交谈。",'
    '"reasoning_content":"","tool_calls":[]},"finish_reason":"stop"}],'
    '"usage":{"prompt_tokens":5,"completion_tokens":36,"total_tokens":1007}}'
).encode()
AMETHYST_401 = b'{\n    {"error":{"code":"http_error","message":"Missing Authorization header"}}\n}'

QUOTA_SENTENCE = "You exceeded your current quota, please check your plan and billing details."
ECHO = "429 rate limit, context_length_exceeded, insufficient_quota, content_filter, limit: 0, try again in 5s"


def reply(status: int = 200, body: Any = b"", headers: dict[str, str] | None = None, **more: Any) -> Reply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status=status, headers=headers or {}, body=raw, seconds=0.5, **more)


def rejected(*arguments: Any, **more: Any) -> Rejection:
    meaning = read_reply(reply(*arguments, **more))
    assert isinstance(meaning, Rejection)
    return meaning


def answered(message: Any, finish: Any = "stop", **more: Any) -> Answer | Rejection:
    return read_reply(reply(200, {"choices": [{"message": message, "finish_reason": finish}], **more}))


def error(message: str | None = None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


def gemini(*quota_ids: str, message: str = QUOTA_SENTENCE, delay: str | None = "26s") -> list[dict[str, Any]]:
    violations = [{"quotaMetric": "generativelanguage.googleapis.com/x", "quotaId": quota} for quota in quota_ids]
    details: list[dict[str, Any]] = [{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations}]
    if delay:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    return [error(message, code=429, status="RESOURCE_EXHAUSTED", details=details)]


def azure(spelling: str) -> dict[str, Any]:
    inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}}
    return error(
        "The response was filtered due to the prompt", type=None, param="prompt", code=None, **{spelling: inner}
    )


TOO_LARGE = "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 45,000. Reduce the messages."
RATE = "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000. "
OPENROUTER_403 = error(
    'Your chosen model requires moderation and your input was flagged for "violence"',
    code=403,
    metadata={"reasons": ["violence"], "flagged_input": "…", "provider_name": "X"},
)
OPENROUTER_429 = error(
    "Provider returned error",
    code=429,
    metadata={"raw": "x:free is temporarily rate-limited upstream", "retry_after_seconds": 7.5, "provider_name": "X"},
)
DRAGGED_OUT = {"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}
NO_HEADERS: dict[str, str] = {}

# (row of the table of meanings, status, headers, body) → (kind, seconds to wait)
ERRORS: list[tuple[str, int, dict[str, str], Any, str, float | None]] = [
    ("4 openai", 429, NO_HEADERS, error(RATE + "Please try again in 1.2s.", code="rate_limit_exceeded"), "rate", 1.2),
    ("4 bare", 429, {"retry-after": "0"}, b"", "rate", 0.0),
    ("4 anthropic", 429, NO_HEADERS, {"type": "error", **error("Slow", type="rate_limit_error")}, "rate", None),
    ("4 openrouter", 429, NO_HEADERS, OPENROUTER_429, "rate", 7.5),
    ("4 mistral", 429, NO_HEADERS, {"object": "error", "message": "Requests rate limit exceeded"}, "rate", None),
    ("5 503", 503, {"retry-after": "3"}, b"upstream connect error", "overload", 3.0),
    ("5 anthropic 529", 529, NO_HEADERS, error("Overloaded", type="overloaded_error"), "overload", None),
    ("5 cloudflare", 524, NO_HEADERS, b"<!DOCTYPE html><title>524</title>", "gateway_timeout", None),
    ("5 gateway", 504, NO_HEADERS, b"upstream request timeout", "gateway_timeout", None),
    ("5 groq 498", 498, NO_HEADERS, error("capacity_exceeded"), "capacity", None),
    ("5 groq 498 code", 498, NO_HEADERS, error("busy", code="capacity_exceeded"), "capacity", None),
    ("5 openai flex", 429, NO_HEADERS, error("Resource Unavailable"), "capacity", None),
    ("5 openai flex code", 429, NO_HEADERS, error("busy", code="resource_unavailable"), "capacity", None),
    ("5 maritaca flex", 429, NO_HEADERS, error("No capacity for the flex tier now"), "capacity", None),
    ("5 concurrency", 429, NO_HEADERS, error("Too many concurrent requests"), "overload", None),
    ("5 pending", 429, NO_HEADERS, error("pending requests exceeded for this model"), "overload", None),
    ("5 moonshot", 429, NO_HEADERS, error("busy", type="engine_overloaded_error"), "overload", None),
    ("5 tgi", 429, NO_HEADERS, {"error": "Model is overloaded", "error_type": "overloaded"}, "overload", None),
    ("6 500", 500, NO_HEADERS, error("The server had an error", type="server_error"), "server", None),
    ("6 408", 408, NO_HEADERS, b"", "server", None),
    ("6 409", 409, NO_HEADERS, b"", "server", None),
    ("6 425", 425, NO_HEADERS, b"", "server", None),
    ("6 header", 400, {"x-should-retry": "true"}, error("odd"), "server", None),
    ("6 header no", 500, {"x-should-retry": "false"}, error("odd"), "server", None),
    ("6 header, key", 401, {"x-should-retry": "true"}, error("no"), "auth", None),
    ("6 header, filter", 400, {"x-should-retry": "true"}, error("no", code="content_filter"), "filtered", None),
    ("6 header, long", 400, {"x-should-retry": "true"}, error("prompt is too long: 9 > 8"), "too_long", None),
    ("0 echo, billing", 500, NO_HEADERS, error('Failed to parse input: {"a": "insufficient funds"}'), "server", None),
    ("0 echo, rate", 500, NO_HEADERS, error('Failed to parse input: {"a": "too many requests"}'), "server", None),
    ("0 echo, filter", 400, NO_HEADERS, error("input_value='the terms of service'"), "bad_request", None),
    ("0 picture", 400, NO_HEADERS, error("Invalid URL 'foo.png': No scheme supplied"), "bad_request", None),
    ("0 filter down", 500, NO_HEADERS, error("The content filter is temporarily unavailable"), "server", None),
    (
        "0 account",
        403,
        NO_HEADERS,
        error("Your account is suspended for violating our Terms of Service"),
        "forbidden",
        None,
    ),
    ("0 terms", 403, NO_HEADERS, error("You must accept the terms of use of this model"), "forbidden", None),
    ("6 no rate", 400, NO_HEADERS, error("too many tokens in the list `stop`"), "bad_request", None),
    ("6 bedrock", 500, NO_HEADERS, error("ThrottlingException: Too many requests, please wait"), "rate", None),
    ("6 bedrock, 400", 400, NO_HEADERS, {"__type": "com.amazon#ThrottlingException", "message": "x"}, "rate", None),
    ("6 dashscope", 400, NO_HEADERS, {"code": "Throttling.RateQuota", "message": "x"}, "rate", None),
    ("6 in words", 403, NO_HEADERS, error("You have exceeded a secondary rate limit exceeded"), "rate", None),
    ("6 baidu", 200, NO_HEADERS, {"error_code": 18, "error_msg": "Open api qps request limit reached"}, "rate", None),
    ("6 minimax", 200, NO_HEADERS, {"choices": None, "base_resp": {"status_code": 1002}}, "rate", None),
    ("7 openai", 429, NO_HEADERS, error(QUOTA_SENTENCE, code="insufficient_quota"), "quota", 10.0),
    ("7 type alone", 429, NO_HEADERS, error("x", type="insufficient_quota", code=None), "quota", 10.0),
    ("7 hard limit", 429, NO_HEADERS, error("x", code="billing_hard_limit_reached"), "quota", 10.0),
    ("8 minute", 429, NO_HEADERS, gemini("GenerateRequestsPerMinutePerProjectPerModel"), "rate", 26.0),
    (
        "8 day",
        429,
        NO_HEADERS,
        gemini("XPerMinute", "GenerateRequestsPerDayPerProjectPerModel-FreeTier"),
        "daily",
        26.0,
    ),
    ("8 sentence alone", 429, NO_HEADERS, gemini(delay=None), "rate", None),
    ("8 limit 0", 429, NO_HEADERS, gemini(message="Quota exceeded, limit: 0, model: x", delay=None), "daily", None),
    ("8 limit 0.5", 429, NO_HEADERS, gemini(message="limit: 0.5", delay=None), "rate", None),
    ("8 in a string", 429, NO_HEADERS, error(json.dumps(gemini("PerDay")[0]), code=429), "daily", 26.0),
    ("9 openai", 429, NO_HEADERS, error(TOO_LARGE, type="tokens", code="rate_limit_exceeded"), "too_long", None),
    ("9 groq", 413, NO_HEADERS, error(TOO_LARGE, code="rate_limit_exceeded"), "too_long", None),
    ("9 used", 413, NO_HEADERS, error(RATE + "try again in 1m2.5s", code="rate_limit_exceeded"), "rate", 62.5),
    ("9 none allowed", 429, NO_HEADERS, error("Limit 0, Requested 8."), "daily", None),
    ("10 openai", 400, NO_HEADERS, error("long", code="context_length_exceeded"), "too_long", None),
    (
        "10 llama.cpp",
        400,
        NO_HEADERS,
        error("the request exceeds the available context size", code=400, type="exceed_context_size_error", n_ctx=512),
        "too_long",
        None,
    ),
    (
        "10 vllm",
        400,
        NO_HEADERS,
        {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 400},
        "too_long",
        None,
    ),
    ("10 sglang", 400, NO_HEADERS, {"message": "is longer than the model's context length (8)"}, "too_long", None),
    ("10 anthropic", 400, NO_HEADERS, error("prompt is too long: 210000 tokens > 200000 maximum"), "too_long", None),
    ("10 nginx 413", 413, NO_HEADERS, b"<html><h1>413 Request Entity Too Large</h1></html>", "too_long", None),
    ("11 openai", 400, NO_HEADERS, error("no", code="content_policy_violation"), "filtered", None),
    ("11 azure", 400, NO_HEADERS, azure("innererror"), "filtered", None),
    ("11 azure, other", 400, NO_HEADERS, azure("inner_error"), "filtered", None),
    ("11 new-api", 400, NO_HEADERS, error("no", code="prompt_blocked"), "filtered", None),
    ("11 openrouter", 403, NO_HEADERS, OPENROUTER_403, "filtered", None),
    ("11 deepseek", 400, NO_HEADERS, error("Content Exists Risk", type="invalid_request_error"), "filtered", None),
    ("11 zhipu", 400, NO_HEADERS, error("\u7cfb\u7edf\u68c0\u6d4b", code="1301"), "filtered", None),
    ("11 volcengine", 400, NO_HEADERS, error("no", code="SensitiveContentDetected.SevereViolation"), "filtered", None),
    ("11 dashscope", 400, NO_HEADERS, {"code": "DataInspectionFailed", "message": "Input data"}, "filtered", None),
    ("11 minimax", 200, NO_HEADERS, {"base_resp": {"status_code": 1026, "status_msg": "input"}}, "filtered", None),
    ("11 terms", 403, NO_HEADERS, error("violation of provider Terms Of Service"), "filtered", None),
    ("11 xai", 400, NO_HEADERS, {"error": "Content violates usage guidelines.", "code": "x"}, "filtered", None),
    ("11 words", 451, NO_HEADERS, error("This prompt was flagged by our safety system"), "filtered", None),
    (
        "13 minimax",
        200,
        NO_HEADERS,
        {"choices": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}},
        "billing",
        None,
    ),
    ("13 deepseek", 402, NO_HEADERS, error("Insufficient Balance"), "billing", None),
    ("13 dashscope", 400, NO_HEADERS, {"code": "Arrearage", "message": "Access denied"}, "billing", None),
    ("13 anthropic", 400, NO_HEADERS, error("You have reached your monthly spend limit"), "billing", None),
    ("14 lm studio", 200, NO_HEADERS, {"error": "Unexpected endpoint or method. (POST /x)"}, "not_found", None),
    ("14 express", 404, NO_HEADERS, b"Cannot POST /chat/completions", "not_found", None),
    ("14 lm studio, no model", 400, NO_HEADERS, error("No models loaded. Please load a model"), "not_found", None),
    ("14 ollama", 200, NO_HEADERS, {"error": "model 'x' not found, try pulling it first"}, "not_found", None),
    ("12 openai", 401, NO_HEADERS, error("Incorrect API key provided", code="invalid_api_key"), "auth", None),
    ("12 amethyst", 401, NO_HEADERS, AMETHYST_401, "auth", None),
    ("12 403", 403, NO_HEADERS, error("Model access denied", code=403), "forbidden", None),
    ("13 openrouter key", 403, NO_HEADERS, error("Key limit exceeded (total limit)", code=403), "billing", None),
    ("12 407", 407, NO_HEADERS, b"<html>proxy</html>", "auth", None),
    (
        "12 gemini 400",
        400,
        NO_HEADERS,
        [error("API key not valid.", code=400, details=[{"reason": "API_KEY_INVALID"}])],
        "auth",
        None,
    ),
    ("13 deepseek", 402, NO_HEADERS, error("Insufficient Balance", code="invalid_request_error"), "billing", None),
    ("13 402 and wait", 402, {"retry-after": "30"}, error("x402"), "rate", 30.0),
    ("13 fireworks", 412, NO_HEADERS, error("Account is suspended"), "billing", None),
    ("13 one-api", 403, NO_HEADERS, error("用户额度不足", code="insufficient_user_quota"), "billing", None),
    (
        "13 litellm",
        400,
        NO_HEADERS,
        error("Budget has been exceeded!", type="budget_exceeded", code="400"),
        "billing",
        None,
    ),
    ("13 anthropic", 400, NO_HEADERS, error("You have reached your specified API usage limits."), "billing", None),
    ("14 path", 404, NO_HEADERS, {"detail": "Not Found"}, "not_found", None),
    ("14 ollama", 404, NO_HEADERS, {"error": "model 'x' not found, try pulling it first"}, "not_found", None),
    ("14 code", 400, NO_HEADERS, error("no such model", code="model_not_found"), "not_found", None),
    ("14 405", 405, NO_HEADERS, b"", "not_found", None),
    ("14 410", 410, NO_HEADERS, b"", "not_found", None),
    ("14 301", 301, {"location": "https://x.test/"}, b"", "not_found", None),
    ("14 307", 307, NO_HEADERS, b"", "not_found", None),
    (
        "15 400",
        400,
        NO_HEADERS,
        error("Unknown parameter: 'concurrency'", code="unknown_parameter"),
        "bad_request",
        None,
    ),
    ("15 422", 422, NO_HEADERS, {"detail": [{"loc": ["body", "top_p"], "msg": "too big"}]}, "bad_request", None),
    ("15 418", 418, NO_HEADERS, b"", "bad_request", None),
    ("16 number", 200, NO_HEADERS, error("slow down", code=429), "rate", None),
    ("16 digits", 200, NO_HEADERS, error("no", code="401"), "auth", None),
    ("16 word", 200, NO_HEADERS, {"type": "error", **error("Overloaded", type="overloaded_error")}, "overload", None),
    ("16 status word", 200, NO_HEADERS, error("no", code="PERMISSION_DENIED"), "forbidden", None),
    ("16 unknown", 200, NO_HEADERS, error("?", code="1234"), "server", None),
    ("16 a string", 200, NO_HEADERS, {"error": "failed"}, "server", None),
    ("16 vllm", 200, NO_HEADERS, {"object": "error", "message": "bad", "code": 400}, "bad_request", None),
    ("16 and choices", 200, NO_HEADERS, {"choices": None, **error("x", code=502)}, "overload", None),
    ("16 rubbish", 200, NO_HEADERS, b'data: {"error":{"message":"slow","code":429}}\n\n', "rate", None),
    (
        "16 halfway",
        200,
        NO_HEADERS,
        {"choices": [{"message": {"content": "ab"}}], **error("x", code=502)},
        "overload",
        None,
    ),
    (
        "17 choice",
        200,
        NO_HEADERS,
        {"choices": [{"message": {"content": "ab"}, **error("x", code=502)}]},
        "broken",
        None,
    ),
    (
        "17 finish",
        200,
        NO_HEADERS,
        {"choices": [{"message": {"content": "a"}, "finish_reason": "error"}]},
        "broken",
        None,
    ),
    ("17 zhipu", 200, NO_HEADERS, {"choices": [{"finish_reason": "network_error"}]}, "broken", None),
    ("18 nothing", 200, NO_HEADERS, b"", "garbled", None),
    ("18 blank", 200, NO_HEADERS, b" \n" * 400, "garbled", None),
    ("18 truncated", 200, NO_HEADERS, AMETHYST_GOOD[:-20], "garbled", None),
    ("18 truncated in text", 200, NO_HEADERS, AMETHYST_GOOD[:190], "garbled", None),
    ("18 cut stream", 200, NO_HEADERS, b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n', "broken", None),
    ("18 empty stream", 200, NO_HEADERS, b"data: [DONE]\n\n", "garbled", None),
    ("18 null", 200, NO_HEADERS, b"null", "garbled", None),
    ("18 deep", 200, NO_HEADERS, b"[" * 100_000, "garbled", None),
    ("18 html", 200, NO_HEADERS, b'\n <!doctype html><script>x={"error":{"code":401}}</script>', "html", None),
    ("18 html, by its type", 200, {"content-type": "text/html"}, b"<div>Sign in</div>", "html", None),
    ("19 missing", 200, NO_HEADERS, {"id": "x"}, "no_choices", None),
    ("19 none", 200, NO_HEADERS, {"choices": []}, "no_choices", None),
    ("19 null", 200, NO_HEADERS, {"choices": None, "error": None}, "no_choices", None),
    ("20 null", 200, NO_HEADERS, {"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}, "empty", None),
    (
        "20 blank",
        200,
        NO_HEADERS,
        {"choices": [{"message": {"content": " \n"}, "finish_reason": "stop"}]},
        "empty",
        None,
    ),
    ("20 no message", 200, NO_HEADERS, {"choices": [{}]}, "empty", None),
    (
        "20 no tool calls",
        200,
        NO_HEADERS,
        {"choices": [{"message": {"content": "", "tool_calls": []}, "finish_reason": "tool_calls"}]},
        "empty",
        None,
    ),
]

# fault → verdict, pressure, whether it may have been paid (rows 1, 2 and 22 of the table of meanings)
FAULTS = {
    "connect": ("retry", "window", False),
    "tls": ("stop", None, False),
    "url": ("stop", None, False),
    "timeout": ("retry", "window", True),
    "cut": ("retry", None, True),
    "protocol": ("retry", None, False),
    "too_large": ("row", None, True),
}
