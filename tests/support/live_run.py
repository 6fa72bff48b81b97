"""Run a job's executor, live unless it says otherwise, against a server with a real store; read back what it left."""

import asyncio
import gc
import hashlib
import io
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from chat_server import Canned, Reply, Seen, problem

from pipeline.execution.context import Clocks
from pipeline.execution.executor import executor
from pipeline.execution.local_context import LocalContext
from pipeline.job.job import Job
from pipeline.progress import Progress
from pipeline.records import Answer, Exit, Failure, Outcome, Request, Stopped, Tally
from pipeline.store.notes import read_ledger
from pipeline.store.outcomes import read_outcome
from pipeline.store.reader import Reader
from pipeline.store.writer import Store

ASKED_TO_STOP = Stopped("Stopped by a test.", Exit.SIGINT)
SERVER_ERROR = Canned(500, problem("it broke", kind="server_error"))
BAD_REQUEST = Canned(400, problem("temperature is too high"))
HANG = Canned(hang=True)


def request(prompt: str) -> Request:
    body = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": prompt}]})
    return Request(hashlib.sha256(prompt.encode()).hexdigest(), body)


async def requests(prompts: Iterable[str]) -> AsyncIterator[Request]:
    for prompt in prompts:
        yield request(prompt)


def numbered(count: int) -> list[str]:
    return [f"row {number}" for number in range(count)]


def make_job(url: str, **settings: Any) -> Job:
    """A job for an endpoint; settings are named with a double underscore: `limits__max_cost=5`."""
    named = {"endpoint.base_url": url, "endpoint.model": "m", "limits.concurrency": 4}
    return Job.load(["rows.csv"], settings=named | {name.replace("__", "."): value for name, value in settings.items()})


class Run(NamedTuple):
    """What one `answer_all` left behind."""

    outcomes: dict[str, Outcome]  # by prompt
    marks: dict[str, str]  # by prompt
    tally: Tally
    spent: float  # of the budget
    error: BaseException | None  # what it raised
    said: str  # on the screen

    @property
    def answers(self) -> dict[str, str]:
        return {prompt: outcome.text for prompt, outcome in self.outcomes.items() if isinstance(outcome, Answer)}

    @property
    def stop(self) -> Stopped:
        assert isinstance(self.error, Stopped), repr(self.error)
        return self.error

    def failure(self, prompt: str) -> Failure:
        outcome = self.outcomes[prompt]
        assert isinstance(outcome, Failure), repr(outcome)
        return outcome


OnStart = Callable[[LocalContext, asyncio.Task[None]], None]


async def ask(
    job: Job, coming: AsyncIterator[Request], context: LocalContext, on_start: OnStart | None
) -> BaseException | None:
    """Run the executor in a task of its own, and return what it raised. None of its tasks may be left over."""
    before = asyncio.all_tasks()
    task = asyncio.create_task(executor(job)(job, coming, context))
    if on_start is not None:
        on_start(context, task)
    await asyncio.wait({task})
    assert asyncio.all_tasks() == before
    return asyncio.CancelledError() if task.cancelled() else task.exception()


def run(
    folder: Path,
    job: Job,
    prompts: Sequence[str],
    *,
    coming: AsyncIterator[Request] | None = None,
    on_start: OnStart | None = None,
    rng: float = 0.0,
    uptime: Callable[[], float] = time.monotonic,
    raises: bool = False,
) -> Run:
    """Answer the prompts into a new store, and read it back. An error is raised, unless the test `raises`."""
    store = Store(folder / "store")
    context = LocalContext(job, store, Tally(), rng=lambda: rng, clocks=Clocks(uptime=uptime))
    said = io.StringIO()
    context.progress = Progress(stream=said)
    try:
        error = asyncio.run(ask(job, coming or requests(prompts), context, on_start))
    finally:
        store.close()
    gc.collect()  # a socket that was left open is a warning here, and so an error
    if error is not None and not raises:
        raise error
    with closing(Reader(folder / "store")) as reader:
        assert read_ledger(reader) == context.ledger
        assert context.ledger == context.asked or not (error is None or isinstance(error, Stopped))
        marks = {key: mark for chunk in reader.marks() for key, mark in chunk}
        stored = dict(zip(prompts, reader.get_many([request(prompt).key for prompt in prompts]), strict=True))
    return Run(
        {prompt: read_outcome(value) for prompt, value in stored.items() if value is not None},
        {prompt: marks[key] for prompt in prompts if (key := request(prompt).key) in marks},
        context.ledger,
        context.budget.spent,
        error,
        said.getvalue(),
    )


def only(prompt: str, *answers: Canned) -> Reply:
    """Give these answers to one prompt in turn, the last one repeatedly; all other prompts get the normal answer."""

    def reply(seen: Seen, attempt: int) -> Canned | None:
        return answers[min(attempt, len(answers)) - 1] if seen.prompt == prompt else None

    return reply


class Bell:
    """Calls `ring` in the job's event loop when a request arrives, before that request's answer can be read."""

    def __init__(self, ring: Callable[[LocalContext, asyncio.Task[None]], None]) -> None:
        self.ring = ring
        self.hear: Callable[[], object] = lambda: None

    def on_start(self, context: LocalContext, task: asyncio.Task[None]) -> None:
        loop = asyncio.get_running_loop()
        self.hear = lambda: loop.call_soon_threadsafe(self.ring, context, task)


def asks_to_stop(context: LocalContext, _task: asyncio.Task[None]) -> None:
    context.stop(ASKED_TO_STOP)


def asks_to_stop_at_once(context: LocalContext, _task: asyncio.Task[None]) -> None:
    context.stop(ASKED_TO_STOP)
    context.abort_drain()


class FewRequests:
    """The smallest `RequestSource`: a few requests, and nothing shared with other lanes."""

    def __init__(self, *prompts: str) -> None:
        self.in_flight = 0
        self._left = [request(prompt) for prompt in prompts]

    def draw(self, _model: str) -> Request | None:
        return self._left.pop() if self._left else None

    def is_over(self, _model: str) -> bool:
        return not self._left

    def wake_all(self) -> None:
        raise AssertionError("only under a cost cap")
