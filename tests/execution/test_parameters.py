"""A parameter that an endpoint does not take: sent under its other name, or a stop that names it."""

from typing import Any

import msgspec
import pytest
from live_run import make_job

from pipeline.execution.parameters import Parameters
from pipeline.records import Rejection, Request, Stopped

BODY = {"model": "m", "messages": [{"role": "user", "content": '"max_tokens":'}], "max_tokens": 50, "stream": False}
REQUEST = Request("a" * 64, msgspec.json.encode(BODY), max_tokens=50)
USE_OTHER = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."


def parameters(**settings: Any) -> Parameters:
    return Parameters(make_job("http://127.0.0.1:9/v1", **settings))


def refusal(name: str, message: str, kind: str = "bad_request") -> Rejection:
    return Rejection("row", kind, message, 400, parameter=name)


def sent(made: Parameters, request: Request = REQUEST) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.json.decode(made.encode(request).body)
    return body


def test_parameters_are_sent_as_they_are() -> None:
    assert parameters(parameters={"max_tokens": 50}).encode(REQUEST) is REQUEST


def test_a_parameter_is_sent_under_its_other_name_if_the_endpoint_asks_for_it_and_that_is_reported_once() -> None:
    made = parameters(parameters={"max_tokens": 50})
    assert made.try_other_spelling(refusal("max_tokens", USE_OTHER))
    assert sent(made) == {**{k: v for k, v in BODY.items() if k != "max_tokens"}, "max_completion_tokens": 50}
    assert made.report() == "the endpoint takes max_completion_tokens in place of max_tokens: it is sent so"
    assert not made.report()
    assert not made.try_other_spelling(refusal("max_completion_tokens", "max_tokens and max_completion_tokens: no"))


def test_a_later_run_sends_the_name_that_was_found_and_reports_nothing() -> None:
    made = Parameters(make_job("http://127.0.0.1:9/v1", parameters={"max_tokens": 50}), "max_tokens")
    assert sent(made)["max_completion_tokens"] == 50
    assert not made.report()
    without = Request("b" * 64, msgspec.json.encode({"model": "m", "messages": []}))
    assert made.encode(without) is without


@pytest.mark.parametrize("name", ["temperature", "seed", "stop", "max_tokens"])
def test_a_parameter_that_changes_the_answer_stops_the_job_and_is_named(name: str) -> None:
    made = parameters(parameters={"temperature": 0, "seed": 1, "stop": "x", "max_tokens": 9})
    with pytest.raises(Stopped, match=rf"parameter {name}[^$]*--set parameters\.{name}="):
        made.try_other_spelling(refusal(name, "not supported with this model"))


def test_log_probabilities_are_named_by_their_setting() -> None:
    with pytest.raises(Stopped, match=r"answer\.logprobs = false"):
        parameters(answer__labels=["a", "b"], answer__logprobs=True).try_other_spelling(refusal("logprobs", "no"))


@pytest.mark.parametrize(
    "rejection", [refusal("messages", "too many"), refusal("", "no"), refusal("temperature", "busy", "rate")]
)
def test_a_refusal_for_another_reason_changes_nothing(rejection: Rejection) -> None:
    assert not parameters(parameters={"temperature": 0}).try_other_spelling(rejection)


def test_a_limit_that_rows_set_themselves_does_not_stop_the_job() -> None:
    made = parameters(parameters={"max_tokens": 9}, columns__max_tokens="most")
    assert not made.try_other_spelling(refusal("max_tokens", "max_tokens is too large: 100000"))


def test_token_counts_are_not_asked_for_where_a_stream_cannot_give_them_beside_the_other_name() -> None:
    made = parameters(endpoint__stream=True, parameters={"max_tokens": 50})
    request = Request("a" * 64, msgspec.json.encode({**BODY, "stream_options": {"include_usage": True}}))
    assert made.try_other_spelling(refusal("", "Unknown field: stream_options"))
    assert not made.try_other_spelling(refusal("", "Unknown field: stream_options"))
    assert made.report().startswith("the endpoint does not take stream_options")
    assert made.try_other_spelling(refusal("max_tokens", USE_OTHER))
    assert not {"stream_options", "max_tokens"} & sent(made, request).keys()
    assert made.respelled == "max_tokens stream_options"
    later = Parameters(make_job("http://127.0.0.1:9/v1"), made.respelled)
    assert sent(later, request) == sent(made, request)
    assert not parameters().try_other_spelling(refusal("", "Unknown field: stream_options"))


def test_an_error_that_only_repeats_the_request_says_nothing_about_its_parameters() -> None:
    made = parameters(endpoint__stream=True)
    repeated = "Error in request {'stream_options': {'include_usage': True}}: image 0 cannot be decoded"
    assert not made.try_other_spelling(refusal("", repeated))
