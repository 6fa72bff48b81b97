"""Orders from a second terminal to a running job: `pipeline tune` and `pipeline stop`.

An order is one file in the job folder. The running job looks for such files, removes each that it reads, obeys it, and
notes the result in its run status, where the sender reads it.

A run obeys its own user and root. Whoever else may write into the folder could raise its cap on cost; so another user's
order is obeyed only where the job says `output.shared`, and then not in a folder that everyone may write into.
"""

import asyncio
import contextlib
import os
import shlex
import stat
import time
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec

from ..execution import DRAIN_SECONDS, LocalContext
from ..files import is_open_to_everyone, owner_of_new_files, read_private, write_whole
from ..folder import lock_holder
from ..records import BadJob, Exit, Process, Record, Stopped
from ..store import OrderResult, Reader, read_run_status
from ..text import one_line

LOOK_SECONDS = 0.5
"""How often a running job looks for orders."""
WAIT_SECONDS = 2.0
"""How long the sender of an order waits for its result."""
ORDER_BYTES_MAX = 10_000
"""A larger file is no order."""
NOT_OBEYED = (
    "An order of another user was not obeyed, and nothing was changed. `output.shared = true` in the job file lets "
    "colleagues steer a job."
)
"""The result of an order that another user gave."""
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
    result = _result_of(order_id, folder, wait_seconds)
    if result is not None:
        if result.is_refused:
            raise BadJob(result.text)
        return result.text
    try:
        path.unlink()
    except FileNotFoundError:
        raise BadJob(
            f"{folder}: the run has read the order, but did not report a result within {wait_seconds:.0f} s.\n"
            f"See what is in force: pipeline status {shlex.quote(str(folder))}"
        ) from None
    raise BadJob(
        f"{folder}: the run did not read the order within {wait_seconds:.0f} s, and the order was taken back. A run "
        "reads orders while it asks:\nnot while it reads its input, nor while it writes its output. It is process "
        f"{who.process.pid} on {who.process.host}; see `pipeline status`, and try again."
    )


def _result_of(order_id: str, folder: Path, wait_seconds: float) -> OrderResult | None:
    """The result of this order in the run's status; None if it does not come in time."""
    until = time.monotonic() + wait_seconds
    while time.monotonic() < until:
        with contextlib.suppress(FileNotFoundError, Stopped), contextlib.closing(Reader(folder / "store")) as reader:
            while time.monotonic() < until:
                status = read_run_status(reader)
                if status is not None and order_id in status.orders:
                    return status.orders[order_id]
                time.sleep(0.05)
        time.sleep(0.05)  # there is no store yet, or it could not be read for a moment
    return None


def remove_orders(folder: Path) -> None:
    """Remove orders that were left for an earlier run."""
    for path in folder.glob("control-*"):
        with contextlib.suppress(OSError):  # a folder of such a name is no order, and stays
            path.unlink()


class Obeyed(NamedTuple):
    """Whose orders a run obeys."""

    users: Collection[int] | None
    """Their user ids; None for those of all who may write into the folder."""

    @classmethod
    def by_run(cls, folder: Path, *, shared: bool) -> Self:
        """For a run that begins in this folder; `shared`: its job says `output.shared`."""
        users = {os.geteuid(), 0}
        with contextlib.suppress(OSError):
            if shared and not is_open_to_everyone(folder):
                return cls(None)
            users.add(owner_of_new_files(folder))
        return cls(users)


@contextlib.asynccontextmanager
async def obeying_orders(folder: Path, context: LocalContext, *, shared: bool) -> AsyncIterator[None]:
    """Look for orders, and obey them, until the block ends. `shared`: also those of others, see above."""
    listening = asyncio.create_task(_listen(folder, context, Obeyed.by_run(folder, shared=shared)))
    try:
        yield
    finally:
        listening.cancel()
        await asyncio.wait({listening})


async def _listen(folder: Path, context: LocalContext, obeyed: Obeyed) -> None:
    while True:
        results: dict[str, OrderResult] = {}
        for order_id, order in _take_orders(folder, obeyed):
            results[order_id] = obey(context, order) if isinstance(order, Order) else order
            context.say(results[order_id].text)
        if results:
            with contextlib.suppress(Stopped):  # a store that cannot be written stops the run by itself
                await context.report_orders(results)
        await asyncio.sleep(LOOK_SECONDS)


def _take_orders(folder: Path, obeyed: Obeyed) -> list[tuple[str, Order | OrderResult]]:
    """Read and remove the orders in the folder, oldest first, each with its id. Files that are no orders stay there.

    An order that must not be obeyed is replaced by its refusal.
    """
    found: list[tuple[int, str, Order | OrderResult]] = []
    for path in folder.glob(PATTERN):
        with contextlib.suppress(OSError, ValueError):  # a folder, a link, another version's order
            given_at = path.lstat().st_mtime_ns
            order: Order | OrderResult
            try:
                order = _orders.decode(read_private(path, ORDER_BYTES_MAX, obeyed.users))
            except PermissionError:
                if not stat.S_ISREG(path.lstat().st_mode):
                    continue
                order = OrderResult(NOT_OBEYED, is_refused=True)
            path.unlink()  # first: an order that stayed would be obeyed again and again
            found.append((given_at, path.stem.removeprefix("control-"), order))
    return [(order_id, order) for _, order_id, order in sorted(found, key=lambda each: each[:2])]


def obey(context: LocalContext, order: Order) -> OrderResult:
    """Do what an order says, and say so."""
    by = one_line(f"{order.by.user}@{order.by.host}")
    if order.stop and context.stopping is not None:
        context.abort_drain()
        return OrderResult(f"Stopping at once, by {by}: requests in flight are not waited for any more.")
    if order.stop:
        context.stop(Stopped(f"{by} typed `pipeline stop`.", Exit.AT_LIMIT))
        drain = f"Waiting up to {DRAIN_SECONDS:.0f} s for requests in flight"
        return OrderResult(f"Stopping, by {by}: nothing more is sent. {drain}; `pipeline stop` again stops at once.")
    before = context.limits
    try:
        context.tune(before.tuned(order.limits))
    except BadJob as error:
        return OrderResult(f"The limits stay as they are (ordered by {by}): {error}", is_refused=True)
    changes = [f"{name} {_text(getattr(before, name))} → {_text(value)}" for name, value in order.limits.items()]
    return OrderResult(f"Tuned by {by} until this run ends: {', '.join(changes)}.")


def _text(limit: object) -> str:
    return "none" if limit is None else f"{limit:,.12g}" if isinstance(limit, int | float) else str(limit)
