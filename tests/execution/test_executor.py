"""The way in which requests travel is chosen by `run.how`, and its libraries are imported only then."""

import subprocess
import sys

import pytest
from builders import job

from pipeline.execution import executor


@pytest.mark.parametrize(("how", "package"), [("live", "live"), ("batch", "batch"), ("ray", "ray")])
def test_each_way_has_its_executor(how: str, package: str) -> None:
    chosen = executor(job(run__how=how))
    assert chosen.__module__.startswith(f"pipeline.execution.{package}.")
    assert chosen.__name__ == "answer_all"


def test_a_way_that_is_not_taken_imports_nothing() -> None:
    code = "import sys; import pipeline.execution; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"httpx", "aiohttp", "ray"}
