"""Work on long texts, done in a thread: the event loop goes on meanwhile, and signals are obeyed."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

BODY_BYTES_AT_ONCE = 256 * 1024
"""A reply's body of up to this size is read at once."""
TEXT_CHARACTERS_AT_ONCE = 4_000
"""An answer of up to this length is checked at once: to mend broken JSON takes about 10 µs for each character."""

T = TypeVar("T")


async def in_thread_if(is_long: bool, function: Callable[..., T], *arguments: object) -> T:  # noqa: FBT001 - it is the name's last word
    """Call a pure function of a text: in a thread if the text is long, as its work would hold up the event loop."""
    return await asyncio.to_thread(function, *arguments) if is_long else function(*arguments)
