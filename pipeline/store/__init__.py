"""The store of a job: each outcome under its request's key, on disk before it is acknowledged, and notes beside them.

`Store` writes from one process at a time, `Reader` reads from any; `notes` says what the notes mean.
"""

from .database import roll_back
from .errors import StoreHalfWritten
from .ledger import settle_ledger
from .notes import (
    BATCHES,
    LEARNED_LIMITS,
    LEDGER,
    REPORTED,
    RUN_STATUS,
    SERVED_MODELS,
    BatchFile,
    LearnedNote,
    OpenBatches,
    OrderResult,
    RunStatus,
    latest_learned_limits,
    read_learned_limits,
    read_ledger,
    read_open_batches,
    read_reported,
    read_run_status,
    read_served_models,
)
from .outcomes import read_outcome
from .reader import Reader
from .salvage import open_store
from .writer import Store

__all__ = [
    "BATCHES",
    "LEARNED_LIMITS",
    "LEDGER",
    "REPORTED",
    "RUN_STATUS",
    "SERVED_MODELS",
    "BatchFile",
    "LearnedNote",
    "OpenBatches",
    "OrderResult",
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
    "read_reported",
    "read_run_status",
    "read_served_models",
    "roll_back",
    "settle_ledger",
]
