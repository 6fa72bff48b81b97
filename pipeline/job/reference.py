"""Every key of the job file for people: its name, type, default and help; and how `--set` writes it."""

import json
import tomllib
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..records import BadJob
from ..secrecy import hidden_in_text
from .file import JobFile

SECRET_KEYS = ("endpoint.headers", "endpoint.api_key_default")
"""Keys that hold secrets; other users of the machine can see command lines in its list of processes."""
NAMES_OF_VARIABLES = "endpoint.headers_env"
"""A key that begins like one of these, and holds names of variables only."""
TYPE_WORDS = {
    "array": "list",
    "boolean": "true or false",
    "integer": "whole number",
    "number": "number",
    "object": "table",
    "string": "text",
}
"""From the types of JSON Schema to the words of the table of keys."""


class Setting(NamedTuple):
    """One key of the job file, as a line of the table of keys."""

    name: str
    kind: str
    default: str
    help: str


def settings() -> Iterator[Setting]:
    """Every key of the job file, in order."""
    schema = JobFile.model_json_schema()
    for section, spec in schema["properties"].items():
        if section == "parameters":
            yield Setting("parameters.*", "any", "", spec["description"])
            continue
        table = schema["$defs"][spec["$ref"].rpartition("/")[2]]
        for key, field in table["properties"].items():
            default = field.get("default")
            shown = "" if default is None else json.dumps(default)
            if key in table.get("required", ()):
                shown = "required"
            yield Setting(f"{section}.{key}", _kind(field), shown, field["description"])


def _kind(field: dict[str, Any]) -> str:
    kinds = [option.get("type") or json.dumps(option.get("const")) for option in field.get("anyOf", [field])]
    return " or ".join(TYPE_WORDS.get(kind, kind) for kind in kinds if kind != "null")


def setting_help(name: str) -> str:
    """The help of one key, by its dotted name."""
    section, _, key = name.partition(".")
    field = JobFile.model_fields[section].annotation.model_fields[key]  # type: ignore[union-attr] # each field is a section
    return str(field.description)


def parse_setting(text: str) -> tuple[str, Any]:
    """Parse `--set`: `limits.max_cost=5` gives `("limits.max_cost", 5)`. A value that is not TOML is taken as text.

    Raises BadJob for a text without a section and `=`, and for a key that holds a secret.
    """
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals or "." not in name:
        shown = hidden_in_text(text, is_command=True)
        raise BadJob(f"--set {shown}: write it as section.key=value, such as --set limits.max_cost=5")
    if name.startswith(SECRET_KEYS) and name != NAMES_OF_VARIABLES:
        raise BadJob(f"--set {name}: other users can see command lines; set it in the job file")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):  # very long numbers and very deep nesting raise these
        return name, value.strip()
