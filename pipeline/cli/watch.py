"""The commands for a second terminal: status, tune, stop."""

import contextlib
import sys
import time
from typing import Any

import click

from .group import main
from .options import AS_JSON, JOB, limit_options, settings_from
from .screen import json_text, print_message

REDRAW_SECONDS = 2.0
"""How often `status --watch` reads the job again."""


@main.command()
@JOB
@click.option("--watch", is_flag=True, help="again every 2 s, until the run has ended")
@AS_JSON
def status(job: str, watch: bool, as_json: bool) -> None:
    """Show how a job stands: running, stopped or dead. JOB: an output, or its job folder.

    Reads only, and disturbs nothing. Exit code 0 if the status is known, 2 if there is no such job. The keys of --json
    are in configs/README.md.
    """
    from ..results import job_status, status_text
    from ..text import printable

    redraws = watch and not as_json and sys.stdout.isatty()
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            standing = job_status(job)
            text = json_text(standing) if as_json else printable(status_text(standing))
            click.echo(f"\x1b[H\x1b[J{text}" if redraws else text)
            if not watch or standing.state not in ("preparing", "running", "stopping", "unknown"):
                break
            time.sleep(REDRAW_SECONDS)


@main.command()
@JOB
@limit_options
def tune(job: str, **flags: Any) -> None:
    """Change the limits of a running job. JOB: an output, or its job folder.

    Type it in a second terminal. The limits hold until that run ends.
    """
    from ..folder import find_job_folder
    from ..job import Limits
    from ..records import BadJob
    from ..runs import send_order

    limits = {name.removeprefix("limits."): value for name, value in settings_from(flags).items()}
    if not limits:
        raise BadJob("Name a limit: --concurrency, --rpm, --tpm or --max-cost. Nothing was changed.")
    Limits().tuned(limits)
    print_message(send_order(find_job_folder(job), limits=limits))


@main.command()
@JOB
def stop(job: str) -> None:
    """Stop a running job gently. JOB: an output, or its job folder.

    Type it in a second terminal. The run waits for requests in flight, writes its output as far as it is known, and
    exits with 4. Typed once more, it waits for nothing.
    """
    from ..folder import find_job_folder
    from ..runs import send_order

    print_message(send_order(find_job_folder(job), stop=True))
