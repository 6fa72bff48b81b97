"""A reply is read as an answer, or as one rejection of a known kind; no reply is left without a meaning."""

import json
import re
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seen_replies import (
    AMETHYST_GOOD,
    DRAGGED_OUT,
    ECHO,
    ERRORS,
    FAULTS,
    TOO_LARGE,
    answered,
    error,
    rejected,
    reply,
)

from pipeline.endpoint.error_codes import CODE_KINDS
from pipeline.endpoint.rejections import KINDS
from pipeline.endpoint.replies import read_reply
from pipeline.records import Answer, Rejection, Usage

# (row of the table of meanings, message, finish_reason) → (text, status)
ANSWERS: list[tuple[str, dict[str, Any], str | None, str, str]] = [
    ("plain", {"content": "yes"}, "stop", "yes", "ok"),
    ("its own JSON", {"content": {"label": "a", "type": "spam"}}, "stop", '{"label":"a","type":"spam"}', "ok"),
    ("its own text", {"content": {"text": "a", "label": "b"}}, "stop", '{"text":"a","label":"b"}', "ok"),
    ("a number", {"content": 4}, "stop", "4", "ok"),
    ("no finish reason", {"content": " yes\n"}, None, " yes\n", "ok"),
    ("parts", {"content": [{"type": "text", "text": "y"}, {"text": "es"}]}, "stop", "yes", "ok"),
    ("thinking", {"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}]}, "stop", "a", "ok"),
    ("20 refusal", {"content": None, "refusal": "I can't."}, "stop", "I can't.", "refused"),
    ("20 refusal part", {"content": [{"type": "refusal", "refusal": "No."}]}, "stop", "No.", "refused"),
    ("20 both", {"content": "Well", "refusal": "No."}, "stop", "Well", "refused"),
    ("20 tools", {"content": None, "tool_calls": [{"id": "é"}]}, "tool_calls", '[{"id":"é"}]', "ok"),
    ("20 reasoning", {"content": "", "reasoning_content": "Let me"}, "length", "", "truncated"),
    ("21 length", {"content": "ye"}, "length", "ye", "truncated"),
    ("21 mistral", {"content": "ye"}, "model_length", "ye", "truncated"),
    ("21 filter", {"content": "ye"}, "content_filter", "ye", "filtered"),
    ("21 all filtered", {"content": None}, "content_filter", "", "filtered"),
]


@pytest.mark.parametrize(("message", "finish", "text", "status"), [a[1:] for a in ANSWERS], ids=[a[0] for a in ANSWERS])
def test_each_known_answer_has_its_text_and_status(
    message: dict[str, Any], finish: Any, text: str, status: str
) -> None:
    answer = answered(message, finish)
    assert isinstance(answer, Answer)
    assert (answer.text, answer.status) == (text, status)


def test_the_amethyst_answer_is_read_whole() -> None:
    assert read_reply(reply(200, AMETHYST_GOOD)) == Answer(
        text="你好\uff01很高兴与你交谈。",
        finish_reason="stop",
        model="gemini-2.5-pro",
        usage=Usage(prompt_tokens=5, completion_tokens=36, total_tokens=1007),
    )


def test_an_answer_after_a_gateways_comment_lines_is_not_lost() -> None:
    answer = read_reply(reply(200, b": PROCESSING\n\n" + AMETHYST_GOOD))
    assert isinstance(answer, Answer)
    assert answer.usage.total_tokens == 1007


def test_an_answer_cut_off_under_200_is_cut_even_if_what_came_looks_whole() -> None:
    assert rejected(200, AMETHYST_GOOD, fault="cut").kind == "cut"


def test_a_rejection_carries_the_usage_that_its_body_reports() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 9}
    for choice in ({"message": {"content": ""}, "finish_reason": "stop"}, {"error": {"message": "x"}}):
        assert rejected(200, {"choices": [choice], "usage": usage}).usage == Usage(prompt_tokens=3, completion_tokens=9)
    assert rejected(500, {**error("x"), "usage": usage}).usage == Usage(prompt_tokens=3, completion_tokens=9)
    assert rejected(200, {"choices": []}).usage is None


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"choices":[{"message":{"content":"a\\ud800b"}}]}', "a\ufffdb"),
        (b'{"choices":[{"message":{"content":"a\xffb"}}]}', "a\ufffdb"),
        (b'{"choices":[{"message":{"content":"a\nb"}}], "x": NaN}', "a\nb"),
        (b'\xef\xbb\xbf {"choices":[{"message":{"content":"a"}}]}', "a"),
        ('{"choices":[{"message":{"content":"é"}}]}'.encode("utf-16"), "é"),
        (b'{"choices":[{"message":{"content":"a"}}],"usage":{"prompt_tokens":1e999}}', "a"),
    ],
)
def test_slightly_wrong_json_is_still_read_and_its_text_can_be_stored(body: bytes, text: str) -> None:
    answer = read_reply(reply(200, body))
    assert isinstance(answer, Answer)
    assert answer.text == text
    assert answer.text.encode()


INTERESTING = ["error", "choices", "message", "content", "code", "type", "detail", "details", "usage", "finish_reason"]


INTERESTING += [
    "metadata",
    "raw",
    "violations",
    "quotaId",
    "retryDelay",
    "loc",
    "msg",
    "errors",
    "tool_calls",
    "refusal",
]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([*CODE_KINDS, ECHO, TOO_LARGE]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(INTERESTING) | st.text(), inner, max_size=5)
    ),
    max_leaves=25,
)


answer_shapes = st.fixed_dictionaries(
    {
        "choices": st.lists(
            st.fixed_dictionaries({"message": json_values | st.dictionaries(st.sampled_from(INTERESTING), json_values)})
        )
    },
    optional=dict.fromkeys(("error", "usage", "model", "object"), json_values),
)


real_bodies = [b if isinstance(b, bytes) else json.dumps(b).encode() for *_, b, _, _ in ERRORS if b != b"[" * 100_000]


real_bodies.append(AMETHYST_GOOD)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    body = bytearray(draw(st.sampled_from(real_bodies)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(body)))
        body[start : start + draw(st.integers(0, 12))] = draw(
            st.binary(max_size=6) | st.sampled_from([b"{", b'"', b"[[", b"\\"])
        )
    return bytes(body)


bodies = st.binary() | mutated() | (json_values | answer_shapes).map(lambda value: json.dumps(value).encode())


header_values = st.text() | st.sampled_from(["5", "-1", "true", "text/html", *DRAGGED_OUT.values()])


header_names = ["retry-after", "retry-after-ms", "date", "location", "x-should-retry", "content-type"]


statuses = st.just(200) | st.sampled_from([0, 204, 301, 400, 402, 403, 413, 429, 500, 503]) | st.integers(-1, 1000)


@given(
    status=statuses,
    headers=st.dictionaries(st.sampled_from(header_names), header_values),
    body=bodies,
    fault=st.just("") | st.sampled_from([*FAULTS]),
    detail=st.text(),
)
def test_any_reply_is_one_answer_or_one_rejection_of_a_known_kind(
    status: int, headers: dict[str, str], body: bytes, fault: Any, detail: str
) -> None:
    meaning = read_reply(reply(status, body, headers, fault=fault, detail=detail))
    if isinstance(meaning, Answer):
        assert 200 <= status < 300
        assert not fault
        assert meaning.text.strip() or meaning.status in {"truncated", "filtered"}
        msgspec.json.encode(meaning)
    else:
        known = KINDS[meaning.kind]
        assert (meaning.verdict, meaning.pressure, meaning.status) == (known.verdict, known.pressure, status)
        assert 0 < len(meaning.message) <= 700
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e]", meaning.message)
        msgspec.json.encode(meaning)
        assert meaning.wait_seconds is None or 0 <= meaning.wait_seconds < float("inf")


@pytest.mark.parametrize("status", [200, 400, 429, 500])
@pytest.mark.parametrize(
    "opening", [b"[", b'{"error":', b'{"choices":[{"message":{"tool_calls":[', b'{"detail":[{"loc":[']
)
@pytest.mark.parametrize("depth", [50, 300, 490, 900, 970, 100_000])
def test_deep_nesting_is_rejected_not_raised(status: int, opening: bytes, depth: int) -> None:
    closed = opening.decode() + "[" * depth + "]" * depth
    closed += "".join({"[": "]", "{": "}"}[bracket] for bracket in reversed(opening.decode()) if bracket in "[{")
    for body in (opening * depth, closed.encode()):
        assert isinstance(read_reply(reply(status, body)), (Answer, Rejection))


def test_a_good_answer_is_read_in_under_100_microseconds() -> None:
    good, rounds = reply(200, AMETHYST_GOOD), 2_000
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(rounds):
            read_reply(good)
        best = min(best, time.perf_counter() - start)
    assert best / rounds < 100e-6
