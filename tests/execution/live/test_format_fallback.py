"""The response format in use: the next one is tried as long as the endpoint rejects the one before."""

from typing import Any

import msgspec
from live_run import make_job

from pipeline.execution.live.format_fallback import FormatFallback
from pipeline.records import Rejection, Request

BODY = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "hello"}]})
REQUEST = Request("a" * 64, BODY)
NOT_SUPPORTED = Rejection("row", "bad_request", "response_format is not supported", 400)
BUSY = Rejection("retry", "rate", "slow down", 429)


def fallback(**settings: Any) -> FormatFallback:
    return FormatFallback(make_job("http://127.0.0.1:9/v1", **settings))


def format_of(request: Request) -> str | None:
    form: dict[str, str] = msgspec.json.decode(request.body).get("response_format", {})
    return form.get("type")


def test_a_request_without_a_contract_is_sent_as_it_is() -> None:
    assert fallback().encode(REQUEST) is REQUEST


def test_each_rejected_format_is_followed_by_the_next_and_the_last_by_the_first() -> None:
    formats = fallback(answer__labels=["yes", "no"])
    seen = [format_of(formats.encode(REQUEST))]
    goes_on = []
    for _ in range(3):
        goes_on.append(formats.try_next(NOT_SUPPORTED))
        seen.append(format_of(formats.encode(REQUEST)))
    assert seen == ["json_schema", "json_object", None, "json_schema"]
    assert goes_on == [True, True, False]
    assert not formats.report()


def test_without_a_contract_there_is_no_other_format() -> None:
    assert not fallback().try_next(NOT_SUPPORTED)


def test_a_rejection_for_another_reason_changes_nothing() -> None:
    formats = fallback(answer__labels=["yes", "no"])
    assert not formats.try_next(BUSY)
    assert format_of(formats.encode(REQUEST)) == "json_schema"
    assert not formats.report()


def test_another_format_than_the_first_is_reported_once() -> None:
    formats = fallback(answer__labels=["yes", "no"])
    formats.try_next(NOT_SUPPORTED)
    assert formats.report() == (
        "the endpoint does not accept json_schema (HTTP 400: response_format is not supported): "
        "json_object and the schema in the prompt are used instead"
    )
    assert not formats.report()
