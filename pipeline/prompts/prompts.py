"""A row becomes its requests: the messages, the body that carries them, and the key of the answer.

The key is the sha256 of canonical JSON of what the model sees and who it is: the endpoint's name and revision, the
model, the messages (an image by the hash of its bytes), the parameters that the model sees (`job.UNSEEN_PARAMETERS` are
the others), the answer's contract, and the sample's number.
Canonical means: sorted keys, no spaces, UTF-8, and a whole number without a fraction, however it was written (as in RFC
8785). Headers, limits and URLs are not part of it.
"""

import copy
import glob
import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec

from ..answers import example_answer
from ..job import Job, Prompt
from ..records import BadJob, Failure, Request
from ..text import canonical_json, compact_json, did_you_mean
from .chats import chat_of, not_blank
from .images import Image, image_of, with_images
from .templates import Row, Template, UnaskableRow

PLACEHOLDER = b"\0"
"""Where the messages go in an encoded frame: a byte that JSON cannot hold."""
FRAMES_MAX = 1_000
"""Frames that are kept at once, for rows with models and caps of their own."""


class Frame(NamedTuple):
    """The JSON before and after the messages, in the key's text and in the body. Most rows have the same."""

    seen: tuple[bytes, bytes]
    sent: tuple[bytes, bytes]
    model: str
    """Empty for the job's own model."""


STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
"""The part of a body that asks for an answer in pieces, with its token counts at the end."""


class Prompts:
    """Makes the requests of a table's rows. One is made for a job and the names of a table's columns."""

    def __init__(self, job: Job, columns: Sequence[str]) -> None:
        """Compile the templates and make the examples.

        Raises BadJob for a broken template or example, and for a column that the table does not have.
        """
        self._system = None if job.prompt.system is None else Template("prompt.system", job.prompt.system, columns)
        self._chat, read = _chat_maker(job.prompt, columns)
        self._examples = [
            message
            for number, example in enumerate(job.prompt.example_rows, 1)
            for message in self._example_turns(job, example, number, read)
        ]
        self._images, self._folder = job.prompt.images, _images_folder(job.prompt.images, job.inputs)
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
        """The columns that requests are made from."""
        self._capped, self._model = job.capped, job.endpoint.model
        self._identity: dict[str, Any] = {
            "answer": job.answer.contract,
            "endpoint": job.endpoint.filed_under,
            "parameters": _without_zero_fractions(job.seen_parameters),
            "revision": job.endpoint.revision,
        }
        self._parameters = dict(job.parameters)
        # some servers stream unless a request says that it wants no stream
        streamed = job.endpoint.stream and job.run.how != "batch"
        self._how: dict[str, Any] = STREAMED if streamed else {"stream": False}
        if job.run.how == "flex":
            self._how = {**self._how, "service_tier": "flex"}
        if job.answer.logprobs:
            self._identity["logprobs"] = self._parameters["logprobs"] = True
        self._samples = [(sample, model) for sample in range(job.answer.samples) for model in job.answer.models or [""]]
        """The number and the model of each of a row's samples; the model is empty for the job's own."""
        self._frame = lru_cache(FRAMES_MAX)(self._make_frame)

    def _example_turns(self, job: Job, example: Row, number: int, read: tuple[str, ...]) -> list[Any]:
        """An example as turns of the chat: asked as a row is, with its answer as the assistant's."""
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
        """The chat of a row, `[{"role": …, "content": …}, …]`, without images.

        A chat that has a system message keeps it. Raises UnaskableRow for a prompt that is null, blank, or not a chat,
        and for whatever goes wrong in the template.
        """
        chat = self._chat(row)
        if self._system is not None and all(message["role"] != "system" for message in chat):
            chat = [{"role": "system", "content": self._system.render(row)}, *chat]
        if not self._examples:
            return chat
        first = next((at for at, message in enumerate(chat) if message["role"] != "system"), len(chat))
        return [*chat[:first], *self._examples, *chat[first:]]

    def shown(self, row: Row) -> str:
        """The prompt of a row for a person: its last message, or in brackets why it cannot be asked."""
        try:
            content = self.messages(row)[-1].get("content")
            return content if isinstance(content, str) else compact_json(content).decode()
        except (TypeError, ValueError, RecursionError) as error:  # the same as in `requests`
            return f"({error})"

    def requests(self, row: Row) -> list[Request] | Failure:
        """One request for each sample of a row, or why the row cannot be asked.

        The same row always gives the same requests, in this order: the first sample of each model, then the second of
        each.
        """
        try:
            seen = sent = self.messages(row)
            if self._images:
                images = self._images_of(row)
                seen = with_images(seen, [image.seen for image in images])
                sent = with_images(sent, [image.sent for image in images])
            own_model, cap = self._model_of(row), self._max_tokens_of(row)
            frames = [self._frame(sample, own_model or model, cap) for sample, model in self._samples]
            in_key, in_body = canonical_json(seen), compact_json(sent)
            return [
                Request(hashlib.sha256(in_key.join(frame.seen)).hexdigest(), in_body.join(frame.sent), frame.model, cap)
                for frame in frames
            ]
        except UnaskableRow as error:
            return Failure(kind="prompt", reason=str(error))
        except (TypeError, ValueError, RecursionError) as error:
            return Failure(kind="prompt", reason=f"cannot be written as JSON: {error}")

    def _make_frame(self, sample: int, model: str, cap: int | None) -> Frame:
        """The frame of one sample; `model` is empty and `cap` None where they are the job's own."""
        caps = {} if cap is None else self._capped(cap)
        common = {"model": model or self._model, "messages": msgspec.Raw(PLACEHOLDER)}
        parameters = {**self._identity["parameters"], **caps}
        seen = canonical_json({**self._identity, **common, "parameters": parameters, "sample": sample})
        sent = compact_json({**common, **_with_seed_of(sample, self._parameters), **caps, **self._how})
        return Frame(_split_at_placeholder(seen), _split_at_placeholder(sent), model)

    def under(self, contract: dict[str, Any]) -> Self:
        """A copy that makes the requests as under another contract of the answer: they differ in their keys."""
        other = copy.copy(self)
        other._identity = {**self._identity, "answer": contract}  # noqa: SLF001 - a copy of this one
        other._frame = lru_cache(FRAMES_MAX)(other._make_frame)  # noqa: SLF001 - a copy of this one
        return other

    def _images_of(self, row: Row) -> list[Image]:
        """The images of a row, in the order of their columns; a cell may hold a list of them."""
        cells = (row[name] for name in self._images)
        return [image_of(each, self._folder) for cell in cells for each in (cell if isinstance(cell, list) else [cell])]

    def _model_of(self, row: Row) -> str:
        model = None if self._own.model is None else row[self._own.model]
        if model is not None and (not isinstance(model, str) or not model.strip()):
            raise UnaskableRow(f"{self._own.model}: {model!r} is not the name of a model")
        return model or ""

    def _max_tokens_of(self, row: Row) -> int | None:
        cap = None if self._own.max_tokens is None else row[self._own.max_tokens]
        if cap is None:
            return None
        number = int(cap) if isinstance(cap, str) and cap.strip().isdecimal() and len(cap) < 20 else cap
        if type(number) is not int or number < 1:
            raise UnaskableRow(f"{self._own.max_tokens}: {cap!r} is not a number of tokens")
        return number


def _chat_maker(prompt: Prompt, columns: Sequence[str]) -> tuple[Callable[[Row], list[Any]], tuple[str, ...]]:
    """What makes a row's chat, without system message and examples; and the columns that it reads."""
    if prompt.template is None:
        source = _column_of(prompt, columns)
        return lambda row: chat_of(row[source], as_json=source == "messages"), (source,)
    template = Template("prompt.template", prompt.template, columns)
    return lambda row: [{"role": "user", "content": not_blank(template.render(row))}], template.columns


def _column_of(prompt: Prompt, columns: Sequence[str]) -> str:
    """The column that holds the prompts: `messages`, if none is named and the table has no `prompt`."""
    name = prompt.column
    if name in columns:
        return name
    if "column" not in prompt.model_fields_set and "messages" in columns:
        return "messages"
    raise BadJob(
        f"The input has no column {name!r} to take the prompts from{did_you_mean(name, columns)}\n"
        "Name one with prompt.column, or write a template with -p or prompt.template. Nothing was sent."
    )


def _images_folder(images: Sequence[str], inputs: Sequence[str]) -> Path:
    """The folder that paths of images are relative to: the input's. Raises BadJob if the inputs lie in several."""
    folders = {Path() if name == "-" else Path(name).parent for name in inputs}
    if images and (len(folders) > 1 or (glob.has_magic(str(min(folders))) and not min(folders).exists())):
        raise BadJob(
            "prompt.images: paths of images are relative to the input's folder, but these inputs lie in several.\n"
            "Name inputs of one folder, or run one after the other with the same --job-dir. Nothing was sent."
        )
    return min(folders)


def _split_at_placeholder(encoded: bytes) -> tuple[bytes, bytes]:
    before, _, after = encoded.partition(PLACEHOLDER)
    return before, after


def _with_seed_of(sample: int, parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters with the seed counted up: with one seed, all samples would be the same."""
    seed = parameters.get("seed")
    return {**parameters, "seed": seed + sample} if type(seed) is int else parameters


def _without_zero_fractions(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """1.0 as 1, at any depth: a model sees no difference, so the key has none."""
    if isinstance(value, dict):
        return {name: _without_zero_fractions(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_zero_fractions(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
