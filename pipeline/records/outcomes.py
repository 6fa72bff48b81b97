"""The two outcomes of a request: an answer, or a failure."""

from .record import Moment, Record
from .statuses import Status
from .usage import Usage


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
    message: bytes = b""
    """What the message holds beside the text, as `pack_message` packs it; empty if that is nothing."""
    message_fills: tuple[str, ...] = ()
    """The fields of MessageParts that the message fills."""
    served_by: str = ""
    """Who answered, where a gateway tells it."""

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
