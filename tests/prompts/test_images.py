"""Images are sent as what their bytes are and known by them; a cell that holds none fails its row alone."""

import base64
import hashlib
import os
from pathlib import Path

import pytest

from pipeline.prompts.images import IMAGE_BYTES_MAX, image_of, with_images
from pipeline.prompts.templates import UnaskableRow

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 16


@pytest.mark.parametrize(
    ("start", "kind"),
    [(PNG, "png"), (b"\xff\xd8\xff\xe0", "jpeg"), (b"GIF89a", "gif"), (b"RIFF\0\0\0\0WEBPVP8 ", "webp")],
)
def test_a_file_is_sent_as_what_its_bytes_are_whatever_its_name(tmp_path: Path, start: bytes, kind: str) -> None:
    (tmp_path / "a.txt").write_bytes(start)
    image = image_of("a.txt", tmp_path)
    assert image.sent == f"data:image/{kind};base64,{base64.b64encode(start).decode()}"
    assert image.seen == f"sha256:{hashlib.sha256(start).hexdigest()}"
    assert image_of(start, Path("elsewhere")) == image_of(str(tmp_path / "a.txt"), Path("elsewhere")) == image


@pytest.mark.parametrize("address", ["https://h.example/a.png", "HTTP://h.example/a.png"])
def test_a_web_address_is_sent_as_it_is(address: str) -> None:
    image = image_of(address, Path())
    assert image.sent == image.seen == address


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        (None, "the cell is empty"),
        ("", "the cell is empty"),
        (3, "no path"),
        ("none.png", "no such file"),
        ("text.png", "is not an image"),
        ("empty.png", "is not an image"),
        ("folder", "is not a file"),
        ("pipe", "is not a file"),
        ("a\0b.png", "b.png"),
        ("x" * 5000, "x{200}(:| cannot)"),
        (b"text", "is not an image"),
        ("data:image/png;base64,AAAA", "no such file"),
        ("large.png", "larger than 20 MB"),
    ],
)
def test_a_cell_that_holds_no_image_is_refused(tmp_path: Path, cell: object, why: str) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large.png").open("wb") as file:
        file.write(PNG)
        file.truncate(IMAGE_BYTES_MAX + 1)
    with pytest.raises(UnaskableRow, match=why):
        image_of(cell, tmp_path)


def test_images_stand_after_the_text_of_the_last_user_message() -> None:
    chat = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}, {"role": "user", "content": "3"}]
    parts = with_images(chat, ["https://h.example/a.png"])[2]["content"]
    assert parts[0] == {"type": "text", "text": "3"}
    assert parts[1:] == [{"type": "image_url", "image_url": {"url": "https://h.example/a.png"}}]
    more = with_images([{"role": "user", "content": parts}], ["https://h.example/b.png"])
    assert [part["type"] for part in more[0]["content"]] == ["text", "image_url", "image_url"]
    assert with_images(chat, []) is chat
    with pytest.raises(UnaskableRow, match="no user message"):
        with_images([{"role": "system", "content": "1"}], ["https://h.example/a.png"])
