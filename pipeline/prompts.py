"""A row and a template become a Request: the messages, the body that carries them, and the key of their answer.

The key is sha256 over the canonical JSON of what the model would see and who it is: endpoint name and revision, model,
messages, parameters, the answer's contract, and the sample's number. Canonical: keys sorted, no spaces, UTF-8, a whole
number without a fraction however it was written (as RFC 8785 has it). Headers, limits and URLs are not in it.
"""

import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jinja2
import msgspec
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .job import Job
from .records import BadJob, Failure, Request

PROMPT_CHARACTERS_MAX = 32 * 1024 * 1024
"""A prompt longer than this is a template gone wrong: no model takes it."""

Row = Mapping[str, Any]

_canonical = msgspec.json.Encoder(order="deterministic")
_plain = msgspec.json.Encoder()


class Unaskable(ValueError):
    """Why a row cannot be asked, whatever the endpoint."""


class Prompts:
    """The requests of a table's rows. Made once for a job and a table's columns; raises BadJob if they do not fit."""

    def __init__(self, job: Job, columns: Sequence[str]) -> None:
        self._system = None if job.prompt.system is None else _Template("prompt.system", job.prompt.system, columns)
        if job.prompt.template is None:
            source = _column_of(job, columns)
            self.columns: tuple[str, ...] = (source,)
            self._chat: Callable[[Row], list[Any]] = lambda row: chat_of(row[source], as_json=source == "messages")
        else:
            template = _Template("prompt.template", job.prompt.template, columns)
            self.columns = template.columns
            self._chat = lambda row: [{"role": "user", "content": _asked(template.render(row))}]
        if self._system is not None:
            self.columns = tuple(dict.fromkeys((*self.columns, *self._system.columns)))
        contract = job.answer.contract
        self._identity = {
            "answer": contract,
            "endpoint": job.endpoint.filed_under,
            "model": job.endpoint.model,
            "parameters": _whole(job.parameters),
            "revision": job.endpoint.revision,
            "sample": 0,
        }
        self._settings = dict(job.parameters)
        if contract is not None:
            form = {"name": "answer", "strict": True, "schema": contract}
            self._settings["response_format"] = {"type": "json_schema", "json_schema": form}

    def messages(self, row: Row) -> list[Any]:
        """The chat of a row, `[{"role": …, "content": …}, …]`; a chat with its own system message keeps it.

        Raises Unaskable for an empty or null prompt, a null that the template prints, a chat that is none.
        """
        chat = self._chat(row)
        if self._system is None or any(message["role"] == "system" for message in chat):
            return chat
        return [{"role": "system", "content": self._system.render(row)}, *chat]

    def request(self, row: Row) -> Request | Failure:
        """What is sent for a row, or why nothing can be; the same row always gives the same request."""
        try:
            messages = self.messages(row)
            seen = _canonical.encode({**self._identity, "messages": messages})
            body = _plain.encode({"model": self._identity["model"], "messages": messages, **self._settings})
        except Unaskable as error:
            return Failure(kind="prompt", reason=str(error))
        except (TypeError, ValueError, RecursionError) as error:
            return Failure(kind="prompt", reason=f"cannot be written as JSON: {error}")
        return Request(key=hashlib.sha256(seen).hexdigest(), body=body)


def _asked(prompt: str) -> str:
    if not prompt.strip():
        raise Unaskable("the prompt is empty")
    return prompt


def chat_of(value: object, *, as_json: bool) -> list[Any]:
    """The messages in a cell: a prompt's text, a list of `{role, content}`, or such a list as JSON text.

    Raises Unaskable for anything else. A message's null fields (a Parquet struct has every field) are left out.
    """
    if value is None:
        raise Unaskable("the prompt is null")
    if isinstance(value, str) and as_json:
        try:
            value = json.loads(_asked(value))
        except (ValueError, RecursionError) as error:
            raise Unaskable(f"the chat is not JSON: {error}") from None
        if not isinstance(value, list):
            raise Unaskable("the chat is not a list of messages")
    if isinstance(value, (dict, bytes)):
        raise Unaskable("the prompt is neither text nor a list of messages")
    if not isinstance(value, list):
        return [{"role": "user", "content": _asked(str(value))}]
    if not value:
        raise Unaskable("the chat is empty")
    return [_message(message, number) for number, message in enumerate(value, 1)]


def _message(message: object, number: int) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise Unaskable(f"message {number} of the chat has no role")
    kept = {name: field for name, field in message.items() if field is not None}
    if not kept.get("content") and not kept.get("tool_calls"):
        raise Unaskable(f"message {number} of the chat is empty")
    return kept


def _column_of(job: Job, columns: Sequence[str]) -> str:
    """The column that holds the prompts; `messages` serves where the table has no `prompt` and none was named."""
    name = job.prompt.column
    if name in columns:
        return name
    if "column" not in job.prompt.model_fields_set and "messages" in columns:
        return "messages"
    raise BadJob(
        f"The input has no column {name!r} to take the prompts from{_near(name, columns)}\n"
        "Name one with prompt.column, or write a template with -p or prompt.template. Nothing was sent."
    )


def _near(name: str, columns: Iterable[str]) -> str:
    columns = list(columns)
    near = difflib.get_close_matches(name, columns, 1)
    if near:
        return f"; did you mean {near[0]!r}?"
    shown = ", ".join(columns[:20]) + (", …" if len(columns) > 20 else "")
    return f"; it has {shown}."


def _whole(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """1.0 as 1, all the way down: the same to a model, so the same to the key."""
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _data(value: object) -> object:
    """Raise Unaskable rather than put the word None, or a place in memory, into a prompt that is paid for."""
    if value is None:
        raise Unaskable("the template prints a null; write {{ column or '' }} where one may stand")
    if callable(value) or isinstance(value, Iterator):
        raise Unaskable("the template prints code instead of a value: are its parentheses missing, or a `| list`?")
    return value


def _to_json(value: object, indent: int | None = None) -> str:
    """Jinja's own `tojson` escapes for HTML, which a model would read as noise."""
    return json.dumps(value, ensure_ascii=False, indent=indent, default=str)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined,
        finalize=_data,
        autoescape=False,  # prompts are text, not HTML
    )
    environment.filters["tojson"] = _to_json
    # the same row must always give the same prompt, or no answer would be found again
    del environment.filters["random"]
    del environment.globals["lipsum"]
    return environment


class _Template:
    """One compiled text of the job file, and the columns that it reads."""

    def __init__(self, setting: str, text: str, columns: Sequence[str]) -> None:
        environment = _environment()
        try:
            tree = environment.parse(text)
            self._template = environment.from_string(text)
        except jinja2.TemplateSyntaxError as error:
            raise BadJob(f"{setting}, line {error.lineno}: {error.message}\nNothing was sent.") from None
        except jinja2.TemplateError as error:
            raise BadJob(f"{setting}: {error}\nNothing was sent.") from None
        names = meta.find_undeclared_variables(tree) - set(environment.globals)
        self._whole_row = "row" in names and "row" not in columns
        for name in sorted(names - set(columns) - ({"row"} if self._whole_row else set())):
            raise BadJob(f"{setting}: the input has no column {name!r}{_near(name, columns)}\nNothing was sent.")
        self.columns = tuple(columns) if self._whole_row else tuple(name for name in columns if name in names)

    def render(self, row: Row) -> str:
        """Raises Unaskable for whatever goes wrong with this row alone."""
        given = {name: row[name] for name in self.columns}
        if self._whole_row:
            given["row"] = dict(given)
        try:
            return _capped(self._template.generate(given))
        except Unaskable:
            raise
        except Exception as error:  # noqa: BLE001 - a template is the user's code: a bad row may raise anything
            raise Unaskable(f"the template fails on this row: {error}") from None


def _capped(parts: Iterable[str]) -> str:
    kept, length = [], 0
    for part in parts:
        kept.append(part)
        length += len(part)
        if length > PROMPT_CHARACTERS_MAX:
            raise Unaskable(f"the prompt is longer than {PROMPT_CHARACTERS_MAX:,} characters")
    return "".join(kept)
