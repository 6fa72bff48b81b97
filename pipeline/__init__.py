"""Ask a model one question of every row of a table, from Python: `from pipeline import Job, run`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .job import Job, ThisRun
    from .records import BadJob, Stopped, Summary
    from .runs import arun, run

__all__ = ["BadJob", "Job", "Stopped", "Summary", "ThisRun", "__version__", "arun", "run"]

_HOMES = {
    "Job": "job",
    "ThisRun": "job",
    "BadJob": "records",
    "Stopped": "records",
    "Summary": "records",
    "arun": "runs",
    "run": "runs",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - as the module's attribute is
    """Import a name when it is first asked for: `pipeline --help` must not wait for polars."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
