"""Collect finished batches: download their results, record the outcomes, and ask again what has no answer.

The order of results means nothing, as each line names its request. A batch is forgotten only after its outcomes and the
files of its follow-up requests are on disk. One whose results are missing is put aside, and noted for the next run.
"""

import asyncio
import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from ...answers import RESPONSE_FORMATS
from ...endpoint import BatchApi, clean_message, parse_json, read_reply, rejects_response_format
from ...job import Job
from ...pacing import ATTEMPTS, TEXT_FAILURES_MAX, Attempts, RetryAfter, RetryPolicy
from ...records import Answer, Exit, Failure, Rejection, Reply, Request, Stopped, add_costs
from ...store import BatchFile
from ...text import BODY_BYTES_AT_ONCE, in_thread_if, one_line
from ..context import settle
from .account import FINISHED, UNFINISHED, Counts, account_of, counts_of, what_is_missing
from .calls import Calls, objects_in
from .files import BatchLine, LinesByKey, Result, read_lines, read_results
from .send import QUEUE_FULL, Sender
from .state import Aside, BatchState

RECORD_GROUP = 256
"""How many answers are recorded together."""

LATE_LOOKS = 10
"""How often results that are missing are looked for, once between two polls, before the batch is put aside."""

LATE_SECONDS = 600.0
"""Results that are missing for this long are looked for three times only."""

OVERDUE_DAYS = 8
"""A batch that goes on for longer is put aside. A day is asked for, and some providers take up to a week."""

OVERDUE_DAYS_OF_UNKNOWN = 2
"""A batch with an unknown status is put aside after this many days."""


class Collector:
    """Asks for the status of open batches, and records the results of finished ones."""

    def __init__(self, job: Job, state: BatchState, api: BatchApi, calls: Calls, sender: Sender) -> None:
        self._state, self._context, self._api, self._calls, self._sender = state, state.context, api, calls, sender
        self._has_contract = job.answer.contract is not None
        # a batch may take a day, so no time without an answer is too long
        is_proven = any(self._context.learned(model) is not None for model in job.models)
        self._retry_policy = RetryPolicy(self._context.clock(), self._context.rng, waits=True, is_proven=is_proven)
        self._waits = not job.this_run.no_wait
        self._late: dict[str, tuple[int, float]] = {}
        """By batch file: how often its results were missing, and when for the first time."""
        self._told: set[str] = set()
        """The names of the batch files whose batch has an unknown status, once the user was told."""
        self._unconfirmed: list[tuple[Request, Failure]] = []
        """Rows that failed before the first answer: recorded only once an answer shows that the job itself is good."""

    async def collect_finished(self) -> bool:
        """Ask for the status of every batch that is waited for, and collect the finished ones.

        Returns whether any came to its end: a batch whose results are missing is put aside after a while.
        Raises Stopped if the job cannot go on.
        """
        has_ended = False
        for batch_file in self._state.awaited:
            if self._context.stopping is not None:
                break
            has_ended |= await self._look(batch_file)
        await self._state.note_all()  # `pipeline status` in another terminal reads it
        return has_ended

    async def _look(self, batch_file: BatchFile) -> bool:
        """Ask for the status of a batch, and act on it; whether the batch came to its end."""
        try:
            batch = await self._calls.json(lambda: self._api.retrieve(batch_file.batch_id), "status", may_miss=True)
        except LookupError as error:
            text = f"is unknown to the provider ({error}): use the endpoint, key and project that it was created with"
            return self._is_late(batch_file, text) and await self._put_aside(batch_file, text, [], Exit.NEEDS_PERSON)
        status, counts = str(batch["status"]), counts_of(batch)
        if status == "failed" and not batch.get("output_file_id") and not counts.completed:
            return await self._collect_failed(batch_file, batch)
        if status in FINISHED or (status not in UNFINISHED and batch.get("output_file_id")):
            return await self._collect(batch_file, batch, status, counts)
        is_ending = status == "cancelling"
        self._state.open[batch_file.name] = replace(batch_file, done=counts.done, is_ending=is_ending)
        if status not in UNFINISHED and batch_file.name not in self._told:
            self._told.add(batch_file.name)
            self._context.say(
                f"Batch {batch_file.batch_id} has a status that is unknown here: {one_line(status)}. It is waited for."
            )
        days = OVERDUE_DAYS if status in UNFINISHED else OVERDUE_DAYS_OF_UNKNOWN
        if batch_file.made_at is None or datetime.now(tz=UTC) - batch_file.made_at < timedelta(days=days):
            return False
        return await self._put_aside(batch_file, f"is still {one_line(status)} after {days} days", [])

    def _is_late(self, batch_file: BatchFile, text: str) -> bool:
        """Whether results that are missing were looked for often enough. `text`: see `_put_aside`; said once."""
        now = self._context.clock()
        if self._waits and batch_file.name not in self._late:
            self._context.say(f"Batch {batch_file.batch_id} {text}. It is looked at again.")
        looks, began = self._late.get(batch_file.name, (0, now))
        self._late[batch_file.name] = looks + 1, began
        return not self._waits or looks + 1 >= LATE_LOOKS or (looks >= 2 and now >= began + LATE_SECONDS)

    async def _collect(self, batch_file: BatchFile, batch: dict[str, Any], status: str, counts: Counts) -> bool:
        """Record the results of a finished batch, queue what is to be asked again, and forget the batch.

        Returns False if results are missing and are to be looked for again. As long as any are, nothing is deleted at
        the provider, and no request without a result is asked again.
        """
        files, lost = await self._download(batch_file, batch)
        with LinesByKey(self._state.path(batch_file)) as lines:
            keys = frozenset(lines.left())
        account = await asyncio.to_thread(account_of, files.values(), keys, parse_json)
        missing = what_is_missing(status, counts, batch_file.requests, account)
        text = f"is {one_line(status)}, but {lost or missing}"
        if missing and not self._is_late(batch_file, text):
            return False
        if status == "cancelled":
            self._state.cancelled.append(batch_file.batch_id)
        if missing:
            return await self._put_aside(batch_file, text, list(files.values()))
        await self._record_results(batch_file, list(files.values()))
        for path in files.values():
            path.unlink()
        self._context.say(f"Batch {batch_file.batch_id} is {one_line(status)}.")
        self._sender.on_batch_finished()
        self._state.close_writers()
        await self._state.forget(batch_file)
        own = [file_id for file_id, is_shared in zip(files, account.shared, strict=True) if not is_shared]
        for file_id in (batch_file.file_id, *own):  # nothing of this batch is left behind at the provider
            await self._calls.once(functools.partial(self._api.delete, file_id))
        return True

    async def _put_aside(
        self, batch_file: BatchFile, text: str, paths: Sequence[Path], exit_code: Exit = Exit.TRY_LATER
    ) -> bool:
        """Record the answers that are there, and look at the batch no more in this run. What is missing stays reserved.

        `text`: what is missing. Returns True, as the batch has come to its end here.
        """
        state = self._state
        with LinesByKey(state.path(batch_file)) as lines:
            await self._record_all_answers(batch_file, lines, paths)
            left = lines.left()
            if batch_file.recorded:
                stored = self._context.asked_at(left)
                left = [key for key in left if stored.get(key) != batch_file.made_at]
            worst = sum(state.worst_cost(lines.take(key).request) for key in left)
        for path in paths:
            path.unlink()
        state.close_writers()
        self._context.budget.reserved += worst - batch_file.reserved
        recorded = batch_file.requests - len(left)
        state.open[batch_file.name] = replace(batch_file, reserved=worst, recorded=recorded)
        self._context.say(f"Batch {batch_file.batch_id} {text}. It is put aside.")
        is_wanted = not state.other_keys.issuperset(left)
        state.aside[batch_file.name] = Aside(text, exit_code, is_wanted)
        return True

    async def _collect_failed(self, batch_file: BatchFile, batch: dict[str, Any]) -> bool:
        """Act on a batch that the provider rejected: its queue is full, or some or all of the requests are bad.

        Returns True, as the batch has come to its end. Raises Stopped if the whole batch is bad.
        """
        reported = batch.get("errors")
        errors = objects_in(reported.get("data")) if isinstance(reported, dict) else []
        message = "; ".join(str(error.get("message")) for error in errors[:3]) or "no reason"
        if any(QUEUE_FULL.search(f"{error.get('code')} {error.get('message')}") for error in errors):
            await self._sender.on_queue_full(batch_file, message)
            return True
        lines = range(1, batch_file.requests + 1)
        bad = {error["line"]: str(error.get("message")) for error in errors if error.get("line") in lines}
        has_answers = self._retry_policy.answers > 0
        if not bad or len(bad) >= batch_file.requests or (len(bad) >= TEXT_FAILURES_MAX and not has_answers):
            await self._state.forget(batch_file)
            raise Stopped(f"The provider rejected a batch of {batch_file.requests:,} requests. It said: {message}")
        for number, line in enumerate(read_lines(self._state.path(batch_file)), 1):
            if number not in bad:
                self._state.add(line)
            elif line.request.key not in self._state.other_keys:  # a few bad requests do not make a bad job
                failure = Failure(kind="bad_request", reason=clean_message(bad[number]), cost=line.cost)
                failure = replace(failure, attempts=line.tries + 1, asked_at=batch_file.made_at)
                self._unconfirmed.append((line.request, failure))
        self._state.close_writers()
        await self._state.forget(batch_file)
        await self._calls.once(lambda: self._api.delete(batch_file.file_id))
        return True

    async def _download(self, batch_file: BatchFile, batch: dict[str, Any]) -> tuple[dict[str, Path], str]:
        """Download the files of a batch's results: their paths by id, and in words which the provider does not have."""
        files: dict[str, Path] = {}
        lost = ""
        for file_id in dict.fromkeys(
            str(batch[name]) for name in ("output_file_id", "error_file_id") if batch.get(name)
        ):
            path = self._state.folder / f"{batch_file.name}.{len(files)}"
            try:
                await self._calls.json(functools.partial(self._api.download, file_id, path), may_miss=True)
            except LookupError as error:
                path.unlink()
                lost = f"the provider has no file {one_line(file_id)} with its results ({error})"
            else:
                files[file_id] = path
        return files, lost

    async def _record_all_answers(
        self, batch_file: BatchFile, lines: LinesByKey, paths: Sequence[Path]
    ) -> dict[str, Rejection]:
        """Record the answers in files of results; returns the rejections among them, by key."""
        rejections: dict[str, Rejection] = {}
        group: list[tuple[BatchLine, Answer]] = []
        for result in (result for path in paths for result in read_results(path, parse_json)):
            await asyncio.sleep(0)  # a file may be long: signals are heard between its lines
            if result is None or result.key not in lines:
                continue  # reported twice, or not of this batch
            outcome = await in_thread_if(len(result.body) > BODY_BYTES_AT_ONCE, self._outcome, result)
            if isinstance(outcome, Rejection):
                rejections[result.key] = outcome
                continue
            group.append((lines.take(result.key), outcome))
            if len(group) == RECORD_GROUP:
                await self._record_answers(batch_file, group)
                group = []
        await self._record_answers(batch_file, group)
        return rejections

    async def _record_results(self, batch_file: BatchFile, paths: Sequence[Path]) -> None:
        """Record all answers, then act on the rejections: after an answer, they no longer mean that the job is bad."""
        with LinesByKey(self._state.path(batch_file)) as lines:
            rejections = await self._record_all_answers(batch_file, lines, paths)
            for key in await self._respelled(batch_file, lines.left(), rejections):
                del rejections[key]
                self._state.add(lines.take(key))
            if self._try_next_format(batch_file, rejections.values()):
                for key in lines.left():
                    self._state.add(lines.take(key))
            if batch_file.batch_id in self._state.cancelled:
                return
            missing = _not_asked("the batch ended without a result for this request")
            for key in lines.left():
                if len(rejections) < batch_file.requests:  # what has answers is not rejected as a whole
                    self._retry_policy.begin_anew()
                await self._on_rejection(batch_file, lines.take(key), rejections.get(key, missing))

    async def _respelled(
        self, batch_file: BatchFile, unanswered: list[str], rejections: dict[str, Rejection]
    ) -> list[str]:
        """The keys of requests to send again, with a parameter under its other name.

        A parameter is no fault of the rows if most requests of a batch were rejected for it and none was answered.
        Raises Stopped if it has no other name: the rows are pending then.
        """
        wanted = {key: each for key, each in rejections.items() if key not in self._state.other_keys}
        named = {key: each.parameter for key, each in wanted.items() if each.kind == "bad_request"}
        (name, count), *_ = Counter(named.values()).most_common(1) or [("", 0)]
        if len(unanswered) < batch_file.requests or 2 * count <= batch_file.requests:
            return []
        keys = [key for key, parameter in named.items() if parameter == name]
        parameters = self._state.parameters(batch_file.model)
        if batch_file.respelled != parameters.respelled:
            return keys  # the results of another batch changed it already
        try:
            if not parameters.try_other_spelling(rejections[keys[0]]):
                return []
        except Stopped:
            await self._state.forget(batch_file)
            raise
        self._context.say(parameters.report())
        return keys

    def _try_next_format(self, batch_file: BatchFile, rejections: Iterable[Rejection]) -> bool:
        """Whether to ask again in another response format, which may be why nothing was ever answered."""
        state, first = self._state, next(iter(rejections), None)
        if self._retry_policy.answers or first is None or not rejects_response_format(first) or not self._has_contract:
            return False
        if batch_file.form < state.format_index:
            return True  # the results of another batch changed the format already
        if state.format_index + 1 >= len(RESPONSE_FORMATS):
            return False
        rejected = RESPONSE_FORMATS[state.format_index]
        state.format_index += 1
        is_object = RESPONSE_FORMATS[state.format_index] == "json_object"
        instead = "json_object and the schema in the prompt are" if is_object else "the schema in the prompt is"
        self._context.say(f"the endpoint may not accept {rejected} ({first.message}): {instead} used instead")
        return True

    def _outcome(self, result: Result) -> Answer | Rejection:
        """A result as an answer or a rejection, without the secrets that it repeats."""
        if result.status:
            return read_reply(self._api.hide(Reply(result.status, {}, result.body, 0.0)))
        error = parse_json(self._api.hide(Reply(0, {}, result.body, 0.0)).body)
        message = error.get("message") or error.get("code") if isinstance(error, dict) else None
        return _not_asked(clean_message(str(message or "the batch has no answer to this request")))

    async def _record_answers(self, batch_file: BatchFile, group: Sequence[tuple[BatchLine, Answer]]) -> None:
        """Record answers and queue their follow-ups, except answers that an earlier run recorded before it was killed.

        Raises Stopped if the run is not to wait for the rest; the next run records it.
        """
        others = [line.request.key for line, _ in group if line.request.key in self._state.other_keys]
        stored = self._context.asked_at(others)
        new = [(line, answer) for line, answer in group if stored.get(line.request.key) != batch_file.made_at]
        for follow_up in await asyncio.gather(*(self._record_answer(batch_file, line, answer) for line, answer in new)):
            if follow_up is not None:
                self._state.add(BatchLine(follow_up))
        if self._context.drain_aborted.is_set():
            raise self._context.stopping or Stopped("The run was stopped.")

    async def _record_answer(self, batch_file: BatchFile, line: BatchLine, answer: Answer) -> Request | None:
        """Record one answer; its follow-up, if a row of this run asks for it."""
        self._retry_policy.answered(self._context.clock())
        paid = self._settle(line, answer)
        cost = add_costs(line.cost, paid)
        answer = replace(answer, cost=cost, attempts=line.tries + 1, asked_at=batch_file.made_at)
        counts = line.request.key not in self._state.other_keys
        follow_up = await self._context.record(line.request, answer, counts=counts)
        return follow_up if counts else None

    def _settle(self, line: BatchLine, result: Answer | Rejection) -> float | None:
        """Count an attempt, and return its cost. The reservation is released with the whole batch."""
        return settle(self._context, self._state.encode(line.request), result)

    async def _on_rejection(self, batch_file: BatchFile, line: BatchLine, rejection: Rejection) -> None:
        """Ask a request again that has no answer, or record its failure. Raises Stopped if the job cannot go on."""
        if line.request.key in self._state.other_keys:
            return
        self._context.log_rejection(rejection)
        paid = self._settle(line, rejection)
        attempts = Attempts()
        attempts.counted = line.tries
        decision = self._retry_policy.decide(rejection, attempts, self._context.clock())
        if isinstance(decision, Stopped):
            await self._state.forget(batch_file)
            raise decision
        line = replace(line, cost=add_costs(line.cost, paid))
        if isinstance(decision, RetryAfter) and line.tries + 1 < ATTEMPTS:
            self._state.add(replace(line, tries=line.tries + 1))
            return
        if isinstance(decision, RetryAfter):
            decision = Failure(kind=rejection.kind, reason=rejection.message, lasting=False)
        failure = replace(decision, cost=line.cost, attempts=line.tries + 1, asked_at=batch_file.made_at)
        self._unconfirmed.append((line.request, failure))
        if self._retry_policy.answers:
            await self.record_unconfirmed()

    async def record_unconfirmed(self) -> None:
        """Record the failures that no answer has confirmed yet. Raises Stopped if they cannot be written."""
        unconfirmed, self._unconfirmed = self._unconfirmed, []
        await asyncio.gather(*(self._context.record(request, failure) for request, failure in unconfirmed))


def _not_asked(message: str) -> Rejection:
    """The rejection of a request that the provider did not come to."""
    return Rejection("retry", "broken", message, is_turned_away=True)
