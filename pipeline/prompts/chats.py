"""A cell as a chat: the text of a prompt, or a whole list of messages."""

import json
from typing import Any

from .templates import UnaskableRow


def chat_of(value: object, *, as_json: bool) -> list[Any]:
    """The messages in a cell: one for the text of a prompt, or a list of `{role, content}`.

    With `as_json`, text is read as the JSON of such a list. Fields that are null are left out: a struct of Parquet has
    every field in every message. Raises UnaskableRow for a cell that is null, blank, or not a chat.
    """
    if value is None:
        raise UnaskableRow("the prompt is null")
    if isinstance(value, str) and as_json:
        try:
            value = json.loads(not_blank(value))
        except (ValueError, RecursionError) as error:
            if isinstance(error, UnaskableRow):
                raise
            raise UnaskableRow(f"the chat is not JSON: {error}") from None
        if not isinstance(value, list):
            raise UnaskableRow("the chat is not a list of messages")
    if isinstance(value, (dict, bytes)):
        raise UnaskableRow("the prompt is neither text nor a list of messages")
    if not isinstance(value, list):
        return [{"role": "user", "content": not_blank(str(value))}]
    if not value:
        raise UnaskableRow("the chat is empty")
    return [_message(message, number) for number, message in enumerate(value, 1)]


def not_blank(prompt: str) -> str:
    """The prompt as it is. Raises UnaskableRow if it is empty or blank."""
    if not prompt.strip():
        raise UnaskableRow("the prompt is empty")
    return prompt


def _message(message: object, number: int) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise UnaskableRow(f"message {number} of the chat has no role")
    given = {name: field for name, field in message.items() if field is not None}
    if not given.get("content") and not given.get("tool_calls"):
        raise UnaskableRow(f"message {number} of the chat is empty")
    return given
