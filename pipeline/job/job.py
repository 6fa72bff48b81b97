"""Everything that a run is asked for: the job file's settings, the input, the output, and this run's own wishes."""

import glob
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from ..paths import check_name
from ..records import BadJob, Status
from .file import JobFile
from .load import SettingsSource
from .values import Section


class ThisRun(Section):
    """What is asked of this run alone; never in the job file."""

    limit: int | None = Field(default=None, ge=1)
    """Ask only this many rows, the first ones."""
    sample: int | None = Field(default=None, ge=1)
    """Ask only this many rows, at random by `seed`."""
    seed: int = 0
    retry: tuple[Status, ...] = ()
    """Ask the rows of these statuses again."""
    job_dir: Path | None = None
    assume_yes: bool = False
    """Agree to what a changed setting, or a damaged store, costs."""
    no_wait: bool = False
    """With `run.how = "batch"`: send what can be sent, fetch what is done, and end."""
    wait_for_endpoint: bool = False
    """Wait for an endpoint that is down as the run begins, or that asks for a long wait."""
    verbosity: int = 0
    """-1: print only what needs a person; 0: progress too; 1: every rejection too."""

    @model_validator(mode="after")
    def _check_one_pilot(self) -> Self:
        if self.limit is not None and self.sample is not None:
            raise BadJob("Give --limit or --sample, not both. Nothing was sent.")
        return self


class Job(JobFile):
    """A job as it is run: the settings of its job file, its input, its output, and what this run alone wants."""

    inputs: tuple[str, ...] = Field(min_length=1)
    """Paths, glob patterns, or `-` for standard input."""
    output_file: Path | None = None
    """None where nothing is written, as for `preview`."""
    home: Path = Path()
    """The folder that paths in the job file are relative to: its own, or `directory` without a job file."""
    directory: Path = Path()
    """The folder that the paths of inputs, output and job file were given relative to."""
    this_run: ThisRun = ThisRun()

    @property
    def folder(self) -> Path:
        """The job folder, which holds answers, lock and history. Raises BadJob if neither it nor an output is named."""
        if self.this_run.job_dir is not None:
            return self.this_run.job_dir
        if self.output.job_dir:
            return self.home / self.output.job_dir
        return default_job_folder(self.output_path)

    @property
    def output_path(self) -> Path:
        """The output's path. Raises BadJob if none is named."""
        if self.output_file is None:
            raise BadJob("No output is named; name one with -o. Nothing was sent.")
        return self.output_file

    @classmethod
    def load(
        cls,
        inputs: Sequence[str | Path],
        output: str | Path | None = None,
        *,
        config: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
        this_run: ThisRun | None = None,
        directory: str | Path = "",
    ) -> Self:
        """Read a job file (`config`), and set `settings` over it by dotted name: `{"endpoint.model": "…"}`.

        `directory`: what all paths given here are relative to; default: the current folder. Raises BadJob that names
        every mistake with its place: `job.toml:4: prompt.templat: unknown key …`.
        """
        base = Path(directory)
        for name in (base.absolute(), *inputs, output, config):
            check_name(name or "")
        wanted = this_run or ThisRun()
        if wanted.job_dir is not None:
            wanted = wanted.model_copy(update={"job_dir": base / wanted.job_dir})
        source = SettingsSource.read(None if config is None else base / config, settings or {}, base)
        rest = {
            "inputs": tuple(_under(base, str(name)) for name in inputs),
            "output_file": None if output is None else base / output,
            "home": source.home,
            "directory": base,
            "this_run": wanted,
        }
        try:
            return cls.model_validate({**source.values, **rest})
        except ValidationError as error:
            raise BadJob("\n".join(source.complaints(error.errors()))) from None


def _under(base: Path, name: str) -> str:
    """An input as given from `base`; `-` is standard input. In front of a pattern, `base` is escaped."""
    if name == "-" or base == Path():
        return name
    is_pattern = glob.has_magic(name) and not (base / name).exists()
    return str(base / name) if not is_pattern else os.path.join(glob.escape(str(base)), name)  # noqa: PTH118 - a pattern


def default_job_folder(output: Path) -> Path:
    """The job folder of an output where none is named: OUTPUT.job, beside it."""
    return output.parent / f"{output.name}.job"


def seen_hash(seen_by_model: Mapping[str, Any]) -> str:
    """The sha256 of `JobFile.seen_by_model`, in hexadecimal.

    Do not change how it is encoded: stored answers hold its beginning.
    """
    return hashlib.sha256(json.dumps(seen_by_model, sort_keys=True).encode()).hexdigest()


def settings_id(seen_by_model: Mapping[str, Any], whole: str = "") -> str:
    """A short hash of `JobFile.seen_by_model`, 8 hexadecimal digits: the output's column `settings`.

    `whole`: its `seen_hash`, where that is known.
    """
    return (whole or seen_hash(seen_by_model))[:8]
