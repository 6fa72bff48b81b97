"""A job's JSON Schema: whether a value fits it, and what is wrong with one that does not, in time that is bounded."""

from collections.abc import Mapping
from typing import Any, NoReturn

import jsonschema_rs

from ..records import BadJob

EXPLAINED_VALUES_MAX = 1_000
"""Of a value that holds more values than this, it is not told which of them do not fit: each may have many reasons."""
SLOW_PATTERN_TEXT_MAX, SLOW_PATTERN_CHARACTERS_MAX = 20_000, 10_000
"""In a text with more characters than the first number, a pattern with look-around or back references is matched with
strings of no more characters than the second: it may take time by the square of their length."""


class Schema:
    """A JSON Schema of an object."""

    def __init__(self, schema: dict[str, Any]) -> None:
        """Raises BadJob, which names the place of the fault, if `schema` is not a JSON Schema of an object.

        An address in the schema (`$ref`) is never fetched.
        """
        try:
            self._validator = _validator(schema)
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
        self._is_slow = any(map(_is_slow, _patterns(schema)))
        """Whether one of its patterns may take time by the square of the string's length."""
        if self._is_slow:
            self._without_slow = _validator(_instead_of_slow(schema, {}))
            self._without_long = _validator(_instead_of_slow(schema, {"maxLength": SLOW_PATTERN_CHARACTERS_MAX}))

    def errors(self, value: object, characters: int) -> list[str]:
        """What is wrong with a value; empty if it fits. `characters`: the length of the text that it was read from."""
        try:
            validator = self._validator
            if self._is_slow and characters > SLOW_PATTERN_TEXT_MAX and not self._without_long.is_valid(value):
                validator = self._without_slow
                if validator.is_valid(value):
                    return [f"more than {SLOW_PATTERN_CHARACTERS_MAX:,} characters in a string that has a pattern"]
            if validator.is_valid(value):
                return []
            if _holds_more_values(value, EXPLAINED_VALUES_MAX):
                return [f"more than {EXPLAINED_VALUES_MAX:,} values, of which one or more do not fit the schema"]
            return [
                f"at /{'/'.join(map(str, error.instance_path))}: {error.message}"
                for error in validator.iter_errors(value)
            ]
        except ValueError:  # the validator's own limit
            return ["nested too deeply"]


def _validator(schema: dict[str, Any], **options: Any) -> jsonschema_rs.Validator:  # noqa: ANN401 - jsonschema-rs's own
    return jsonschema_rs.validator_for(schema, retriever=_refuse_to_fetch, **options)


def _holds_more_values(value: object, most: int) -> bool:
    """Whether a JSON value holds more values than that, at any depth."""
    count, found = 0, [value]
    for each in found:  # which grows
        inner = list(each.values()) if isinstance(each, dict) else each if isinstance(each, list) else []
        count += len(inner)
        if count > most:
            return True
        found += inner
    return False


def _patterns(schema: object) -> set[str]:
    """Every pattern in a schema, at any depth."""
    found, patterns = [schema], set()
    for each in found:  # which grows
        if isinstance(each, Mapping):
            found += each.values()
            patterns |= {each["pattern"]} if isinstance(each.get("pattern"), str) else set()
        elif isinstance(each, list):
            found += each
    return patterns


def _is_slow(pattern: str) -> bool:
    """Whether a pattern needs more than the engine whose time is linear: it has look-around or back references."""
    try:
        _validator({"pattern": pattern}, pattern_options=jsonschema_rs.RegexOptions())
    except (ValueError, jsonschema_rs.ValidationError):
        return True
    return False


def _instead_of_slow(schema: Any, instead: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a part of a schema
    """The schema with other keywords in place of its slow patterns."""
    if isinstance(schema, list):
        return [_instead_of_slow(each, instead) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    inner = {name: _instead_of_slow(each, instead) for name, each in schema.items()}
    pattern = schema.get("pattern")
    if not isinstance(pattern, str) or not _is_slow(pattern):
        return inner
    del inner["pattern"]
    return {**inner, **{name: min(most, inner.get(name, most)) for name, most in instead.items()}}


def _refuse_to_fetch(address: str) -> NoReturn:
    raise ValueError(f"nothing is fetched for a schema: copy the definitions at {address} into its $defs")
