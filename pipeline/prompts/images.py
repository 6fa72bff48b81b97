"""The images of a row: a path, a URL or bytes in its cell become a part of a chat, known by what it holds."""

import base64
import hashlib
from pathlib import Path
from typing import Any

from ..records import Record
from .templates import UnaskableRow

IMAGE_BYTES_MAX = 20 * 1024 * 1024
"""A larger image is taken by no endpoint that is known."""

SIGNATURES = {
    "image/png": (0, b"\x89PNG\r\n\x1a\n"),
    "image/jpeg": (0, b"\xff\xd8\xff"),
    "image/gif": (0, b"GIF8"),
    "image/webp": (8, b"WEBP"),
}
"""Where in a file its type stands, and how: the name's ending may be wrong."""


class Image(Record, frozen=True):
    """One image: its address as it is sent, and what stands for it in a key, which is the same wherever it lies."""

    sent: str
    seen: str


def image_of(cell: object, folder: Path) -> Image:
    """The image that a cell names: a path, relative to `folder`, an http(s) address, or its bytes.

    Raises Unaskable for what is missing, larger than 20 MB, or no PNG, JPEG, GIF or WebP.
    """
    if isinstance(cell, str) and cell[:8].lower().startswith(("https://", "http://")):
        return Image(sent=cell, seen=cell)
    if not isinstance(cell, (str, bytes)) or not cell:
        raise UnaskableRow("there is no image: the cell is empty" if cell in (None, "", b"") else "no path of an image")
    name, data = ("the image", cell) if isinstance(cell, bytes) else (cell[:200], _read(folder / cell, cell[:200]))
    if len(data) > IMAGE_BYTES_MAX:
        raise UnaskableRow(f"{name} is larger than {IMAGE_BYTES_MAX // 1024**2} MB")
    kinds = [kind for kind, (at, mark) in SIGNATURES.items() if data[at : at + len(mark)] == mark]
    if not kinds:
        raise UnaskableRow(f"{name} is no image: it is to be PNG, JPEG, GIF or WebP")
    sent = f"data:{kinds[0]};base64,{base64.b64encode(data).decode()}"
    return Image(sent=sent, seen=f"sha256:{hashlib.sha256(data).hexdigest()}")


def _read(path: Path, name: str) -> bytes:
    try:
        if not path.exists():
            raise UnaskableRow(f"{name}: there is no such file in {path.parent}")
        if not path.is_file():  # a pipe would be waited for
            raise UnaskableRow(f"{name} is no file")
        with path.open("rb") as file:
            return file.read(IMAGE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, UnaskableRow):
            raise
        raise UnaskableRow(f"{name} cannot be read: {error}") from None


def with_images(messages: list[Any], addresses: list[str]) -> list[Any]:
    """The chat with these images after the text of what the user said last."""
    if not addresses:
        return messages
    parts = [{"type": "image_url", "image_url": {"url": address}} for address in addresses]
    for place in range(len(messages) - 1, -1, -1):
        if messages[place]["role"] == "user":
            content = messages[place]["content"]
            text = [{"type": "text", "text": content}] if isinstance(content, str) else content
            return [*messages[:place], {**messages[place], "content": [*text, *parts]}, *messages[place + 1 :]]
    raise UnaskableRow("there is no user's message for the images to go with")
