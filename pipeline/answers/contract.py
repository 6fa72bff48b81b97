"""What is wrong with an answer's text, what it holds, and what to ask next: the contract of [answer], checked.

An answer that does not fit climbs a ladder, and stops at the first step that holds: as it is; without a fence or prose
around its JSON; its JSON mended; asked for again with what is wrong with it; then it is invalid, its text kept.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Literal, NoReturn

import jsonschema_rs
import msgspec

from ..job import Job
from ..records import Answer, BadJob, Outcome, Record, Request, Status
from .few_shot import example_answer
from .shapes import Shape, mismatch, shape_of

_canonical = msgspec.json.Encoder(order="deterministic")
_plain = msgspec.json.Encoder()
_parts = msgspec.json.Decoder(dict[str, msgspec.Raw])
_messages = msgspec.json.Decoder(list[msgspec.Raw])

RepairKind = Literal["", "fence", "prose", "json-repair"]

FENCE = re.compile(r"\s*```[\w-]*[ \t]*\n(.*?)\n?[ \t]*```\s*", re.DOTALL)
THOUGHT_END = "</think>"
"""Some servers leave what a model thinks to itself in its answer, up to this mark."""
AROUND_A_LABEL = " \t\r\n\"'`*.\u201c\u201d\u2018\u2019\u00ab\u00bb\u201e"
"""What may stand around a bare label: quotes, emphasis, a full stop."""
BRACE = re.compile(r'[{}]|"(?:[^"\\]|\\.)*(?:"|$)', re.DOTALL)
"""A brace, or a string, in which braces do not count."""
MENDED_CHARACTERS_MAX = 200_000
"""A longer text is not searched for JSON, …"""
OBJECTS_MAX = 100
"""… beyond so many objects in it no more are looked at, …"""
REPAIRED_CHARACTERS_MAX = 20_000
"""… broken JSON that is longer is not repaired, …"""
REPAIRED_BRACKETS_MAX = 300
"""… nor such as has more brackets: json-repair takes time by the square of either."""
REPEATED_CHARACTERS_MAX = 8_000
"""So much of an answer is shown to the model again, …"""
ERROR_CHARACTERS_MAX = 2_000
"""… and so much of what is wrong with it."""


class ParsedAnswer(Record, frozen=True):
    """What a text holds: a value for each property, or what is wrong with it."""

    values: dict[str, Any]
    error: str | None = None
    repair_kind: RepairKind = ""
    """How the values were come by, where the text as it is does not fit."""


class Contract:
    """The JSON Schema that answers are held to; with `labels`, one or a list of them by a single property."""

    def __init__(self, schema: dict[str, Any], labels: Sequence[str] | None = None) -> None:
        """Raises BadJob, with the path inside it, for a schema that is none. Nothing that it names is fetched."""
        try:
            self._validator = jsonschema_rs.validator_for(schema, retriever=_refuse_to_fetch)
        except jsonschema_rs.ValidationError as error:
            place = "/".join(str(part) for part in error.instance_path)
            raise BadJob(
                f"answer.schema is not a JSON Schema: at /{place}: {error.message}\nNothing was sent."
            ) from None
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            raise BadJob(f"answer.schema is not a JSON Schema: {error}\nNothing was sent.") from None
        if schema.get("type") != "object":
            raise BadJob('answer.schema: its "type" is to be "object": each property is a column.\nNothing was sent.')
        properties = schema.get("properties")
        named = properties if isinstance(properties, dict) else {}
        self.shapes: dict[str, Shape] = {name: shape_of(each, schema) for name, each in named.items()}
        """The shape of each property."""
        self._labels = labels

    def read(self, text: str, *, whole: bool = False) -> ParsedAnswer:
        """Never raises: a text that does not fit has an error that names the place.

        `whole`: the model came to its end by itself, so that a bare label is one, and broken JSON may be mended.
        """
        value, held = self._strict(text)
        if held.error is None or len(text) > MENDED_CHARACTERS_MAX:
            return held
        said = text.rpartition(THOUGHT_END)[2]
        label = self._bare(said) if whole else None
        return label or (held if value is not None else self._within(said, held, whole=whole))

    def _strict(self, text: str) -> tuple[object, ParsedAnswer]:
        """The JSON of a text, None if it is none, and whether it fits."""
        try:
            value = _loads(text)
            return value, self._fit(value)
        except RecursionError:
            return None, ParsedAnswer({}, "not JSON: nested too deeply")
        except ValueError as error:
            return None, ParsedAnswer({}, f"not JSON: {error}")

    def _fit(self, value: object, repair_kind: RepairKind = "") -> ParsedAnswer:
        try:
            told = [
                f"at /{'/'.join(map(str, error.instance_path))}: {error.message}"
                for error in self._validator.iter_errors(value)
            ]
        except ValueError:  # the validator's own limit
            return ParsedAnswer({}, "nested too deeply")
        if not told and isinstance(value, dict):
            misfits = (mismatch(value.get(name), shape, f"/{name}") for name, shape in self.shapes.items())
            told = [each for each in misfits if each]
        return (
            ParsedAnswer({}, "; ".join(told))
            if told or not isinstance(value, dict)
            else ParsedAnswer(value, repair_kind=repair_kind)
        )

    def _within(self, text: str, held: ParsedAnswer, *, whole: bool) -> ParsedAnswer:
        """The object in a fence or in prose, if there is one that fits, and not several that differ."""
        repair_kind: RepairKind = "fence" if FENCE.fullmatch(text) else "prose"
        found = [self._fit(value, repair_kind) for value in islice(_objects(text), OBJECTS_MAX)]
        fitting = [each for each in found if each.error is None]
        if len({_canonical.encode(each.values) for each in fitting}) > 1:
            return ParsedAnswer({}, "more than one answer in the text; give one")
        if found or not whole:
            return (fitting or found or [held])[0]
        return self._repaired(text) or held

    def _bare(self, text: str) -> ParsedAnswer | None:
        """A label without JSON around it, in whatever case; or where several may be given, labels with commas between.

        A word that is no label, or that is a part of a sentence, is none.
        """
        if self._labels is None:
            return None
        [(name, shape)] = self.shapes.items()
        if shape.kind != "list":
            label = _label(text, self._labels)
            return None if label is None else ParsedAnswer({name: label}, repair_kind="prose")
        labels = [_label(part, self._labels) for part in re.split(r"[,\n]", text.strip().strip("[]"))]
        return None if None in labels else ParsedAnswer({name: labels}, repair_kind="prose")

    def _repaired(self, text: str) -> ParsedAnswer | None:
        """What json-repair makes of it, if that is an object, and fits."""
        broken = text[text.find("{") :] if "{" in text else ""
        brackets = broken.count("{") + broken.count("[")
        if not broken or len(broken) > REPAIRED_CHARACTERS_MAX or brackets > REPAIRED_BRACKETS_MAX:
            return None
        import json_repair  # noqa: PLC0415 - most runs never need it

        try:
            value = json_repair.loads(broken, skip_json_loads=True)
            _refuse_half_pairs(value)
            held = self._fit(value, "json-repair") if isinstance(value, dict) and value else None
        except (ValueError, RecursionError, IndexError):
            return None
        return held if held is not None and held.error is None else None


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Each object that stands in a text, outermost ones alone; empty ones say nothing."""
    begin = text.find("{")
    while begin >= 0:
        end = depth = 0
        for token in BRACE.finditer(text, begin):
            depth += {"{": 1, "}": -1}.get(token[0], 0)
            if not depth:
                end = token.end()
                break
        if not end:
            return
        with contextlib.suppress(ValueError, RecursionError):
            value = _loads(text[begin:end])
            if value:
                yield value
        begin = text.find("{", end)


def _label(text: str, labels: Sequence[str]) -> str | None:
    """The label that a text is, as it was listed."""
    bare = text.strip(AROUND_A_LABEL)
    if text.strip() in labels or bare in labels:
        return text.strip() if text.strip() in labels else bare
    alike = [label for label in labels if label.strip(AROUND_A_LABEL).casefold() == bare.casefold()]
    return alike[0] if len(alike) == 1 else None


class AnswerChecker:
    """What became of an answer, and what to ask next. Made of a job; raises BadJob for a schema that is none."""

    def __init__(self, job: Job) -> None:
        self.contract = contract_of(job)
        self._repairs = job.answer.repairs
        self._grown = job.answer.grow_on_truncation
        self._caps = job.capped(self._grown) if self._grown is not None else {}

    def check(self, outcome: Outcome) -> tuple[Status, ParsedAnswer | None]:
        """What became of it, and what its text holds: a whole answer that does not fit its contract is invalid."""
        if self.contract is None or not isinstance(outcome, Answer) or outcome.status == "refused":
            return outcome.status, None
        held = self.contract.read(outcome.text, whole=outcome.finish_reason == "stop")
        return "invalid" if held.error is not None and outcome.status == "ok" else outcome.status, held

    def follow_up(self, request: Request, outcome: Outcome) -> Request | None:
        """The request that follows upon an outcome, None if the row's opinion is settled.

        Its key says upon which answer it follows, and it needs no body: of a request with an empty one, the next has
        the right key and an empty body, too. The key does not hang on the words in which a library tells what is wrong.
        """
        if not isinstance(outcome, Answer):
            return None
        status, held = self.check(outcome)
        if status == "invalid" and held is not None and held.error is not None and request.repair < self._repairs:
            key = _key({"after": request.key, "answer": outcome.text, "ask": "repair"})
            body = _asked_again(request.body, outcome.text, held.error) if request.body else b""
            return msgspec.structs.replace(request, key=key, body=body, repair=request.repair + 1)
        grows = self._grown is not None and not request.grown and (request.max_tokens or 0) < self._grown
        if status == "truncated" and grows and (held is None or held.error is not None):
            key = _key({"after": request.key, "max_tokens": self._grown})
            body = _with_more_room(request.body, self._caps) if request.body else b""
            return msgspec.structs.replace(request, key=key, body=body, max_tokens=self._grown, grown=True)
        return None


def _key(seen: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical.encode(seen)).hexdigest()


def _asked_again(body: bytes, text: str, error: str) -> bytes:
    """The chat with the answer that does not fit, and a word on what is wrong with it."""
    parts = _parts.decode(body)
    wrong = _shortened(error, ERROR_CHARACTERS_MAX)
    again = f"That answer does not fit: {wrong}.\nAnswer again, with one JSON object that fits and nothing around it."
    added = [
        {"role": "assistant", "content": _shortened(text, REPEATED_CHARACTERS_MAX)},
        {"role": "user", "content": again},
    ]
    return _plain.encode({**parts, "messages": [*_messages.decode(parts["messages"]), *added]})


def _with_more_room(body: bytes, caps: dict[str, int]) -> bytes:
    return _plain.encode({**_parts.decode(body), **caps})


def _shortened(text: str, most: int) -> str:
    """The text without its middle, if it is longer."""
    return text if len(text) <= most else f"{text[: most // 2]}\n[…]\n{text[-most // 2 :]}"


def _refuse_to_fetch(address: str) -> NoReturn:
    raise ValueError(f"nothing is fetched for a schema; write what stands at {address} under its $defs")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _loads(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """Raises ValueError for what is not JSON, whatever Python makes of it."""
    value = json.loads(text, parse_constant=_refuse_constant)
    if "\\u" in text:
        _refuse_half_pairs(value)
    return value


def _refuse_half_pairs(value: object) -> None:
    """Raises ValueError for half of a surrogate pair, which is no character."""
    json.dumps(value, ensure_ascii=False).encode()


def contract_of(job: Job) -> Contract | None:
    """The job's contract; None for free text. Raises BadJob for a schema that is none and examples that do not fit."""
    schema = job.answer.contract
    if schema is None:
        return None
    contract = Contract(schema, job.answer.labels)
    for number, example in enumerate(job.prompt.example_rows, 1):
        if error := contract.read(example_answer(job, example)).error:
            raise BadJob(f"prompt.examples: the answer of example {number} does not fit: {error}\nNothing was sent.")
    return contract
