"""Answer requests by the provider's Batch API: at about half the price, within a day.

Requests are written to batch files in the job folder. `send` uploads each file and creates a batch from it, `collect`
records its results. What is known of an open batch is noted on disk before each step, so a kill at any moment loses no
batch, and none is created twice.
"""

import asyncio
from collections.abc import AsyncIterator
from itertools import islice

from msgspec.structs import replace

from ...endpoint import BatchApi
from ...files import make_private_folder, sync
from ...job import Job
from ...progress import Pause
from ...records import Exit, Request, Stopped
from ...store import BatchFile
from ..context import NotesContext
from ..stream import RequestStream
from .calls import Calls
from .collect import Collector
from .files import BatchLine, read_lines
from .send import Sender
from .state import BatchState

LINES_READ = 256
"""How many lines of a batch file are looked up in the store together."""


async def answer_all(job: Job, requests: AsyncIterator[Request], context: NotesContext) -> None:
    """Ask every request in batches, and record every outcome; return when all are settled.

    Raises Stopped when the job cannot go on or was asked to stop; with `this_run.no_wait`, as soon as only the provider
    can do more. Open batches stay with the provider, and the next run collects them.
    """
    async with BatchApi(job.endpoint, job.endpoint.key()) as api:
        run = _BatchRun(job, context, api)
        try:
            await run.resume()
            await run.write(requests)
            await run.work()
        except OSError as error:
            raise Stopped(
                f"A batch file could not be written: {error}\nCheck the disk of {job.folder}, then type the "
                "same line again: batches with the provider stay there, and are fetched then."
            ) from error
    if context.stopping is not None:
        raise context.stopping


class _BatchRun:
    """One run's way through its batches: resume earlier ones, write the other requests to files, send and collect."""

    def __init__(self, job: Job, context: NotesContext, api: BatchApi) -> None:
        self._context, self._poll_seconds, self._waits = context, job.run.poll_seconds, not job.this_run.no_wait
        self._state = BatchState(job, context)
        calls = Calls(job, context)
        self._sender = Sender(self._state, api, calls, job.run.poll_seconds)
        self._collector = Collector(job, self._state, api, calls, self._sender)

    async def resume(self) -> None:
        """Take on the batches that earlier runs created. Batch files that no batch was created from are removed."""
        state = self._state
        if state.folder.is_symlink():
            raise Stopped(
                f"{state.folder} is a link; what it leads to would be removed. Remove the link. Nothing was sent."
            )
        if not state.folder.exists():
            make_private_folder(state.folder)
            sync(state.folder.parent)
        for path in state.folder.iterdir():
            if path.name not in state.open:
                path.unlink()
        for batch_file in list(state.open.values()):
            self._context.budget.reserved += batch_file.reserved
            if not state.path(batch_file).exists():
                await self._give_up(batch_file)
            elif batch_file.batch_id or await self._sender.recover(batch_file):
                self._expect_answers(state.open[batch_file.name])
            else:
                await state.forget(batch_file)

    async def _give_up(self, batch_file: BatchFile) -> None:
        """Forget an open batch whose file was removed by the user. It may be billed, so its cost counts at the most."""
        which = f"Batch {batch_file.batch_id}" if batch_file.batch_id else "An unconfirmed batch"
        self._context.say(f"{which} is given up, as its file was removed: its requests are asked anew.")
        if batch_file.file_id:
            self._context.budget.settle(0.0, batch_file.reserved)
            requests = max(1, batch_file.requests - batch_file.recorded)
            for _ in range(requests):
                self._context.count_attempt(0.0, held=batch_file.reserved / requests, broke_off=True)
        await self._state.forget(batch_file)

    def _expect_answers(self, batch_file: BatchFile) -> None:
        """Reserve anew what an open batch can cost: its run may have had no cap. Its requests are not sent again."""
        worst, lines = 0.0, read_lines(self._state.path(batch_file))
        while group := [line.request for line in islice(lines, LINES_READ)]:
            keys = [request.key for request in group]
            self._state.other_keys.update(keys)
            stored = self._context.asked_at(keys) if batch_file.recorded else {}
            worst += sum(self._state.worst_cost(each) for each in group if stored.get(each.key) != batch_file.made_at)
        self._context.budget.reserved += worst - batch_file.reserved
        self._state.open[batch_file.name] = replace(batch_file, reserved=worst)

    async def write(self, requests: AsyncIterator[Request]) -> None:
        """Write the requests that are in no open batch to batch files."""
        changed = asyncio.Event()
        stream = RequestStream(requests, changed.set)
        stop_requested = asyncio.create_task(self._context.stop_requested.wait())
        stop_requested.add_done_callback(lambda _: changed.set())
        try:
            while self._context.stopping is None and not stream.is_over:
                changed.clear()
                if (request := stream.take()) is not None:
                    self._add(request)
                elif not stream.is_over:
                    await changed.wait()
        finally:
            stop_requested.cancel()
            await asyncio.gather(stop_requested, return_exceptions=True)
            await stream.close()
        self._state.close_writers()

    def _add(self, request: Request) -> None:
        """Write a request to a batch file, unless it is in an open batch."""
        if request.key in self._state.other_keys:
            self._state.other_keys.discard(request.key)
        else:
            self._state.add(BatchLine(request))

    async def work(self) -> None:
        """Collect what is finished and send what there is room for, until nothing is left or a stop is requested."""
        state = self._state
        while self._context.stopping is None and (state.ready or state.awaited):
            collected = await self._collector.collect_finished()
            if state.cancelled:
                self._stop_once_cancelled()
                sent = False
            else:
                sent = await self._sender.send_ready()
            if collected or sent or self._context.stopping is not None:
                continue
            if not self._waits:
                aside = state.stop_for_aside()
                raise Stopped(
                    f"{state.progress_text()}. There is nothing more to do until the provider has finished some:\n"
                    "type the same line again later." + (f"\n{aside}" if aside is not None else ""),
                    Exit.TRY_LATER if aside is None else aside.exit_code,
                )
            self._context.show_progress(Pause(self._poll_seconds, state.progress_text()))
            await self._context.pause(self._poll_seconds)
        if self._context.stopping is None:
            await self._collector.record_unconfirmed()
            if (aside := state.stop_for_aside()) is not None:
                raise aside
        elif state.awaited:
            self._context.say(f"{state.progress_text()}. They go on there and are paid for; the next run fetches them.")

    def _stop_once_cancelled(self) -> None:
        """Stop the job after a cancellation at the provider: nobody asked to send the rest again.

        While another batch is being cancelled, go on, so that its answers are collected too.
        """
        if not any(batch_file.is_ending for batch_file in self._state.open.values()):
            aside = self._state.stop_for_aside()
            self._context.stop(
                Stopped(
                    f"Cancelled at the provider: {', '.join(self._state.cancelled)}. The answers that came before are "
                    "kept; the other requests are pending, and nothing more was sent.\n"
                    "The same line sends them in new batches. Once no other batch is open, --set run.how=live asks "
                    "them live." + (f"\n{aside}" if aside is not None else "")
                )
            )
