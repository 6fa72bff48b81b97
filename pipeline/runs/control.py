"""Orders from a second terminal to a running job: `pipeline tune` and `pipeline stop`.

An order is one file in the job folder. The running job looks for such files, removes each that it reads, obeys it, and
notes the result in its run status, where the sender reads it.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from ..execution import DRAIN_SECONDS, LocalContext
from ..files import read_private, write_whole
from ..folder import lock_holder
from ..records import BadJob, Exit, Process, Record, Stopped
from ..store import Reader, RunStatus, read_run_status
from ..text import one_line

LOOK_SECONDS = 0.5
"""How often a running job looks for orders."""
WAIT_SECONDS = 2.0
"""How long the sender of an order waits for its result."""
ORDER_BYTES_MAX = 10_000
"""A larger file is no order."""
PATTERN = "control-*.json"
"""The names of orders in a job folder."""


class Order(Record, frozen=True):
    """An order to stop, or else to go on under other limits (by name), and who gave it."""

    by: Process
    stop: bool = False
    limits: dict[str, Any] = msgspec.field(default_factory=dict)


_encoder = msgspec.json.Encoder()
_orders = msgspec.json.Decoder(Order)


def send_order(
    folder: Path, *, stop: bool = False, limits: dict[str, Any] | None = None, wait_seconds: float = WAIT_SECONDS
) -> str:
    """Order the running job to stop, or to go on under other limits; returns what the job did.

    Raises BadJob if no job runs here, if it refuses, or if it does not read the order in time: then nothing is changed.
    """
    who = lock_holder(folder)
    if who is None or who.alive is False:
        raise BadJob(f"{folder}: this job is not running, so there is nothing to {'stop' if stop else 'tune'}.")
    order_id = os.urandom(4).hex()
    path = folder / f"control-{order_id}.json"
    write_whole(path, _encoder.encode(Order(Process.this(), stop, limits or {})), private=True)
    status = _status_after(order_id, folder, wait_seconds)
    if status is not None:
        if status.order_refused:
            raise BadJob(status.order_result)
        return status.order_result
    try:
        path.unlink()
    except FileNotFoundError:
        return f"The run has read the order, and did not report yet. See what is in force: pipeline status {folder}"
    raise BadJob(
        f"{folder}: the run did not read the order within {wait_seconds:.0f} s, and the order was taken back. A run "
        "reads orders while it asks:\nnot while it reads its input, nor while it writes its output. It is process "
        f"{who.process.pid} on {who.process.host}; see `pipeline status`, and try again."
    )


def _status_after(order_id: str, folder: Path, wait_seconds: float) -> RunStatus | None:
    """The run status with the result of this order; None if it does not come in time."""
    until = time.monotonic() + wait_seconds
    with contextlib.suppress(FileNotFoundError, Stopped), contextlib.closing(Reader(folder / "store")) as reader:
        while time.monotonic() < until:
            status = read_run_status(reader)
            if status is not None and status.order == order_id:
                return status
            time.sleep(0.05)
    return None


def remove_orders(folder: Path) -> None:
    """Remove orders that were left for an earlier run."""
    for path in folder.glob("control-*"):
        path.unlink(missing_ok=True)


@contextlib.asynccontextmanager
async def obeying_orders(folder: Path, context: LocalContext) -> AsyncIterator[None]:
    """Look for orders, and obey them, until the block ends."""
    listening = asyncio.create_task(_listen(folder, context))
    try:
        yield
    finally:
        listening.cancel()
        await asyncio.wait({listening})


async def _listen(folder: Path, context: LocalContext) -> None:
    while True:
        for order_id, order in _take_orders(folder):
            result, refused = obey(context, order)
            context.say(result)
            with contextlib.suppress(Stopped):  # a store that cannot be written stops the run by itself
                await context.report_order(order_id, result, refused=refused)
        await asyncio.sleep(LOOK_SECONDS)


def _take_orders(folder: Path) -> list[tuple[str, Order]]:
    """Read and remove the orders in the folder, oldest first, each with its id."""
    orders = []
    with contextlib.suppress(OSError):  # a folder that cannot be read for a moment holds no orders
        for path in sorted(folder.glob(PATTERN), key=lambda path: path.stat().st_mtime_ns):
            content = read_private(path, ORDER_BYTES_MAX)
            path.unlink()
            with contextlib.suppress(ValueError):  # another version's, or no order at all
                orders.append((path.stem.removeprefix("control-"), _orders.decode(content)))
    return orders


def obey(context: LocalContext, order: Order) -> tuple[str, bool]:
    """Do what an order says; returns the result for a person, and whether the order was refused."""
    by = one_line(f"{order.by.user}@{order.by.host}")
    if order.stop and context.stopping is not None:
        context.abort_drain()
        return f"Stopping at once, by {by}: requests in flight are not waited for any more.", False
    if order.stop:
        context.stop(Stopped(f"{by} typed `pipeline stop`.", Exit.AT_LIMIT))
        drain = f"Waiting up to {DRAIN_SECONDS:.0f} s for requests in flight"
        return f"Stopping, by {by}: nothing more is sent. {drain}; `pipeline stop` once more stops at once.", False
    before = context.limits
    try:
        context.tune(before.tuned(order.limits))
    except BadJob as error:
        return f"The limits stay as they are (ordered by {by}): {error}", True
    changes = [f"{name} {_text(getattr(before, name))} → {_text(value)}" for name, value in order.limits.items()]
    return f"Tuned by {by} until this run ends: {', '.join(changes)}.", False


def _text(limit: object) -> str:
    return "none" if limit is None else f"{limit:,.12g}" if isinstance(limit, int | float) else str(limit)
