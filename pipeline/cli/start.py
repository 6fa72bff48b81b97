"""The commands that start a job: init, preview, estimate, run, resume."""

import contextlib
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.core import ParameterSource

from .earlier import ask_before, uses_of_line, whose_line
from .group import Command, main
from .options import JOB, JOB_DIR, LIMIT, RETRY, YES, job_from, limit_options, question_options, setting_option
from .screen import confirm, patient_stdout, print_lines, print_message

if TYPE_CHECKING:
    from ..folder import Earlier, RunStart


class Again(NamedTuple):
    """An earlier command line that `resume` runs again."""

    command: list[str]
    """Its words, as they were typed."""
    directory: Path
    """The folder it was typed in: its paths are relative to it."""
    table: str
    """The Parquet that it read, for rows that came from standard input."""


class RunCommand(Command):
    """Keeps the words that it is called with, for `resume`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the words as they were typed."""
        ctx.meta["words"] = [self.name or "", *args]
        return super().parse_args(ctx, args)


@main.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("-o", "--output", type=click.Path(path_type=Path), default="job.toml", show_default=True)
@setting_option("-m", "--model", setting="endpoint.model")
@setting_option("--base-url", setting="endpoint.base_url")
def init(inputs: tuple[str, ...], output: Path, model: str | None, base_url: str | None) -> None:
    """Write a job file from the table's columns.

    Then show the first requests that it makes. Never sends.
    """
    from ..job import Job
    from ..runs import preview_requests, write_job_file

    write_job_file(inputs, output, base_url, model)
    words = shlex.join([*inputs, "-c", str(output)])
    try:
        print_lines(preview_requests(Job.load(inputs, config=output), 2))
    finally:  # also if the file is not right yet: what is wrong is then reported with its line
        print_message(
            f"Wrote {output}. Change it as you like, then:\n  pipeline preview {words}\n  pipeline estimate {words}\n"
            f"  pipeline run {words} -o OUTPUT.csv --sample 20"
        )


@main.command()
@question_options
@click.option("-o", "--output", type=click.Path(path_type=Path), help="an output of this job: its answers count")
@JOB_DIR
@LIMIT
@RETRY
@limit_options
def estimate(**flags: Any) -> None:
    """Estimate requests, tokens, cost and time. Never sends, and writes nothing."""
    from ..runs import estimate_job, estimate_text

    job = job_from(flags)
    print_lines(estimate_text(job, estimate_job(job)))


@main.command()
@question_options
@click.option("-n", "rows", type=click.IntRange(1), default=3, show_default=True, help="how many rows")
def preview(rows: int, **flags: Any) -> None:
    """Show the first requests as they would be sent. Never sends."""
    from ..runs import preview_requests

    print_lines(preview_requests(job_from(flags), rows))


@main.command(cls=RunCommand)
@question_options
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="the table; its suffix decides its format"
)
@JOB_DIR
@LIMIT
@click.option("--sample", type=click.IntRange(1), help="a pilot: N random rows, shown, and what the rest would cost")
@limit_options
@setting_option("--max-runtime", setting="limits.max_runtime")
@click.option("--no-wait", is_flag=True, help='with run.how = "batch": send and fetch what is possible now, then end')
@click.option("--wait-for-endpoint", is_flag=True, help="wait for an endpoint that is down, or asks for a long wait")
@RETRY
@YES
@click.option(
    "--on-finish", metavar="COMMAND", help="run this in the shell at the end, the summary as JSON on its stdin"
)
@click.option("-q", "--quiet", is_flag=True, help="print nothing unless a person is needed")
@click.option("-v", "--verbose", is_flag=True, help="print every rejected attempt")
@click.pass_context
def run(ctx: click.Context, /, **flags: Any) -> None:
    """Ask what is not answered yet, and write OUTPUT.

    INPUT: CSV, TSV, NDJSON (.gz, .zst), Parquet, Arrow or Excel files, globs, or - for standard input.
    """
    from ..results import show_rows
    from ..runs import run, run_on_finish, signals_raised, summary_text
    from ..secrecy import hidden_in_text

    again: Again | None = ctx.obj
    job = job_from(flags) if again is None else job_from(flags, again.directory, again.table)
    words = ctx.meta["words"] if again is None else again.command
    command = [*words, *_words_from_environment(ctx)]
    with signals_raised() as ignore_more:
        summary = run(job, confirm=_confirm if _is_interactive() else None, command=command)
        if summary.exit_code > 128:
            ignore_more()
        with patient_stdout():
            if job.this_run.sample is not None and summary.wrote:
                with contextlib.suppress(OSError):  # a closed pipe or a full disk does not change how a run ended
                    print_lines(show_rows(job.folder, status=None, row=None, most=20))
            if not flags["quiet"] or summary.exit_code:
                print_message(summary_text(job, summary))
            if flags["on_finish"] and (wrong := run_on_finish(flags["on_finish"], job, summary)):
                print_message(f"--on-finish: {wrong}: {hidden_in_text(flags['on_finish'], is_command=True)}")
    ctx.exit(summary.exit_code)


@main.command()
@JOB
@RETRY
@YES
@click.pass_context
def resume(ctx: click.Context, job: str, retry: str, yes: bool) -> None:
    """Run the last run's line again. JOB: an output, or its job folder.

    A secret in that line was not kept: resume then asks for the line again, or takes the flag from its variable, such
    as PIPELINE_RUN_ON_FINISH.
    """
    from ..folder import find_job_folder, read_earlier
    from ..job import default_job_folder
    from ..records import BadJob

    folder = find_job_folder(job)
    earlier = read_earlier(folder)
    start = earlier.starts[-1] if earlier.starts else None
    if start is None or start.command is None:
        raise BadJob(f"{job}: this job was last run from Python; run it there again.")
    if not Path(start.directory).is_dir():
        raise BadJob(
            f"{start.directory}, where the last run was started, is gone; its paths were relative to it.\n"
            f"Type the run again where its files are now, with --job-dir {folder}: the answers are kept there."
        )
    command = _replayed(start)
    extra = [*(["--retry", retry] if retry else []), *(["--yes"] if yes else [])]
    if not earlier.is_own or folder != default_job_folder(
        Path(start.output)
    ):  # named, or moved: a new folder would pay for all answers again
        extra += ["--job-dir", str(folder)]
    with run.make_context("run", [*command[1:], *extra], parent=ctx.parent) as again:
        if not earlier.is_own:
            _ask_before_anothers(ctx, again, start, earlier, folder, assume_yes=yes)
        again.obj = Again(command, Path(start.directory), start.table)
        run.invoke(again)


def _ask_before_anothers(
    ctx: click.Context, line: click.Context, start: "RunStart", earlier: "Earlier", folder: Path, *, assume_yes: bool
) -> None:
    """Ask before a line is run again that this user did not write.

    In a folder that this user agreed to share with its group, a colleague's line needs no question as long as it does
    nothing but what lines of this user's own did there. Raises BadJob unless it is agreed to.
    """
    uses = uses_of_line(line, Path(start.directory), start.table)
    if earlier.shares:
        known: set[str] = set()
        for own in earlier.own:
            with contextlib.suppress(click.UsageError), _parsed(ctx, own) as mine:
                known.update(uses_of_line(mine, Path(own.directory), own.table))
        if known.issuperset(uses):
            return
        uses = [use for use in uses if use not in known]
    confirm = _confirm if _is_interactive() else None
    ask_before(whose_line(start, folder), start.command or [], uses, confirm, assume_yes=assume_yes)


def _parsed(ctx: click.Context, start: "RunStart") -> click.Context:
    """Parse the line of an earlier run. Raises click.UsageError if this version does not understand it."""
    return run.make_context("run", list((start.command or ["run"])[1:]), parent=ctx.parent)


def _is_interactive() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _replayed(start: "RunStart") -> list[str]:
    """The words of a run's line, without flags that held a secret and now have a value in their variable.

    Raises BadJob for any other word that held one: it was not kept whole.
    """
    from ..records import BadJob

    words: list[str | None] = list(start.command or [])
    for at in sorted(set(start.hidden_words) & set(range(len(words)))):
        is_joined = (words[at] or "").startswith("-")  # --system=TEXT, -pTEXT
        flag = (words[at] or "").partition("=")[0] if is_joined else words[at - 1]
        option = next((each for each in run.params if flag in each.opts), None)
        variable = f"PIPELINE_RUN_{option.name}".upper() if option is not None and not option.multiple else ""
        if not os.environ.get(variable):
            line = shlex.join(["pipeline", *(start.shown_command or [])])
            raise BadJob(
                "The last run's line held what looks like a secret, which was not kept. Nothing was sent.\n"
                f"Type the line again in {start.directory}, with the secret in place of ***:\n  {line}\n"
                "No answer is paid for twice. Better keep secrets out of the line: --on-finish '… $NAME …' in single\n"
                "quotes reads a variable, --system @FILE a file."
                + (f" Or put all of {flag} into {variable}, and resume." if variable else "")
            )
        words[at] = None
        if not is_joined:
            words[at - 1] = None
    return [word for word in words if word is not None]


def _words_from_environment(ctx: click.Context) -> list[str]:
    """The flags that PIPELINE_RUN_… variables set, as words: `resume` uses them too, wherever it is typed."""
    words: list[str] = []
    for option in ctx.command.params:
        if ctx.get_parameter_source(option.name or "") is ParameterSource.ENVIRONMENT:
            value = ctx.params[option.name or ""]
            values = value if isinstance(value, tuple) else (value,)
            words += [option.opts[0]] if value is True else [word for v in values for word in (option.opts[0], str(v))]
    return words


def _confirm(question: str) -> bool:
    # polars leaves a signal handler behind with which Ctrl-C would not interrupt the prompt
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return confirm(question)
