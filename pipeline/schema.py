"""What is wrong with an answer's text, and what it holds: the contract of [answer], checked."""

import json
import sys
from typing import Any, NoReturn

import jsonschema_rs

from .job import Job
from .records import BadJob, Record


class Held(Record, frozen=True):
    """What a text holds: a value for each property, or what is wrong with it."""

    values: dict[str, Any]
    error: str | None = None


class Contract:
    """The JSON Schema that answers are held to."""

    def __init__(self, schema: dict[str, Any]) -> None:
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
        properties = schema.get("properties")
        named = properties.items() if isinstance(properties, dict) else ()
        self._numeric = {name: kind for name, each in named if (kind := _numeric(each)) is not None}
        if schema.get("type") != "object":
            raise BadJob('answer.schema: its "type" is to be "object": each property is a column.\nNothing was sent.')

    def read(self, text: str) -> Held:
        """Never raises: a text that is not JSON, or JSON that does not fit, has an error that names the place."""
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
            if "\\u" in text:
                json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is no character
            errors = list(self._validator.iter_errors(value))
        except RecursionError:
            return Held({}, "not JSON: nested too deeply")
        except ValueError as error:
            return Held({}, f"not JSON: {error}")
        told = [f"at /{'/'.join(map(str, error.instance_path))}: {error.message}" for error in errors]
        if not told:
            told = [
                f"at /{name}: {TOO_LARGE}"
                for name, kind in self._numeric.items()
                if _is_too_large(value.get(name), kind)
            ]
        return Held({}, "; ".join(told)) if told else Held(value)


TOO_LARGE = "a number larger than its column can hold"


def _numeric(schema: object) -> str | None:
    """`integer` or `number`, if the property has a column of such, which hold 64 bits."""
    kinds = schema.get("type") if isinstance(schema, dict) else None
    named = [kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if kind != "null"]
    return named[0] if named in (["integer"], ["number"]) else None


def _is_too_large(value: object, kind: str) -> bool:
    """Of a number that would silently become null, or infinite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    if kind == "integer":
        return not -(2**63) <= value < 2**63
    return not -sys.float_info.max <= value <= sys.float_info.max


def _refuse_to_fetch(address: str) -> NoReturn:
    raise ValueError(f"nothing is fetched for a schema; write what stands at {address} under its $defs")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def contract_of(job: Job) -> Contract | None:
    """The job's contract; None for free text."""
    schema = job.answer.contract
    return None if schema is None else Contract(schema)
