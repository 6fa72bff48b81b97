"""Check the ledger against all else that tells what was spent: its copy in the sidecar, the history, the outcomes.

A ledger that was lost or damaged, or that is older than the outcomes, is made whole again. It never knows of less money
than any of them: what a store lost stays spent.
"""

import contextlib
import math
from pathlib import Path

import msgspec

from ..costs import BYTES_PER_TOKEN
from ..folder import RunEnd, read_history
from ..records import Answer, NewerVersion, Stopped, Tally, Usage
from ..text import money
from .notes import LEDGER, decode_ledger
from .outcomes import json_object, read_outcome
from .reader import Reader
from .writer import Store

TOLERANCE = 1e-9
"""The relative difference that comes of adding the same costs in another order."""


def settle_ledger(job_folder: Path, store: Store, reader: Reader) -> tuple[Tally, str]:
    """Return the ledger to use, and a sentence on how it was damaged; empty if it was not.

    A ledger that was made anew is written to the store, so the next run finds nothing to tell. Raises NewerVersion if a
    newer version wrote the ledger.
    """
    noted = reader.note(LEDGER) or None
    known = _readable(noted)
    largest = largest_ledger(job_folder, noted, store.found.sidecar.notes.get(LEDGER))
    if known is not None and _covers(known, largest) and _covers(known, Tally(cost=store.found.cost)):
        return known, ""
    found = tally_outcomes(reader)
    if known is None and largest == found == Tally():
        return largest, ""
    ledger = _with_outcomes(largest, found)
    store.note(LEDGER, msgspec.json.encode(ledger))
    what = "lost" if noted is None else "damaged" if known is None else f"old: it knew of {money(known.cost)}"
    return ledger, (
        f"The ledger of {job_folder} was {what}. It was made anew from its copy, the history and the kept answers: "
        f"{money(ledger.cost)} is spent. Attempts that left no answer may have cost more, which only the provider's "
        "bill shows. No answer is lost by this."
    )


def largest_ledger(job_folder: Path, *notes: bytes | None) -> Tally:
    """The ledger that knows of the most spending, with what any other or the history knows more of."""
    named = [_money_in(note) for note in notes]
    ledgers = [ledger for note in notes if (ledger := _readable(note)) is not None] or [Tally(), *named]
    latest = max(ledgers, key=lambda ledger: (ledger.cost + ledger.held + ledger.aside, ledger.attempts))
    spent = [line.summary.spent for line in read_history(job_folder) if isinstance(line, RunEnd)]
    return msgspec.structs.replace(
        latest,
        cost=max([latest.cost, *spent, *(each.cost for each in named)]),
        held=max([latest.held, *(each.held for each in named)]),
        attempts=max(ledger.attempts for ledger in ledgers),
    )


def tally_outcomes(reader: Reader) -> Tally:
    """The tally of all stored outcomes; the size of their requests, which they do not tell, by their tokens."""
    tally = Tally()
    for chunk in reader.marks():
        for stored in reader.values([key for key, _ in chunk]):
            with contextlib.suppress(Stopped):  # a damaged one, which is told where it is read
                outcome = read_outcome(stored or b"")
                cost = outcome.cost or 0.0
                tally += Tally(
                    cost=cost, in_outcomes=cost, unpriced=int(outcome.cost is None), attempts=outcome.attempts
                )
                if isinstance(outcome, Answer):
                    tally += Tally(usage=outcome.usage, answers=1, seconds=outcome.latency_seconds or 0.0)
    return msgspec.structs.replace(tally, request_bytes=round((tally.usage.prompt_tokens or 0) * BYTES_PER_TOKEN))


def _with_outcomes(ledger: Tally, found: Tally) -> Tally:
    """The ledger with what the outcomes know more of. What it knew beside outcomes was spent in addition to them."""
    beside = max(0.0, ledger.cost - ledger.in_outcomes) if ledger.in_outcomes else 0.0
    rates = found if found.answers > ledger.answers else ledger
    return msgspec.structs.replace(
        ledger,
        cost=max(ledger.cost, found.cost + beside),
        in_outcomes=max(ledger.in_outcomes, found.in_outcomes),
        unpriced=max(ledger.unpriced, found.unpriced),
        attempts=max(ledger.attempts, found.attempts),
        usage=rates.usage,
        answers=rates.answers,
        request_bytes=rates.request_bytes,
        seconds=rates.seconds,
    )


def _covers(ledger: Tally, other: Tally) -> bool:
    """Whether a ledger knows of all the money that another does."""
    return all(
        ours >= theirs or math.isclose(ours, theirs, rel_tol=TOLERANCE)
        for ours, theirs in ((ledger.cost, other.cost), (ledger.held, other.held))
    )


def _readable(note: bytes | None) -> Tally | None:
    """The ledger in a note; None if there is none, or if it is damaged. Raises NewerVersion.

    Numbers that would spoil every forecast are left out: then the answers so far count as unknown.
    """
    if note is None:
        return None
    try:
        ledger = decode_ledger(note)
    except NewerVersion:
        raise
    except Stopped:
        return None
    if "cost" not in json_object(note) or _money_in(note) != Tally(
        cost=ledger.cost, held=ledger.held, aside=ledger.aside
    ):
        return None
    is_known = ledger.request_bytes > 0 and ledger.answers > 0 and ledger.seconds >= 0
    return (
        ledger if is_known else msgspec.structs.replace(ledger, usage=Usage(), answers=0, request_bytes=0, seconds=0.0)
    )


def _money_in(note: bytes | None) -> Tally:
    """The money that a ledger names, whatever else became of it; what cannot be money counts as none."""
    found = json_object(note or b"")
    cost, held, aside = (_dollars(found.get(name)) for name in ("cost", "held", "aside"))
    return Tally(cost=cost, held=held, aside=aside)


def _dollars(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    with contextlib.suppress(OverflowError):  # an integer of hundreds of digits
        return max(0.0, float(value))
    return 0.0
