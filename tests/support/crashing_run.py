"""`pipeline`, that writes down what it acknowledges, and kills itself at a step: python crashing_run.py ACKS STEP N …

ACKS: the key of each outcome is added to this file when `LocalContext.record` has returned. STEP: one of STEPS, or
`never`; at
the Nth time that it is passed, the process ends by SIGKILL. The rest is the command line of `pipeline`.
"""

import contextlib
import os
import signal
import sys
import types
from collections.abc import Callable, Generator, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import diskcache

from pipeline.cli.group import main
from pipeline.endpoint.client import Client
from pipeline.execution.local_context import LocalContext
from pipeline.planning import plan
from pipeline.store.writer import Store

prepare: Any = import_module("pipeline.runs.prepare")
runs: Any = import_module("pipeline.runs.run")  # the name in the package is that of the function

STEPS = (
    "planned",
    "before the run is in the history",
    "after the run is in the history",
    "before a request",
    "answered",
    "queued",
    "before COMMIT",
    "after COMMIT",
    "acknowledged",
    "before the rename",
    "after the rename",
    "before the end is in the history",
    "after the end is in the history",
)


def arm(step: str, times: int) -> Callable[[str], None]:
    """What is called at each step; it kills at the one that was named, when it is passed for the Nth time."""
    left = [times]

    def passed(name: str) -> None:
        if name == step:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    return passed


def wrap(passed: Callable[[str], None], acks: int, output: Path) -> None:  # noqa: C901 - one step after the other
    """Put the steps around what the program does anyway."""
    original: Any = Client.attempt, LocalContext.record, Store.put, diskcache.Cache.transact, Path.replace
    attempt, record, put, transact, replace = original

    async def attempting(self: Client, *told: Any) -> Any:
        passed("before a request")
        reply = await attempt(self, *told)
        passed("answered")
        return reply

    async def recording(self: LocalContext, request: Any, outcome: Any, **told: Any) -> Any:
        following = await record(self, request, outcome, **told)
        os.write(acks, f"{request.key}\n".encode())
        passed("acknowledged")
        return following

    async def putting(self: Store, *entry: Any, **told: Any) -> None:
        await stopping_over(put(self, *entry, **told))

    @types.coroutine
    def stopping_over(queueing: Any) -> Generator[Any, Any, None]:
        waits_for = queueing.send(None)  # as far as its place in the queue
        passed("queued")
        yield waits_for
        yield from queueing.__await__()

    @contextlib.contextmanager
    def transacting(self: Any, *more: Any, **named: Any) -> Iterator[None]:
        with transact(self, *more, **named):
            yield
            passed("before COMMIT")
        passed("after COMMIT")

    def replacing(self: Path, target: Any) -> Path:
        is_output = Path(target) == output
        if is_output:
            passed("before the rename")
        renamed: Path = replace(self, target)
        if is_output:
            passed("after the rename")
        return renamed

    for owner, name, wrapped in (
        (Client, "attempt", attempting),
        (LocalContext, "record", recording),
        (Store, "put", putting),
        (diskcache.Cache, "transact", transacting),
        (Path, "replace", replacing),
    ):
        setattr(owner, name, wrapped)
    around(passed, prepare, "record_start", "the run is in the history")
    around(passed, runs, "record_end", "the end is in the history")
    make_plan = plan.make_plan

    def planning(*given: Any) -> Any:
        made = make_plan(*given)
        passed("planned")
        return made

    setattr(prepare, "make_plan", planning)  # noqa: B010 - mypy knows the name only where it was defined


def around(passed: Callable[[str], None], module: Any, name: str, what: str) -> None:
    """A step before and one after a function of a module."""
    function = getattr(module, name)

    def stepping(*given: Any, **named: Any) -> Any:
        passed(f"before {what}")
        result = function(*given, **named)
        passed(f"after {what}")
        return result

    setattr(module, name, stepping)


if __name__ == "__main__":
    acks_path, step, times, *line = sys.argv[1:]
    assert step in (*STEPS, "never")
    acks = os.open(acks_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    wrap(arm(step, int(times)), acks, Path(line[line.index("-o") + 1]).resolve())
    main(line, prog_name="pipeline")
