"""A row and a template become a Request: the messages, the body that carries them, and the key of their answer.

The key is sha256 over the canonical JSON of what the model would see and who it is: endpoint name and revision, model,
messages (an image by its bytes' hash), parameters, the answer's contract, and the sample's number. Canonical: keys
sorted, no spaces, UTF-8, a whole number without a fraction however it was written (as RFC 8785 has it). Headers, limits
and URLs are not in it.
"""

import copy
import glob
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec

from ..answers import example_answer
from ..job import Job
from ..records import BadJob, Failure, Request
from ..text import did_you_mean
from .images import Image, image_of, with_images
from .templates import Row, Template, UnaskableRow

_canonical = msgspec.json.Encoder(order="deterministic")
_plain = msgspec.json.Encoder()

HOLE = b"\0"
"""Holds the place of the messages: a byte that no JSON has."""
FRAMES_KEPT = 1_000


class Frame(NamedTuple):
    """What stands before and after the messages, in what the key is made of and in the body: alike for many rows."""

    seen: tuple[bytes, bytes]
    sent: tuple[bytes, bytes]
    model: str
    """Empty for the job's own."""


class Prompts:
    """The requests of a table's rows. Made once for a job and a table's columns; raises BadJob if they do not fit."""

    def __init__(self, job: Job, columns: Sequence[str]) -> None:
        self._system = None if job.prompt.system is None else Template("prompt.system", job.prompt.system, columns)
        if job.prompt.template is None:
            source = _column_of(job, columns)
            read: tuple[str, ...] = (source,)
            self._chat: Callable[[Row], list[Any]] = lambda row: chat_of(row[source], as_json=source == "messages")
        else:
            template = Template("prompt.template", job.prompt.template, columns)
            read = template.columns
            self._chat = lambda row: [{"role": "user", "content": _asked(template.render(row))}]
        self._examples = [
            message
            for number, example in enumerate(job.prompt.example_rows, 1)
            for message in self._shown(job, example, number, read)
        ]
        self._images, self._folder = job.prompt.images, _images_folder(job)
        self._own = job.columns
        named = [(f"prompt.images[{at}]", name) for at, name in enumerate(self._images)]
        named += [(f"columns.{key}", name) for key, name in self._own.model_dump().items() if name is not None]
        for setting, name in named:
            if name not in columns:
                raise BadJob(
                    f"{setting}: the input has no column {name!r}{did_you_mean(name, columns)}\nNothing was sent."
                )
        system = self._system.columns if self._system is not None else ()
        self.columns: tuple[str, ...] = tuple(dict.fromkeys((*read, *system, *(name for _, name in named))))
        self._capped, self._model = job.capped, job.endpoint.model
        identity: dict[str, Any] = {
            "answer": job.answer.contract,
            "endpoint": job.endpoint.filed_under,
            "parameters": _whole(job.parameters),
            "revision": job.endpoint.revision,
        }
        settings = dict(job.parameters)
        if job.answer.logprobs:
            identity["logprobs"] = settings["logprobs"] = True
        self._identity, self._settings = identity, settings
        self._opinions = [
            (sample, model) for sample in range(job.answer.samples) for model in job.answer.models or [""]
        ]
        """Of each opinion the sample's number, and the model if it is not the job's own."""
        self._frame = lru_cache(FRAMES_KEPT)(self._made_frame)

    def _shown(self, job: Job, example: Row, number: int, read: tuple[str, ...]) -> list[Any]:
        """An example as the turns of a chat, asked as a row is."""
        for name in read:
            if name not in example:
                raise BadJob(
                    f"prompt.examples: example {number} has no column {name!r}, which the prompt is made of"
                    f"{did_you_mean(name, list(example))}\nNothing was sent."
                )
        try:
            return [*self._chat(example), {"role": "assistant", "content": example_answer(job, example)}]
        except UnaskableRow as error:
            raise BadJob(f"prompt.examples: example {number}: {error}\nNothing was sent.") from None

    def messages(self, row: Row) -> list[Any]:
        """The chat of a row, `[{"role": …, "content": …}, …]`, without images; a chat keeps its own system message.

        Raises Unaskable for an empty or null prompt, a null that the template prints, a chat that is none.
        """
        chat = self._chat(row)
        if self._system is not None and all(message["role"] != "system" for message in chat):
            chat = [{"role": "system", "content": self._system.render(row)}, *chat]
        if not self._examples:
            return chat
        first = next((at for at, message in enumerate(chat) if message["role"] != "system"), len(chat))
        return [*chat[:first], *self._examples, *chat[first:]]

    def shown(self, row: Row) -> str:
        """What a row asks, for a person: its last message, or in brackets why it cannot be asked."""
        try:
            content = self.messages(row)[-1].get("content")
            return content if isinstance(content, str) else msgspec.json.encode(content).decode()
        except (TypeError, ValueError, RecursionError) as error:  # what makes a row unaskable
            return f"({error})"

    def requests(self, row: Row) -> list[Request] | Failure:
        """What is asked for a row, one request for each opinion, or why nothing can be.

        The same row always gives the same requests: the first sample of each model, then the second of each.
        """
        try:
            seen = sent = self.messages(row)
            if self._images:
                images = self._images_of(row)
                seen = with_images(seen, [image.seen for image in images])
                sent = with_images(sent, [image.sent for image in images])
            model, cap = self._model_of(row), self._max_tokens_of(row)
            frames = [self._frame(sample, model or other, cap) for sample, other in self._opinions]
            written, body = _canonical.encode(seen), _plain.encode(sent)
            return [
                Request(hashlib.sha256(written.join(frame.seen)).hexdigest(), body.join(frame.sent), frame.model, cap)
                for frame in frames
            ]
        except UnaskableRow as error:
            return Failure(kind="prompt", reason=str(error))
        except (TypeError, ValueError, RecursionError) as error:
            return Failure(kind="prompt", reason=f"cannot be written as JSON: {error}")

    def _made_frame(self, sample: int, model: str, cap: int | None) -> Frame:
        """Around the messages of one sample; `model` and `cap` where they are others than the job's."""
        caps = {} if cap is None else self._capped(cap)
        told = {"model": model or self._model, "messages": msgspec.Raw(HOLE)}
        parameters = {**self._identity["parameters"], **caps}
        seen = _canonical.encode({**self._identity, **told, "parameters": parameters, "sample": sample})
        sent = _plain.encode({**told, **_sampled(self._settings, sample), **caps})
        return Frame(_around_hole(seen), _around_hole(sent), model)

    def under(self, contract: dict[str, Any]) -> Self:
        """The same requests, made when the answer's contract was another: they differ in their keys."""
        other = copy.copy(self)
        other._identity = {**self._identity, "answer": contract}  # noqa: SLF001 - a copy of this one
        other._frame = lru_cache(FRAMES_KEPT)(other._made_frame)  # noqa: SLF001 - as above
        return other

    def _images_of(self, row: Row) -> list[Image]:
        """The images of a row, in the order of their columns; a cell may hold a list of them."""
        cells = (row[name] for name in self._images)
        return [image_of(each, self._folder) for cell in cells for each in (cell if isinstance(cell, list) else [cell])]

    def _model_of(self, row: Row) -> str:
        model = None if self._own.model is None else row[self._own.model]
        if model is not None and (not isinstance(model, str) or not model.strip()):
            raise UnaskableRow(f"{self._own.model}: {model!r} is no name of a model")
        return model or ""

    def _max_tokens_of(self, row: Row) -> int | None:
        cap = None if self._own.max_tokens is None else row[self._own.max_tokens]
        if cap is None:
            return None
        number = int(cap) if isinstance(cap, str) and cap.strip().isdecimal() and len(cap) < 20 else cap
        if type(number) is not int or number < 1:
            raise UnaskableRow(f"{self._own.max_tokens}: {cap!r} is no number of tokens")
        return number


def _images_folder(job: Job) -> Path:
    """Where the paths of images begin: the folder of the input. Raises BadJob if there are several."""
    folders = {Path() if name == "-" else Path(name).parent for name in job.inputs}
    if job.prompt.images and (len(folders) > 1 or glob.has_magic(str(min(folders)))):
        raise BadJob(
            "prompt.images: paths of images begin in the input's folder, and these inputs lie in several.\n"
            "Name inputs of one folder, or run one after the other with the same --job-dir. Nothing was sent."
        )
    return min(folders)


def _around_hole(written: bytes) -> tuple[bytes, bytes]:
    before, _, after = written.partition(HOLE)
    return before, after


def _sampled(parameters: dict[str, Any], sample: int) -> dict[str, Any]:
    """The parameters of one sample: with one seed for all, all would say the same."""
    seed = parameters.get("seed")
    return {**parameters, "seed": seed + sample} if type(seed) is int else parameters


def _asked(prompt: str) -> str:
    if not prompt.strip():
        raise UnaskableRow("the prompt is empty")
    return prompt


def chat_of(value: object, *, as_json: bool) -> list[Any]:
    """The messages in a cell: a prompt's text, a list of `{role, content}`, or such a list as JSON text.

    Raises Unaskable for anything else. A message's null fields (a Parquet struct has every field) are left out.
    """
    if value is None:
        raise UnaskableRow("the prompt is null")
    if isinstance(value, str) and as_json:
        try:
            value = json.loads(_asked(value))
        except (ValueError, RecursionError) as error:
            raise UnaskableRow(f"the chat is not JSON: {error}") from None
        if not isinstance(value, list):
            raise UnaskableRow("the chat is not a list of messages")
    if isinstance(value, (dict, bytes)):
        raise UnaskableRow("the prompt is neither text nor a list of messages")
    if not isinstance(value, list):
        return [{"role": "user", "content": _asked(str(value))}]
    if not value:
        raise UnaskableRow("the chat is empty")
    return [_message(message, number) for number, message in enumerate(value, 1)]


def _message(message: object, number: int) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise UnaskableRow(f"message {number} of the chat has no role")
    kept = {name: field for name, field in message.items() if field is not None}
    if not kept.get("content") and not kept.get("tool_calls"):
        raise UnaskableRow(f"message {number} of the chat is empty")
    return kept


def _column_of(job: Job, columns: Sequence[str]) -> str:
    """The column that holds the prompts; `messages` serves where the table has no `prompt` and none was named."""
    name = job.prompt.column
    if name in columns:
        return name
    if "column" not in job.prompt.model_fields_set and "messages" in columns:
        return "messages"
    raise BadJob(
        f"The input has no column {name!r} to take the prompts from{did_you_mean(name, columns)}\n"
        "Name one with prompt.column, or write a template with -p or prompt.template. Nothing was sent."
    )


def _whole(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """1.0 as 1, all the way down: the same to a model, so the same to the key."""
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
