"""The status of an answer under its contract, and the follow-up request with its key."""

import json
from typing import Any

import pytest
from job_files import MINIMAL

from pipeline.answers.follow_up import ERROR_CHARACTERS_MAX, REPEATED_CHARACTERS_MAX, AnswerChecker
from pipeline.job.job import Job
from pipeline.records import Answer, Failure, Outcome, Request, Status

MOOD = {
    "type": "object",
    "properties": {"mood": {"enum": ["glad", "sad"]}, "why": {"type": "string"}},
    "required": ["mood", "why"],
}
FITS = '{"mood": "glad", "why": "sun"}'
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Well?"}], "max_tokens": 8}).encode()
FIRST = Request(key="0" * 64, body=BODY)


def checker(**settings: Any) -> AnswerChecker:
    given = {"answer.schema": MOOD, "parameters.max_tokens": 8, **settings}
    return AnswerChecker(
        Job.load(["in.csv"], settings={**MINIMAL, **{k.replace("__", "."): v for k, v in given.items()}})
    )


def answer(text: str, finish_reason: str = "stop") -> Answer:
    return Answer(text=text, finish_reason=finish_reason)


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (answer(FITS), "ok"),
        (answer(f"```\n{FITS}\n```"), "ok"),
        (answer("{'mood': 'glad', 'why': 'sun'}"), "ok"),
        (answer("I'm sorry, but I can't."), "invalid"),
        (answer('{"mood": "meh", "why": ""}'), "invalid"),
        (answer('{"mood": "glad"}'), "invalid"),
        (answer('{"mood": "glad", "why": "s', "length"), "truncated"),
        (answer(FITS, "length"), "truncated"),
        (answer("", "content_filter"), "filtered"),
        (Answer(text="No.", finish_reason="stop", refusal="No."), "refused"),
        (Failure(kind="too_long", reason="9"), "failed"),
        (Failure(kind="filtered", reason="9"), "filtered"),
    ],
)
def test_each_outcome_has_its_status_and_only_an_invalid_one_is_repaired(outcome: Outcome, status: Status) -> None:
    checks = checker()
    assert checks.check(outcome)[0] == status
    assert (checks.follow_up(FIRST, outcome) is not None) == (status == "invalid")
    assert checker(answer__repairs=0).follow_up(FIRST, outcome) is None


def test_an_invalid_answer_is_asked_for_again_with_what_is_wrong_up_to_the_number_of_repairs() -> None:
    checks, request, keys = checker(), FIRST, {FIRST.key}
    for number in (1, 2):
        following = checks.follow_up(request, answer('{"mood": "meh", "why": ""}'))
        assert following is not None
        assert following.repair == number
        request = following
        keys.add(request.key)
    assert checks.follow_up(request, answer('{"mood": "meh", "why": ""}')) is None
    assert len(keys) == 3
    body = json.loads(request.body)
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user", "assistant", "user"]
    assert body["messages"][1]["content"] == '{"mood": "meh", "why": ""}'
    assert 'at /mood: "meh" is not one of "glad" or "sad"' in body["messages"][2]["content"]
    assert body["max_tokens"] == 8


def test_a_truncated_answer_is_asked_for_once_more_with_more_tokens_if_the_job_says_so() -> None:
    cut = answer('{"mood": "gl', "length")
    assert checker().follow_up(FIRST, cut) is None
    checks = checker(answer__grow_on_truncation=64)
    grown = checks.follow_up(FIRST, cut)
    assert grown is not None
    assert (grown.grown, grown.max_tokens, grown.repair) == (True, 64, 0)
    assert json.loads(grown.body) == {**json.loads(BODY), "max_tokens": 64}
    assert checks.follow_up(grown, cut) is None
    repaired = checks.follow_up(grown, answer("meh"))
    assert repaired is not None
    assert (repaired.grown, repaired.max_tokens, repaired.repair) == (True, 64, 1)
    assert checks.follow_up(FIRST, answer(FITS, "length")) is None


def test_free_text_that_was_truncated_gets_more_tokens_under_the_jobs_name_for_them() -> None:
    settings = {**MINIMAL, "parameters": {"max_completion_tokens": 8}, "answer.grow_on_truncation": 16}
    body = BODY.replace(b'"max_tokens"', b'"max_completion_tokens"')
    grown = AnswerChecker(Job.load(["in.csv"], settings=settings)).follow_up(
        Request("0", body), answer("Once upon", "length")
    )
    assert grown is not None
    assert json.loads(grown.body)["max_completion_tokens"] == 16


def test_a_row_that_has_more_tokens_already_is_not_asked_with_fewer() -> None:
    roomy = Request("0", BODY, max_tokens=100)
    assert checker(answer__grow_on_truncation=64).follow_up(roomy, answer("{", "length")) is None


def test_the_key_of_a_follow_up_is_found_without_the_body() -> None:
    checks = checker(answer__grow_on_truncation=64)
    for outcome in (answer("meh"), answer("{", "length")):
        with_body, bare = checks.follow_up(FIRST, outcome), checks.follow_up(Request(FIRST.key, b""), outcome)
        assert with_body is not None
        assert bare is not None
        assert (bare.key, bare.body) == (with_body.key, b"")


def test_the_golden_keys_of_follow_ups() -> None:
    # If one changes, every answer that was asked for again is paid for again.
    checks = checker(answer__grow_on_truncation=64)
    keys = [following.key for o in (answer("meh"), answer("{", "length")) if (following := checks.follow_up(FIRST, o))]
    assert keys == [
        "651fca5309f30fd90436ee3b46fbc50a7e1104ee42fa1b0f13f15dd84c04d6da",
        "d057e19abd2e8f885bd5c3d4c51e1b0a864e887e468a4c5a82284a19bff718f7",
    ]


def test_another_invalid_answer_has_another_follow_up() -> None:
    one, other = (checker().follow_up(FIRST, answer(text)) for text in ("meh", "hm"))
    assert one is not None
    assert other is not None
    assert one.key != other.key


def test_a_long_invalid_answer_is_shown_to_the_model_without_its_middle() -> None:
    following = checker().follow_up(FIRST, answer("[" + '"x", ' * 10_000 + "0]"))
    assert following is not None
    shown = json.loads(following.body)["messages"][1]["content"]
    assert len(shown) < REPEATED_CHARACTERS_MAX + 10
    assert shown.startswith('["x"')
    assert shown.endswith("0]")
    assert len(following.body) < 2 * REPEATED_CHARACTERS_MAX + 5_000


def test_a_long_error_is_shown_to_the_model_without_its_middle() -> None:
    following = checker().follow_up(FIRST, answer(json.dumps({"mood": "x" * 10_000, "why": "sun"})))
    assert following is not None
    shown = json.loads(following.body)["messages"][2]["content"]
    assert shown.startswith('That answer does not fit: at /mood: "xxx')
    assert "[…]" in shown
    assert len(shown) < ERROR_CHARACTERS_MAX + 200
