"""Run `pipeline` and kill it at a step of its batches: `python crashing_batch.py STEP N ARGUMENTS OF PIPELINE`.

The process is killed by SIGKILL when it passes the step for the Nth time.
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

    def watch(owner: Any, name: str, step_name: str, condition: Any = lambda *_: True) -> None:
        original = getattr(owner, name)

        async def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
            counts = condition(*args)
            if counts:
                passed(f"before {step_name}")
            result = await original(self, *args, **kwargs)
            if counts:
                passed(f"after {step_name}")
            return result

        setattr(owner, name, watched)

    for name in ("upload", "create", "download", "delete"):
        watch(BatchApi, name, name)
    watch(LocalContext, "write_note", "note", lambda name, _value: name == BATCHES)
    watch(LocalContext, "record", "record")
    main()


if __name__ == "__main__":
    step, times = sys.argv[1], int(sys.argv[2])
    sys.argv[1:3] = []
    main_with(step, times)
