"""Broken JSON is mended in a bounded number of steps, and given up where they do not suffice."""

import json
import time

import pytest

from pipeline.answers.mend import BRACKETS_MAX, CHARACTERS_MAX, STEPS_PER_CHARACTER, mended_object

WHOLE = {f"key {number}": f'the "quick" fox, number {number} (of many): {{it}} jumps' for number in range(200)}
SLOW = [
    ('{"a":["', '"a":"b"('),
    ('{"a":(', '"a":"b"{"a":'),
    ('{"a":(', "("),
    ('{"a":"', "1\\}"),
    ('{"a":["', '\u201d"a":"b"(\r'),
    ('{"a":[', '=\n"a":"b"'),
    ("{", "(1`"),
    ('{"a":["', '"a":"b"```'),
    ("{'", '"'),
    ("{'", "'\""),
    ("{'", ",:"),
    ("{'", "\\"),
]


@pytest.mark.parametrize("broken", [json.dumps(WHOLE)[:-1], json.dumps(WHOLE)[:-1] + ",}", str(WHOLE)])
def test_a_long_text_with_a_usual_mistake_is_mended(broken: str) -> None:
    assert len(broken) > CHARACTERS_MAX / 2
    assert mended_object(f"Here it is: {broken}") == WHOLE


@pytest.mark.parametrize(("begin", "part"), SLOW)
def test_no_text_takes_long_to_mend(begin: str, part: str) -> None:
    began = time.process_time()
    mended_object((begin + part * CHARACTERS_MAX)[:CHARACTERS_MAX])
    mended_object((begin * BRACKETS_MAX + part * CHARACTERS_MAX)[:CHARACTERS_MAX])
    assert time.process_time() - began < 3  # seconds, on a busy machine, of which half was more than a minute


def test_a_text_is_given_up_by_its_steps_so_that_it_always_ends_alike() -> None:
    text = ('{"a":["' + '"a":"b"(' * CHARACTERS_MAX)[:CHARACTERS_MAX]
    assert mended_object(text) is None
    assert mended_object(text[:400]) == mended_object(text[:400]) != None  # noqa: E711 - both are equal, and not None
    assert STEPS_PER_CHARACTER * CHARACTERS_MAX <= 200_000


@pytest.mark.parametrize("text", ["no brace", "{", "{}", "{{{{", '{"a": "\\ud800" '])
def test_what_holds_no_object_is_none(text: str) -> None:
    assert mended_object(text) is None


def test_what_is_mended_consists_of_plain_values() -> None:
    mended = mended_object("{'a': 'b', 'c': ['d', 1, {'e': None}]")
    assert mended == {"a": "b", "c": ["d", 1, {"e": None}]}
    assert {type(each) for each in (*mended, mended["a"], mended["c"][0])} == {str}
