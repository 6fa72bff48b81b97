"""Whether to try again, and after how long: what one refusal means for its row, and all of them for the job.

Pure: the time in seconds and the dice are given in. The rules are those that need to know what came before; what a
single reply means is `replies`.
"""

import math
from collections.abc import Callable

from ..records import Exit, Failure, Record, Rejection, Stopped

ATTEMPTS = 6
"""Attempts a row has for reasons that pass. A 429 costs none: it says nothing about the row."""

ATTEMPTS_OF_KIND = {"no_choices": 4, "empty": 3}
"""An odd answer is asked again a few times, then it is the row's answer: nothing."""

FREE = frozenset({"rate", "quota"})
DOWN = frozenset({"connect", "overload"})
"""Cost an attempt only if another row was answered meanwhile: while the endpoint is down, it is not the row's fault."""

BLAMELESS_TRIES = 100
"""After so many, it may be the row that brings the endpoint down: from then on each try is an attempt."""

LONGEST_WAIT_SECONDS = 300.0
UNREACHED = 3
"""So many first requests that reach nobody: the address is wrong, or nobody is there."""

BACKOFF_MAX_SECONDS = 60.0
QUOTA_PROBES_SECONDS = 30.0
"""A gateway that is only busy says "quota" too: three in a row over this long, without an answer, and it is meant."""

ALIKE = 5
ALIKE_BY_TEXT = 100
"""So many first rows that fail for one reason: it is the job that is bad. What a row's own text may well cause is
given longer, since a table may begin with such rows."""
BY_TEXT = frozenset({"too_long", "filtered", "too_large"})


class RetryAfter(Record, frozen=True):
    """Try the row again, no sooner than after so many seconds."""

    after_seconds: float


class Attempts:
    """One row's attempts so far."""

    __slots__ = ("answers_before", "counted", "odd", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.counted = 0
        self.odd: dict[str, int] = {}
        """Of the counted ones, the odd answers by kind."""
        self.answers_before = 0
        """How many answers the job had when the row was last tried."""


class RetryPolicy:
    """What the refusals of a run say of the job, and so what is to be done about each."""

    def __init__(
        self, now: float, rng: Callable[[], float], *, give_up_after_seconds: float = math.inf, waits: bool = False
    ) -> None:
        """`give_up_after_seconds`: without a single answer for so long, the endpoint is down for the night.

        `waits`: the endpoint may be down, or ask for any wait, as long as that: it is waited for.
        """
        self.answers = 0
        self._give_up_after_seconds, self._waits = give_up_after_seconds, waits
        self._dice = rng
        self._last_answer = now
        self._in_a_row: dict[str, int] = {}
        self._failed: dict[str, int] = {}
        """Rows that failed before the first answer, by kind."""
        self._first_quota = 0.0

    def answered(self, now: float) -> None:
        """An answer has come: the endpoint, the key and the model are good."""
        self.answers += 1
        self._last_answer = now
        self._in_a_row.clear()

    def decide(self, refusal: Rejection, tries: Attempts, now: float) -> RetryAfter | Failure | Stopped:
        """What to do about one refusal; counts it against the row."""
        self._in_a_row[refusal.kind] = self._in_a_row.get(refusal.kind, 0) + 1
        decision = self._stop(refusal, now) or self._of_row(refusal, tries)
        if isinstance(decision, Failure) and not self.answers:
            return self._alike(decision, refusal) or decision
        return decision

    def _of_row(self, refusal: Rejection, tries: Attempts) -> RetryAfter | Failure:
        """What to do about the row, if the job goes on."""
        kind = refusal.kind
        if refusal.verdict == "row":
            return Failure(kind=kind, reason=refusal.message)
        blameless = kind in DOWN and tries.answers_before == self.answers and tries.sent <= BLAMELESS_TRIES
        if kind not in FREE and not blameless:
            tries.counted += 1
        tries.answers_before = self.answers
        if kind in ATTEMPTS_OF_KIND:
            tries.odd[kind] = tries.odd.get(kind, 0) + 1
            if tries.odd[kind] >= ATTEMPTS_OF_KIND[kind]:
                return Failure(kind=kind, reason=refusal.message)
        if tries.counted >= ATTEMPTS:
            return Failure(kind=kind, reason=refusal.message, lasting=False)
        return RetryAfter(after_seconds=self._wait(refusal, tries))

    def _alike(self, failure: Failure, refusal: Rejection) -> Stopped | None:
        """A stop, if the rows so far, not one of them answered, failed for this one reason."""
        kind = failure.kind
        self._failed[kind] = rows = self._failed.get(kind, 0) + 1
        if rows < (ALIKE_BY_TEXT if kind in BY_TEXT else ALIKE):
            return None
        said = f"HTTP {refusal.status}: {refusal.message}" if refusal.status else refusal.message
        remedy = "Check [parameters] and the model; `pipeline preview` shows what is sent."
        if kind in BY_TEXT:
            remedy += "\nIf it is these rows alone, put others before them, or leave them out."
        return Stopped(
            f"the first {rows:,} rows all failed alike ({kind}). The endpoint said: {said}\n{remedy}\n"
            "They are recorded as pending, not as failed.",
            Exit.NEEDS_PERSON if failure.lasting else Exit.TRY_LATER,
        )

    def _wait(self, refusal: Rejection, tries: Attempts) -> float:
        if refusal.wait_seconds is not None:
            return refusal.wait_seconds
        if refusal.pressure == "rate":
            return 0.0  # the throttle pauses everyone; the row goes first after it
        return self._dice() * min(BACKOFF_MAX_SECONDS, 2.0 ** (tries.counted + 1))

    def _stop(self, refusal: Rejection, now: float) -> Stopped | None:
        """A stop, if this refusal makes the job hopeless."""
        stop = self._needs_a_person(refusal, now)
        if stop is not None:
            return Stopped(f"HTTP {refusal.status}: {stop}" if refusal.status else stop)
        silent_seconds = now - self._last_answer
        if refusal.verdict == "retry" and silent_seconds > self._give_up_after_seconds:
            for_so_long = f"for {silent_seconds / 60:,.0f} minutes (limits.give_up_after)"
            return Stopped(f"Not one answer {for_so_long}. The last refusal: {refusal.message}", Exit.TRY_LATER)
        if self._waits:
            return None
        if refusal.kind == "connect" and not self.answers and self._in_a_row["connect"] >= UNREACHED:
            remedy = "Check endpoint.base_url, or try again later. If it is about to start, add --wait-for-endpoint."
            return Stopped(f"Cannot reach the endpoint: {refusal.message}\n{remedy}", Exit.TRY_LATER)
        if refusal.wait_seconds is not None and refusal.wait_seconds > LONGEST_WAIT_SECONDS:
            minutes = refusal.wait_seconds / 60
            asked = f"The endpoint asks to wait {minutes:,.0f} minutes: {refusal.message}"
            return Stopped(f"{asked}\nTo wait as long as it says, add --wait-for-endpoint.", Exit.TRY_LATER)
        return None

    def _needs_a_person(self, refusal: Rejection, now: float) -> str | None:
        """What the person is told, if waiting will not help."""
        kind, times = refusal.kind, self._in_a_row[refusal.kind]
        said = f"The endpoint said: {refusal.message}"
        if kind == "auth":
            hopeless = not self.answers or times >= 2
            return f"the key was not accepted. {said}\nCheck endpoint.api_key_env." if hopeless else None
        if kind == "not_found":
            hopeless = not self.answers or times > 3
            return (
                f"no such model or address. {said}\nCheck endpoint.model and endpoint.base_url." if hopeless else None
            )
        if kind == "html" and not self.answers:
            return "the address answers with a web page, not with an API.\nCheck endpoint.base_url."
        if kind == "quota":
            self._first_quota = now if times == 1 else self._first_quota
            spent = times >= 3 and now - self._first_quota >= QUOTA_PROBES_SECONDS
            return f"the quota is used up. {said}" if spent else None
        return said if refusal.verdict == "stop" else None
