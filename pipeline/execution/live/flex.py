"""The half-price service tier (`run.how = "flex"`): asked for as long as it has capacity, else the standard tier."""

import math

import msgspec
from msgspec.structs import replace

from ...answers import decode_body
from ...job import Job, duration_seconds
from ...records import Answer, Rejection, Request
from ...text import compact_json, duration

NEVER = "never"
"""`run.flex_patience` of a job that waits for capacity at half price, however long that takes."""

STANDARD = b'"default"'
"""The standard tier, as JSON."""

PATIENT_KINDS = frozenset({"capacity"})
"""Rejections that such a job waits out."""

LACKING_KINDS = frozenset({*PATIENT_KINDS, "rate", "overload", "timeout", "gateway_timeout"})
"""Rejections that may mean that the tier has no capacity: not every provider has a word of its own for it."""

PROBE_SECONDS_MIN = 60.0
"""In the standard tier, the shortest time between two requests that ask whether there is capacity again."""


class FlexTier:
    """The service tier in which the requests of one lane leave."""

    def __init__(self, job: Job) -> None:
        self._is_on = job.run.how == "flex"
        patience = job.run.flex_patience
        self._patience_seconds = math.inf if patience == NEVER else duration_seconds(patience)
        self._probe_seconds = max(PROBE_SECONDS_MIN, self._patience_seconds)
        self._lacking_since: float | None = None
        """When a request was first rejected after the last answer at half price; None if none was."""
        self._probe_at = math.inf
        """In the standard tier: when one request asks for the half-price tier again."""
        self._is_standard = False
        self._report = ""

    def encode(self, request: Request, now: float) -> Request:
        """The request as it leaves now: with the half-price tier that it asks for, or with the standard one."""
        if not self._is_on or not self._leaves_standard(now):
            return request
        body = decode_body(request.body)
        body["service_tier"] = msgspec.Raw(STANDARD)
        return replace(request, body=compact_json(body))

    def on_sent(self, sent: Request, now: float) -> None:
        """Take in that a request left: one that asks whether there is capacity again is the only one for a while."""
        if self._is_standard and _is_flex(sent):
            self._probe_at = now + self._probe_seconds

    def on_result(self, sent: Request, result: Answer | Rejection, now: float) -> None:
        """Take in what became of a request. An answer at half price shows that there is capacity.

        After `run.flex_patience` without one, the standard tier is asked.
        """
        if not self._is_on or not _is_flex(sent):
            return
        if isinstance(result, Answer):
            if self._is_standard:
                self._report = "the half-price tier (flex) has capacity again: it is asked for from now on"
            self._lacking_since, self._probe_at, self._is_standard = None, math.inf, False
        elif result.kind in LACKING_KINDS and not self._is_standard:
            if self._lacking_since is None:
                self._lacking_since = now
            if now - self._lacking_since >= self._patience_seconds:
                self._is_standard, self._probe_at = True, now + self._probe_seconds
                self._report = (
                    f"the half-price tier (flex) had no capacity for {duration(self._patience_seconds)} "
                    "(run.flex_patience): the standard tier is asked from now on, at its price. The column tier shows "
                    "which one answered"
                )

    def report(self) -> str:
        """A line for the screen, once for each change of the tier; empty otherwise."""
        line, self._report = self._report, ""
        return line

    def _leaves_standard(self, now: float) -> bool:
        return self._is_standard and now < self._probe_at


def _is_flex(sent: Request) -> bool:
    """Whether a request asks for the half-price tier. Inside a text the quotes would be escaped."""
    return b'"service_tier":"flex"' in sent.body
