"""The state that sending and collecting share: batch files that are ready, open batches and their note on disk."""

from collections import deque
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from ...answers import RESPONSE_FORMATS, ContractEncoder
from ...costs import expected_usage
from ...job import Job
from ...records import Exit, Request, Stopped
from ...store import BATCHES, BatchFile, OpenBatches, read_open_batches
from ..context import NotesContext
from ..parameters import Parameters
from .files import BatchFileWriter, BatchLine

_encoder = msgspec.json.Encoder()


class Aside(NamedTuple):
    """A batch whose results are missing or overdue: this run looks at it no more."""

    text: str
    """What is missing, after the words `Batch ID`."""
    exit_code: Exit
    is_wanted: bool
    """Whether a row of this run has one of its requests."""


class BatchState:
    """The batch files of one run. Those whose upload has begun are open, and are noted in the store."""

    def __init__(self, job: Job, context: NotesContext) -> None:
        self.context = context
        self.folder = job.folder / "batches"
        noted = read_open_batches(context.read_note)
        self.open = {batch_file.name: batch_file for batch_file in noted.sheets}
        """Batch files that the provider may hold, by name."""
        self.aside: dict[str, Aside] = {}
        """The open batch files whose batches are looked at no more in this run, by name."""
        self.ready: deque[BatchFile] = deque()
        """Complete batch files to be sent, in this order."""
        self.other_keys: set[str] = set()
        """Keys of requests in open batches that no row of this run asks. Their answers are recorded too."""
        self.cancelled: list[str] = []
        """Ids of batches that were cancelled at the provider."""
        self.queue_tokens_max = noted.queued_tokens_most
        """How many tokens the provider's queue takes; None if that limit was never reached."""
        self._job = job
        learned = context.learned(job.models[0])
        live: str = "" if learned is None else learned.response_format
        names: list[str] = list(RESPONSE_FORMATS)
        self.format_index = max(noted.form, names.index(live) if live in names else 0)
        """The index of the response format in use: the endpoint rejected all formats before it, here or live."""
        self._parameters = {model: Parameters(job, respelled) for model, respelled in noted.respelled.items()}
        self._contract_encoder = ContractEncoder(job.answer.contract)
        self._requests_max = job.run.batch_requests
        self._writers: dict[str, BatchFileWriter] = {}
        """The batch files that are being written, by model."""

    @property
    def awaited(self) -> list[BatchFile]:
        """The open batch files whose results this run waits for."""
        return [batch_file for name, batch_file in self.open.items() if name not in self.aside]

    def encode(self, request: Request) -> Request:
        """The request as it is sent: with the job's contract, in the response format in use; parameters respelled."""
        body = self._contract_encoder.encode(request.body, RESPONSE_FORMATS[self.format_index])
        return self.parameters(request.model).encode(replace(request, body=body))

    def parameters(self, model: str) -> Parameters:
        """The parameters as they are sent to a model; at first as a live run of this job folder found them."""
        if model not in self._parameters:
            learned = self.context.learned(model or self._job.models[0])
            self._parameters[model] = Parameters(self._job, "" if learned is None else learned.respelled)
        return self._parameters[model]

    def worst_cost(self, request: Request) -> float:
        """The most that one attempt can cost in US dollars; 0 if the price is unknown."""
        return self.context.budget.worst(self.encode(request)) or 0.0

    def tokens(self, batch_file: BatchFile) -> int:
        """Expected number of prompt tokens of a batch file; at least 1."""
        usage = expected_usage(self.context.ledger, batch_file.size_bytes, batch_file.requests)
        return max(1, usage.prompt_tokens or 0)

    def open_tokens(self) -> int:
        """Expected number of prompt tokens of all batches that are waited for."""
        return sum(map(self.tokens, self.awaited))

    def path(self, batch_file: BatchFile) -> Path:
        """Path of a batch file in the job folder."""
        return self.folder / batch_file.name

    def add(self, line: BatchLine) -> None:
        """Add a request to the batch file that is being written for its model; start another file when that is full.

        A request of an earlier run that no row of this run asks for is left out.
        """
        if line.request.key in self.other_keys:
            return
        model = line.request.model
        if model in self._writers and not self._writers[model].has_room(line, self._requests_max):
            self.ready.append(self._writers.pop(model).close())
        if model not in self._writers:
            self._writers[model] = BatchFileWriter(self.folder, model)
        self._writers[model].add(line)

    def close_writers(self) -> None:
        """Complete all files that are being written: they are then on disk and ready to be sent."""
        self.ready.extend(writer.close() for writer in self._writers.values())
        self._writers.clear()

    async def note(self, batch_file: BatchFile) -> None:
        """Return once this state of an open batch file is on disk. Raises Stopped if it cannot be written."""
        self.open[batch_file.name] = batch_file
        await self.note_all()

    async def note_all(self) -> None:
        """Return once the note of all open batches is on disk. Raises Stopped if it cannot be written."""
        respelled = {model: each.respelled for model, each in self._parameters.items() if each.respelled}
        noted = OpenBatches(tuple(self.open.values()), self.queue_tokens_max, self.format_index, respelled)
        await self.context.write_note(BATCHES, _encoder.encode(noted))

    async def forget(self, batch_file: BatchFile) -> None:
        """Close a batch whose results are all on disk: release its reservation, remove it from the note, then its file.

        Raises Stopped if the note cannot be written.
        """
        self.context.budget.reserved -= batch_file.reserved
        del self.open[batch_file.name]
        await self.note_all()
        self.path(batch_file).unlink(missing_ok=True)

    async def return_to_ready(self, batch_file: BatchFile) -> None:
        """Make an open batch file, which no batch was created from, the next one to be sent.

        Raises Stopped if the note cannot be written.
        """
        self.context.budget.reserved -= batch_file.reserved
        self.ready.appendleft(BatchFile(batch_file.name, batch_file.model, batch_file.requests, batch_file.size_bytes))
        del self.open[batch_file.name]
        await self.note_all()

    def progress_text(self) -> str:
        """How the batches stand: `2 batches with the provider, 1,200 of 50,000 requests done`."""
        awaited = self.awaited
        done = sum(batch_file.done for batch_file in awaited)
        requests = sum(batch_file.requests for batch_file in awaited)
        batches = f"{len(awaited):,} batch{'' if len(awaited) == 1 else 'es'} with the provider"
        waiting = sum(batch_file.requests for batch_file in self.ready)
        not_sent = f", {waiting:,} more not sent yet" if waiting else ""
        return f"{batches}, {done:,} of {requests:,} requests done{not_sent}"

    def stop_for_aside(self) -> Stopped | None:
        """The stop at the end of a run if rows wait for results that are missing; None if none do."""
        aside = [(self.open[name], each) for name, each in self.aside.items() if each.is_wanted]
        if not aside:
            return None
        lines = [f"Batch {batch_file.batch_id} {each.text}." for batch_file, each in aside]
        paths = [str(self.path(batch_file)) for batch_file, _ in aside]
        message = [
            *lines,
            "What is missing may have been paid for: it is pending, not asked again, and not deleted at the provider.",
            "Type the same line to look again. If that does not help, ask the provider. To give it up, remove",
            *paths,
            "and type the same line again: these requests are then asked, and paid for, anew.",
        ]
        return Stopped("\n".join(message), min(each.exit_code for _, each in aside))
