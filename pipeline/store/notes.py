"""The notes beside the outcomes, decoded: ledger, learned limits, run status, batches.

A note is a small durable record under a name; the latest one counts. The notes' names and the fields of their records
are part of the format on disk. What this version cannot decode is reported as damage, except the run status, which is
only shown, and the learned limits, which are learned anew.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import msgspec

from ..answers import RESPONSE_FORMATS
from ..records import Amount, Count, LaneId, LearnedLimits, Moment, NewerVersion, Record, Tally
from .outcomes import OTHER_COPY, UNREADABLE, damaged, json_object
from .reader import Reader

LEDGER = "ledger"
"""The name of the note with the job folder's tally; committed with the outcomes that it counts, or before them."""
LEARNED_LIMITS = "learnt"
"""The name of the note with the learned limits of each lane."""
RUN_STATUS = "now"
"""The name of the note with the run's status: the numbers of its progress bar, to be shown in other terminals."""
REPORTED = "reported"
"""The name of the note with the added columns that answers fill, of those that stand in an output only then."""
SERVED_MODELS = "served"
"""The name of the note with the names of models in answers: by the name that was asked for, with counts."""
BATCHES = "batches"
"""The name of the note with the open batches."""

FILE_NAME = r"^\w[\w.-]*$"
"""A file in a folder: its name leads nowhere else."""
Form = Annotated[int, msgspec.Meta(ge=0, lt=len(RESPONSE_FORMATS))]
"""The index of a response format."""


T = TypeVar("T", bound=Record)


class OrderResult(Record, frozen=True):
    """What a run did with an order, for the person who gave it."""

    text: str
    is_refused: bool = False


class RunStatus(Record, frozen=True):
    """The status of a run at one moment. Times are UTC."""

    at: Moment
    """The moment."""
    began: Moment
    """When the run began to send requests."""
    to_ask: Count
    """Number of requests that the run had to send when it began."""
    asked: Tally
    """The requests that the run has sent, with their outcomes and cost."""
    limits: dict[str, Any]
    """The limits in force, by name."""
    wait_seconds: Amount = 0.0
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
    at: Moment

    @property
    def aged(self) -> LearnedLimits:
        """The limits with their age at this moment."""
        age = (datetime.now(tz=UTC) - self.at).total_seconds()
        return msgspec.structs.replace(self.learnt, age_seconds=max(0.0, age))


class BatchFile(Record, frozen=True):
    """A file of requests that becomes one batch, and how far that batch has come."""

    name: Annotated[str, msgspec.Meta(pattern=FILE_NAME)]
    """The file's name in the job folder."""
    model: str
    """The one model of all its requests: providers require that."""
    requests: Count = 0
    """Number of requests in the file."""
    size_bytes: Count = 0
    """The size of all request bodies together."""
    reserved: Amount = 0.0
    """US dollars reserved for the batch, if a cap on cost is set."""
    file_id: str = ""
    """The provider's id of the uploaded file; empty before the upload."""
    batch_id: str = ""
    """The provider's id of the batch; empty before the batch is created."""
    made_at: Moment | None = None
    """When the batch was created (UTC)."""
    done: Count = 0
    """Number of requests that the provider reported as finished."""
    form: Form = 0
    """The index of the response format that the requests were sent with."""
    respelled: str = ""
    """The parameters that were sent under another name or not at all, separated by spaces."""
    is_ending: bool = False
    """The batch is being cancelled."""
    recorded: Count = 0
    """Number of its answers that were recorded while the results of other requests were missing."""


class OpenBatches(Record, frozen=True):
    """The batches that the provider may still hold, and what is known of its queue."""

    sheets: tuple[BatchFile, ...] = ()
    queued_tokens_most: Amount | None = None
    """How many tokens the provider's queue takes; None if that limit was never reached."""
    form: Form = 0
    """The index of the response format to send: the endpoint rejected all formats before it."""
    respelled: dict[str, str] = msgspec.field(default_factory=dict)
    """By model, the parameters that it takes under another name or not at all, separated by spaces."""


_learned_limits_decoder = msgspec.json.Decoder(list[LearnedNote])
_reported_decoder = msgspec.json.Decoder(list[str])
_served_models_decoder = msgspec.json.Decoder(dict[str, dict[str, Count]])
_run_status_decoder = msgspec.json.Decoder(RunStatus)


def read_ledger(reader: Reader | None) -> Tally:
    """Read the ledger: the tally of all requests of the job folder. Without a store it is empty.

    Raises NewerVersion if a newer version wrote it, and Stopped if it is damaged.
    """
    note = reader.note(LEDGER) if reader is not None else None
    return decode_ledger(note) if note else Tally()


def decode_ledger(note: bytes) -> Tally:
    """Decode the note of the ledger. Raises NewerVersion if a newer version wrote it, Stopped if it is damaged."""
    remedy = "Run the job again: that makes it anew from the answers, and asks nothing again."
    return _decoded(Tally, note, "the ledger", remedy)


def read_learned_limits(reader: Reader | None) -> dict[LaneId, LearnedNote]:
    """Read the learned limits by lane; empty if there is no store, or if the note cannot be read."""
    note = reader.note(LEARNED_LIMITS) if reader is not None else None
    try:
        return {learned.lane: learned for learned in _learned_limits_decoder.decode(note or b"[]")}
    except UNREADABLE:  # they are learned anew
        return {}


def read_reported(reader: Reader | None) -> list[str]:
    """Read which added columns answers fill (`AddedColumn.when`); empty if there is no store, or no such note."""
    note = reader.note(REPORTED) if reader is not None else None
    try:
        return _reported_decoder.decode(note or b"[]")
    except UNREADABLE:  # the columns are left out; the answers have what they would hold
        return []


def latest_learned_limits(reader: Reader) -> LearnedLimits | None:
    """Read the limits that were learned last, of any lane; None if there are none."""
    latest = max(read_learned_limits(reader).values(), key=lambda learned: learned.at, default=None)
    return None if latest is None else latest.learnt


def read_served_models(reader: Reader | None) -> dict[str, dict[str, int]]:
    """Read which models answered, by the name that was asked for; empty if nothing is known."""
    note = reader.note(SERVED_MODELS) if reader is not None else None
    try:
        return _served_models_decoder.decode(note or b"{}")
    except UNREADABLE:  # they are only told of
        return {}


def read_run_status(reader: Reader) -> RunStatus | None:
    """Read the latest status of a run; None if there is none, or this version does not understand it."""
    try:
        return _run_status_decoder.decode(reader.note(RUN_STATUS) or b"")
    except UNREADABLE:
        return None


def read_open_batches(read_note: Callable[[str], bytes | None]) -> OpenBatches:
    """Read the open batches. `read_note` returns a note's bytes by its name.

    Raises NewerVersion if a newer version wrote the note, Stopped if it is damaged.
    """
    note = read_note(BATCHES)
    return _decoded(OpenBatches, note, "the note of open batches") if note else OpenBatches()


def _decoded(record: type[T], note: bytes, what: str, remedy: str = OTHER_COPY) -> T:
    """Decode the note of a record. Raises NewerVersion, or Stopped if it is damaged.

    It is of a newer version if it has other names and is not understood, or if none of its names is known here.
    """
    found, names = json_object(note).keys(), {field.name for field in msgspec.structs.fields(record)}
    try:
        decoded = msgspec.json.decode(note, type=record)
    except UNREADABLE as error:
        if not found <= names:
            raise NewerVersion(f"In the store, {what} ({error})") from error
        raise damaged(what, error, remedy) from error
    if found and found.isdisjoint(names):
        raise NewerVersion(f"In the store, {what} (it has {min(found)!r}, which is not known here)")
    return decoded
