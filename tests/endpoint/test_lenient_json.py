"""JSON is read where its meaning is unambiguous, and found amid other text."""

import pytest

from pipeline.endpoint.lenient_json import find_fields, find_objects, parse_json, parse_nested


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": [1, null]}', {"a": [1, None]}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        ('{"a": "é"}'.encode("utf-16"), {"a": "é"}),
        (b'"line\nend"', "line\nend"),
        (b'"a\xffb"', "a\ufffdb"),
        (b'"a\\ud800b"', "a\ufffdb"),
        (b"Infinity", float("inf")),
        (b'{"a": 1', None),
        (b"{'a': 1}", None),
        (b"", None),
        (b"[" * 100_000, None),
    ],
)
def test_a_body_is_read_as_json_where_its_meaning_is_unambiguous(body: bytes, value: object) -> None:
    assert parse_json(body) == value


@pytest.mark.parametrize(
    ("value", "inner"),
    [
        (' {"a": 1}', {"a": 1}),
        ("[1]", [1]),
        ("{no JSON}", "{no JSON}"),
        ("1", "1"),
        ("plain text", "plain text"),
        ({"a": "[1]"}, {"a": "[1]"}),
    ],
)
def test_only_a_string_that_holds_an_object_or_an_array_is_decoded_again(value: object, inner: object) -> None:
    assert parse_nested(value) == inner


def test_objects_are_found_behind_comment_lines_stray_braces_and_before_a_tail() -> None:
    assert find_objects(b': ping\n\ndata: {"a": 1} tail {"b": 2}') == [{"a": 1}, {"b": 2}]
    assert find_objects(b'{ {"a": {"b": 2}}') == [{"a": {"b": 2}}, {"b": 2}]
    assert find_objects(b"no braces") == []


def test_fields_are_found_in_a_body_that_was_cut_short_but_not_within_a_string() -> None:
    cut = b'{"error": {"message": "said \\"no\\", \\"code\\": \\"x\\"", "code": 429, "type": "rate_li'
    assert find_fields(cut) == {"message": 'said "no", "code": "x"', "code": "429", "type": "rate_li"}
