"""Collect finished batches: download their results, record the outcomes, and ask again what has no answer.

The order of results means nothing, as each line names its request. A batch is forgotten only after its outcomes and the
files of its follow-up requests are on disk.
"""

import asyncio
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from ...answers import RESPONSE_FORMATS
from ...costs import Charge
from ...endpoint import BatchApi, clean_message, parse_json, read_reply, rejects_response_format
from ...job import Job
from ...pacing import ATTEMPTS, TEXT_FAILURES_MAX, Attempts, RetryAfter, RetryPolicy
from ...records import Answer, Exit, Failure, Rejection, Reply, Request, Stopped, add_costs
from ...store import BatchFile
from .calls import Calls, objects_in
from .files import BatchLine, LinesByKey, Result, count_results, read_lines, read_results
from .send import QUEUE_FULL, Sender
from .state import BatchState

FINISHED = frozenset({"completed", "expired", "cancelled", "failed"})
"""The statuses of a batch that will answer nothing more."""

RECORD_GROUP = 256
"""How many answers are recorded together."""

DOWNLOAD_ATTEMPTS = 3
"""How often results are downloaded that do not arrive complete."""


class Collector:
    """Asks for the status of open batches, and records the results of finished ones."""

    def __init__(self, job: Job, state: BatchState, api: BatchApi, calls: Calls, sender: Sender) -> None:
        self._state, self._context, self._api, self._calls, self._sender = state, state.context, api, calls, sender
        self._has_contract = job.answer.contract is not None
        # a batch may take a day, so no time without an answer is too long
        self._retry_policy = RetryPolicy(self._context.clock(), self._context.rng, waits=True)
        self._unconfirmed: list[tuple[Request, Failure]] = []
        """Rows that failed before the first answer: recorded only once an answer shows that the job itself is good."""

    async def collect_finished(self) -> bool:
        """Ask for the status of every open batch, and collect the finished ones; whether there were any.

        Raises Stopped if the provider does not know a batch, its results cannot be read, or the job cannot go on.
        """
        collected = False
        for batch_file in list(self._state.open.values()):
            if self._context.stopping is not None:
                break
            batch = await self._retrieve(batch_file)
            status, counts = batch.get("status"), _request_counts(batch)
            has_results = counts["completed"] == 0 or batch.get("output_file_id") or status == "failed"
            if status in FINISHED and has_results:
                await self._collect(batch_file, batch)
                collected = True
            else:  # a finished batch without its results' file is looked up again
                done = counts["completed"] + counts["failed"]
                self._state.open[batch_file.name] = replace(batch_file, done=done, is_ending=status == "cancelling")
        await self._state.note_all()  # `pipeline status` in another terminal reads it
        return collected

    async def _retrieve(self, batch_file: BatchFile) -> dict[str, Any]:
        try:
            return await self._calls.json(lambda: self._api.retrieve(batch_file.batch_id), "status", may_miss=True)
        except LookupError as error:
            raise Stopped(
                f"The provider knows no batch {batch_file.batch_id}, which has {batch_file.requests:,} requests "
                f"({error}).\nUse the endpoint, key and project that it was created with. To give up its answers,\n"
                f"remove {self._state.path(batch_file)}: its requests are then asked, and paid for, anew."
            ) from None

    async def _collect(self, batch_file: BatchFile, batch: dict[str, Any]) -> None:
        """Record the results of a finished batch, queue what is to be asked again, and forget the batch."""
        result_ids = [str(batch[name]) for name in ("output_file_id", "error_file_id") if batch.get(name)]
        if batch["status"] == "failed":
            await self._collect_failed(batch_file, batch)
        else:
            if batch["status"] == "cancelled":
                self._state.cancelled.append(batch_file.batch_id)
            paths = await self._download(batch_file, result_ids, _request_counts(batch)["completed"])
            await self._record_results(batch_file, paths)
            for path in paths:
                path.unlink()
            self._context.say(f"Batch {batch_file.batch_id} is {batch['status']}.")
            self._sender.on_batch_finished()
        self._state.close_writers()
        if batch_file.name in self._state.open:
            await self._state.forget(batch_file)
            for file_id in (batch_file.file_id, *result_ids):  # nothing is left behind at the provider
                await self._calls.once(functools.partial(self._api.delete, file_id))

    async def _collect_failed(self, batch_file: BatchFile, batch: dict[str, Any]) -> None:
        """Act on a batch that the provider rejected: its queue is full, or some or all of the requests are bad.

        Raises Stopped if the whole batch is bad.
        """
        reported = batch.get("errors")
        errors = objects_in(reported.get("data")) if isinstance(reported, dict) else []
        message = "; ".join(str(error.get("message")) for error in errors[:3]) or "no reason"
        if any(QUEUE_FULL.search(f"{error.get('code')} {error.get('message')}") for error in errors):
            await self._sender.on_queue_full(batch_file, message)
            return
        bad = {error["line"]: str(error.get("message")) for error in errors if isinstance(error.get("line"), int)}
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

    async def _download(self, batch_file: BatchFile, result_ids: Sequence[str], completed: int) -> list[Path]:
        """Download the files of results, and return their paths. `completed`: answers that the provider counted.

        Raises Stopped if results cannot be read: they must not count as unanswered.
        """
        paths = [self._state.folder / f"{batch_file.name}.{number}" for number in range(len(result_ids))]
        for _ in range(DOWNLOAD_ATTEMPTS):
            for file_id, path in zip(result_ids, paths, strict=True):
                await self._calls.json(functools.partial(self._api.download, file_id, path))
            answers, unreadable = await asyncio.to_thread(count_results, paths, parse_json)
            if not unreadable and answers >= completed:
                return paths
        if not unreadable and answers:
            self._context.say(
                f"Batch {batch_file.batch_id} has {answers:,} answers; the provider had counted {completed:,}."
            )
            return paths
        raise Stopped(
            f"The results of batch {batch_file.batch_id} cannot be read: {unreadable:,} lines are no results, and "
            f"{answers:,} of {completed:,} answers are there.\n"
            "Nothing is lost or asked again: the same line downloads them anew.",
            Exit.TRY_LATER,
        )

    async def _record_results(self, batch_file: BatchFile, paths: Sequence[Path]) -> None:
        """Record all answers, then act on the rejections: after an answer, they no longer mean that the job is bad."""
        rejections: dict[str, Rejection] = {}
        group: list[tuple[BatchLine, Answer]] = []
        with LinesByKey(self._state.path(batch_file)) as lines:
            for result in (result for path in paths for result in read_results(path, parse_json)):
                await asyncio.sleep(0)  # a file may be long: signals are heard between its lines
                if result.key not in lines:
                    continue  # reported twice, or not of this batch
                outcome = self._outcome(result)
                if isinstance(outcome, Rejection):
                    rejections[result.key] = outcome
                    continue
                group.append((lines.take(result.key), outcome))
                if len(group) == RECORD_GROUP:
                    await self._record_answers(batch_file, group)
                    group = []
            await self._record_answers(batch_file, group)
            if self._try_next_format(batch_file, rejections.values()):
                for key in lines.left():
                    self._state.add(lines.take(key))
            if batch_file.batch_id in self._state.cancelled:
                return
            missing = Rejection("retry", "broken", "the batch ended without a result for this request")
            for key in lines.left():
                await self._on_rejection(batch_file, lines.take(key), rejections.get(key, missing))

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
        return Rejection("retry", "broken", clean_message(str(message or "the batch has no answer to this request")))

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
        """Count an attempt, and return its cost; against the cap, an unknown cost counts as the most that it can be.

        The reservation is released with the whole batch.
        """
        budget = self._context.budget
        if isinstance(result, Rejection) and not result.status and result.usage is None:
            charge = Charge(0.0)  # the provider did not come to it
        else:
            charge = budget.charge(self._state.encode(line.request), result, self._state.worst_cost(line.request))
        budget.spent += charge.held or charge.paid or 0.0
        self._context.count_attempt(charge.paid, held=charge.held, broke_off=charge.is_maybe_billed)
        if said := budget.take_said():
            self._context.say(said)
        return charge.paid

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


def _request_counts(batch: dict[str, Any]) -> dict[str, int]:
    """How many requests the provider counts as `completed` and as `failed`; 0 if it does not say."""
    reported = batch.get("request_counts")
    reported = reported if isinstance(reported, dict) else {}
    return {name: n if isinstance(n := reported.get(name), int) else 0 for name in ("completed", "failed")}
