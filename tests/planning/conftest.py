"""Fixtures of the tests of planning."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from planned_table import PlannedTable


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., PlannedTable]]:
    with ExitStack() as open_things:
        yield lambda *prompts, **job_settings: open_things.enter_context(
            PlannedTable(tmp_path, prompts, **job_settings)
        )
