"""Work on long texts, done in a thread: the event loop goes on meanwhile, and signals are obeyed."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

BODY_BYTES_AT_ONCE = 256 * 1024
"""A reply's body of up to this size is read at once."""

T = TypeVar("T")

_one_thread = ThreadPoolExecutor(1, "long-text")  # several would take more memory, and no less time


async def in_thread_if(is_long: bool, function: Callable[..., T], *arguments: object) -> T:  # noqa: FBT001 - it is the name's last word
    """Call a pure function of a text: in a thread if the text is long, as its work would hold up the event loop.

    One call after the other, so that the memory for them does not grow with their number.
    """
    if not is_long:
        return function(*arguments)
    return await asyncio.get_running_loop().run_in_executor(_one_thread, function, *arguments)
