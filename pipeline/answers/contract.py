"""The contract of [answer]: read the values that an answer's text holds, or what is wrong with it.

A text is read in this order, and the first way that fits the contract counts: as JSON; as JSON in other capitals, or
with something around the object; as a bare label; as the JSON object in a code fence or in prose; as broken JSON that
json-repair can mend.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Literal

from msgspec.structs import replace

from ..job import Job
from ..records import BadJob, Record
from ..text import canonical_json, strict_json
from .few_shot import example_answer
from .mend import mended_object
from .schema import Schema
from .shapes import Shape, mismatch, shape_of

RepairKind = Literal["", "spelling", "unwrapped", "fence", "prose", "json-repair"]

FENCE_LINE = re.compile(r"```[\w-]*[ \t]*")
"""The line that begins a code fence."""
THOUGHT_END = re.compile(
    r"(?:</|\[/|<\|/|\u25c1/)(?:\w{1,20}:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|analysis|reflection)(?:>|\]|\|>|\u25b7)"
    r"|<\|(?:end_of_thought|end_thinking|END_THINKING)\|>|<\|channel\|>final<\|message\|>",
    re.IGNORECASE,
)
"""The end of a model's reasoning, which some servers leave in the answer: `</think>`, `[/THINK]` and their like."""
WRAPPERS_MAX = 3
"""How many things around an object are taken off: a list, a string that holds JSON, an object with one property."""
WRAPPER_NAMES = frozenset(
    {"answer", "answers", "arguments", "category", "class", "classification", "data", "item", "json", "label", "labels"}
    | {"object", "output", "parameters", "prediction", "properties", "response", "result", "results", "sentiment"}
    | {"value"}
)
"""The names of the only property of such an object. Under any other name stands something else than the answer."""
AROUND_A_LABEL = " \t\r\n\"'`*.\u201c\u201d\u2018\u2019\u00ab\u00bb\u201e"
"""Characters that may stand around a bare label: quotes, emphasis, a full stop."""
BRACE = re.compile(r'[{}]|"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
"""A brace, or a string, in which braces do not count. A string that does not end goes to the end of the text, so that
none is looked at twice."""
VALUES_MAX = 500_000
"""A text that may hold more values is not read: no model writes as many, and they take long to check."""
SEARCHED_CHARACTERS_MAX = 200_000
"""A longer text is read only as JSON, not searched for it."""
OBJECTS_MAX, PIECES_MAX = 100, 5_000
"""The number of JSON objects in a text that are looked at, and of pieces in braces that may be one."""


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
        self._schema = Schema(schema)
        properties = schema.get("properties")
        named = properties if isinstance(properties, dict) else {}
        self.shapes: dict[str, Shape] = {name: shape_of(each, schema) for name, each in named.items()}
        """The shape of each property."""
        self._spellings = {name: Labels(words) for name, each in named.items() if (words := _words_of(each))}
        """For each property that is one of a few words, or a list of such, these words."""
        self._labels = None if labels is None else Labels(labels)

    def read(self, text: str, *, is_complete: bool = False, is_mended: bool = True) -> ParsedAnswer:
        """Read the values of a text. Never raises: a text that does not fit has an error that names the place.

        `is_complete`: the answer was not cut, so a bare label is a whole one. `is_mended`: nor may it have been, so
        broken JSON is mended.
        """
        if text.count(",") + text.count("[") + text.count("{") > VALUES_MAX:
            return ParsedAnswer({}, f"more than {VALUES_MAX:,} values")
        value, parsed = self._read_json(text)
        if parsed.error is None or len(text) > SEARCHED_CHARACTERS_MAX:
            return parsed
        answer = _after_thoughts(text)
        if len(answer) < len(text):
            value, after = self._read_json(answer)
            if after.error is None:
                return replace(after, repair_kind=after.repair_kind or "prose")
        label = self._read_label(answer) if is_complete else None
        return label or (
            parsed if value is not None else self._search(answer, parsed, is_mended=is_complete and is_mended)
        )

    def _read_json(self, text: str) -> tuple[object, ParsedAnswer]:
        """The JSON value of a text, None if it has none; and its values or what is wrong with it."""
        try:
            value = strict_json(text)
            parsed = self._validate(value, len(text))
            return value, self._unwrapped(value, len(text)) or parsed if parsed.error is not None else parsed
        except RecursionError:
            return None, ParsedAnswer({}, "not JSON: nested too deeply")
        except ValueError as error:
            return None, ParsedAnswer({}, f"not JSON: {error}")

    def _validate(self, value: object, characters: int, repair_kind: RepairKind = "") -> ParsedAnswer:
        """Check a value against the schema, and against the columns that will hold it.

        `characters`: the length of the text that the value was read from.
        """
        errors = self._schema.errors(value, characters)
        if errors and isinstance(value, dict) and (spelled := self._spelled(value)) != value:
            parsed = self._validate(spelled, characters, repair_kind or "spelling")
            return parsed if parsed.error is None else ParsedAnswer({}, "; ".join(errors))
        if not errors and isinstance(value, dict):
            mismatches = (mismatch(value.get(name), shape, f"/{name}") for name, shape in self.shapes.items())
            errors = [each for each in mismatches if each]
        if errors or not isinstance(value, dict):
            return ParsedAnswer({}, "; ".join(errors))
        return ParsedAnswer(value, repair_kind=repair_kind)

    def _spelled(self, value: dict[str, Any]) -> dict[str, Any]:
        """The value with the names of properties, and the words that they may be, spelled as in the schema."""
        names = {name.casefold(): name for name in self.shapes}
        spelled = {
            name if name in self.shapes else names.get(name.casefold(), name): each for name, each in value.items()
        }
        if len(spelled) < len(value):
            return value
        for name, words in self._spellings.items():
            each = spelled.get(name)
            if isinstance(each, str):
                spelled[name] = words.find(each) or each
            elif isinstance(each, list):
                spelled[name] = [words.find(item) or item if isinstance(item, str) else item for item in each]
        return spelled

    def _unwrapped(self, value: object, characters: int) -> ParsedAnswer | None:
        """The values of an object with something around it; None if that is not all that is wrong.

        Taken off are a list of one, a string that holds JSON, and an object with one of WRAPPER_NAMES only.
        """
        for _ in range(WRAPPERS_MAX):
            if isinstance(value, list) and len(value) == 1:
                [value] = value
            elif isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
                try:
                    value = strict_json(value)
                except (ValueError, RecursionError):
                    return None
            elif isinstance(value, dict) and len(value) == 1 and {name.casefold() for name in value} <= WRAPPER_NAMES:
                [value] = value.values()
            else:
                return None
            if isinstance(value, str) and self._labels is not None and (label := self._labels.find(value)) is not None:
                value = dict.fromkeys(self.shapes, label)
            parsed = self._validate(value, characters, "unwrapped")
            if value and parsed.error is None:
                return parsed
        return None

    def _search(self, text: str, parsed: ParsedAnswer, *, is_mended: bool) -> ParsedAnswer:
        """Read the object in a fence or in prose that fits; several that differ are an error."""
        repair_kind: RepairKind = "fence" if _is_fence(text) else "prose"
        found = [self._validate(value, len(text), repair_kind) for value in islice(_objects(text), OBJECTS_MAX)]
        fitting = [each for each in found if each.error is None]
        if len({canonical_json(each.values) for each in fitting}) > 1:
            return ParsedAnswer({}, "more than one answer in the text; give one")
        if found or not is_mended:
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
            label = self._labels.find(text)
            return None if label is None else ParsedAnswer({name: label}, repair_kind="prose")
        labels = []
        for part in re.split(r"[,\n]", text.strip().strip("[]")):
            if (label := self._labels.find(part)) is None:
                return None
            labels.append(label)
        return ParsedAnswer({name: labels}, repair_kind="prose")

    def _mend(self, text: str) -> ParsedAnswer | None:
        """Mend broken JSON with json-repair; None if the result is no object that fits."""
        value = mended_object(text)
        parsed = None if value is None else self._validate(value, len(text), "json-repair")
        return parsed if parsed is not None and parsed.error is None else None


class Labels:
    """The labels of a job, to be found however a model spells them."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = frozenset(labels)
        self._folded: dict[str, str | None] = {}
        """Each label by its letters without case; None where several have the same."""
        for label in labels:
            letters = label.strip(AROUND_A_LABEL).casefold()
            if not letters:
                continue
            self._folded[letters] = None if letters in self._folded else label

    def find(self, text: str) -> str | None:
        """The label that a text is, spelled as in the job; None if it is none, or may be several."""
        stripped, bare = text.strip(), text.strip(AROUND_A_LABEL)
        if stripped in self._labels or bare in self._labels:
            return stripped if stripped in self._labels else bare
        return self._folded.get(bare.casefold())


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


def _words_of(schema: object) -> list[str]:
    """The words that a property may be, or the items of a list; empty if it is anything else."""
    named = schema if isinstance(schema, dict) else {}
    words = named.get("enum") or (items.get("enum") if isinstance(items := named.get("items"), dict) else None)
    return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else []


def _after_thoughts(text: str) -> str:
    """The text after the end of a model's reasoning; the whole text if it holds none."""
    end = 0
    for found in THOUGHT_END.finditer(text):
        end = found.end()
    return text[end:] if text[end:].strip() else text


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text, without those inside another, and without empty ones."""
    begin = text.find("{")
    for _ in range(PIECES_MAX):
        if begin < 0:
            return
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


def _is_fence(text: str) -> bool:
    """Whether a text is one code fence."""
    first, _, rest = text.strip().partition("\n")
    return FENCE_LINE.fullmatch(first) is not None and rest.endswith("```")
