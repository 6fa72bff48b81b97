"""Every outcome under its request's key, on disk before it counts; and the notes beside the outcomes."""

from .notes import (
    BATCHES,
    LEARNED_LIMITS,
    LEDGER,
    RUN_STATUS,
    BatchFile,
    LearnedNote,
    OpenBatches,
    RunStatus,
    latest_learned_limits,
    read_learned_limits,
    read_ledger,
    read_open_batches,
    read_outcome,
    read_run_status,
)
from .salvage import open_store
from .writer import Reader, Store, StoreHalfWritten, roll_back

__all__ = [
    "BATCHES",
    "LEARNED_LIMITS",
    "LEDGER",
    "RUN_STATUS",
    "BatchFile",
    "LearnedNote",
    "OpenBatches",
    "Reader",
    "RunStatus",
    "Store",
    "StoreHalfWritten",
    "latest_learned_limits",
    "open_store",
    "read_learned_limits",
    "read_ledger",
    "read_open_batches",
    "read_outcome",
    "read_run_status",
    "roll_back",
]
