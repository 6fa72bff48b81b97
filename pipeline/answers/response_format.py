"""How a contract is conveyed with a request: as a schema that the endpoint enforces, or in words beside the prompt."""

from typing import Any, Literal, get_args

import msgspec

from ..job import Job
from .openai_strict import strict_schema

ResponseFormat = Literal["json_schema", "json_object", "instruction"]
RESPONSE_FORMATS: tuple[ResponseFormat, ...] = get_args(ResponseFormat)
"""From the form that binds a model most to the one that every endpoint takes."""

INSTRUCTION = "Answer with one JSON object that fits this JSON Schema, and with nothing around it:\n"

_plain = msgspec.json.Encoder()
_parts = msgspec.json.Decoder(dict[str, msgspec.Raw])
_messages = msgspec.json.Decoder(list[msgspec.Raw])


class ContractEncoder:
    """The forms in which a job's contract can be conveyed."""

    def __init__(self, job: Job) -> None:
        self._schema = schema = job.answer.contract
        self._strict = strict_schema(schema) if schema is not None else None

    def conveyed(self, body: bytes, form: ResponseFormat) -> bytes:
        """A request's body with the contract laid over it, as it is sent; the same bytes for free text.

        Keys do not know of it. In words, the schema stands at the end of what the user said last: models heed it there.
        """
        if self._schema is None:
            return body
        parts = _parts.decode(body)
        if form == "json_schema":
            schema = {"name": "answer", "strict": bool(self._strict), "schema": self._strict or self._schema}
            return _plain.encode({**parts, "response_format": {"type": form, "json_schema": schema}})
        told = _told(_messages.decode(parts["messages"]), INSTRUCTION + _plain.encode(self._schema).decode())
        named = {"response_format": {"type": form}} if form == "json_object" else {}
        return _plain.encode({**parts, "messages": told, **named})


def _told(messages: list[msgspec.Raw], instruction: str) -> list[Any]:
    for place in range(len(messages) - 1, -1, -1):
        message = msgspec.json.decode(messages[place])
        content = message.get("content")
        if message["role"] == "user" and isinstance(content, (str, list)):
            if isinstance(content, str):
                message["content"] = f"{content}\n\n{instruction}"
            else:
                content.append({"type": "text", "text": instruction})
            return [*messages[:place], message, *messages[place + 1 :]]
    return [*messages, {"role": "user", "content": instruction}]
