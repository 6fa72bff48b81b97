"""Loading a job file: TOML, the files that it names, flags set over it, and each mistake with its place."""

import importlib
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from ..paths import read_text
from ..records import BadJob
from ..text import did_you_mean, near_name
from .examples import read_examples
from .file import JobFile
from .prices import ModelPrices

PYDANTIC_MODEL = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""A schema named as `module:Class`."""
KEY = r"""(?:[\w-]+|"[^"]*"|'[^']*')"""
HEADER_LINE = re.compile(rf"\s*\[\[?\s*({KEY}(?:\s*\.\s*{KEY})*)\s*\]")
KEY_LINE = re.compile(rf"\s*({KEY}(?:\s*\.\s*{KEY})*)\s*=(.*)")


class SettingsSource:
    """The settings as they were given, not checked yet, and where each of them is from."""

    def __init__(
        self, path: Path | None, text: str, values: dict[str, Any], flags: Mapping[str, Any], home: Path
    ) -> None:
        self.path, self.text, self.values, self.flags = path, text, values, flags
        self.home = home
        """The folder that paths in the settings are relative to."""

    @classmethod
    def given(cls, path: Path | None, flags: Mapping[str, Any], directory: Path) -> Self:
        """As `read`, but nothing that the settings name is read or imported."""
        text = "" if path is None else _read_text(path, "job file")
        source = cls(path, text, _parse_toml(text, path), flags, path.parent if path else directory)
        for name, value in flags.items():
            _set_value(source.values, name, value)
        return source

    @classmethod
    def read(cls, path: Path | None, flags: Mapping[str, Any], directory: Path) -> Self:
        """Read a job file and the files that it names, and set `flags` over it by dotted name.

        Paths in the settings are relative to the job file's folder; to `directory` without a job file. Raises
        BadJob for a file that cannot be read, or is not of its format.
        """
        source = cls.given(path, flags, directory)
        answer, prompt = source.values.get("answer"), source.values.get("prompt")
        if isinstance(answer, dict) and isinstance(answer.get("schema"), str):
            is_model = PYDANTIC_MODEL.fullmatch(answer["schema"])
            answer["schema"] = (_import_schema if is_model else _read_schema)(answer["schema"], source.home)
        if isinstance(prompt, dict) and isinstance(prompt.get("examples"), str):
            examples = source.home / prompt["examples"]
            prompt["examples"] = read_examples(examples, _read_text(examples, "file of examples"))
        return source

    def complaints(self, errors: Sequence[ErrorDetails]) -> Iterator[str]:
        """One line for each mistake, `job.toml:4: endpoint.modle: …`; then that nothing was sent."""
        seen = set()
        for error in errors:
            place = [str(part) for part in error["loc"]]
            # people know sections and keys; what is deeper are list indices and the members of unions
            name = ".".join(place[:2])
            line = f"{self._where(name, place)}{name}{': ' if name else ''}{_explain(error)}"
            if line not in seen:
                seen.add(line)
                yield line
        yield "Nothing was sent."

    def _where(self, name: str, place: Sequence[str]) -> str:
        if name in self.flags or any(flag.startswith(name + ".") for flag in self.flags if name):
            return "command line: "
        return f"{self.path}:{line_of_key(self.text, place)}: " if self.path else ""


def uses_of(config: Path | None, flags: Mapping[str, Any], directory: Path) -> list[str]:
    """What a job with these settings would run, read and reach beside its table, each as a line for a person.

    Only the job file is read: nothing is imported. `flags` and `directory`: as for `SettingsSource.read`. Raises
    BadJob for a job file that cannot be read.
    """
    source = SettingsSource.given(config, flags, directory)

    def text(name: str) -> str:
        section, _, key = name.partition(".")
        table = source.values.get(section)
        value = table.get(key) if isinstance(table, dict) else None
        return value if isinstance(value, str) else ""

    schema, url, key = text("answer.schema"), text("endpoint.base_url"), text("endpoint.api_key_env")
    prompt, endpoint = source.values.get("prompt"), source.values.get("endpoint")
    found = []
    if PYDANTIC_MODEL.fullmatch(schema):
        found.append(f"imports the Python code {schema}, looked for in {source.home.absolute()}")
    files = [schema] * (not found) + [text("prompt.examples"), url.removeprefix("local:") * url.startswith("local:")]
    found += [f"reads {(source.home / name).absolute()}" for name in files if name]
    if isinstance(endpoint, dict) and isinstance(command := endpoint.get("api_key_command"), str | list) and command:
        # in full: two commands must not look alike here
        line = command if isinstance(command, str) else shlex.join(map(str, command))
        found.append(f"runs the command {line} for the key")
    if isinstance(prompt, dict) and prompt.get("images"):
        found.append("reads the pictures that the rows name")
    headers = endpoint.get("headers_env") if isinstance(endpoint, dict) else None
    named = [key, *(map(str, headers.values()) if isinstance(headers, dict) else ())]
    if not url.startswith("local:"):
        keys = " and ".join(filter(None, named))
        found.append(f"sends the rows to {url}{f', with the key in {keys}' if keys else ''}")
    if text("run.how") == "ray" and text("run.address"):
        found.append(f"works on the Ray cluster at {text('run.address')}")
    return found


def _parse_toml(text: str, path: Path | None) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # very long numbers and very deep nesting raise these
        raise BadJob(f"{path}: not TOML: {error}\nNothing was sent.") from None


def _read_text(path: Path, what: str) -> str:
    try:
        return read_text(path)
    except FileNotFoundError:
        near = near_name(path.name, [beside.name for beside in path.parent.glob("*")])
        hint = f" Did you mean {path.with_name(near)}?" if near else ""
        raise BadJob(f"{path}: there is no such {what}.{hint}\nNothing was sent.") from None
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a NUL in the name
        raise BadJob(f"{path}: this {what} cannot be read: {error}\nNothing was sent.") from None


def _import_schema(name: str, home: Path) -> dict[str, Any]:
    """The JSON Schema of the Pydantic model `module:Class`; the module is beside the job file, or installed."""
    module, _, attribute = name.partition(":")
    folder = str(home.absolute())
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, folder)
    try:
        found = getattr(importlib.import_module(module), attribute, None)
        schema = found.model_json_schema() if isinstance(found, type) and issubclass(found, BaseModel) else None
    except Exception as error:  # the module is the user's code, which may raise anything
        raise BadJob(
            f"answer.schema: {name} cannot be imported: {type(error).__name__}: {error}\n"
            f"{module}.py is looked for in {folder}, then among the installed modules. Nothing was sent."
        ) from error
    finally:
        sys.path.remove(folder)
        sys.dont_write_bytecode = writes_bytecode
    if schema is None:
        raise BadJob(f"answer.schema: {module} has no Pydantic model {attribute!r}.\nNothing was sent.")
    return schema


def _read_schema(name: str, home: Path) -> dict[str, Any]:
    path = home / name
    try:
        schema = json.loads(_read_text(path, "schema file"))
    except json.JSONDecodeError as error:
        raise BadJob(f"{path}:{error.lineno}: not JSON: {error.msg}\nNothing was sent.") from None
    except (ValueError, RecursionError) as error:
        raise BadJob(f"{path}: not JSON: {error}\nNothing was sent.") from None
    if not isinstance(schema, dict):
        raise BadJob(f"{path}: not a JSON Schema: it must be an object\nNothing was sent.")
    return schema


def _set_value(values: dict[str, Any], name: str, value: Any) -> None:  # noqa: ANN401 - a setting has any type
    *tables, last = name.split(".")
    for table in tables:
        inner = values.setdefault(table, {})
        if not isinstance(inner, dict):
            raise BadJob(f"{name}: {table} is not a table of settings\nNothing was sent.")
        values = inner
    values[last] = value


def _explain(error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        *tables, key = [str(part) for part in error["loc"]]
        where = f"[{'.'.join(tables)}]" if tables else "the job file"
        return f"unknown key in {where}{did_you_mean(key, _keys_beside(tables))}"
    if error["type"] == "missing":
        return "missing; set it in the job file (-c), or with --base-url"
    return error["msg"].removeprefix("Value error, ")


def _keys_beside(tables: Sequence[str]) -> list[str]:
    """The keys that a table of the job file may hold, by the names of the tables that it is in."""
    table: Any = JobFile.model_fields[tables[0]].annotation if tables else JobFile
    if tables[:2] == ["prices", "models"]:
        table = ModelPrices
    return [field.alias or name for name, field in table.model_fields.items()]


def line_of_key(text: str, place: Sequence[str]) -> int:
    """The line (from 1) of a TOML text that sets a key; else that of the nearest table around it; else 1.

    `tomllib` keeps no places. Lines inside a multi-line string are not mistaken for keys.
    """
    table: tuple[str, ...] = ()
    deepest, found, closing = 0, 1, ""
    for number, line in enumerate(text.splitlines(), 1):
        if closing:
            closing = "" if closing in line else closing
            continue
        header, pair = HEADER_LINE.match(line), KEY_LINE.match(line)
        if header:
            here = table = _parts(header[1])
        elif pair:
            here = table + _parts(pair[1])
            closing = next((quote for quote in ('"""', "'''") if pair[2].count(quote) % 2), "")
        else:
            continue
        if len(here) > deepest and here == tuple(place[: len(here)]):
            deepest, found = len(here), number
    return found


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in re.findall(KEY, dotted))
