"""The contract of [answer]: read the values that an answer's text holds, or what is wrong with it.

A text is read in this order, and the first way that fits the contract counts: as JSON; as a bare label; as the JSON
object in a code fence or in prose; as broken JSON that json-repair can mend.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Literal, NoReturn

import jsonschema_rs

from ..job import Job
from ..records import BadJob, Record
from ..text import canonical_json, refuse_lone_surrogates, strict_json
from .few_shot import example_answer
from .shapes import Shape, mismatch, shape_of

RepairKind = Literal["", "fence", "prose", "json-repair"]

FENCE = re.compile(r"\s*```[\w-]*[ \t]*\n(.*?)\n?[ \t]*```\s*", re.DOTALL)
"""A text that is one code fence."""
THOUGHT_END = "</think>"
"""The end of a model's reasoning, which some servers leave in the answer."""
AROUND_A_LABEL = " \t\r\n\"'`*.\u201c\u201d\u2018\u2019\u00ab\u00bb\u201e"
"""Characters that may stand around a bare label: quotes, emphasis, a full stop."""
BRACE = re.compile(r'[{}]|"(?:[^"\\]|\\.)*(?:"|$)', re.DOTALL)
"""A brace, or a string, in which braces do not count."""
SEARCHED_CHARACTERS_MAX = 200_000
"""A longer text is read only as JSON, not searched for it."""
OBJECTS_MAX = 100
"""The number of JSON objects in a text that are looked at."""
REPAIRED_CHARACTERS_MAX = 20_000
"""Longer broken JSON is not mended: json-repair takes time by the square of the length."""
REPAIRED_BRACKETS_MAX = 300
"""Broken JSON with more brackets is not mended: json-repair takes time by the square of their number."""


class ParsedAnswer(Record, frozen=True):
    """The values read from an answer's text, or what is wrong with it."""

    values: dict[str, Any]
    """A value for each property; empty if there is an error."""
    error: str | None = None
    repair_kind: RepairKind = ""
    """The way in which the values were found; empty if the text was JSON that fits."""


class Contract:
    """A JSON Schema that answers must fit; for labels, a schema with a single property."""

    def __init__(self, schema: dict[str, Any], labels: Sequence[str] | None = None) -> None:
        """Raises BadJob for a schema that is no JSON Schema of an object, with the place of the fault inside it.

        Addresses in the schema are never fetched.
        """
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
            raise BadJob(
                'answer.schema: its "type" must be "object", as each property becomes a column.\nNothing was sent.'
            )
        properties = schema.get("properties")
        named = properties if isinstance(properties, dict) else {}
        self.shapes: dict[str, Shape] = {name: shape_of(each, schema) for name, each in named.items()}
        """The shape of each property."""
        self._labels = labels

    def read(self, text: str, *, is_complete: bool = False) -> ParsedAnswer:
        """Read the values of a text. Never raises: a text that does not fit has an error that names the place.

        `is_complete`: the model finished by itself, so a bare label is a whole one, and broken JSON may be mended.
        """
        value, parsed = self._read_json(text)
        if parsed.error is None or len(text) > SEARCHED_CHARACTERS_MAX:
            return parsed
        answer = text.rpartition(THOUGHT_END)[2]
        label = self._read_label(answer) if is_complete else None
        return label or (parsed if value is not None else self._search(answer, parsed, is_complete=is_complete))

    def _read_json(self, text: str) -> tuple[object, ParsedAnswer]:
        """The JSON value of a text, None if it has none; and its values or what is wrong with it."""
        try:
            value = strict_json(text)
            return value, self._validate(value)
        except RecursionError:
            return None, ParsedAnswer({}, "not JSON: nested too deeply")
        except ValueError as error:
            return None, ParsedAnswer({}, f"not JSON: {error}")

    def _validate(self, value: object, repair_kind: RepairKind = "") -> ParsedAnswer:
        """Check a value against the schema, and against the columns that are to hold it."""
        try:
            errors = [
                f"at /{'/'.join(map(str, error.instance_path))}: {error.message}"
                for error in self._validator.iter_errors(value)
            ]
        except ValueError:  # the validator's own limit
            return ParsedAnswer({}, "nested too deeply")
        if not errors and isinstance(value, dict):
            mismatches = (mismatch(value.get(name), shape, f"/{name}") for name, shape in self.shapes.items())
            errors = [each for each in mismatches if each]
        if errors or not isinstance(value, dict):
            return ParsedAnswer({}, "; ".join(errors))
        return ParsedAnswer(value, repair_kind=repair_kind)

    def _search(self, text: str, parsed: ParsedAnswer, *, is_complete: bool) -> ParsedAnswer:
        """Read the object in a fence or in prose that fits; several that differ are an error."""
        repair_kind: RepairKind = "fence" if FENCE.fullmatch(text) else "prose"
        found = [self._validate(value, repair_kind) for value in islice(_objects(text), OBJECTS_MAX)]
        fitting = [each for each in found if each.error is None]
        if len({canonical_json(each.values) for each in fitting}) > 1:
            return ParsedAnswer({}, "more than one answer in the text; give one")
        if found or not is_complete:
            return (fitting or found or [parsed])[0]
        return self._mend(text) or parsed

    def _read_label(self, text: str) -> ParsedAnswer | None:
        """Read a label without JSON around it, in upper or lower case; of several labels, a list with commas.

        None if the text is anything else, such as a sentence that holds a label.
        """
        if self._labels is None:
            return None
        [(name, shape)] = self.shapes.items()
        if shape.kind != "list":
            label = _label(text, self._labels)
            return None if label is None else ParsedAnswer({name: label}, repair_kind="prose")
        labels = [_label(part, self._labels) for part in re.split(r"[,\n]", text.strip().strip("[]"))]
        return None if None in labels else ParsedAnswer({name: labels}, repair_kind="prose")

    def _mend(self, text: str) -> ParsedAnswer | None:
        """Mend broken JSON with json-repair; None if the result is no object that fits."""
        broken = text[text.find("{") :] if "{" in text else ""
        brackets = broken.count("{") + broken.count("[")
        if not broken or len(broken) > REPAIRED_CHARACTERS_MAX or brackets > REPAIRED_BRACKETS_MAX:
            return None
        import json_repair  # noqa: PLC0415 - most runs never need it

        try:
            value = json_repair.loads(broken, skip_json_loads=True)
            refuse_lone_surrogates(value)
            parsed = self._validate(value, "json-repair") if isinstance(value, dict) and value else None
        except (ValueError, RecursionError, IndexError):
            return None
        return parsed if parsed is not None and parsed.error is None else None


def contract_of(job: Job) -> Contract | None:
    """The job's contract; None for free text.

    Raises BadJob for an `answer.schema` that is no JSON Schema, and for examples that do not fit it.
    """
    schema = job.answer.contract
    if schema is None:
        return None
    contract = Contract(schema, job.answer.labels)
    for number, example in enumerate(job.prompt.example_rows, 1):
        if error := contract.read(example_answer(job, example)).error:
            raise BadJob(f"prompt.examples: the answer of example {number} does not fit: {error}\nNothing was sent.")
    return contract


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text, without those inside another, and without empty ones."""
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
            value = strict_json(text[begin:end])
            if value:
                yield value
        begin = text.find("{", end)


def _label(text: str, labels: Sequence[str]) -> str | None:
    """The label that a text is, spelled as in the job; None if it is none, or may be several."""
    bare = text.strip(AROUND_A_LABEL)
    if text.strip() in labels or bare in labels:
        return text.strip() if text.strip() in labels else bare
    same = [label for label in labels if label.strip(AROUND_A_LABEL).casefold() == bare.casefold()]
    return same[0] if len(same) == 1 else None


def _refuse_to_fetch(address: str) -> NoReturn:
    raise ValueError(f"nothing is fetched for a schema: copy the definitions at {address} into its $defs")
