"""`--on-finish`: the user's own command at the end of a run, such as a mail or the next step."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import msgspec

from ..job import Job
from ..records import Summary

TIMEOUT_SECONDS = 300.0
"""A command that takes longer is killed."""


def run_on_finish(command: str, job: Job, summary: Summary, timeout_seconds: float = TIMEOUT_SECONDS) -> str | None:
    """Run a command in the shell; returns why it failed, or None if it succeeded.

    The summary is on its standard input, as JSON, and in PIPELINE_EXIT_CODE, _OUTPUT, _JOB, _SUMMARY (the path of
    `summary.json`), _MESSAGE, _ROWS, _OK and _SPENT. It does not inherit the variable that holds the key.
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
    environment = inherited | {f"PIPELINE_{name}": _as_passed_on(str(value)) for name, value in facts.items()}
    # its own process group, so that whatever it started is killed with it
    with subprocess.Popen(  # noqa: S602 - the user's own line, as it was typed
        _as_passed_on(command),
        shell=True,
        cwd=job.directory,
        stdin=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            process.communicate(msgspec.json.encode(summary), timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            return f"it took longer than {timeout_seconds:,.0f} s, and was killed"
        finally:
            if process.poll() is None:
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
    return f"exit code {process.returncode}" if process.returncode else None


def _as_passed_on(text: str) -> str:
    """A text as another process can have it: in UTF-8 where the locale lacks its characters, and without NUL."""
    text = text.replace("\0", "\ufffd")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return os.fsdecode(text.encode("utf-8", "replace"))
    return text
