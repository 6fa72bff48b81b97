"""Whatever bytes come, each reader ends in one of the ways that it promises: replies, the job file, the store.

By count and from fixed seeds, so that each run tries the same.
"""

import asyncio
import json
import math
import random
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from seen_replies import AMETHYST_GOOD, ERRORS

from pipeline.answers.contract import Contract
from pipeline.endpoint.rejections import KINDS
from pipeline.endpoint.replies import read_reply
from pipeline.folder import history
from pipeline.job.job import Job
from pipeline.records import Answer, BadJob, Failure, Rejection, Reply, Stopped, Tally, Usage
from pipeline.store.notes import read_ledger
from pipeline.store.outcomes import read_outcome
from pipeline.store.reader import Reader
from pipeline.store.writer import Store

SEEN_BY_NOBODY = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")
ROOT = Path(__file__).parent.parent.parent
NASTY: list[Any] = [
    None, True, False, 0, -1, 2**53, 2**63, 2**64, 10**400, -0.0, 1e308, math.inf, math.nan, "", " ", "\ud800", "\0",
    "\u202e\x1b]0;x\x07", "x" * 70_000, "{", '{"error": {"message": "in a string"}}', "429", "insufficient_quota",
    "try again in " + "9" * 400 + "s", [], {}, [[]], [None], {"": {}}, {"error": None}, {"message": {"message": []}},
]  # fmt: skip
TREES = [AMETHYST_GOOD, *(body if isinstance(body, bytes) else json.dumps(body).encode() for *_, body, _, _ in ERRORS)]
TREES = [body for body in TREES if len(body) < 20_000]


def deep(depth: int) -> Any:
    value: Any = "end"
    for level in range(depth):
        value = {"error": value} if level % 2 else [value]
    return value


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if len(at) > 20:
        return [at]
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, each in inner for place in places(each, (*at, key)))]


def put(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = put(copy[place[0]], place[1:], new)
    return copy


def spoiled_tree(rng: random.Random, body: bytes) -> bytes:
    """A body of which some nodes are others, some keys stand twice, and the encoding may be another."""
    try:
        value = json.loads(body)
    except ValueError:
        return spoiled_bytes(rng, body)
    for _ in range(rng.randint(1, 4)):
        new = deep(rng.choice([3, 50, 400])) if rng.random() < 0.1 else rng.choice(NASTY)
        value = put(value, rng.choice(places(value)), new)
    text = json.dumps(value)
    if rng.random() < 0.3:
        text = re.sub(
            r'"(\w+)": ', lambda found: f'"{found[1]}": {rng.choice(["null", "[]", "1e999"])}, {found[0]}', text
        )
    return text.encode(rng.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32"]))


def spoiled_bytes(rng: random.Random, body: bytes) -> bytes:
    spoiled = bytearray(body)
    for _ in range(rng.randint(1, 6)):
        start = rng.randint(0, len(spoiled))
        new = rng.choice(
            [b"", b"{", b"}", b'"', b"[" * 600, b"\\ud800", b"\xff", b"\0", rng.randbytes(5), b"NaN", b"9" * 500]
        )
        spoiled[start : start + rng.choice([0, 1, 1, 40])] = new
    return bytes(spoiled[: rng.randint(0, len(spoiled))] if rng.random() < 0.2 else spoiled)


@pytest.mark.parametrize("spoil", [spoiled_tree, spoiled_bytes])
def test_every_spoiled_reply_is_an_answer_or_a_refusal_that_can_be_stored_and_shown(
    spoil: Callable[[random.Random, bytes], bytes],
) -> None:
    rng = random.Random(4711)
    kinds = set()
    for _ in range(6_000):
        status = rng.choice([200, 200, 200, 307, 400, 401, 403, 413, 429, 500, 503])
        body = spoil(rng, rng.choice(TREES))
        headers = {"retry-after": rng.choice(["9" * 400, "-1", "nan", "1e999", "Mon, 99 Foo 0000", "5"])}
        said = read_reply(Reply(status, headers, body, 0.1))
        assert isinstance(said, (Answer, Rejection))
        kinds.add(said.kind if isinstance(said, Rejection) else said.status)
        assert msgspec.json.decode(msgspec.json.encode(said), type=type(said)) == said
        if isinstance(said, Rejection):
            assert said.kind in KINDS
            assert not SEEN_BY_NOBODY.search(said.message)
            assert said.wait_seconds is None or 0 <= said.wait_seconds < math.inf
    assert len(kinds) > 8, kinds


SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "x": {"type": "number"}, "s": {"type": "string"}, "a": {"type": "array"}},
}


def test_every_spoiled_answer_is_held_or_has_an_error() -> None:
    rng, contract = random.Random(4712), Contract(SCHEMA)
    for _ in range(6_000):
        body = spoiled_tree(rng, b'{"n": 3, "x": 0.5, "s": "text", "a": [1, {"b": null}]}')
        held = contract.read(body.decode("utf-8", "replace"))
        assert held.error or isinstance(held.values, dict)


# ---- the job file

CONFIGS = [path.read_bytes() for path in sorted((ROOT / "configs").glob("*.toml"))]
TOML_VALUES = [
    "1", "-1", "0", "1e999", "nan", "inf", "9" * 400, '""', '"x"', '"\\u0000"', "true", "[]", "[[]]", "{}", "{ a = 1 }",
    "1979-05-27T07:32:00Z", "07:32:00", "[" * 200 + "]" * 200, '""" {{ x }}"""', '"http://[::1"', '"https://h:99999/v1"',
    '["a", "a"]', '{ x-api-key = "\\n" }', '"local:../../x.gguf"', '"\\U0001F642"', '"8h"', '"99999999999999999999h"',
    '{ type = "object", properties = 3 }', '{ "$ref" = "file:///etc/passwd" }', '"../nowhere.json"', '"/dev/null"',
]  # fmt: skip


def loads(path: Path, text: bytes) -> bool:
    """Whether a job file of these bytes is a Job; raises anything but BadJob."""
    path.write_bytes(text)
    try:
        job = Job.load(["in.csv"], "out.csv", config=path)
    except BadJob:
        return False
    json.dumps(job.without_secrets(), allow_nan=False)
    return True


def test_every_job_file_of_spoiled_bytes_is_a_job_or_a_bad_one(tmp_path: Path) -> None:
    rng = random.Random(4713)
    outcomes = {loads(tmp_path / "job.toml", spoiled_bytes(rng, rng.choice(CONFIGS))) for _ in range(1_500)}
    assert outcomes == {True, False}


def test_every_job_file_of_strange_values_is_a_job_or_a_bad_one(tmp_path: Path) -> None:
    rng = random.Random(4714)
    for _ in range(1_500):
        lines = rng.choice(CONFIGS).decode().splitlines()
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(lines))
            name, equals, _ = lines[at].partition("=")
            lines[at] = (
                f"{name}= {rng.choice(TOML_VALUES)}" if equals else f"[{rng.choice(['prompt', 'x', 'limits.y', ''])}]"
            )
        loads(tmp_path / "job.toml", "\n".join(lines).encode())


@settings(
    max_examples=300,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_every_job_file_of_any_bytes_is_a_bad_one(tmp_path: Path, content: bytes) -> None:
    assert not loads(tmp_path / "job.toml", content)


# ---- the store


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of a few hundred outcomes, of several pages."""
    folder = tmp_path_factory.mktemp("fuzz") / "store"

    async def fill() -> None:
        with closing(Store(folder)) as store:
            store.note("ledger", msgspec.json.encode(Tally(ok=300, cost=1.5)))
            for number in range(300):
                outcome = Answer(text=f"answer {number} " * 9, usage=Usage(1, 2), attempts=1)
                await store.put(f"{number:064x}", msgspec.json.encode(outcome), "ok")

    asyncio.run(fill())
    return folder


def test_a_damaged_store_is_told_or_read_and_never_makes_anything_else(tmp_path: Path, stored: Path) -> None:
    rng = random.Random(4715)
    whole = (stored / "cache.db").read_bytes()
    keys = [f"{number:064x}" for number in range(300)]
    told = read = 0
    for number in range(400):
        folder = tmp_path / str(number)
        folder.mkdir()
        spoiled = bytearray(whole)
        for _ in range(rng.choice([1, 3, 30])):
            start = rng.randrange(len(spoiled)) if rng.random() < 0.7 else rng.randrange(200)
            new = rng.choice([b"\0", b"\xff", b"\xff" * 200, rng.randbytes(4), b"CREATE VIEW Cache AS SELECT 1"])
            spoiled[start : start + len(new)] = new
        (folder / "cache.db").write_bytes(spoiled[: rng.randrange(len(spoiled))] if rng.random() < 0.1 else spoiled)
        try:
            with closing(Reader(folder)) as reader:
                assert all(isinstance(mark, str) for chunk in reader.marks() for _, mark in chunk)
                values = reader.get_many(keys)
                read_ledger(reader)
            outcomes = [read_outcome(value) for value in values if value is not None]
            assert all(isinstance(outcome, (Answer, Failure)) for outcome in outcomes)
            read += 1
        except Stopped:
            told += 1
        assert {path.name for path in folder.iterdir()} <= {"cache.db", "cache.db-wal", "cache.db-shm"}
        shutil.rmtree(folder)
    assert told > 50
    assert read > 50


def test_a_damaged_outcome_is_one_or_told() -> None:
    rng = random.Random(4716)
    whole = [
        msgspec.json.encode(Answer(text="é \U0001f642", usage=Usage(1, 2, 3, 4, 5), model="m", cost=0.5, attempts=2)),
        msgspec.json.encode(Failure(kind="server", reason="HTTP 500", lasting=False)),
    ]
    for _ in range(10_000):
        spoil = rng.choice([spoiled_tree, spoiled_bytes])
        body = spoil(rng, rng.choice(whole))
        try:
            assert isinstance(read_outcome(body), (Answer, Failure))
        except Stopped:
            continue


def test_a_damaged_history_is_read_as_far_as_it_is_understood(tmp_path: Path) -> None:
    rng = random.Random(4717)
    line = json.dumps({"type": "ended", "at": "2026-11-22T03:10:00Z", "summary": {"exit_code": 0}}).encode() + b"\n"
    for _ in range(2_000):
        (tmp_path / "history.jsonl").write_bytes(b"".join(spoiled_tree(rng, line) + b"\n" for _ in range(2)))
        history.last_start(tmp_path)
