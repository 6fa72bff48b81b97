"""Answering later: the provider's Batch API, at about half the price and within a day.

Requests are written to sheets in the job folder; each sheet is uploaded, and a batch made of it. What is known of a
sheet is a durable note before the next step is taken with it:

    spooled -> uploaded (file_id) -> made a batch (batch_id) -> landed, and forgotten

So a kill at any moment loses no batch and makes none twice: after one between a call and its note, the provider's own
list of batches tells whether there is one of that file. The order of results means nothing: each names its request.
"""

import asyncio
import contextlib
import functools
import re
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from ...answers import RESPONSE_FORMATS, ContractEncoder
from ...costs import expected_usage
from ...endpoint import BatchApi, clean_message, parse_json, read_reply, rejects_response_format
from ...files import make_private_folder
from ...job import Job
from ...pacing import ATTEMPTS, TEXT_FAILURES_MAX, Attempts, RetryAfter, RetryPolicy
from ...progress import Pause
from ...records import Answer, Exit, Failure, Rejection, Reply, Request, Stopped, add_costs
from ...store import BATCHES, BatchFile, OpenBatches, read_open_batches
from ..context import NotesContext
from .calls import Calls, is_well, object_in, objects_in, refusal_in
from .files import (
    BYTES_MOST,
    BatchFileWriter,
    BatchLine,
    LinesByKey,
    Result,
    count_results,
    read_lines,
    read_results,
    write_upload,
)

OPEN_MOST = 20
"""Batches at once."""
QUEUE_LESS, QUEUE_MORE = 0.8, 1.1
"""Of the tokens that were too many at once for the provider's queue, so many are tried next; and after each batch that
landed, so many times as many. How many tokens there are is an estimate, so what it says its limit is would not help."""
LISTED_SECONDS = 2.0
"""A call that was on its way when its process was killed has arrived by then."""
RECORDED_AT_ONCE = 256
DOWNLOADS = 3
"""Of results that do not come whole."""
NAMED = ".batch"
"""Beside a sheet's file: the id of its batch, as the user found it at the provider."""

OVER = frozenset({"completed", "expired", "cancelled", "failed"})
QUEUE_FULL = re.compile(r"token_limit_exceeded|enqueued token", re.IGNORECASE)

_encoder = msgspec.json.Encoder()


async def answer_all(job: Job, requests: AsyncIterator[Request], context: NotesContext) -> None:
    """Ask every request in batches, record every outcome at the desk; return when all are settled.

    Raises Stopped when the job cannot go on or was asked to stop, and with `this_run.no_wait` as soon as only the
    provider can do more. What is with the provider stays there, and the next run fetches it.
    """
    async with BatchApi(job.endpoint, job.endpoint.key()) as api:
        batches = _Batches(job, context, api)
        try:
            await batches.take_up()
            await batches.spool(requests)
            await batches.work()
        except OSError as error:
            raise Stopped(
                f"A file of the batches could not be written: {error}\nSee to the disk of {job.folder}, then type the "
                "same line again: what is with the provider stays there, and is fetched then."
            ) from error
    if context.stopping is not None:
        raise context.stopping


class _Batches:
    """All that goes to the provider in one run, and comes back from it."""

    def __init__(self, job: Job, context: NotesContext, api: BatchApi) -> None:
        self._context, self._api, self._settings = context, api, job.run
        self._waits_for_provider = not job.this_run.no_wait
        self._folder = job.folder / "batches"
        # of the rows: a batch takes a day, so no silence is too long
        self._patience = RetryPolicy(context.clock(), context.rng, waits=True)
        self._calls = Calls(job, context)
        known = read_open_batches(context.read_note)
        self._queue_most = known.queued_tokens_most
        self._conveying, self._form = ContractEncoder(job.answer.contract), known.form
        self._has_contract = job.answer.contract is not None
        self._queued_with: dict[str, int] = {}
        """Tokens in the provider's queue when a sheet was sent, its own among them."""
        self._open = {sheet.name: sheet for sheet in known.sheets}
        self._ready: deque[BatchFile] = deque()
        self._spools: dict[str, BatchFileWriter] = {}
        self._not_ours: set[str] = set()
        """Keys in open batches that no row of this run waits for: their answers are paid for, and kept."""
        self._full_until = context.clock()
        self._queue_told = ""
        self._cancelled: list[str] = []
        """Batches that someone cancelled at the provider."""
        self._doubtful: list[tuple[Request, Failure]] = []
        """Rows that failed before anything was answered: recorded once it is sure that not the job is bad."""

    async def take_up(self) -> None:
        """Go on with what earlier runs sent; what they only wrote down is asked anew."""
        if not self._folder.exists():
            make_private_folder(self._folder)
        for path in self._folder.iterdir():
            if path.name.removesuffix(NAMED) not in self._open:
                path.unlink()
        for sheet in list(self._open.values()):
            self._context.budget.reserved += sheet.reserved
            if not (self._folder / sheet.name).exists():
                self._context.say(f"Batch {sheet.batch_id} is given up, as its file is gone: it is asked anew.")
                await self._forget(sheet)
            elif sheet.batch_id or await self._was_made(sheet):
                self._take_over(self._open[sheet.name])
            else:
                await self._forget(sheet)

    def _take_over(self, sheet: BatchFile) -> None:
        """Count on what an open batch will answer, and on what it may cost: its run may have had no cap."""
        worst = 0.0
        for line in read_lines(self._folder / sheet.name):
            self._not_ours.add(line.request.key)
            worst += self._context.budget.worst(self._sent(line.request)) or 0.0
        self._context.budget.reserved += worst - sheet.reserved
        self._open[sheet.name] = replace(sheet, reserved=worst)

    async def spool(self, requests: AsyncIterator[Request]) -> None:
        """Write down all requests that no open batch holds."""
        async for request in requests:
            if self._context.stopping is not None:
                break
            if request.key in self._not_ours:
                self._not_ours.discard(request.key)
            else:
                self._add(BatchLine(request))
        self._seal()

    async def work(self) -> None:
        """Send what there is room for and fetch what is done, until nothing is left or a stop is asked."""
        while self._context.stopping is None and (self._ready or self._open):
            landed = await self._fetch_what_is_done()
            sent = await self._send_what_fits() if not self._cancelled else self._stop_as_cancelled()
            if landed or sent or self._context.stopping is not None:
                continue
            if not self._waits_for_provider:
                raise Stopped(f"{self._told()}; nothing is to be done meanwhile.", Exit.TRY_LATER)
            self._context.show_progress(Pause(self._settings.poll_seconds, self._told()))
            await self._context.pause(self._settings.poll_seconds)
        if self._context.stopping is None:
            await self._trust_the_doubtful()
        elif self._open:
            self._context.say(f"{self._told()}. They go on there, and are paid for; the next run fetches them.")

    def _stop_as_cancelled(self) -> bool:
        """Someone cancelled at the provider: what is not answered is not sent again unasked. Always False."""
        if not any(sheet.is_ending for sheet in self._open.values()):
            self._context.stop(
                Stopped(
                    f"{', '.join(self._cancelled)} was cancelled at the provider. What it had answered is kept; the "
                    "rest is pending, and nothing more was sent.\nThe same line sends it in new batches; once no other "
                    "batch is open, --set run.how=live asks it live."
                )
            )
        return False

    def _told(self) -> str:
        """`2 batches with the provider, 1,200 of 50,000 requests done`."""
        done, requests = (sum(getattr(s, name) for s in self._open.values()) for name in ("done", "requests"))
        batches = f"{len(self._open):,} batch{'' if len(self._open) == 1 else 'es'} with the provider"
        waiting = sum(sheet.requests for sheet in self._ready)
        held_back = f", {waiting:,} wait for room there" if waiting else ""
        return f"{batches}, {done:,} of {requests:,} requests done{held_back}"

    # ---- to the provider

    async def _send_what_fits(self) -> bool:
        """Whether anything was sent."""
        sent = False
        while self._ready and self._context.stopping is None:
            if len(self._open) >= OPEN_MOST or self._context.clock() < self._full_until:
                break
            sheet = self._ready.popleft()
            room = self._room(sheet)
            affordable, reserved = self._affordable(sheet)
            fits = min(room, affordable)
            if fits >= sheet.requests:
                await self._send(replace(sheet, reserved=reserved, form=self._form))
                sent = True
            elif fits:
                self._split(sheet, fits)
            else:
                self._ready.appendleft(sheet)
                if affordable or self._open:
                    break  # what is with the provider makes room as it lands
                raise self._context.budget.exhausted(next(read_lines(self._folder / sheet.name)).request)
        return sent

    def _room(self, sheet: BatchFile) -> int:
        """How many of its requests the provider's queue has room for; all, where its limit was never met."""
        if self._queue_most is None:
            return sheet.requests
        free = self._queue_most - sum(self._tokens(other) for other in self._open.values())
        if free >= self._tokens(sheet):
            return sheet.requests
        # a crumb is not worth a batch of its own, unless there is nothing to wait for
        return 0 if self._open else max(1, int(sheet.requests * free / self._tokens(sheet)))

    def _tokens(self, sheet: BatchFile) -> int:
        return max(1, expected_usage(self._context.ledger, sheet.size_bytes, sheet.requests).prompt_tokens or 0)

    def _affordable(self, sheet: BatchFile) -> tuple[int, float]:
        """How many of its requests the cap has room for at their worst, and how many US dollars that is."""
        budget = self._context.budget
        if budget.cap is None:
            return sheet.requests, 0.0
        left, reserved, fit = budget.cap - budget.spent - budget.reserved, 0.0, 0
        for line in read_lines(self._folder / sheet.name):
            worst = budget.worst(self._sent(line.request))
            if worst is None or reserved + worst > left:
                break
            reserved, fit = reserved + worst, fit + 1
        return fit, reserved

    def _split(self, sheet: BatchFile, first: int) -> None:
        """Two sheets in the place of one, the first with so many requests."""
        parts = [BatchFileWriter(self._folder, sheet.model), BatchFileWriter(self._folder, sheet.model)]
        for number, line in enumerate(read_lines(self._folder / sheet.name)):
            parts[number >= first].add(line)
        self._ready.extendleft(part.sealed() for part in reversed(parts))
        (self._folder / sheet.name).unlink()

    async def _send(self, sheet: BatchFile) -> None:
        """Upload a sheet and have a batch made of it."""
        upload = self._folder / f"{sheet.name}.upload"
        write_upload(upload, (self._sent(line.request) for line in read_lines(self._folder / sheet.name)))
        if upload.stat().st_size > BYTES_MOST and sheet.requests > 1:  # the form of a contract adds to each line
            self._split(sheet, sheet.requests // 2)
            return
        self._context.budget.reserved += sheet.reserved
        self._queued_with[sheet.name] = sum(self._tokens(other) for other in self._open.values()) + self._tokens(sheet)
        await self._note(sheet)
        said = await self._calls.json(lambda: self._api.upload(upload), "id")
        upload.unlink()
        await self._note(sheet := replace(sheet, file_id=str(said["id"]), made_at=datetime.now(tz=UTC)))
        reply = await self._calls.once(lambda: self._api.create(sheet.file_id))
        if is_well(reply, "id"):
            await self._note(replace(sheet, batch_id=str(object_in(reply)["id"])))
            self._context.say(f"A batch of {sheet.requests:,} requests is with the provider.")
        elif QUEUE_FULL.search(reply.body.decode("utf-8", "replace")):
            await self._queue_is_full(sheet, refusal_in(reply).message)
        else:
            await self._calls.wait_after(refusal_in(reply))
            if not await self._was_made(sheet):  # the call may have worked all the same
                await self._give_back(sheet)

    async def _was_made(self, sheet: BatchFile) -> bool:
        """Whether there is a batch of a sheet whose last call was not heard of; if not, there never will be."""
        named = self._folder / f"{sheet.name}{NAMED}"
        if named.exists():  # by the user, whom we asked to
            await self._note(replace(sheet, batch_id=named.read_text("utf-8").strip()))
            named.unlink()
            return True
        for seconds in (0.0, LISTED_SECONDS):
            if not sheet.file_id:
                return False
            await self._context.pause(seconds)
            if found := await self._listed(sheet):
                self._context.say(f"Batch {found} was made before its maker was heard of again: it is not made twice.")
                await self._note(replace(sheet, batch_id=found))
                return True
            if not seconds:  # a call that is still on its way finds no file
                with contextlib.suppress(LookupError):
                    await self._calls.json(lambda: self._api.delete(sheet.file_id), may_miss=True)
        return False

    async def _listed(self, sheet: BatchFile) -> str | None:
        """The id of the batch that was made of a sheet, as the provider lists them. Raises Stopped if it lists none."""
        after: str = ""
        while True:
            try:
                page = await self._calls.json(functools.partial(self._api.batches, after), "data", may_miss=True)
            except LookupError as error:
                path = self._folder / sheet.name
                raise Stopped(
                    f"Whether a batch of {sheet.requests:,} requests was made of the file {sheet.file_id} is not "
                    f"known, and the provider lists no batches ({error}). Nothing is sent, lest it be paid for twice.\n"
                    f"Look for it at the provider. If there is one, write its id into {path}{NAMED};\n"
                    f"if there is none, remove {path}. Then type the same line again."
                ) from None
            batches = objects_in(page.get("data"))
            for batch in batches:
                if batch.get("input_file_id") == sheet.file_id and batch.get("status") != "failed":
                    return str(batch.get("id"))
            if not batches or not page.get("has_more"):
                return None
            after = str(batches[-1].get("id"))

    async def _queue_is_full(self, sheet: BatchFile, words: str) -> None:
        """More tokens wait at the provider than it takes: send less at once, or later."""
        if self._queue_told != words:
            self._context.say(f"The provider's queue is full: {words}")
        self._queue_told = words
        queued = self._queued_with.get(sheet.name, self._tokens(sheet))
        self._queue_most = QUEUE_LESS * min(queued, self._queue_most or queued)
        if queued == self._tokens(sheet):  # full of what others sent, or too small for this sheet alone
            self._full_until = self._context.clock() + self._settings.poll_seconds
        await self._give_back(sheet)

    async def _give_back(self, sheet: BatchFile) -> None:
        """It was not sent after all."""
        if sheet.file_id:
            await self._calls.once(lambda: self._api.delete(sheet.file_id))
        self._context.budget.reserved -= sheet.reserved
        self._ready.appendleft(BatchFile(sheet.name, sheet.model, sheet.requests, sheet.size_bytes))
        del self._open[sheet.name]
        await self._note_all()

    # ---- from the provider

    async def _fetch_what_is_done(self) -> bool:
        """Ask of each open batch how it stands, and land what is over; whether any was."""
        landed = False
        for sheet in list(self._open.values()):
            if self._context.stopping is not None:
                break
            batch = await self._retrieved(sheet)
            status, counts = batch.get("status"), _counts(batch)
            if status in OVER and (counts["completed"] == 0 or batch.get("output_file_id") or status == "failed"):
                await self._land(sheet, batch)
                landed = True
            else:  # one that is over, but names no answers yet, is looked at again
                done = counts["completed"] + counts["failed"]
                self._open[sheet.name] = replace(sheet, done=done, is_ending=status == "cancelling")
        await self._note_all()  # for who looks at it from another terminal
        return landed

    async def _retrieved(self, sheet: BatchFile) -> dict[str, Any]:
        try:
            return await self._calls.json(lambda: self._api.retrieve(sheet.batch_id), "status", may_miss=True)
        except LookupError as error:
            raise Stopped(
                f"The provider knows no batch {sheet.batch_id}, which holds {sheet.requests:,} requests ({error}).\n"
                "With the endpoint, key and project that it was made with, it is found again. To give up its answers,\n"
                f"remove {self._folder / sheet.name}: its requests are then asked, and paid for, anew."
            ) from None

    async def _land(self, sheet: BatchFile, batch: dict[str, Any]) -> None:
        """Record all that a batch which is over has answered; the rest is asked again."""
        files = [str(batch[name]) for name in ("output_file_id", "error_file_id") if batch.get(name)]
        if batch["status"] == "failed":
            await self._land_failed(sheet, batch)
        else:
            if batch["status"] == "cancelled":
                self._cancelled.append(sheet.batch_id)
            paths = await self._fetch(sheet, files, _counts(batch)["completed"])
            await self._land_results(sheet, paths)
            for path in paths:
                path.unlink()
            self._context.say(f"Batch {sheet.batch_id} is {batch['status']}.")
            self._queue_most = None if self._queue_most is None else QUEUE_MORE * self._queue_most
        self._seal()
        if sheet.name in self._open:
            await self._forget(sheet)
            for file_id in (sheet.file_id, *files):  # what was asked and answered need not lie there for good
                await self._calls.once(functools.partial(self._api.delete, file_id))

    async def _fetch(self, sheet: BatchFile, files: Sequence[str], told: int) -> list[Path]:
        """The files of results, whole. Raises Stopped rather than take for unanswered what cannot be read."""
        paths = [self._folder / f"{sheet.name}.{number}" for number in range(len(files))]
        for _ in range(DOWNLOADS):
            for file_id, path in zip(files, paths, strict=True):
                await self._calls.json(functools.partial(self._api.download, file_id, path))
            answered, odd = count_results(paths, self._parse)
            if not odd and answered >= told:
                return paths
        if not odd and answered:
            self._context.say(
                f"Batch {sheet.batch_id} has {answered:,} answers, of {told:,} that the provider counted."
            )
            return paths
        raise Stopped(
            f"The results of batch {sheet.batch_id} cannot be read: {odd:,} lines make no sense, and {answered:,} of "
            f"{told:,} answers are there.\nNothing is lost or asked again: the same line fetches them anew.",
            Exit.TRY_LATER,
        )

    async def _land_results(self, sheet: BatchFile, paths: Sequence[Path]) -> None:
        """Answers first: what the refusals say of the job hangs on whether there was any."""
        refused: dict[str, Rejection] = {}
        group: list[tuple[BatchLine, Answer]] = []
        with LinesByKey(self._folder / sheet.name) as lines:
            for result in (result for path in paths for result in read_results(path, self._parse)):
                if result.key not in lines:
                    continue  # told twice, or of another batch
                said = _said(result)
                if isinstance(said, Rejection):
                    refused[result.key] = said
                    continue
                group.append((lines.take(result.key), said))
                if len(group) == RECORDED_AT_ONCE:
                    await self._record(sheet, group)
                    group = []
            await self._record(sheet, group)
            if self._takes_another_form(sheet, refused.values()):
                for key in lines.left():
                    self._add(lines.take(key))
            if sheet.batch_id in self._cancelled:
                return
            silent = Rejection("retry", "broken", "the batch ended without a word on this request")
            for key in lines.left():
                await self._refused(sheet, lines.take(key), refused.get(key, silent))

    def _takes_another_form(self, sheet: BatchFile, refusals: Iterable[Rejection]) -> bool:
        """Whether nothing was ever answered, and it may be for the form in which the contract was conveyed."""
        said = next(iter(refusals), None)
        if self._patience.answers or said is None or not rejects_response_format(said) or not self._has_contract:
            return False
        if sheet.form < self._form:
            return True  # another batch was sent with it, too
        if self._form + 1 >= len(RESPONSE_FORMATS):
            return False
        self._form += 1
        form = RESPONSE_FORMATS[self._form].replace("_", " ")
        self._context.say(
            f"The endpoint may take no {RESPONSE_FORMATS[self._form - 1]} ({said.message}): asked by {form} instead."
        )
        return True

    def _sent(self, request: Request) -> Request:
        return replace(request, body=self._conveying.encode(request.body, RESPONSE_FORMATS[self._form]))

    def _parse(self, line: bytes) -> object:
        return parse_json(self._api.hide(line))

    async def _record(self, sheet: BatchFile, group: Sequence[tuple[BatchLine, Answer]]) -> None:
        """Record answers, those aside that an earlier run recorded before it was killed; ask what follows from them."""
        of_others = [line.request.key for line, _ in group if line.request.key in self._not_ours]
        landed = self._context.asked_at(of_others)
        fresh = [(line, answer) for line, answer in group if landed.get(line.request.key) != sheet.made_at]
        for follow_up in await asyncio.gather(*(self._keep(sheet, line, answer) for line, answer in fresh)):
            if follow_up is not None:
                self._add(BatchLine(follow_up))
        if self._context.drain_aborted.is_set():  # the next run lands the rest
            raise self._context.stopping or Stopped("stopped")

    async def _keep(self, sheet: BatchFile, line: BatchLine, answer: Answer) -> Request | None:
        self._patience.answered(self._context.clock())
        paid = self._context.prices.cost(answer.usage, line.request.model)
        self._pay(line, paid)
        answer = replace(answer, cost=add_costs(line.cost, paid), attempts=line.tries + 1, asked_at=sheet.made_at)
        counts = line.request.key not in self._not_ours
        follow_up = await self._context.record(line.request, answer, counts=counts)
        return follow_up if counts else None  # no row of this run waits for it

    def _pay(self, line: BatchLine, paid: float | None) -> None:
        """One request of a batch is over; what was set aside for it is given back with its sheet."""
        worst = self._context.budget.worst(self._sent(line.request)) or 0.0 if paid is None else 0.0
        self._context.budget.spent += paid or worst
        self._context.count_attempt(paid, held=worst)

    async def _refused(self, sheet: BatchFile, line: BatchLine, refusal: Rejection) -> None:
        """One request was not answered: ask it again, or record why not. Raises Stopped if the job is a bad one."""
        if line.request.key in self._not_ours:
            return
        self._context.log_rejection(refusal)
        paid = 0.0 if refusal.usage is None else self._context.prices.cost(refusal.usage, line.request.model)
        self._pay(line, paid)
        tries = Attempts()
        tries.counted = line.tries
        decision = self._patience.decide(refusal, tries, self._context.clock())
        if isinstance(decision, Stopped):
            await self._forget(sheet)
            raise decision
        line = replace(line, cost=add_costs(line.cost, paid))
        if isinstance(decision, RetryAfter) and line.tries + 1 < ATTEMPTS:
            self._add(replace(line, tries=line.tries + 1))
            return
        if isinstance(decision, RetryAfter):
            decision = Failure(kind=refusal.kind, reason=refusal.message, lasting=False)
        failure = replace(decision, cost=line.cost, attempts=line.tries + 1, asked_at=sheet.made_at)
        self._doubtful.append((line.request, failure))
        if self._patience.answers:
            await self._trust_the_doubtful()

    async def _trust_the_doubtful(self) -> None:
        doubtful, self._doubtful = self._doubtful, []
        await asyncio.gather(*(self._context.record(request, failure) for request, failure in doubtful))

    async def _land_failed(self, sheet: BatchFile, batch: dict[str, Any]) -> None:
        """The provider did not take a batch: its queue is full, some lines are bad, or all of it is. Raises Stopped."""
        told = batch.get("errors")
        errors = objects_in(told.get("data")) if isinstance(told, dict) else []
        words = "; ".join(str(error.get("message")) for error in errors[:3]) or "no reason"
        if any(QUEUE_FULL.search(f"{error.get('code')} {error.get('message')}") for error in errors):
            await self._queue_is_full(sheet, words)
            return
        bad = {error["line"]: str(error.get("message")) for error in errors if isinstance(error.get("line"), int)}
        if not bad or len(bad) >= sheet.requests or (len(bad) >= TEXT_FAILURES_MAX and not self._patience.answers):
            await self._forget(sheet)
            raise Stopped(f"The provider did not take a batch of {sheet.requests:,} requests. It said: {words}")
        for number, line in enumerate(read_lines(self._folder / sheet.name), 1):
            if number not in bad:
                self._add(line)
            elif line.request.key not in self._not_ours:  # a few bad lines do not make a bad job, answers or none
                failure = Failure(kind="bad_request", reason=clean_message(bad[number]), cost=line.cost)
                failure = replace(failure, attempts=line.tries + 1, asked_at=sheet.made_at)
                self._doubtful.append((line.request, failure))

    # ---- notes and files

    async def _note(self, sheet: BatchFile) -> None:
        self._open[sheet.name] = sheet
        await self._note_all()

    async def _note_all(self) -> None:
        known = OpenBatches(tuple(self._open.values()), self._queue_most, self._form)
        await self._context.write_note(BATCHES, _encoder.encode(known))

    async def _forget(self, sheet: BatchFile) -> None:
        """All that came of it is on disk."""
        self._context.budget.reserved -= sheet.reserved
        del self._open[sheet.name]
        await self._note_all()
        (self._folder / sheet.name).unlink(missing_ok=True)

    def _add(self, line: BatchLine) -> None:
        model = line.request.model
        if model in self._spools and not self._spools[model].has_room(line, self._settings.batch_requests):
            self._ready.append(self._spools.pop(model).sealed())
        if model not in self._spools:
            self._spools[model] = BatchFileWriter(self._folder, model)
        self._spools[model].add(line)

    def _seal(self) -> None:
        self._ready.extend(spool.sealed() for spool in self._spools.values())
        self._spools.clear()


def _said(result: Result) -> Answer | Rejection:
    if result.status:
        return read_reply(Reply(result.status, {}, result.body, 0.0))
    told = parse_json(result.body)
    words = told.get("message") or told.get("code") if isinstance(told, dict) else None
    return Rejection("retry", "broken", clean_message(str(words or "the batch has no answer to this request")))


def _counts(batch: dict[str, Any]) -> dict[str, int]:
    """How many requests are `completed` and `failed`, as the provider tells; 0 if it does not."""
    told = batch.get("request_counts")
    told = told if isinstance(told, dict) else {}
    return {name: n if isinstance(n := told.get(name), int) else 0 for name in ("completed", "failed")}
