"""Texts of one thing repeated, and the time that each reader takes: python tests/support/degenerate_texts.py.

A reader's time must grow in proportion to the text. Speed is a ratio within the same run: one size against four times
as much.
"""

import argparse
import contextlib
import gzip
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from pipeline.answers.contract import Contract
from pipeline.answers.few_shot import example_answer
from pipeline.answers.follow_up import AnswerChecker
from pipeline.costs.prices import text_and_images
from pipeline.endpoint.error_bodies import clean_message, is_html
from pipeline.endpoint.local_model import load_failure_text
from pipeline.endpoint.rate_limits import header_wait, read_allowance
from pipeline.endpoint.redact import Redactor
from pipeline.endpoint.rejections import rejects_response_format
from pipeline.endpoint.replies import read_reply
from pipeline.evaluation.metrics import as_values, folded
from pipeline.job.job import Job
from pipeline.prompts.chats import chat_of
from pipeline.prompts.templates import Template, UnaskableRow
from pipeline.records import Answer, BadJob, Reply, Request
from pipeline.report.text import clipped, first_line
from pipeline.results.certainty import confidence
from pipeline.tables.open import open_table
from pipeline.text import near_name, one_line, printable, strict_json

TEXTS: dict[str, str] = {
    "backslashes": "\\",
    "quotes": '"',
    "escaped quotes": '\\"',
    "single quotes": "'",
    "back quotes": "`",
    "fences": "```\n",
    "tildes": "~~~\n",
    "braces": "{",
    "pairs of braces": "{}",
    "closing braces": "}",
    "brackets": "[",
    "closing brackets": "]",
    "parentheses": "(",
    "angles": "<",
    "open comments": "<!--",
    "thoughts": "<think>",
    "ends of thoughts": "</think>",
    "objects": '{"a": 1} ',
    "open objects": '{"a":',
    "open lists": '{"a":[',
    "open strings": '{"',
    "numbers of a list": "1,",
    "empty objects of a list": "{},",
    "names of fields": '"message": ',
    "nested errors": '{"error": {"message": ',
    "spaces": " ",
    "line ends": "\n",
    "carriage returns": "\r",
    "tabs": "\t",
    "commas": ",",
    "colons": ":",
    "semicolons": "; ",
    "digits": "1",
    "fractions": "1.",
    "exponents": "1e",
    "signs": "-",
    "letters": "a",
    "words": "a ",
    "combining characters": "\u0300",
    "joiners": "\u200d",
    "zero bytes": "\0",
    "escaped surrogates": "\\ud800",
    "escaped characters": "\\u0041",
    "percent signs": "%25",
    "terminal sequences": "\x1b[",
    "titles of terminals": "\x1b]",
    "units of time": "1m1s",
    "waits": "try again in ",
    "limits": "limit 1 ",
    "server-sent events": "data: {}\n\n",
    "addresses": "http://",
    "pictures": '"image_url":{"url":"data:',
    "emoji": "\U0001f642",
    "long s": "\u0130",
}
"""What is repeated, by its name."""

SCHEMA = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "s": {"type": "array", "items": {"type": "string"}},
        "either": {
            "oneOf": [{"type": "array", "items": {"type": "string"}}, {"type": "array", "items": {"enum": [1]}}]
        },
        "p": {"type": "string", "pattern": "^(a+)+$"},
        "look": {"type": "string", "pattern": r"^(?=(a+)+$)(.+)\2$"},
    },
    "additionalProperties": False,
}
LABELS = [f"label {number}" for number in range(200)]
SECRETS = ["Bearer sk-1/aZ+09=xyzxyz", r"\\pass\word\\", "aaaaaaaaaaaa"]
HEADER_CHARACTERS = 64 * 1024
"""The longest header that the transport accepts."""
REQUEST = Request("0" * 64, b'{"model":"m","messages":[{"role":"user","content":"q"}]}')

SIZES = (2_500, 10_000, 40_000)
GROWTH_MAX = 8.0
"""How many times as long a text of four times the length may take; quadratic time is 16."""
PLAY_SECONDS = 0.05
"""What a measurement may be off."""
TRIES = 4

Read = Callable[[str], object]


class Timing(NamedTuple):
    """How long a reader takes for one text, by its length."""

    text: str
    seconds: dict[int, float]
    is_proportional: bool


def repeated(unit: str, characters: int) -> str:
    """A text of about this length."""
    return unit * (characters // len(unit))


def readers(folder: Path) -> dict[str, Read]:
    """Everything that reads a text of somebody else, by what it is read as. `folder`: for files that are read."""
    return _of_answers() | _of_replies() | _of_shown_texts() | _of_files(folder)


def _of_answers() -> dict[str, Read]:
    plain = Contract(SCHEMA)
    word, words = {"enum": LABELS}, {"type": "array", "items": {"enum": LABELS}}
    label = Contract({"type": "object", "properties": {"label": word}, "required": ["label"]}, LABELS)
    labels = Contract({"type": "object", "properties": {"label": words}, "required": ["label"]}, LABELS)
    checker = AnswerChecker(_job({"answer.labels": ["yes", "no"], "answer.repairs": 1, "limits.max_cost": 5}))
    ways = {
        "as it is": "{}",
        "a fence": "```json\n{}",
        "a whole fence": "```\n{}\n```",
        "after a thought": "<think>{}</think> no",
        "a string": '{{"p": "{}',
        "a value": '{{"n": {}',
        "a list": '{{"s": [{}',
        "a list that ends": '{{"s": [{}1]}}',
        "one of two lists": '{{"either": [{}1]}}',
        "a string that ends oddly": '{{"a{}\\',
        "names": "{{{}}}",
    }
    mended = ("as it is", "a string", "names")
    found: dict[str, Read] = {
        f"an answer: {name}": lambda text, name=name, way=way: plain.read(way.format(text), is_complete=name in mended)
        for name, way in ways.items()
    }
    found |= {
        f"an answer: well-formed in {name}": lambda text, name=name: plain.read(json.dumps({name: text}))
        for name in ("n", "s", "p", "look", "x")
    }
    return found | {
        "an answer: a label": lambda text: label.read(text, is_complete=True),
        "an answer: labels": lambda text: labels.read(f"label 1,{text}", is_complete=True),
        "an answer: labels in lines": lambda text: labels.read(text.replace(" ", "\n"), is_complete=True),
        "an answer: to be followed up": lambda text: checker.follow_up(
            REQUEST, Answer(text=text, finish_reason="stop")
        ),
        "an answer: its tokens": lambda text: confidence(Answer(text=text, logprobs=((text, -1.0), ("a", -1.0))), "a"),
    }


def _of_replies() -> dict[str, Read]:
    redactor = Redactor(SECRETS)

    def reply(status: int, make: Callable[[str], str | bytes]) -> Read:
        def read(text: str) -> object:
            body = make(text)
            said = read_reply(Reply(status, {}, body if isinstance(body, bytes) else body.encode(), 0.1))
            return said if isinstance(said, Answer) else rejects_response_format(said)

        return read

    def nested(text: str) -> str:
        for _ in range(3):
            text = json.dumps({"error": {"error": text}})
        return text

    def header(text: str) -> object:
        text = text[:HEADER_CHARACTERS]
        headers = dict.fromkeys(("retry-after", "retry-after-ms", "date", "x-ratelimit-reset-tokens"), text)
        limits = {"x-ratelimit-limit-tokens": "5", "x-ratelimit-remaining-tokens": "1"}
        return header_wait(headers), read_allowance(headers | limits)

    makers: dict[str, Callable[[str], str | bytes]] = {
        "the body": lambda text: text,
        "a web page": lambda text: f"<!doctype html>{text}",
        "an answer": lambda text: json.dumps({"choices": [{"message": {"content": text}, "finish_reason": text}]}),
        "a broken answer": lambda text: '{"choices": [{"message": {"content": "' + text,
        "a message": lambda text: json.dumps({"error": {"message": text, "code": text, "type": text}}),
        "JSON in a message": lambda text: json.dumps({"error": {"message": "{" + text}}),
        "errors in errors": nested,
        "a list of messages": lambda text: json.dumps({"errors": [text] * 3, "detail": [{"msg": text, "loc": [text]}]}),
        "a wait": lambda text: json.dumps({"error": {"message": f"Please try again in {text}"}}),
        "UTF-16": lambda text: f'{{"error": "{text}"}}'.encode("utf-16"),
        "a part of the key": lambda text: f"sk-1/aZ{text}sk-1/aZ+09",
    }
    found = {f"a reply {status}: {name}": reply(status, make) for name, make in makers.items() for status in (200, 429)}
    return found | {
        "a reply: its secrets": lambda text: redactor.redact_bytes(f"a{text}\\u0041".encode(), is_cut=True),
        "a reply: its headers": header,
        "a reply: the kind of its body": lambda text: is_html(Reply(200, {"content-type": text}, text.encode(), 0.1)),
        "the log of a local model": lambda text: load_failure_text(Path("m.gguf"), 1, text),
    }


def _of_shown_texts() -> dict[str, Read]:
    template = Template("prompt.template", "{{ q }} {{ q | tojson }} {{ q | trim | upper | title }} {{ row }}", ["q"])
    chat = json.dumps([{"role": "user", "content": "{}"}])

    def asked(value: str) -> object:
        with contextlib.suppress(UnaskableRow):
            return chat_of(value, as_json=True)
        return None

    def rendered(text: str) -> object:
        with contextlib.suppress(UnaskableRow):  # a prompt that is too long is refused
            return template.render({"q": text})
        return None

    def scored(text: str) -> object:
        column = pl.Series("x", [text])
        return [as_values(column, kind, ["a", "b"]) for kind in ("lists", "numbers", "labels")], folded(text)

    return {
        "a text shown": lambda text: (printable(text), one_line(text), clean_message(text)),
        "a text in the report": lambda text: (clipped(text, 2_000), first_line(text)),
        "a name": lambda text: near_name(text, ["prompt", text[::-1], f"{text}x", *LABELS]),
        "a cell in a template": rendered,
        "a cell that is a chat": asked,
        "a message of a chat": lambda text: asked(chat.replace("{}", json.dumps(text)[1:-1])),
        "a body with pictures": lambda text: text_and_images(f'{{"image_url":{{"url":"data:{text}'.encode()),
        "a cell of gold": scored,
        "JSON": lambda text: _or_error(lambda: strict_json(text)),
    }


def _of_files(folder: Path) -> dict[str, Read]:
    def file(suffix: str, around: str = "{}") -> Read:
        path = folder / f"in{suffix}"

        def read(text: str) -> object:
            content = around.replace("{}", text).encode()
            path.write_bytes(gzip.compress(content, 1) if suffix.endswith(".gz") else content)
            return _or_error(lambda: open_table([str(path)], folder))

        return read

    def settings(text: str) -> object:
        (folder / "job.toml").write_text(text, newline="")
        return _or_error(lambda: Job.load(["in.csv"], "out.csv", config=folder / "job.toml"))

    def example(text: str) -> object:
        job = _job({"answer.schema": {"type": "object", "properties": {"n": {"type": "array"}}}})
        return _or_error(lambda: example_answer(job, {"n": text}))

    return {
        "a CSV": file(".csv"),
        "a cell of a CSV": file(".csv", 'q,r\n"{}",1\n'),
        "a name of a CSV": file(".csv", "q,{}\n1,2\n"),
        "a packed TSV": file(".tsv.gz", "q\n{}\n"),
        "an NDJSON": file(".ndjson"),
        "a line of NDJSON": file(".ndjson", '{"q": 1}\n{"q": {}}\n'),
        "a string of a job file": lambda text: settings(f'[prompt]\ntemplate = "{text}"\nx = 1'),
        "an example": example,
    }


def _job(settings: Mapping[str, Any], *inputs: str) -> Job:
    endpoint = {
        "endpoint.base_url": "http://127.0.0.1:1/v1",
        "endpoint.model": "m",
        "prices.input": 1,
        "prices.output": 1,
    }
    return Job.load(list(inputs or ["in.csv"]), settings=endpoint | dict(settings))


def _or_error(read: Callable[[], object]) -> object:
    try:
        return read()
    except (BadJob, ValueError, RecursionError) as error:
        return error


def timings(read: Read, sizes: Sequence[int] = SIZES) -> Iterator[Timing]:
    """Time a reader with each text, from the smallest size up; a text whose time grows too fast is not made longer."""
    for name, unit in TEXTS.items():
        seconds: dict[int, float] = {}
        is_proportional = True
        for smaller, size in zip((0, *sizes), sizes, strict=False):
            most = GROWTH_MAX * seconds[smaller] + PLAY_SECONDS if smaller else PLAY_SECONDS + size * 2e-5
            seconds[size] = _least_seconds(read, repeated(unit, size), most)
            if seconds[size] > most:
                is_proportional = False
                break
        yield Timing(name, seconds, is_proportional)


def _least_seconds(read: Read, text: str, enough: float) -> float:
    """The CPU seconds of the best of several tries; one is enough that is quick enough."""
    least = float("inf")
    for _ in range(TRIES):
        began = time.process_time()
        read(text)
        least = min(least, time.process_time() - began)
        if least <= enough or least > 1:
            break
    return least


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--largest", type=int, default=5_000_000, help="characters of the longest text")
    parser.add_argument("--only", default="", help="readers whose name contains this")
    options = parser.parse_args()
    sizes = [options.largest // 4**power for power in range(5, -1, -1)]
    bad = 0
    print(f"| read as | slowest of {len(TEXTS)} texts | {' | '.join(f'{size:,}' for size in sizes)} | |")
    print(f"|---|---|{'--:|' * len(sizes)}---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, read in readers(Path(folder)).items():
            if options.only not in name:
                continue
            found = list(timings(read, sizes))
            slowest = max(found, key=lambda timing: (not timing.is_proportional, max(timing.seconds.values())))
            for timing in [slowest, *(each for each in found if not each.is_proportional and each != slowest)]:
                bad += not timing.is_proportional
                times = [f"{timing.seconds[size]:.3f} s" if size in timing.seconds else "" for size in sizes]
                verdict = "" if timing.is_proportional else "grows too fast"
                print(f"| {name} | {timing.text} | {' | '.join(times)} | {verdict} |", flush=True)
    print(f"\n{bad} grow faster than their text.")
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
