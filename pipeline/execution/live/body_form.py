"""The form in which a lane's requests leave: response format, names of parameters, service tier."""

from ...job import Job
from ...records import Answer, LearnedLimits, Rejection, Request
from ..parameters import Parameters
from .flex import FlexTier
from .format_fallback import FormatFallback


class BodyForm:
    """Decides the parts of a request's body that no answer depends on, and changes them where the endpoint says so."""

    def __init__(self, job: Job, learned: LearnedLimits | None) -> None:
        """`learned`: what an earlier run found out about the lane."""
        known = learned or LearnedLimits()
        self._format, self.tier = FormatFallback(job, known.response_format), FlexTier(job)
        self.parameters = Parameters(job, known.respelled)

    def encode(self, request: Request, now: float) -> Request:
        """The request as it leaves now."""
        return self.tier.encode(self.parameters.encode(self._format.encode(request)), now)

    def try_other(self, rejection: Rejection) -> bool:
        """Whether to send the request again in another form, before the first answer.

        Raises Stopped if the endpoint rejects a parameter that cannot be sent otherwise.
        """
        return self.parameters.try_other_spelling(rejection) or self._format.try_next(rejection)

    def on_answer(self, answer: Answer) -> list[str]:
        """Note an answer; returns lines for the screen about what changed in the form."""
        self._format.look_at(answer)
        return [*filter(None, (self._format.report(), self.parameters.report(), self.tier.report()))]

    @property
    def learned(self) -> dict[str, str]:
        """What a later run begins with, as fields of LearnedLimits."""
        return {"response_format": self._format.in_use, "respelled": self.parameters.respelled}
