"""The frozen records that travel between packages, the statuses of a row, and how a job can end."""

from .errors import BadJob, Exit, NewerVersion, Stopped
from .exchange import Allowance, Fault, LaneId, LearnedLimits, Pressure, Rejection, Reply, Request, Verdict
from .message import (
    REASONING_FIELDS,
    THOUGHT_TYPES,
    MessageParts,
    message_parts,
    pack_message,
    thoughts_in,
    unpack_message,
)
from .outcomes import FINISH_REASONS, Answer, Failure, Outcome, OutcomeFields
from .record import Amount, Count, Moment, Process, Record
from .statuses import ANSWERED, FOLLOWED_UP, RETRYABLE, STATUSES, TEMPORARY, UNUSABLE, USABLE, Status
from .tally import Summary, Tally
from .usage import TOKEN_COUNTS, UNKNOWN, Usage, add_costs

__all__ = [
    "ANSWERED",
    "FINISH_REASONS",
    "FOLLOWED_UP",
    "REASONING_FIELDS",
    "RETRYABLE",
    "STATUSES",
    "TEMPORARY",
    "THOUGHT_TYPES",
    "TOKEN_COUNTS",
    "UNKNOWN",
    "UNUSABLE",
    "USABLE",
    "Allowance",
    "Amount",
    "Answer",
    "BadJob",
    "Count",
    "Exit",
    "Failure",
    "Fault",
    "LaneId",
    "LearnedLimits",
    "MessageParts",
    "Moment",
    "NewerVersion",
    "Outcome",
    "OutcomeFields",
    "Pressure",
    "Process",
    "Record",
    "Rejection",
    "Reply",
    "Request",
    "Status",
    "Stopped",
    "Summary",
    "Tally",
    "Usage",
    "Verdict",
    "add_costs",
    "message_parts",
    "pack_message",
    "thoughts_in",
    "unpack_message",
]
