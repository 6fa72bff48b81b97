"""`pipeline`, that kills itself at a step of the Batch API: python crashing_batch.py STEP N …, the rest a command line.

At the Nth time that the step is passed, the process ends by SIGKILL.
"""

import sys
from typing import Any

from crashing_run import arm

from pipeline.cli.group import main
from pipeline.endpoint.batch_api import BatchApi
from pipeline.execution.local_context import LocalContext
from pipeline.store.notes import BATCHES

STEPS = (
    "after upload",
    "after create",
    "after download",
    "before note",
    "after note",
    "after record",
    "before delete",
    "after delete",
)


def main_with(step: str, times: int) -> None:
    passed = arm(step, times)

    def around(owner: Any, name: str, what: str, condition: Any = lambda *_: True) -> None:
        original = getattr(owner, name)

        async def stepping(self: Any, *given: Any, **named: Any) -> Any:
            counts = condition(*given)
            if counts:
                passed(f"before {what}")
            made = await original(self, *given, **named)
            if counts:
                passed(f"after {what}")
            return made

        setattr(owner, name, stepping)

    for name in ("upload", "create", "download", "delete"):
        around(BatchApi, name, name)
    around(LocalContext, "write_note", "note", lambda name, _value: name == BATCHES)
    around(LocalContext, "record", "record")
    main()


if __name__ == "__main__":
    step, times = sys.argv[1], int(sys.argv[2])
    sys.argv[1:3] = []
    main_with(step, times)
