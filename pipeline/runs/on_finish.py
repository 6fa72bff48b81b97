"""The user's own command when a run has ended: a mail, a message, the next step. It is told how the run went."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import msgspec

from ..job import Job
from ..records import Summary

MOST_SECONDS = 300.0
"""A command that takes longer is ended: nobody may wait for it for ever."""


def run_on_finish(command: str, job: Job, summary: Summary, most_seconds: float = MOST_SECONDS) -> str | None:
    """Run a command in the shell; returns what went wrong with it, None if nothing did.

    The summary is on its standard input, as JSON, and in PIPELINE_EXIT_CODE, _OUTPUT, _JOB, _SUMMARY (the path of
    `summary.json`), _MESSAGE, _ROWS, _OK and _SPENT. The key's variable is not among what it inherits.
    """
    facts = {
        "EXIT_CODE": int(summary.exit_code),
        "OUTPUT": Path(summary.output).absolute(),
        "JOB": job.folder.absolute(),
        "SUMMARY": job.folder.absolute() / "summary.json",
        "MESSAGE": summary.message,
        "ROWS": summary.rows.rows,
        "OK": summary.rows.ok,
        "SPENT": f"{summary.spent:.6f}",
    }
    inherited = {name: value for name, value in os.environ.items() if name != job.endpoint.api_key_env}
    environment = inherited | {f"PIPELINE_{name}": str(value) for name, value in facts.items()}
    # a group of its own, so that what it started ends with it
    with subprocess.Popen(  # noqa: S602 - the user's own line, as it was typed
        command, shell=True, stdin=subprocess.PIPE, env=environment, start_new_session=True
    ) as process:
        try:
            process.communicate(msgspec.json.encode(summary), timeout=most_seconds)
        except subprocess.TimeoutExpired:
            return f"it took longer than {most_seconds:,.0f} s, and was ended"
        finally:
            if process.poll() is None:
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
    return f"exit code {process.returncode}" if process.returncode else None
