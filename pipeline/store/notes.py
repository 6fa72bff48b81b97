"""What the store holds, decoded: outcomes, and the notes beside them (ledger, learned limits, run status, batches).

A note is a small durable record under a name; the latest one counts. The notes' names and the fields of their records
are part of the format on disk. What this version cannot decode is reported as damage, except the run status, which is
only shown.
"""

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from ..records import LaneId, LearnedLimits, Outcome, Record, Stopped, Tally
from .reader import Reader

LEDGER = "ledger"
"""The name of the note with the job folder's tally; committed with the outcomes that it counts, or before them."""
LEARNED_LIMITS = "learnt"
"""The name of the note with the learned limits of each lane."""
RUN_STATUS = "now"
"""The name of the note with the run's status: the numbers of its progress bar, to be shown in other terminals."""
BATCHES = "batches"
"""The name of the note with the open batches."""


class OrderResult(Record, frozen=True):
    """What a run did with an order, for the person who gave it."""

    text: str
    is_refused: bool = False


class RunStatus(Record, frozen=True):
    """The status of a run at one moment. Times are UTC."""

    at: datetime
    """The moment."""
    began: datetime
    """When the run began to send requests."""
    to_ask: int
    """Number of requests that the run had to send when it began."""
    asked: Tally
    """The requests that the run has sent, with their outcomes and cost."""
    limits: dict[str, Any]
    """The limits in force, by name."""
    wait_seconds: float = 0.0
    """How long nothing will be sent, counted from `at`."""
    cause: str = ""
    """Why nothing is sent; empty if the endpoint asked for the pause."""
    stopping: str = ""
    """Why the run is stopping; empty if it is not."""
    orders: dict[str, "OrderResult"] = msgspec.field(default_factory=dict)
    """What came of the latest orders from other terminals (`pipeline tune`, `pipeline stop`), by the order's id."""


class LearnedNote(Record, frozen=True):
    """The learned limits of one lane, and when they were learned (UTC)."""

    lane: LaneId
    learnt: LearnedLimits
    at: datetime

    @property
    def aged(self) -> LearnedLimits:
        """The limits with their age at this moment."""
        age = (datetime.now(tz=UTC) - self.at).total_seconds()
        return msgspec.structs.replace(self.learnt, age_seconds=max(0.0, age))


class BatchFile(Record, frozen=True):
    """A file of requests that becomes one batch, and how far that batch has come."""

    name: str
    """The file's name in the job folder."""
    model: str
    """The one model of all its requests: providers require that."""
    requests: int = 0
    """Number of requests in the file."""
    size_bytes: int = 0
    """The size of all request bodies together."""
    reserved: float = 0.0
    """US dollars reserved for the batch, if a cap on cost is set."""
    file_id: str = ""
    """The provider's id of the uploaded file; empty before the upload."""
    batch_id: str = ""
    """The provider's id of the batch; empty before the batch is created."""
    made_at: datetime | None = None
    """When the batch was created (UTC)."""
    done: int = 0
    """Number of requests that the provider reported as finished."""
    form: int = 0
    """The index of the response format that the requests were sent with."""
    is_ending: bool = False
    """The batch is being cancelled."""
    recorded: int = 0
    """Number of its answers that were recorded while the results of other requests were missing."""


class OpenBatches(Record, frozen=True):
    """The batches that the provider may still hold, and what is known of its queue."""

    sheets: tuple[BatchFile, ...] = ()
    queued_tokens_most: float | None = None
    """How many tokens the provider's queue takes; None if that limit was never reached."""
    form: int = 0
    """The index of the response format to send: the endpoint rejected all formats before it."""


_outcome_decoder: msgspec.json.Decoder[Outcome] = msgspec.json.Decoder(Outcome)
_ledger_decoder = msgspec.json.Decoder(Tally)
_learned_limits_decoder = msgspec.json.Decoder(list[LearnedNote])
_run_status_decoder = msgspec.json.Decoder(RunStatus)
_open_batches_decoder = msgspec.json.Decoder(OpenBatches)


def read_outcome(stored: bytes) -> Outcome:
    """Decode an outcome. Raises Stopped if it is damaged."""
    try:
        return _outcome_decoder.decode(stored)
    except ValueError as error:  # this runs per row, and entering `_reporting_damage` takes longer than decoding
        raise _damaged("an answer", error) from error


def read_ledger(reader: Reader | None) -> Tally:
    """Read the tally of all requests of the job folder; empty if there is no store. Raises Stopped if damaged."""
    note = reader.note(LEDGER) if reader is not None else None
    with _reporting_damage("the ledger"):
        return _ledger_decoder.decode(note) if note else Tally()


def read_learned_limits(reader: Reader | None) -> dict[LaneId, LearnedNote]:
    """Read the learned limits by lane; empty if there is no store. Raises Stopped if the note is damaged."""
    note = reader.note(LEARNED_LIMITS) if reader is not None else None
    with _reporting_damage("the note of learned limits"):
        return {learned.lane: learned for learned in _learned_limits_decoder.decode(note)} if note else {}


def latest_learned_limits(reader: Reader) -> LearnedLimits | None:
    """Read the limits that were learned last, of any lane; None if there are none. Raises Stopped if damaged."""
    latest = max(read_learned_limits(reader).values(), key=lambda learned: learned.at, default=None)
    return None if latest is None else latest.learnt


def read_run_status(reader: Reader) -> RunStatus | None:
    """Read the latest status of a run; None if there is none, or this version does not understand it."""
    try:
        return _run_status_decoder.decode(reader.note(RUN_STATUS) or b"")
    except ValueError:
        return None


def read_open_batches(read_note: Callable[[str], bytes | None]) -> OpenBatches:
    """Read the open batches. `read_note` returns a note's bytes by its name. Raises Stopped if the note is damaged."""
    note = read_note(BATCHES)
    with _reporting_damage("the note of open batches"):
        return _open_batches_decoder.decode(note) if note else OpenBatches()


@contextlib.contextmanager
def _reporting_damage(what: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:  # msgspec's error, or Python's for bytes that are not UTF-8
        raise _damaged(what, error) from error


def _damaged(what: str, error: ValueError) -> Stopped:
    return Stopped(
        f"In the store, {what} is damaged: {error}. Nothing was changed. Put back a copy of the whole job folder, "
        "or name another with --job-dir and pay for the answers again."
    )
