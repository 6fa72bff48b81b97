"""The message is found in an error body of any shape, and is made fit to be shown."""

import json
import time
from typing import Any

import pytest
from seen_replies import (
    AMETHYST_401,
    error,
    rejected,
)

from pipeline.endpoint.error_bodies import clean_message, page_title, read_error_details
from pipeline.endpoint.rejections import KINDS


def test_the_amethyst_error_that_is_not_json_keeps_its_message() -> None:
    assert rejected(401, AMETHYST_401).message == "Missing Authorization header"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (error("plain"), "plain"),
        ({"error": "a string"}, "a string"),
        ({"detail": "Not authenticated"}, "Not authenticated"),
        (
            {"detail": [{"loc": ["body", "messages", 0], "msg": "Field required"}, {"msg": "and more"}]},
            "body.messages.0: Field required; and more",
        ),
        ({"statusCode": 400, "message": ["a is bad", "b is bad"], "error": "Bad Request"}, "a is bad; b is bad"),
        ({"errors": [{"message": "No route", "code": 7000}], "success": False}, "No route"),
        ([{"error": {"message": "in a list"}}], "in a list"),
        (json.dumps(error("in a string")), "in a string"),
        (error(json.dumps(error("wrapped"))), "wrapped"),
        (
            error("Provider returned error", metadata={"raw": json.dumps(error("its words"))}),
            "Provider returned error: its words",
        ),
        (b'oops {"error": {"message": "behind rubbish"}} tail', "behind rubbish"),
        (b'{"error": {"message": "cut \\"off\\" here", "code": "x', 'cut "off" here'),
        (b"404 page\tnot found", "HTTP 400 Bad Request: 404 page not found"),
        (b"<html>nginx</html>", f"HTTP 400 Bad Request: {KINDS['bad_request'].meaning}"),
        (b"", f"HTTP 400 Bad Request: {KINDS['bad_request'].meaning}"),
        ({"error": {"message": ""}}, 'HTTP 400 Bad Request: {"error": {"message": ""}}'),
    ],
)
def test_the_message_is_found_wherever_the_provider_put_it(body: Any, message: str) -> None:
    assert rejected(400, body).message == message


def test_a_message_is_one_short_line_without_control_or_bidi_characters() -> None:
    assert clean_message("a\x00b\r\n\t c\u202ed\u2066\x1b[31me\x9b\ud800") == "ab cde"
    assert clean_message("x " * 3000) == "x " * 249 + "x…"


def test_no_part_of_an_error_is_read_more_often_than_it_stands_there() -> None:
    inner: Any = "[" + "{}," * 300_000 + "{}]"  # without a message, so that every key is tried
    for _ in range(5):
        inner = {"error": inner}
    began = time.process_time()
    rejected(400, inner)
    assert time.process_time() - began < 0.5  # seconds, on a busy machine


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({"error": {"message": "no", "param": "temperature", "code": "unsupported_value"}}, "temperature"),
        ({"error": {"message": "no", "param": "reasoning.effort"}}, "reasoning"),
        ({"error": {"message": "no", "param": None}}, ""),
        ({"error": {"message": "Unsupported parameter: 'max_tokens' is not supported with this model."}}, "max_tokens"),
        ({"error": {"message": "Unrecognized request argument supplied: logprobs"}}, "logprobs"),
        ({"error": {"message": "Unknown parameter: 'top_k'."}}, "top_k"),
        ({"error": {"message": "`temperature` is not supported"}}, "temperature"),
        ({"error": {"message": "seed: Extra inputs are not permitted"}}, "seed"),
        ({"error": {"message": "This model does not support the parameter stop"}}, "stop"),
        ({"detail": [{"loc": ["body", "min_p"], "msg": "Extra inputs are not permitted"}]}, "min_p"),
        ({"error": {"message": "The prompt is too long"}}, ""),
    ],
)
def test_the_parameter_that_an_error_is_about_is_found(body: dict[str, object], parameter: str) -> None:
    assert read_error_details(body).parameter == parameter


@pytest.mark.parametrize(
    ("page", "title"),
    [
        (b"<!DOCTYPE html><html><head><title>\n Attention Required! &amp; more </title>", "Attention Required! & more"),
        (b'<html><H1 class="x">403 Forbidden</H1>', "403 Forbidden"),
        (b"<html><title></title><p>no", ""),
        (b"<html>" + b"<title" * 100_000, ""),
    ],
)
def test_a_web_page_is_told_by_its_title(page: bytes, title: str) -> None:
    assert page_title(page) == title
    message = rejected(403, page, {"content-type": "text/html"}).message
    assert (f"a web page with the title '{title}'" in message) == bool(title)
