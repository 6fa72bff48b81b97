"""Send batch files: upload each, create a batch from it, and recover a batch whose creation was not confirmed.

Before each call to the provider, and again after it, a note of the batch file is written to disk:

    noted without ids -> uploaded: noted with its file_id -> batch created: noted with its batch_id

After a kill between a call and its note, the provider's list of batches shows whether a batch was created from the
file. So a kill at any moment loses no batch, and none is created twice.
"""

import contextlib
import functools
import re
from datetime import UTC, datetime

from msgspec.structs import replace

from ...endpoint import BatchApi
from ...records import Stopped
from ...store import BatchFile
from .calls import Calls, object_in, objects_in, rejection_in, succeeded
from .files import UPLOAD_BYTES_MAX, BatchFileWriter, read_lines, write_upload
from .state import BatchState

OPEN_BATCHES_MAX = 20
"""The most batches that are open at once."""

QUEUE_DECREASE = 0.8
"""When the provider's queue is full, this share of the tokens that were too many becomes the limit on queued tokens.

Numbers of tokens are estimates, so a limit that the provider names would not help.
"""

QUEUE_INCREASE = 1.1
"""The limit on queued tokens is multiplied by this after each finished batch."""

QUEUE_FULL = re.compile(r"token_limit_exceeded|enqueued token", re.IGNORECASE)
"""Matches an error by which a provider says that its queue is full."""

LATE_CALL_SECONDS = 2.0
"""A call that was on its way when its process was killed has reached the provider after this time."""


class Sender:
    """Sends the batch files that are ready, as the provider's queue, the budget and OPEN_BATCHES_MAX allow."""

    def __init__(self, state: BatchState, api: BatchApi, calls: Calls, poll_seconds: float) -> None:
        """`poll_seconds`: how long to wait before sending more when other jobs may have filled the queue."""
        self._state, self._context, self._api, self._calls = state, state.context, api, calls
        self._poll_seconds = poll_seconds
        self._queue_full_until = self._context.clock()
        self._queue_message = ""
        """The provider's last words on its full queue."""
        self._queued_with: dict[str, int] = {}
        """Tokens in the provider's queue when a batch file was sent, its own included."""

    async def send_ready(self) -> bool:
        """Send what there is room for; whether anything was sent.

        Raises Stopped if the budget has no room for the next request, and nothing that is open can free any.
        """
        state, sent = self._state, False
        while state.ready and self._context.stopping is None:
            if len(state.awaited) >= OPEN_BATCHES_MAX or self._context.clock() < self._queue_full_until:
                break
            batch_file = state.ready.popleft()
            within_queue = self._requests_within_queue(batch_file)
            within_budget, reserved = self._requests_within_budget(batch_file)
            requests = min(within_queue, within_budget)
            if requests >= batch_file.requests:
                respelled = state.parameters(batch_file.model).respelled
                await self._send(replace(batch_file, reserved=reserved, form=state.format_index, respelled=respelled))
                sent = True
            elif requests:
                self._split(batch_file, requests)
            else:
                state.ready.appendleft(batch_file)
                if within_budget or state.awaited:
                    break  # open batches free some room when they finish
                raise self._context.budget.exhausted(next(read_lines(state.path(batch_file))).request)
        return sent

    def _requests_within_queue(self, batch_file: BatchFile) -> int:
        """How many of a file's requests the provider's queue has room for; all, if its limit was never reached."""
        if self._state.queue_tokens_max is None:
            return batch_file.requests
        free = self._state.queue_tokens_max - self._state.open_tokens()
        tokens = self._state.tokens(batch_file)
        if free >= tokens:
            return batch_file.requests
        # no batch is made small to fill a rest of the queue, unless there is none to wait for
        return 0 if self._state.awaited else max(1, int(batch_file.requests * free / tokens))

    def _requests_within_budget(self, batch_file: BatchFile) -> tuple[int, float]:
        """How many of a file's requests the budget has room for, and the most that they can cost in US dollars."""
        budget = self._context.budget
        if budget.cap is None:
            return batch_file.requests, 0.0
        free, reserved, requests = budget.cap - budget.spent - budget.reserved, 0.0, 0
        for line in read_lines(self._state.path(batch_file)):
            worst = budget.worst(self._state.encode(line.request))
            if worst is None or reserved + worst > free:
                break
            reserved, requests = reserved + worst, requests + 1
        return requests, reserved

    def _split(self, batch_file: BatchFile, first: int) -> None:
        """Replace a batch file by two, the first with that number of requests."""
        writers = [BatchFileWriter(self._state.folder, batch_file.model) for _ in range(2)]
        for number, line in enumerate(read_lines(self._state.path(batch_file))):
            writers[number >= first].add(line)
        self._state.ready.extendleft(writer.close() for writer in reversed(writers))
        self._state.path(batch_file).unlink()

    async def _send(self, batch_file: BatchFile) -> None:
        """Upload a file and create a batch from it."""
        state = self._state
        upload = state.folder / f"{batch_file.name}.upload"
        write_upload(upload, (state.encode(line.request) for line in read_lines(state.path(batch_file))))
        if upload.stat().st_size > UPLOAD_BYTES_MAX and batch_file.requests > 1:  # a contract lengthens each line
            self._split(batch_file, batch_file.requests // 2)
            return
        self._context.budget.reserved += batch_file.reserved
        self._queued_with[batch_file.name] = state.open_tokens() + state.tokens(batch_file)
        await state.note(batch_file)
        uploaded = await self._calls.json(lambda: self._api.upload(upload), "id")
        upload.unlink()
        batch_file = replace(batch_file, file_id=str(uploaded["id"]), made_at=datetime.now(tz=UTC))
        await state.note(batch_file)
        reply = await self._calls.once(lambda: self._api.create(batch_file.file_id))
        if succeeded(reply, "id"):
            await state.note(replace(batch_file, batch_id=str(object_in(reply)["id"])))
            self._context.say(f"A batch of {batch_file.requests:,} requests is with the provider.")
        elif QUEUE_FULL.search(reply.body.decode("utf-8", "replace")):
            await self.on_queue_full(batch_file, rejection_in(reply).message)
        else:
            await self._calls.wait_after(rejection_in(reply))
            if not await self.recover(batch_file):  # the batch may have been created all the same
                await self._take_back(batch_file)

    async def recover(self, batch_file: BatchFile) -> bool:
        """Find and note the batch of a file whose creation was not confirmed; False if there is none.

        In that case the uploaded file is deleted first, so that no call still on its way can create a batch from it.
        Raises Stopped if the provider lists no batches.
        """
        for seconds in (0.0, LATE_CALL_SECONDS):
            if not batch_file.file_id:
                return False
            await self._context.pause(seconds)
            if batch_id := await self._find_listed(batch_file):
                self._context.say(f"Batch {batch_id} had been created although no reply confirmed it; it is used.")
                await self._state.note(replace(batch_file, batch_id=batch_id))
                return True
            if not seconds:
                with contextlib.suppress(LookupError):
                    await self._calls.json(lambda: self._api.delete(batch_file.file_id), may_miss=True)
        return False

    async def _find_listed(self, batch_file: BatchFile) -> str | None:
        """The id of the batch created from a file, in the provider's list. Raises Stopped if there is no list."""
        after, seen = "", set[str]()
        while after not in seen:
            seen.add(after)
            try:
                page = await self._calls.json(functools.partial(self._api.batches, after), "data", may_miss=True)
            except LookupError as error:
                raise self._not_listed(batch_file, f"the provider does not list its batches ({error})") from None
            batches = objects_in(page.get("data"))
            for batch in batches:
                if batch.get("input_file_id") == batch_file.file_id and batch.get("status") != "failed":
                    return str(batch.get("id"))
            if not batches or not page.get("has_more"):
                return None
            after = str(batches[-1].get("id"))
        raise self._not_listed(batch_file, "the provider's list of batches comes to no end")

    def _not_listed(self, batch_file: BatchFile, why: str) -> Stopped:
        return Stopped(
            f"A batch of {batch_file.requests:,} requests may have been created from the uploaded file "
            f"{batch_file.file_id}: no reply confirmed it, and {why}. Nothing is sent, so that nothing is paid for "
            "twice.\n"
            "Look at the provider for a batch of this file, and cancel it if there is one. Then remove\n"
            f"{self._state.path(batch_file)}\n"
            "and type the same line again: its requests are then asked, and paid for, anew."
        )

    async def on_queue_full(self, batch_file: BatchFile, message: str) -> None:
        """Take back a file that the provider's queue has no room for, and send fewer tokens at a time, or later."""
        if self._queue_message != message:
            self._context.say(f"The provider's queue is full: {message}")
        self._queue_message = message
        tokens = self._state.tokens(batch_file)
        queued = self._queued_with.get(batch_file.name, tokens)
        self._state.queue_tokens_max = QUEUE_DECREASE * min(queued, self._state.queue_tokens_max or queued)
        if queued == tokens:  # other jobs filled the queue, or it is too small for this file alone
            self._queue_full_until = self._context.clock() + self._poll_seconds
        await self._take_back(batch_file)

    def on_batch_finished(self) -> None:
        """Raise the limit on queued tokens, if there is one."""
        if self._state.queue_tokens_max is not None:
            self._state.queue_tokens_max *= QUEUE_INCREASE

    async def _take_back(self, batch_file: BatchFile) -> None:
        """Delete the uploaded file at the provider, and make the batch file the next one to be sent.

        Requests of an earlier run that no row of this run asks for are left out.
        """
        if batch_file.file_id:
            await self._calls.once(lambda: self._api.delete(batch_file.file_id))
        path = self._state.path(batch_file)
        if self._state.other_keys.isdisjoint(line.request.key for line in read_lines(path)):
            await self._state.return_to_ready(batch_file)
            return
        for line in read_lines(path):
            self._state.add(line)
        self._state.close_writers()
        await self._state.forget(batch_file)
