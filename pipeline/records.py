"""The frozen records that travel between packages, the statuses of a row, and how a job can end."""

import getpass
import os
import socket
from collections.abc import Sequence
from datetime import datetime
from enum import IntEnum
from operator import add
from typing import Annotated, Literal, Self

import msgspec

from .version import __version__

Status = Literal["ok", "truncated", "filtered", "refused", "invalid", "failed", "pending"]
"""The status of a row. Every row has exactly one."""

STATUSES: tuple[Status, ...] = ("ok", "truncated", "filtered", "refused", "invalid", "failed", "pending")
"""All statuses, in the order in which they are shown."""

ANSWERED: tuple[Status, ...] = ("ok", "truncated", "filtered", "refused", "invalid")
"""The endpoint gave an answer, usable or not."""
USABLE: tuple[Status, ...] = ("ok", "truncated")
"""The answer can be used: scored, compared, counted as valid."""
UNUSABLE: tuple[Status, ...] = ("failed", "invalid", "filtered", "refused")
"""The row ended without a usable answer; the worst first."""
FOLLOWED_UP: tuple[Status, ...] = ("invalid", "truncated")
"""The answer may have a follow-up: a repair, or the same request with a larger `max_tokens`."""
RETRYABLE: tuple[Status, ...] = ("failed", "invalid", "truncated", "filtered", "refused")
"""The statuses that `--retry` takes."""

Count = Annotated[int, msgspec.Meta(ge=0)]
Amount = Annotated[float, msgspec.Meta(ge=0)]
"""Numbers that are never negative. One that is read from a folder is refused otherwise: a debt would raise the cap."""
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with its zone; one without cannot be compared with the present."""

TEMPORARY = "unsettled"
"""The store's mark of a temporary failure: the row is shown as failed, and the next run asks it again."""

Verdict = Literal["retry", "row", "stop"]
"""retry: the request may be sent again · row: it can never succeed · stop: the job cannot go on."""
Pressure = Literal["rate", "window"]
"""What a rejection teaches the throttle: fewer requests a minute, or fewer at once."""
Fault = Literal["", "connect", "tls", "url", "timeout", "cut", "protocol", "too_large"]
"""How an attempt broke off; empty if a whole reply came."""


class Exit(IntEnum):
    """The exit codes of `run` and `resume`. After all but USAGE and INCOMPLETE, the same line goes on with the job."""

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
    """The job cannot begin, and nothing was sent. The message says why, and what to do."""


class Stopped(Exception):
    """The job cannot go on: rows without an outcome stay pending. `exit_code` says whether a person is needed."""

    def __init__(self, message: str, exit_code: Exit = Exit.NEEDS_PERSON) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class NewerVersion(Stopped):
    """A newer version of pipeline wrote what this one does not understand. Nothing was sent, and nothing changed."""

    def __init__(self, what: str) -> None:
        """`what`: the file, and in brackets what in it is not understood."""
        super().__init__(
            f"{what} was written by a newer version of pipeline; this is {__version__}. Nothing was sent and nothing "
            "was changed. Update pipeline, then type the same command again."
        )


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """Every record: frozen, compared by value, encoded as JSON without the fields that have their default."""


class Process(Record, frozen=True):
    """The process that runs a job: user, host and process id."""

    user: str
    host: str
    pid: int

    @classmethod
    def this(cls) -> Self:
        """The current process."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # an account without a name, as in some containers
            user = str(os.getuid())
        return cls(user, socket.gethostname(), os.getpid())


def add_costs(a: float | None, b: float | None) -> float | None:
    """The sum of two costs in US dollars; None if either is unknown."""
    return None if a is None or b is None else a + b


def _sum(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else a + b


class Usage(Record, frozen=True):
    """Token counts as the endpoint reported them; a count that it did not report is None, never 0.

    The prompt's tokens include those that were read from a cache or written to one.
    """

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    reasoning_tokens: Count | None = None
    cached_tokens: Count | None = None
    total_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    """Prompt tokens that were written to the endpoint's cache, which may cost more than others."""
    long_cache_write_tokens: Count | None = None
    """The part of them that the cache keeps for an hour or more."""
    tier: str = ""
    """The service tier that was used; empty if the endpoint named none, and in a sum."""
    is_billed: bool = True
    """False if the endpoint reports tokens that it does not charge for."""
    untrue: str = ""
    """A reported count that cannot be one, such as `prompt_tokens: -1`; it is left out above."""

    @classmethod
    def of(cls, counts: Sequence[int | None]) -> Self:
        """The usage with these counts, in the order of TOKEN_COUNTS."""
        prompt, completion, reasoning, cached, total, written, long_written = counts
        return cls(prompt, completion, reasoning, cached, total, written, long_written)

    @property
    def counts(self) -> tuple[int | None, ...]:
        """All token counts, in the order of TOKEN_COUNTS."""
        counts: tuple[int | None, ...] = msgspec.structs.astuple(self)[: len(TOKEN_COUNTS)]
        return counts

    def __add__(self, other: Self) -> Self:
        """Add count by count; one that only one side knows is that count."""
        if other == UNKNOWN:
            return self
        return self.of(list(map(_sum, self.counts, other.counts)))

    @property
    def billed_output_tokens(self) -> int | None:
        """Output tokens that are billed. A total above prompt + completion counts hidden reasoning, too."""
        if self.total_tokens is None or self.prompt_tokens is None:
            return self.completion_tokens
        return max(self.completion_tokens or 0, self.total_tokens - self.prompt_tokens)


TOKEN_COUNTS = Usage.__struct_fields__[:7]
"""The names of the token counts in a Usage."""

UNKNOWN = Usage()
"""The usage of a reply that reported none."""


class Request(Record, frozen=True):
    """One request: the JSON body, the same for every attempt, and the key of its answer."""

    key: str
    """64 hexadecimal digits: sha256 over what the model would see and who it is (`prompts.Prompts`)."""
    body: bytes
    """Without the response format, which is added when it is sent; empty where only the key is needed."""
    model: str = ""
    """The model to ask, if it is not the job's own; decides the price and the lane."""
    max_tokens: int | None = None
    """The answer's limit in tokens, if it is not the job's."""
    repair: int = 0
    """The number of repairs before it in its chain: 0 for a first request."""
    grown: bool = False
    """It follows a truncated answer, with a larger `max_tokens`."""


class Reply(Record, frozen=True):
    """What came back from one attempt, or how it broke off (`fault`)."""

    status: int
    """The HTTP status; 0 if none arrived."""
    headers: dict[str, str]
    """By name in lower case."""
    body: bytes
    """Decompressed; incomplete if the attempt broke off."""
    seconds: float
    fault: Fault = ""
    detail: str = ""
    """The fault in the transport's words."""


class Rejection(Record, frozen=True):
    """An attempt that gave no answer, and what that means for the row, the job and the throttle."""

    verdict: Verdict
    kind: str
    """A word for the cause: a key of `endpoint.rejections.KINDS`."""
    message: str
    """The server's words, or ours if it gave none."""
    status: int = 0
    """The HTTP status; 0 if none arrived."""
    pressure: Pressure | None = None
    wait_seconds: float | None = None
    """How long the endpoint asked to wait; None if it did not say."""
    usage: Usage | None = None
    """The tokens of the attempt, if the endpoint reported them."""
    maybe_paid: bool = False
    """The attempt may have used tokens of the endpoint's limit."""
    is_turned_away: bool = False
    """The endpoint did no work for it, and bills nothing."""
    parameter: str = ""
    """The parameter of the request that the endpoint complained about; empty if it named none."""


class Allowance(Record, frozen=True):
    """The limits in an endpoint's rate-limit headers; None if they give none for a minute."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


class LaneId(Record, frozen=True):
    """What identifies a lane: endpoint, model, and the name of the variable with the key (never the key itself)."""

    base_url: str
    model: str
    api_key_env: str


class LearnedLimits(Record, frozen=True):
    """The limits of one lane that were found by sending; None for a limit that was never reached."""

    requests_per_minute: Amount | None = None
    tokens_per_minute: Amount | None = None
    window: Count = 0
    """Requests in flight; 0 if unknown."""
    age_seconds: Amount = 0.0
    """How long ago the limits were learned."""
    response_format: str = ""
    """The response format that the endpoint takes, if that is not the first one that is tried."""
    respelled: str = ""
    """The parameter that it takes under another name."""


class OutcomeFields(Record, frozen=True, kw_only=True):
    """The fields that an answer and a failure share."""

    attempts: int = 0
    """Attempts in the run that gave this outcome."""
    asked_at: Moment | None = None
    """When the last attempt was sent (UTC)."""
    latency_seconds: float | None = None
    """The duration of the last attempt."""
    cost: float | None = None
    """US dollars for all attempts, also failed ones; None if a price or a token count is unknown."""
    settings: str = ""
    """The settings it was asked under: 8 hexadecimal digits (`job.settings_id`)."""
    retry: str = ""
    """The id of the retry (`--retry`) that is done with it; empty if no retry asked it."""


FINISH_REASONS = ("stop", "length", "content_filter", "tool_calls", "error")
"""Why an answer ended, in OpenAI's words; `error` is a failure of the model's server."""


class Answer(OutcomeFields, frozen=True, tag="answer"):
    """The model's answer as it came."""

    text: str
    finish_reason: str | None = None
    model: str | None = None
    """The model that the endpoint named, perhaps more exactly than the job did."""
    usage: Usage = Usage()
    refusal: str | None = None
    """The model's refusal, if the reply has a field for it."""
    logprobs: tuple[tuple[str, float], ...] = ()
    """Its tokens with the logarithm of their probabilities, if these were asked for and reported."""
    taken_from: str = ""
    """The field of the message that the text stood in, if that is not meant for it, as `reasoning_content`."""

    @property
    def status(self) -> Status:
        """The status before the text is checked against its contract."""
        if self.refusal:
            return "refused"
        if self.finish_reason == "length":
            return "truncated"
        return "filtered" if self.finish_reason == "content_filter" else "ok"


class Failure(OutcomeFields, frozen=True, tag="failure"):
    """The reason why a request has no answer."""

    kind: str
    reason: str
    lasting: bool = True
    """False for a temporary failure, which the next run asks again."""

    @property
    def status(self) -> Status:
        """`filtered` if the endpoint's filter rejected the prompt, else `failed`."""
        return "filtered" if self.kind == "filtered" else "failed"


Outcome = Answer | Failure


class Tally(Record, frozen=True, omit_defaults=False):
    """The numbers that bar, budget, plan, summary and history show; tallies add with `+`.

    A tally counts requests while they are asked, and rows in a table.
    """

    ok: Count = 0
    truncated: Count = 0
    filtered: Count = 0
    refused: Count = 0
    invalid: Count = 0
    failed: Count = 0
    pending: Count = 0
    usage: Usage = Usage()
    cost: Amount = 0.0
    """US dollars, without attempts of unknown cost."""
    unpriced: Count = 0
    """Attempts (in a table: rows) of unknown cost."""
    attempts: Count = 0
    held: Amount = 0.0
    """The most, in US dollars, that attempts may have cost which nobody reported; counts against a cap."""
    aside: Amount = 0.0
    """The most, in US dollars, that requests in flight may cost; after a kill it is added to `held`."""
    maybe_paid: Count = 0
    """Attempts that gave no answer and may be billed all the same."""
    answers: Count = 0
    """Number of answers from the endpoint."""
    request_bytes: Count = 0
    """The sum of the sizes of the requests of these answers (`costs.token_bytes`)."""
    seconds: Amount = 0.0
    """The sum of the latencies of these answers."""
    in_outcomes: Amount = 0.0
    """The part of `cost` that recorded outcomes name; the rest was spent on attempts without one."""

    def __add__(self, other: Self) -> Self:
        return type(self)(*map(add, msgspec.structs.astuple(self), msgspec.structs.astuple(other)))

    def plus(self, status: Status, count: int = 1) -> Self:
        """The tally with one more of that status, or with `count` more."""
        return msgspec.structs.replace(self, **{status: getattr(self, status) + count})

    @property
    def rows(self) -> int:
        """The number of all that were counted, of any status."""
        return sum(getattr(self, status) for status in STATUSES)

    @property
    def tokens(self) -> int:
        """Prompt and output tokens, with hidden reasoning, as far as they are known."""
        return (self.usage.prompt_tokens or 0) + (self.usage.billed_output_tokens or 0)

    @property
    def unanswered(self) -> int:
        """The number that ended without a usable answer."""
        return sum(getattr(self, status) for status in UNUSABLE)


class Summary(Record, frozen=True, omit_defaults=False):
    """How a run ended: returned by `run`, and written to `summary.json` and the history."""

    exit_code: Exit
    message: str
    """Why the run stopped; empty if it finished."""
    output: str
    rows: Tally
    """The rows of the table by status, with their usage and cost."""
    run: Tally
    """The requests of this run alone, with their usage and cost."""
    spent: float
    """US dollars over the life of the job folder."""
    seconds: float
    wrote: bool
    """Whether the output was written."""
    elsewhere: float = 0.0
    """The part of `spent` for rows that are not in the table, and for attempts without an outcome."""
