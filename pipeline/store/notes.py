"""The notes of a job's store: small durable records beside the outcomes, and the decoding of outcomes themselves.

A note is read as it was written last; names and fields are part of the format on disk. What this version does not
understand is reported as damaged, except the run status, which is only shown.
"""

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from ..records import LaneId, LearnedLimits, Outcome, Record, Stopped, Tally
from .writer import Reader

LEDGER = "ledger"
"""The note with the tally of everything the job folder ever asked; committed together with the outcomes it counts."""
LEARNED_LIMITS = "learnt"
"""The note with the learned limits of each lane."""
RUN_STATUS = "now"
"""The note with the status of the running run: the numbers of its progress bar, for other terminals."""
BATCHES = "batches"
"""The note with the open batches."""

_outcomes: msgspec.json.Decoder[Outcome] = msgspec.json.Decoder(Outcome)
_tallies = msgspec.json.Decoder(Tally)


class RunStatus(Record, frozen=True):
    """How a run stood when it was noted last. Times are UTC."""

    at: datetime
    began: datetime
    """When the run began to ask."""
    to_ask: int
    asked: Tally
    limits: dict[str, Any]
    """The limits in force, by name."""
    wait_seconds: float = 0.0
    """How long nothing is sent, from `at` on."""
    cause: str = ""
    """Why nothing is sent; empty if the endpoint asked for it."""
    stopping: str = ""
    """Why the run is stopping; empty if it is not."""


class LearnedNote(Record, frozen=True):
    """The learned limits of one lane, and when they were learned (UTC)."""

    lane: LaneId
    learnt: LearnedLimits
    at: datetime

    @property
    def aged(self) -> LearnedLimits:
        """The limits with their age as of now."""
        age = (datetime.now(tz=UTC) - self.at).total_seconds()
        return msgspec.structs.replace(self.learnt, age_seconds=max(0.0, age))


class BatchFile(Record, frozen=True):
    """A file of requests that becomes one batch, and how far it has come."""

    name: str
    """The name of its file in the job folder."""
    model: str
    """The one model of all its requests: providers require that."""
    requests: int = 0
    size_bytes: int = 0
    """The sum of all request bodies."""
    reserved: float = 0.0
    """US dollars reserved for it under a cap."""
    file_id: str = ""
    """The provider's id of the uploaded file; empty before the upload."""
    batch_id: str = ""
    """The provider's id of the batch; empty before it was created."""
    made_at: datetime | None = None
    done: int = 0
    """Requests that the provider reported as finished."""
    form: int = 0
    """The index of the response format that the requests were sent with."""
    is_ending: bool = False
    """The batch is being cancelled."""


class OpenBatches(Record, frozen=True):
    """The batches that the provider may know of, and the limit of its queue."""

    sheets: tuple[BatchFile, ...] = ()
    queued_tokens_most: float | None = None
    """Tokens that the provider's queue takes; None if that limit was never met."""
    form: int = 0
    """The index of the response format to send: the endpoint refused all before it."""


_nows = msgspec.json.Decoder(RunStatus)
_found = msgspec.json.Decoder(list[LearnedNote])
_known = msgspec.json.Decoder(OpenBatches)


def read_outcome(stored: bytes) -> Outcome:
    """Decode an outcome from the store. Raises Stopped if it is damaged."""
    try:
        return _outcomes.decode(stored)
    except ValueError as error:  # not `_telling`: entering it takes longer than the decoding, and this runs per row
        raise _damaged("an answer", error) from error


def read_ledger(reader: Reader | None) -> Tally:
    """Read the tally of everything this job folder ever asked; empty without a store. Raises Stopped if damaged."""
    noted = reader.note(LEDGER) if reader is not None else None
    with _telling("the ledger"):
        return _tallies.decode(noted) if noted else Tally()


def read_learned_limits(reader: Reader | None) -> dict[LaneId, LearnedNote]:
    """Read the learned limits of each lane that earlier runs noted. Raises Stopped if the note is damaged."""
    noted = reader.note(LEARNED_LIMITS) if reader is not None else None
    with _telling("the note of learned limits"):
        return {found.lane: found for found in _found.decode(noted)} if noted else {}


def latest_learned_limits(reader: Reader) -> LearnedLimits | None:
    """Read the limits that were learned last, of any lane; None if there are none."""
    found = max(read_learned_limits(reader).values(), key=lambda each: each.at, default=None)
    return None if found is None else found.learnt


def read_run_status(reader: Reader) -> RunStatus | None:
    """Read the run status noted last; None if there is none, or none that this version understands."""
    try:
        return _nows.decode(reader.note(RUN_STATUS) or b"")
    except ValueError:
        return None


def read_open_batches(noted: Callable[[str], bytes | None]) -> OpenBatches:
    """Read the open batches; `noted` returns a note's bytes by its name. Raises Stopped if the note is damaged."""
    note = noted(BATCHES)
    with _telling("the note of open batches"):
        return _known.decode(note) if note else OpenBatches()


@contextlib.contextmanager
def _telling(what: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:  # msgspec's own, and Python's for bytes that are no text
        raise _damaged(what, error) from error


def _damaged(what: str, error: ValueError) -> Stopped:
    return Stopped(
        f"In the store, {what} is damaged: {error}. Nothing was changed. Put back a copy of the whole job folder, "
        "or name another with --job-dir and pay for the answers again."
    )
