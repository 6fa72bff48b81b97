"""Decide about a rejection: try the row again and when, fail the row, or stop the job.

Pure: the time in seconds and the random numbers are parameters. Here are the rules that depend on what came before; the
meaning of a single reply is decided in `endpoint`.
"""

import math
from collections.abc import Callable

from ..records import Exit, Failure, Record, Rejection, Stopped

ATTEMPTS = 6
"""Attempts of a row that fails for temporary reasons. A 429 is not counted: it says nothing about the row."""

ATTEMPTS_OF_KIND = {
    "no_choices": 4,
    "empty": 3,
    "auth": 3,
    "forbidden": 3,
    "not_found": 3,
    "gateway_timeout": 3,
}
"""Attempts of a row that fails in one of these ways, which may be paid for, or are probably the row's own fault."""

TEMPORARY_KINDS = frozenset({"gateway_timeout"})
"""Those of them after which the next run asks again; after the others the row fails for good."""

UNCOUNTED_KINDS = frozenset({"rate", "quota"})
"""Rejections that never count as an attempt of the row."""

CAPACITY = "capacity"
"""The rejection of a service tier without capacity: it never counts, and each row waits for itself, ever longer."""

OUTAGE_KINDS = frozenset({"connect", "overload", "gateway_timeout"})
"""Rejections that count as an attempt only if another row was answered since the row's last one: while the endpoint is
down, it is not the row's fault."""

OUTAGE_ROWS_MIN = 5
"""A `gateway_timeout` is an outage only if at least this number of rows have had it since the last answer: each may be
paid for."""

REJECTED_ROWS_MAX = {"auth": 4, "forbidden": 20, "not_found": 5}
"""How many rows in a row, without an answer between, may be rejected in one of these ways before the job stops, or the
key is checked. Once a key, a model and an address have answered, they are not to blame for the rejection of a few."""

REJECTED_FIRST_MAX = 3
"""The same limit in a run that has no answer yet, where an earlier run had one: the key may be another one."""

UNCOUNTED_ATTEMPTS_MAX = 100
"""Attempts of a row after which outages are counted, too: perhaps this row is what brings the endpoint down. So is a
rate limit under another status than 429: perhaps its words mean something else."""

RETRY_AFTER_MAX_SECONDS = 300.0
"""A longer wait that an endpoint asks for stops the job, unless it was started with `--wait-for-endpoint`."""

UNREACHED_MAX = 3
"""Failed connections at the start of a job that stop it: the address is wrong, or no server is running."""

BACKOFF_MAX_SECONDS = 60.0
"""The longest wait between two attempts of a row."""

BACKOFF_DOUBLINGS_MAX = 10

QUOTA_REJECTIONS = 3
"""Quota rejections in a row, without an answer between them, that stop the job."""

QUOTA_PROBES_SECONDS = 30.0
"""Seconds that those rejections must span: some gateways report a quota when they are only busy."""

SAME_FAILURES_MAX = 5
"""Requests that fail for one reason, before the first answer, that stop the job: the job itself is at fault."""

TEXT_FAILURES_MAX = 100
"""The same for reasons that may lie in a row's own text: a table may begin with such rows."""

ADDRESS_REMEDY = "Check endpoint.model, and endpoint.base_url: most addresses end in /v1."

TEXT_KINDS = frozenset({"too_long", "filtered", "too_large"})
"""Failures that may lie in a row's own text."""


REASONS_TO_STOP = {
    "auth": "the key was not accepted. {}\nCheck endpoint.api_key_env or endpoint.api_key_command.",
    "forbidden": "the request is rejected. {}\nCheck the key (endpoint.api_key_env or endpoint.api_key_command), and "
    "whether it may use the model.",
    "not_found": f"no such model or address. {{}}\n{ADDRESS_REMEDY}",
}
"""The reason to stop and its remedy, with a place for the endpoint's words."""


class RetryAfter(Record, frozen=True):
    """The decision to try a row again, after this number of seconds or later."""

    after_seconds: float


class Attempts:
    """The attempts of one row so far."""

    __slots__ = ("answers_before", "counted", "counted_by_kind", "rejected_since", "sent")

    def __init__(self) -> None:
        self.sent = 0
        """All attempts; the caller counts them."""
        self.counted = 0
        """The attempts that count against the row."""
        self.counted_by_kind: dict[str, int] = {}
        """Those of the kinds in ATTEMPTS_OF_KIND."""
        self.rejected_since: dict[str, int] = {}
        """The number of answers that the job had when the row was last rejected, by kind."""
        self.answers_before = 0
        """The number of answers that the job had at the row's last attempt."""


class RetryPolicy:
    """Decides about the rejections of one run."""

    def __init__(
        self,
        now: float,
        rng: Callable[[], float],
        *,
        give_up_after_seconds: float = math.inf,
        waits: bool = False,
        is_proven: bool = False,
        patient_kinds: frozenset[str] = frozenset(),
        checks_key: bool = False,
    ) -> None:
        """`rng` returns numbers from 0 to 1, as random.random does.

        `give_up_after_seconds`: stop after this time without a single answer.
        `waits`: wait for an endpoint that is down, and as long as it asks (`--wait-for-endpoint`).
        `patient_kinds`: rejections after which the endpoint is waited for, however long there is no answer.
        `is_proven`: the same key, model and address have answered in an earlier run of the job.
        `checks_key`: the caller looks at `is_key_in_doubt`, and finds out; otherwise such a doubt is a stop.
        """
        self.answers = 0
        """The number of answers so far."""
        self._give_up_after_seconds, self._waits, self._patient_kinds = give_up_after_seconds, waits, patient_kinds
        self._is_proven, self._checks_key = is_proven, checks_key
        self._rng = rng
        self._last_answer_at = now
        self._in_a_row: dict[str, int] = {}
        """Rejections since the last answer, by kind."""
        self._rows_in_a_row: dict[str, int] = {}
        """The rows that they were of; a row counts only once in the kinds of REJECTED_ROWS_MAX."""
        self._failed_first: dict[str, int] = {}
        """Rows that failed before the first answer, by kind."""
        self._first_quota_at = 0.0

    def like_new(self, now: float) -> "RetryPolicy":
        """A policy with the same patience that begins now, without any answer."""
        return RetryPolicy(
            now,
            self._rng,
            give_up_after_seconds=self._give_up_after_seconds,
            waits=self._waits,
            patient_kinds=self._patient_kinds,
        )

    def answered(self, now: float) -> None:
        """Take in an answer: it shows that endpoint, key and model are good."""
        self.answers += 1
        self._last_answer_at = now
        self.begin_anew()

    def begin_anew(self) -> None:
        """Count rejections in a row from here on: those before and after are known to be of single rows."""
        self._in_a_row.clear()
        self._rows_in_a_row.clear()

    @property
    def is_key_in_doubt(self) -> bool:
        """Whether too many rows in a row were rejected for a key, a model and an address that have answered before.

        These may be to blame after all. A request that is known to be good shows it.
        """
        return self._has_answered and any(
            rows >= self._rejected_rows_max(kind)
            for kind, rows in self._rows_in_a_row.items()
            if kind in REJECTED_ROWS_MAX
        )

    @property
    def _has_answered(self) -> bool:
        return self.answers > 0 or self._is_proven

    def _rejected_rows_max(self, kind: str) -> int:
        most = REJECTED_ROWS_MAX[kind]
        return most if self.answers else min(most, REJECTED_FIRST_MAX)

    def decide(self, rejection: Rejection, attempts: Attempts, now: float) -> RetryAfter | Failure | Stopped:
        """Decide about a rejection, and count it in the row's attempts. A stop is returned, not raised."""
        kind = rejection.kind
        self._in_a_row[kind] = self._in_a_row.get(kind, 0) + 1
        is_counted = kind in attempts.rejected_since and kind in REJECTED_ROWS_MAX
        if not is_counted and attempts.rejected_since.get(kind) != self.answers:
            attempts.rejected_since[kind] = self.answers
            self._rows_in_a_row[kind] = self._rows_in_a_row.get(kind, 0) + 1
        decision = self._stop(rejection, now) or self._decide_about_row(rejection, attempts)
        if isinstance(decision, Failure) and not self.answers:
            return self._stop_for_same_failures(decision, rejection) or decision
        return decision

    def _decide_about_row(self, rejection: Rejection, attempts: Attempts) -> RetryAfter | Failure:
        kind = rejection.kind
        if rejection.verdict == "row":
            return Failure(kind=kind, reason=rejection.message)
        is_outage = (
            kind in OUTAGE_KINDS
            and attempts.answers_before == self.answers
            and attempts.sent <= UNCOUNTED_ATTEMPTS_MAX
            and (kind != "gateway_timeout" or self._is_gateway_down(attempts))
        )
        is_uncounted = kind == CAPACITY or (
            kind in UNCOUNTED_KINDS and (rejection.status == 429 or attempts.sent <= UNCOUNTED_ATTEMPTS_MAX)
        )
        if not is_uncounted and not is_outage:
            attempts.counted += 1
        attempts.answers_before = self.answers
        if kind in ATTEMPTS_OF_KIND and not is_outage:
            attempts.counted_by_kind[kind] = attempts.counted_by_kind.get(kind, 0) + 1
            if attempts.counted_by_kind[kind] >= ATTEMPTS_OF_KIND[kind]:
                return Failure(kind=kind, reason=rejection.message, lasting=kind not in TEMPORARY_KINDS)
        if attempts.counted >= ATTEMPTS:
            return Failure(kind=kind, reason=rejection.message, lasting=False)
        return RetryAfter(after_seconds=self._wait_seconds(rejection, attempts))

    def _is_gateway_down(self, attempts: Attempts) -> bool:
        """Whether time-outs of a gateway are an outage. Each may be paid for, so a row has only a few of them."""
        kind = "gateway_timeout"
        return self._rows_in_a_row[kind] >= OUTAGE_ROWS_MIN and attempts.sent < 2 * ATTEMPTS_OF_KIND[kind]

    def _stop_for_same_failures(self, failure: Failure, rejection: Rejection) -> Stopped | None:
        """A stop if all requests so far failed, and too many of them for this reason."""
        kind = failure.kind
        self._failed_first[kind] = count = self._failed_first.get(kind, 0) + 1
        if count < (TEXT_FAILURES_MAX if kind in TEXT_KINDS or self._is_proven else SAME_FAILURES_MAX):
            return None
        if kind in TEXT_KINDS and self._is_proven:  # the job is good, and a stop would come again at every resume
            return None
        reply = f"HTTP {rejection.status}: {rejection.message}" if rejection.status else rejection.message
        remedy = "Check [parameters] and the model; `pipeline preview` shows the requests."
        if kind in TEXT_KINDS:
            remedy += "\nIf only these rows have this problem, move others before them, or leave them out."
        return Stopped(
            f"the first {count:,} requests all failed for the same reason ({kind}). The endpoint replied: {reply}\n"
            f"{remedy}\nThese rows are recorded as pending, not as failed.",
            Exit.NEEDS_PERSON if failure.lasting else Exit.TRY_LATER,
        )

    def _wait_seconds(self, rejection: Rejection, attempts: Attempts) -> float:
        """Seconds until the row's next attempt: Retry-After, else exponential backoff with full jitter."""
        if rejection.wait_seconds is not None:
            return rejection.wait_seconds
        if rejection.pressure == "rate":
            return 0.0  # the throttle pauses everyone, and the row goes first after the pause
        tries = attempts.sent if rejection.kind == CAPACITY else attempts.counted + 1
        return self._rng() * min(BACKOFF_MAX_SECONDS, 2.0 ** min(tries, BACKOFF_DOUBLINGS_MAX))

    def _stop(self, rejection: Rejection, now: float) -> Stopped | None:
        """A stop if the job cannot succeed after this rejection."""
        reason = self._reason_for_a_person(rejection, now)
        if reason is not None:
            return Stopped(f"HTTP {rejection.status}: {reason}" if rejection.status else reason)
        silent_seconds = now - self._last_answer_at
        is_patient = rejection.kind in self._patient_kinds
        if rejection.verdict == "retry" and silent_seconds > self._give_up_after_seconds and not is_patient:
            return Stopped(
                f"No answer for {silent_seconds / 60:,.0f} minutes (limits.give_up_after). "
                f"The last rejection: {rejection.message}",
                Exit.TRY_LATER,
            )
        if self._waits:
            return None
        if rejection.kind == "connect" and not self.answers and self._in_a_row["connect"] >= UNREACHED_MAX:
            remedy = "Check endpoint.base_url, or try again later. If it is about to start, add --wait-for-endpoint."
            return Stopped(f"Cannot reach the endpoint: {rejection.message}\n{remedy}", Exit.TRY_LATER)
        wait = 0.0 if rejection.kind == CAPACITY else rejection.wait_seconds or 0.0
        if wait > RETRY_AFTER_MAX_SECONDS:
            return Stopped(
                f"The endpoint asks to wait {wait / 60:,.0f} minutes: {rejection.message}\n"
                "To wait that long, add --wait-for-endpoint.",
                Exit.TRY_LATER,
            )
        return None

    def _reason_for_a_person(self, rejection: Rejection, now: float) -> str | None:
        """The reason to stop and its remedy, if waiting cannot help; else None."""
        kind, times = rejection.kind, self._in_a_row[rejection.kind]
        reply = f"The endpoint replied: {rejection.message}"
        if kind in REJECTED_ROWS_MAX:
            if self._has_answered and (self._checks_key or not self.is_key_in_doubt):
                return None
            return REASONS_TO_STOP[kind].format(reply)
        if kind == "html" and not self.answers:
            return "the address answers with a web page, not with an API.\nCheck endpoint.base_url."
        if kind == "quota":
            self._first_quota_at = now if times == 1 else self._first_quota_at
            is_certain = times >= QUOTA_REJECTIONS and now - self._first_quota_at >= QUOTA_PROBES_SECONDS
            return f"the quota is used up. {reply}" if is_certain else None
        return reply if rejection.verdict == "stop" else None
