"""The half-price service tier (`run.how = "flex"`): asked for as long as it has capacity, else the standard tier.

A request that got no answer at half price for `run.flex_patience` leaves in the standard tier. So does every other one,
once the whole lane has had no answer at half price for so long; a single request then asks now and again.
"""

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

LACKING_KINDS = frozenset({"capacity", "rate", "overload", "timeout", "gateway_timeout"})
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
        self._waiting_since: dict[str, float] = {}
        """The requests that wait for capacity, by key: when they were first rejected."""
        self._probe_at = math.inf
        """While the lane is in the standard tier: when one request asks for the half-price tier again."""
        self._is_standard = False
        self._report = ""

    @property
    def patient_kinds(self) -> frozenset[str]:
        """The rejections that never make the job give up."""
        return LACKING_KINDS if self._is_on and self._patience_seconds == math.inf else frozenset()

    def give_up_after_seconds(self, usual: float) -> float:
        """How long the job goes on without an answer: the usual time, and the patience for the half-price tier."""
        return usual + self._patience_seconds if self._is_on and self._patience_seconds < math.inf else usual

    def encode(self, request: Request, now: float) -> Request:
        """The request as it leaves now: with the half-price tier that it asks for, or with the standard one."""
        if not self._is_on or not self._leaves_in_standard(request, now):
            return request
        body = decode_body(request.body)
        body["service_tier"] = msgspec.Raw(STANDARD)
        return replace(request, body=compact_json(body))

    def on_sent(self, sent: Request, now: float) -> None:
        """Note that a request left. Only one in `_probe_seconds` asks whether there is capacity again."""
        if self._is_standard and _is_flex(sent):
            self._probe_at = now + self._probe_seconds

    def on_result(self, sent: Request, result: Answer | Rejection, now: float) -> None:
        """Note what became of a request: whether there is capacity at half price."""
        if not self._is_on:
            return
        is_lacking = isinstance(result, Rejection) and result.kind in LACKING_KINDS
        if not is_lacking:
            self._waiting_since.pop(sent.key, None)
        if not _is_flex(sent):
            return
        if isinstance(result, Answer):
            if self._is_standard:
                self._report = "The half-price tier (flex) has capacity again. It is asked for from now on."
            self._lacking_since, self._probe_at, self._is_standard = None, math.inf, False
        elif is_lacking:
            self._waiting_since.setdefault(sent.key, now)
            self._on_lack(now)

    def report(self) -> str:
        """A line for the screen, once for each change of the tier; empty otherwise."""
        line, self._report = self._report, ""
        return line

    def _on_lack(self, now: float) -> None:
        if self._lacking_since is None:
            self._lacking_since = now
        if not self._is_standard and now - self._lacking_since >= self._patience_seconds:
            self._is_standard, self._probe_at = True, now + self._probe_seconds
            self._report = (
                f"The half-price tier (flex) had no capacity for {duration(self._patience_seconds)} "
                "(run.flex_patience). The standard tier is asked from now on, at its price; the column tier shows "
                "which one answered."
            )

    def _leaves_in_standard(self, request: Request, now: float) -> bool:
        waiting_since = self._waiting_since.get(request.key)
        is_impatient = waiting_since is not None and now - waiting_since >= self._patience_seconds
        return is_impatient or (self._is_standard and now < self._probe_at)


def _is_flex(sent: Request) -> bool:
    """Whether a request asks for the half-price tier. Inside a text the quotes would be escaped."""
    return b'"service_tier":"flex"' in sent.body
