"""What goes to the endpoint and comes back: requests, replies, rejections, and the limits that were learned."""

from typing import Literal

from .record import Amount, Count, Record
from .usage import Usage

Verdict = Literal["retry", "row", "stop"]
"""retry: the request may be sent again · row: it can never succeed · stop: the job cannot go on."""
Pressure = Literal["rate", "window"]
"""What a rejection teaches the throttle: fewer requests a minute, or fewer at once."""
Fault = Literal["", "connect", "tls", "url", "timeout", "cut", "protocol", "too_large"]
"""How an attempt broke off; empty if a whole reply came."""


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


class Allowance(Record, frozen=True):
    """The limits that an endpoint states, in headers or in words; None if it states none for a minute."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


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
    allowance: Allowance = Allowance()
    """The limits that its words name."""


class LaneId(Record, frozen=True):
    """What identifies a lane: endpoint, model, and where the key is from (never the key itself)."""

    base_url: str
    model: str
    api_key_env: str
    """The name of the variable that holds the key, or the command that prints it."""


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
