"""Add a job's contract to a request: as a schema that the endpoint enforces, or as an instruction in the prompt."""

from typing import Any, Literal, get_args

import msgspec

from ..text import compact_json
from .openai_strict import strict_schema
from .request_body import decode_body, decode_messages

ResponseFormat = Literal["json_schema", "json_object", "instruction"]
RESPONSE_FORMATS: tuple[ResponseFormat, ...] = get_args(ResponseFormat)
"""In the order in which they are tried: from the one that binds a model most to the one that every endpoint accepts."""

INSTRUCTION = "Answer with one JSON object that fits this JSON Schema, and with nothing around it:\n"


class ContractEncoder:
    """Adds one contract to the bodies of requests, in a response format that the endpoint accepts."""

    def __init__(self, contract: dict[str, Any] | None) -> None:
        """`contract` is the job's JSON Schema (`job.answer.contract`); None for free text."""
        self._schema = contract
        self._strict = strict_schema(contract) if contract is not None else None

    def encode(self, body: bytes, response_format: ResponseFormat) -> bytes:
        """The body with the contract added, as it is sent; the same bytes for free text.

        Keys are computed from the body without it. As an instruction, the schema stands at the end of the last user
        message, where models follow it best.
        """
        if self._schema is None:
            return body
        parts = decode_body(body)
        if response_format == "json_schema":
            schema = {"name": "answer", "strict": bool(self._strict), "schema": self._strict or self._schema}
            return compact_json({**parts, "response_format": {"type": "json_schema", "json_schema": schema}})
        instruction = INSTRUCTION + compact_json(self._schema).decode()
        messages = _with_instruction(decode_messages(parts["messages"]), instruction)
        named = {"response_format": {"type": "json_object"}} if response_format == "json_object" else {}
        return compact_json({**parts, "messages": messages, **named})


def _with_instruction(messages: list[msgspec.Raw], instruction: str) -> list[Any]:
    """Add the instruction to the last user message; without one, as a user message at the end."""
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
