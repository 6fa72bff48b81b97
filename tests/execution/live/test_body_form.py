"""A request leaves in the form that the endpoint takes, and a later run begins with it."""

import json

from priced_jobs import LOOPBACK, job_at

from pipeline.execution.live.body_form import BodyForm
from pipeline.records import Answer, LearnedLimits, Rejection, Request

REQUEST = Request("k", b'{"model":"m","messages":[],"max_tokens":9,"service_tier":"flex"}')
OTHER_NAME = Rejection("row", "bad_request", "use max_completion_tokens", 400, parameter="max_tokens")


def test_all_parts_of_the_form_are_applied_and_what_was_found_is_kept() -> None:
    settings = {"run.how": "flex", "run.flex_patience": "0s", "parameters.max_tokens": 9, "answer.labels": ["a", "b"]}
    form = BodyForm(job_at(LOOPBACK, **settings), None)
    assert form.try_other(OTHER_NAME)
    sent = form.encode(REQUEST, 0.0)
    form.tier.on_result(sent, Rejection("retry", "capacity", "none", 429), 0.0)
    body = json.loads(form.encode(REQUEST, 0.0).body)
    assert body["max_completion_tokens"] == 9
    assert body["service_tier"] == "default"
    assert "response_format" in body
    lines = form.on_answer(Answer(text='{"label": "a"}'))
    assert any("max_completion_tokens" in line for line in lines)
    assert any("half-price tier" in line for line in lines)
    assert form.on_answer(Answer(text='{"label": "a"}')) == []
    again = BodyForm(job_at(LOOPBACK, **settings), LearnedLimits(**form.learned))
    assert "max_completion_tokens" in json.loads(again.encode(REQUEST, 0.0).body)
