"""What a second terminal asks of a running job: a file in its folder, obeyed within two seconds, and answered."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec

from ..execution import DRAIN_SECONDS, LocalContext
from ..files import read_private, write_whole
from ..folder import lock_holder
from ..records import BadJob, Exit, Process, Record, Stopped
from ..text import one_line

LOOK_SECONDS = 0.5
"""So often a running job looks for orders, …"""
WAIT_SECONDS = 5.0
"""… and for so long who gave one waits for the answer."""
ORDER_BYTES = 10_000
"""As much of an order is read; one that is longer is none of ours."""

ORDER, TAKEN, TOLD = "json", "taken", "told"
"""The endings of an order that was given, of one that is being obeyed, and of its answer."""


class Order(Record, frozen=True):
    """To stop, or else to go on under other limits, by name; and who says so."""

    by: Process
    stop: bool = False
    limits: dict[str, Any] = msgspec.field(default_factory=dict)


class Told(Record, frozen=True):
    """What came of an order."""

    text: str
    refused: bool = False


_encoder = msgspec.json.Encoder()
_orders = msgspec.json.Decoder(Order)
_answers = msgspec.json.Decoder(Told)


def send_order(
    folder: Path, *, stop: bool = False, limits: dict[str, Any] | None = None, wait_seconds: float = WAIT_SECONDS
) -> str:
    """Have the running job stop, or go on under other limits; returns what it did. Waits for its answer.

    Raises BadJob if none runs, or if it refuses, or does not answer: then nothing was changed.
    """
    who = lock_holder(folder)
    if who is None or who.alive is False:
        raise BadJob(f"{folder}: no run is at work here, so there is none to {'stop' if stop else 'tune'}.")
    order = folder / f"control-{os.urandom(4).hex()}.{ORDER}"
    _put(order, Order(Process.this(), stop, limits or {}))
    told = _answer(order, wait_seconds)
    if told is None:
        with contextlib.suppress(OSError):
            order.unlink()
            raise BadJob(
                f"{folder}: the run did not answer within {wait_seconds:.0f} s, and the order was taken back. It "
                "listens while it asks: not yet as it reads its input, nor any more as it writes its output.\n"
                f"It is process {who.process.pid} on {who.process.host}; see `pipeline status`, and try again."
            )
        told = _answer(order, wait_seconds)  # taken in the last moment
    if told is None:
        raise BadJob(f"{folder}: the run took the order, and ended before it could say more. See `pipeline status`.")
    if told.refused:
        raise BadJob(told.text)
    return told.text


def _answer(order: Path, wait_seconds: float) -> Told | None:
    until = time.monotonic() + wait_seconds
    answer = order.with_suffix(f".{TOLD}")
    while time.monotonic() < until:
        with contextlib.suppress(FileNotFoundError):
            told = _answers.decode(read_private(answer, ORDER_BYTES))
            answer.unlink()
            return told
        time.sleep(0.05)
    return None


def remove_orders(folder: Path) -> None:
    """Remove all that were left for an earlier run, and what was answered to nobody any more."""
    for path in folder.glob("control-*"):
        path.unlink(missing_ok=True)


@contextlib.asynccontextmanager
async def obeying_orders(folder: Path, context: LocalContext) -> AsyncIterator[None]:
    """Look for orders and obey them, for as long as the block lasts."""
    listening = asyncio.create_task(_listen(folder, context))
    try:
        yield
    finally:
        listening.cancel()
        await asyncio.wait({listening})


async def _listen(folder: Path, context: LocalContext) -> None:
    while True:
        with contextlib.suppress(OSError):  # a folder that cannot be read now and then gives no orders
            for path, order in _taken(folder):
                told = obey(context, order)
                _put(path.with_suffix(f".{TOLD}"), told)
                context.say(told.text)
        await asyncio.sleep(LOOK_SECONDS)


def _taken(folder: Path) -> Iterator[tuple[Path, Order]]:
    """The orders that wait. Each is ours alone once it has its other name, so that it cannot be taken back any more."""
    for path in sorted(folder.glob(f"control-*.{ORDER}")):
        ours = path.rename(path.with_suffix(f".{TAKEN}"))
        with contextlib.suppress(ValueError):  # none of this version's
            yield path, _orders.decode(read_private(ours, ORDER_BYTES))
        ours.unlink()


def obey(context: LocalContext, order: Order) -> Told:
    """Do as the order says, and say so."""
    by = one_line(f"{order.by.user}@{order.by.host}")
    if order.stop and context.stopping is not None:
        context.abort_drain()
        return Told(f"{by} said stop again: what is in flight is not waited for any more.")
    if order.stop:
        context.stop(Stopped(f"{by} said `pipeline stop`.", Exit.AT_LIMIT))
        drain = f"up to {DRAIN_SECONDS:.0f} s for what is in flight"
        return Told(f"{by} said stop: nothing more is sent; waiting {drain} (said again: not any more).")
    before = context.limits
    try:
        context.tune(before.tuned(order.limits))
    except BadJob as error:
        return Told(f"{by} cannot tune this run: {error}", refused=True)
    changed = [f"{name} {_or_none(getattr(before, name))} → {_or_none(value)}" for name, value in order.limits.items()]
    return Told(f"Tuned by {by} until this run ends: {', '.join(changed)}.")


def _or_none(limit: object) -> str:
    return "none" if limit is None else f"{limit:,.12g}" if isinstance(limit, int | float) else str(limit)


def _put(path: Path, record: Order | Told) -> None:
    """Write it, there as a whole or not at all. Raises OSError."""
    write_whole(path, _encoder.encode(record), private=True)
