"""The nouns of a row's journey: Request, Reply, Refusal, Answer, Failure, Usage, Tally; and how a job can end."""

import getpass
import os
import socket
from datetime import datetime
from enum import IntEnum
from operator import add
from typing import Literal, Self

import msgspec

Status = Literal["ok", "truncated", "filtered", "refused", "invalid", "failed", "pending"]
"""What became of a row. Every row is in exactly one."""

STATUSES: tuple[Status, ...] = ("ok", "truncated", "filtered", "refused", "invalid", "failed", "pending")

ANSWERED: tuple[Status, ...] = ("ok", "truncated", "filtered", "refused", "invalid")
"""The endpoint gave an answer, usable or not."""
USABLE: tuple[Status, ...] = ("ok", "truncated")
"""The answer can be used: scored, compared, counted as valid."""
UNUSABLE: tuple[Status, ...] = ("failed", "invalid", "filtered", "refused")
"""The row ended without a usable answer; the order is that of lists for a person."""
FOLLOWED_UP: tuple[Status, ...] = ("invalid", "truncated")
"""The answer may have a follow-up: a repair, or the same request with more tokens."""
RETRYABLE: tuple[Status, ...] = ("failed", "invalid", "truncated", "filtered", "refused")
"""What `--retry` takes."""

TEMPORARY = "unsettled"
"""The mark in the store of a failure whose cause passes: it is shown as failed, and the next run asks again."""

Verdict = Literal["retry", "row", "stop"]
Pressure = Literal["rate", "window"]
Fault = Literal["", "connect", "tls", "url", "timeout", "cut", "protocol", "too_large"]


class Exit(IntEnum):
    """The exit codes of `run` and `resume`. All but USAGE and INCOMPLETE resume when the same line is typed again."""

    DONE = 0
    NEEDS_PERSON = 1
    USAGE = 2
    INCOMPLETE = 3
    AT_LIMIT = 4
    LOCKED = 5
    TRY_LATER = 75
    SIGHUP = 129
    SIGINT = 130
    SIGTERM = 143


class BadJob(Exception):
    """The job cannot begin as it was asked for: nothing was sent. The message holds the cause and the remedy."""


class Stopped(Exception):
    """The job cannot go on. Rows in hand are pending again; `exit_code` says who can help."""

    def __init__(self, message: str, exit_code: Exit = Exit.NEEDS_PERSON) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """The one kind of all nouns: frozen, compared by value, stored as JSON without what is at its default."""


class Process(Record, frozen=True):
    """Who runs a job, and where."""

    user: str
    host: str
    pid: int

    @classmethod
    def this(cls) -> Self:
        """The process that asks."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # an account without a name, as in some containers
            user = str(os.getuid())
        return cls(user, socket.gethostname(), os.getpid())


def add_costs(a: float | None, b: float | None) -> float | None:
    """US dollars in all; None if either is unknown."""
    return None if a is None or b is None else a + b


def _sum(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else a + b


class Usage(Record, frozen=True):
    """Token counts as the endpoint reported them; what it did not report is None, never 0."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    total_tokens: int | None = None

    def __add__(self, other: Self) -> Self:
        """Field by field; a count known on one side only is that count, unknown on both stays unknown."""
        if other == UNKNOWN:
            return self
        return type(self)(*map(_sum, msgspec.structs.astuple(self), msgspec.structs.astuple(other)))

    @property
    def billed_output_tokens(self) -> int | None:
        """Output tokens that are paid for: a total above prompt + completion holds hidden reasoning, so billed."""
        if self.total_tokens is None or self.prompt_tokens is None:
            return self.completion_tokens
        return max(self.completion_tokens or 0, self.total_tokens - self.prompt_tokens)


UNKNOWN = Usage()
"""Of what nothing was reported."""


class Request(Record, frozen=True):
    """What is asked: the JSON body, made once and sent as it is on every attempt, and the key of its answer."""

    key: str
    """64 hexadecimal digits: sha256 over all that the model would see and who it is (`prompts.Prompts`)."""
    body: bytes
    """Without the form of its contract, which is laid on as it is sent; empty where keys alone count."""
    model: str = ""
    """Whose price and pace it is; empty for the job's own model."""
    max_tokens: int | None = None
    """What bounds its answer, where that is another than the job's."""
    repair: int = 0
    """How many times the row's answer was asked for again, because it did not fit."""
    grown: bool = False
    """It was asked for again with more room, because it was cut off."""


class Reply(Record, frozen=True):
    """What came back from one attempt, or how it broke off (`fault`)."""

    status: int
    """The HTTP status; 0 if none arrived."""
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    """Decompressed; as far as it came, if the attempt broke off."""
    seconds: float
    fault: Fault = ""
    detail: str = ""
    """The fault in the transport's words."""


class Rejection(Record, frozen=True):
    """One attempt that gave no answer: what it means for the row, for the job, and for the throttle."""

    verdict: Verdict
    """retry: the row may be asked again · row: it can never succeed · stop: the job cannot go on."""
    kind: str
    """A word for the cause, one of `replies.KINDS`."""
    message: str
    """The server's words, or ours where it had none."""
    status: int = 0
    """The HTTP status; 0 if none arrived."""
    pressure: Pressure | None = None
    """What it teaches the throttle: `rate` (how many a minute) or `window` (how many at once)."""
    wait_seconds: float | None = None
    """How long the endpoint asked to wait, 0 or more, as it said it."""
    usage: Usage | None = None
    """What the attempt cost, where the endpoint reported it."""
    maybe_paid: bool = False
    """The attempt broke off when the endpoint may have worked already: it may be billed."""


class Allowance(Record, frozen=True):
    """What the endpoint's rate-limit headers said is allowed; what they did not say, or not for a minute, is None."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


class LaneId(Record, frozen=True):
    """Whose pace it is: the endpoint, the model, and the name of the variable that holds the key; never the key."""

    base_url: str
    model: str
    api_key_env: str


class LearnedLimits(Record, frozen=True):
    """What was found out about the pace of one lane; None for a limit that was never met."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    window: int = 0
    """How many requests at once; 0 if that is not known."""
    age_seconds: float = 0.0
    """How long ago it was found out."""


class Settled(Record, frozen=True, kw_only=True):
    """What every outcome knows of how it was come by."""

    attempts: int = 0
    """Requests sent for it in the run that settled it."""
    asked_at: datetime | None = None
    """UTC, when the last attempt left."""
    latency_seconds: float | None = None
    """How long the last attempt took."""
    cost: float | None = None
    """US dollars paid, failed attempts included; None if a price or a count is unknown."""
    settings: str = ""
    """Under which settings it was asked: 8 hexadecimal digits (`job.settings_id`)."""


class Answer(Settled, frozen=True, tag="answer"):
    """What the model said, whole and raw."""

    text: str
    finish_reason: str | None = None
    model: str | None = None
    """As served, which may be more exact than as asked for."""
    usage: Usage = Usage()
    refusal: str | None = None
    """The model's own refusal, where it said it in a field of its own."""
    logprobs: tuple[tuple[str, float], ...] = ()
    """Its tokens, each with the logarithm of its probability; only where they were asked for, and told."""

    @property
    def status(self) -> Status:
        """Before any check of the text against the answer's contract."""
        if self.refusal:
            return "refused"
        if self.finish_reason == "length":
            return "truncated"
        return "filtered" if self.finish_reason == "content_filter" else "ok"


class Failure(Settled, frozen=True, tag="failure"):
    """Why a row has no answer."""

    kind: str
    reason: str
    lasting: bool = True
    """False if attempts ran out for a reason that passes: the next run asks again."""

    @property
    def status(self) -> Status:
        """A prompt that the endpoint's filter turned away is filtered, all else is failed."""
        return "filtered" if self.kind == "filtered" else "failed"


Outcome = Answer | Failure


class Tally(Record, frozen=True, omit_defaults=False):
    """The one set of numbers that bar, budget, plan, summary and history show. Adds with `+`.

    Counts requests while they are asked, and rows once they are written.
    """

    ok: int = 0
    truncated: int = 0
    filtered: int = 0
    refused: int = 0
    invalid: int = 0
    failed: int = 0
    pending: int = 0
    usage: Usage = Usage()
    cost: float = 0.0
    """US dollars, of all whose cost is known."""
    unpriced: int = 0
    """Attempts (of a table: rows) whose cost is unknown."""
    attempts: int = 0
    held: float = 0.0
    """US dollars at most, of what may have been billed and was never told: they count against a cap."""
    aside: float = 0.0
    """US dollars at most that what is in flight may cost, under a cap; if its run is killed, the next holds them."""
    maybe_paid: int = 0
    """Attempts that broke off and may be billed all the same."""
    answers: int = 0
    """Answers from the endpoint, each of them with…"""
    request_bytes: int = 0
    """… the size of its request (`prices.size_of`), …"""
    seconds: float = 0.0
    """… and the time it took, summed."""

    def __add__(self, other: Self) -> Self:
        return type(self)(*map(add, msgspec.structs.astuple(self), msgspec.structs.astuple(other)))

    def plus(self, status: Status) -> Self:
        """One more of this status."""
        return msgspec.structs.replace(self, **{status: getattr(self, status) + 1})

    @property
    def rows(self) -> int:
        """All that were counted, whatever became of them."""
        return sum(getattr(self, status) for status in STATUSES)

    @property
    def tokens(self) -> int:
        """Prompt and output tokens, hidden reasoning included, as far as they are known."""
        return (self.usage.prompt_tokens or 0) + (self.usage.billed_output_tokens or 0)

    @property
    def unanswered(self) -> int:
        """Those that ended without a usable answer (a truncated one is usable)."""
        return sum(getattr(self, status) for status in UNUSABLE)


class Summary(Record, frozen=True, omit_defaults=False):
    """How a run ended: what `run` returns, and what `summary.json` and the history hold."""

    exit_code: Exit
    message: str
    """Why it stopped; empty if it did not."""
    output: str
    rows: Tally
    """Every row asked for, by status; their usage and cost are those of the table."""
    run: Tally
    """What this run alone asked and paid."""
    spent: float
    """US dollars over the job folder's life."""
    seconds: float
    wrote: bool
    """The output was written."""
    elsewhere: float = 0.0
    """Of `spent`, what went on no row of the table: on others, no longer in it, and on attempts without an outcome."""
