"""The images of a row: a cell that holds a path, a web address or bytes becomes a part of the chat."""

import base64
import hashlib
from pathlib import Path
from typing import Any

from ..records import Record
from .templates import UnaskableRow

IMAGE_BYTES_MAX = 20 * 1024 * 1024
"""A larger image is refused: no known endpoint takes it."""

SIGNATURES = {
    "image/png": (0, b"\x89PNG\r\n\x1a\n"),
    "image/jpeg": (0, b"\xff\xd8\xff"),
    "image/gif": (0, b"GIF8"),
    "image/webp": (8, b"WEBP"),
}
"""The bytes that mark each media type, and their offset in the file. Suffixes of file names can be wrong."""


class Image(Record, frozen=True):
    """One image, as it is sent and as the key knows it."""

    sent: str
    """A web address, or a data URL of the bytes."""
    seen: str
    """The web address, or the hash of the bytes: the same wherever the file lies."""


def image_of(cell: object, folder: Path) -> Image:
    """The image of a cell: a path relative to `folder`, an http(s) address, or the bytes themselves.

    Raises UnaskableRow for an empty cell, a file that cannot be read, and bytes that are larger than 20 MB or not PNG,
    JPEG, GIF or WebP.
    """
    if isinstance(cell, str) and cell[:8].lower().startswith(("https://", "http://")):
        return Image(sent=cell, seen=cell)
    if cell in (None, "", b""):
        raise UnaskableRow("there is no image: the cell is empty")
    if not isinstance(cell, (str, bytes)):
        raise UnaskableRow("the cell is no path of an image")
    name, data = ("the image", cell) if isinstance(cell, bytes) else (cell[:200], _read(folder / cell, cell[:200]))
    if len(data) > IMAGE_BYTES_MAX:
        raise UnaskableRow(f"{name} is larger than {IMAGE_BYTES_MAX // 1024**2} MB")
    types = [kind for kind, (offset, mark) in SIGNATURES.items() if data[offset : offset + len(mark)] == mark]
    if not types:
        raise UnaskableRow(f"{name} is not an image of a known type: PNG, JPEG, GIF or WebP")
    sent = f"data:{types[0]};base64,{base64.b64encode(data).decode()}"
    return Image(sent=sent, seen=f"sha256:{hashlib.sha256(data).hexdigest()}")


def _read(path: Path, name: str) -> bytes:
    try:
        if not path.exists():
            raise UnaskableRow(f"{name}: there is no such file in {path.parent}")
        if not path.is_file():  # opening a pipe would wait for its writer
            raise UnaskableRow(f"{name} is not a file")
        with path.open("rb") as file:
            return file.read(IMAGE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, UnaskableRow):
            raise
        raise UnaskableRow(f"{name} cannot be read: {error}") from None


def with_images(messages: list[Any], addresses: list[str]) -> list[Any]:
    """A copy of the chat with these images after the text of the last user message; the chat itself if none is given.

    Raises UnaskableRow if no message is the user's.
    """
    if not addresses:
        return messages
    parts = [{"type": "image_url", "image_url": {"url": address}} for address in addresses]
    for place in range(len(messages) - 1, -1, -1):
        if messages[place]["role"] == "user":
            content = messages[place]["content"]
            text = [{"type": "text", "text": content}] if isinstance(content, str) else content
            return [*messages[:place], {**messages[place], "content": [*text, *parts]}, *messages[place + 1 :]]
    raise UnaskableRow("the chat has no user message for the images to go with")
