"""A row and a template become a Request: the messages, the body that carries them, and the key of their answer.

The key is sha256 over the canonical JSON of what the model would see and who it is: endpoint name and revision, model,
messages, parameters, the answer's contract, and the sample's number. Canonical: keys sorted, no spaces, UTF-8, a whole
number without a fraction however it was written (as RFC 8785 has it). Headers, limits and URLs are not in it.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from .job import Job
from .records import BadJob, Failure, Request
from .templates import Row, Template, Unaskable, near_name

_canonical = msgspec.json.Encoder(order="deterministic")
_plain = msgspec.json.Encoder()


class Prompts:
    """The requests of a table's rows. Made once for a job and a table's columns; raises BadJob if they do not fit."""

    def __init__(self, job: Job, columns: Sequence[str]) -> None:
        self._system = None if job.prompt.system is None else Template("prompt.system", job.prompt.system, columns)
        if job.prompt.template is None:
            source = _column_of(job, columns)
            self.columns: tuple[str, ...] = (source,)
            self._chat: Callable[[Row], list[Any]] = lambda row: chat_of(row[source], as_json=source == "messages")
        else:
            template = Template("prompt.template", job.prompt.template, columns)
            self.columns = template.columns
            self._chat = lambda row: [{"role": "user", "content": _asked(template.render(row))}]
        if self._system is not None:
            self.columns = tuple(dict.fromkeys((*self.columns, *self._system.columns)))
        identity: dict[str, Any] = {
            "answer": job.answer.contract,
            "endpoint": job.endpoint.filed_under,
            "parameters": _whole(job.parameters),
            "revision": job.endpoint.revision,
        }
        settings = dict(job.parameters)
        if job.answer.logprobs:
            identity["logprobs"] = settings["logprobs"] = True
        self._opinions = [
            ({**identity, "model": model, "sample": sample}, {"model": model, **_sampled(settings, sample)})
            for sample in range(job.answer.samples)
            for model in job.models
        ]
        """Of each opinion: what its key is made of, and what its body holds, beside the messages."""

    def messages(self, row: Row) -> list[Any]:
        """The chat of a row, `[{"role": …, "content": …}, …]`; a chat with its own system message keeps it.

        Raises Unaskable for an empty or null prompt, a null that the template prints, a chat that is none.
        """
        chat = self._chat(row)
        if self._system is None or any(message["role"] == "system" for message in chat):
            return chat
        return [{"role": "system", "content": self._system.render(row)}, *chat]

    def requests(self, row: Row) -> list[Request] | Failure:
        """What is asked for a row, one request for each opinion, or why nothing can be.

        The same row always gives the same requests: the first sample of each model, then the second of each.
        """
        try:
            messages = self.messages(row)
            return [_request(identity, settings, messages) for identity, settings in self._opinions]
        except Unaskable as error:
            return Failure(kind="prompt", reason=str(error))
        except (TypeError, ValueError, RecursionError) as error:
            return Failure(kind="prompt", reason=f"cannot be written as JSON: {error}")


def _request(identity: dict[str, Any], settings: dict[str, Any], messages: list[Any]) -> Request:
    seen = _canonical.encode({**identity, "messages": messages})
    model = identity["model"]
    body = _plain.encode({"model": model, "messages": messages, **settings})
    return Request(key=hashlib.sha256(seen).hexdigest(), body=body, model=model)


def _sampled(parameters: dict[str, Any], sample: int) -> dict[str, Any]:
    """The parameters of one sample: with one seed for all, all would say the same."""
    seed = parameters.get("seed")
    return {**parameters, "seed": seed + sample} if type(seed) is int else parameters


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
        f"The input has no column {name!r} to take the prompts from{near_name(name, columns)}\n"
        "Name one with prompt.column, or write a template with -p or prompt.template. Nothing was sent."
    )


def _whole(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """1.0 as 1, all the way down: the same to a model, so the same to the key."""
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
