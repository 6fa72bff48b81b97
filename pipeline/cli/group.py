"""The command line: each command makes a Job, calls the function of its own name, and says what happened."""

import contextlib
import errno
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from ..version import __version__

if TYPE_CHECKING:
    from ..job import Job

F = TypeVar("F", bound=Callable[..., Any])

GROUPS = {
    "Start": ("init", "preview", "estimate", "run", "resume"),
    "Watch": ("status", "tune", "stop"),
    "Results": ("show", "export", "score", "compare", "report", "history"),
}

REDRAW_SECONDS = 2.0


class Commands(click.Group):
    """The commands in groups; and what a bad job, a stopped one and Ctrl-C exit with."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """List the commands as a person meets them."""
        for title, names in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(80)) for name in names])

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click has it
        """Turn what a command raises into a message on stderr and an exit code."""
        from ..records import BadJob, Exit, Stopped  # noqa: PLC0415 - `--help` does without

        if sys.stderr is None:  # closed by who started us: there is nobody to tell, and the job goes on
            sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for as long as we live
        try:
            return super().invoke(ctx)
        except (BadJob, Stopped) as end:
            _tell(f"{'Stopped' if isinstance(end, Stopped) else 'Error'}: {end}")
            ctx.exit(end.exit_code if isinstance(end, Stopped) else Exit.USAGE)
        except (KeyboardInterrupt, click.Abort):
            _tell("Interrupted. Every answer so far is kept; the same line goes on from here.")
            ctx.exit(Exit.SIGINT)
        except OSError as error:
            if error.errno == errno.EPIPE:  # `| head` has seen enough; click ends quietly
                raise
            _tell(f"Error: {error}")
            ctx.exit(Exit.NEEDS_PERSON)


class Remembered(click.Command):
    """A command that knows the words it was called with, for `resume`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the words as they were typed."""
        ctx.meta["words"] = [self.name or "", *args]
        return super().parse_args(ctx, args)


class Setting(click.Option):
    """A flag for one key of the job file; its help is that of the key."""

    def __init__(self, *names: Any, setting: str, **attributes: Any) -> None:  # noqa: ANN401 - as click has it
        super().__init__(*names, **attributes)
        self.setting = setting

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The help is read when it is asked for: it takes pydantic to import it."""
        from ..job import setting_help  # noqa: PLC0415 - `pipeline --help` does without

        self.help = setting_help(self.setting)
        return super().get_help_record(ctx)


def _setting(*names: str, setting: str, **attributes: Any) -> Callable[[F], F]:  # noqa: ANN401 - as click has it
    return click.option(*names, cls=Setting, setting=setting, **attributes)


def asking(command: F) -> F:
    """The flags that say what is asked: those of `run`, `preview` and all that come before them."""
    flags = [
        click.argument("inputs", nargs=-1, required=True, metavar="INPUT..."),
        click.option("-c", "--config", type=click.Path(path_type=Path), help="the job file (TOML)"),
        _setting("-p", "--prompt", setting="prompt.template", metavar="TEXT|@FILE"),
        _setting("--system", setting="prompt.system", metavar="TEXT|@FILE"),
        _setting("-m", "--model", setting="endpoint.model"),
        _setting("--base-url", setting="endpoint.base_url"),
        click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="any key of the job file"),
    ]
    return _with(flags, command)


def limits(command: F) -> F:
    """The flags of the limits that a run begins with, and may be tuned by as it goes."""
    flags = [
        _setting("--concurrency", setting="limits.concurrency", metavar="N|auto"),
        _setting("--rpm", setting="limits.requests_per_minute", type=float),
        _setting("--tpm", setting="limits.tokens_per_minute", type=float),
        _setting("--max-cost", setting="limits.max_cost", type=float),
    ]
    return _with(flags, command)


def _with(flags: Sequence[Callable[[F], F]], command: F) -> F:
    for flag in reversed(flags):
        command = flag(command)
    return command


JOB = click.argument("job", metavar="JOB")
JOB_DIR = click.option(
    "--job-dir", type=click.Path(path_type=Path), help="where answers are kept (default: OUTPUT.job)"
)
LIMIT = click.option("--limit", type=click.IntRange(1), help="only so many rows, the first ones")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="as JSON, for scripts")
ANSWER = click.option("--answer", metavar="COLUMN", help="the answers' column; default: the label, or the only one")
RETRY = click.option("--retry", metavar="STATUS,…", default="", help="ask these again: failed,invalid,truncated")
YES = click.option("--yes", is_flag=True, help="agree to what a changed setting, or a damaged store, costs")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "PIPELINE"})
@click.version_option(__version__, message="%(version)s")
def main() -> None:
    """Ask a model one question of every row of a table.

    Nothing answered is ever asked, or paid, twice: the same command resumes. Begin with: pipeline init TABLE
    """


@main.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("-o", "--output", type=click.Path(path_type=Path), default="job.toml", show_default=True)
@_setting("-m", "--model", setting="endpoint.model")
@_setting("--base-url", setting="endpoint.base_url")
def init(inputs: tuple[str, ...], output: Path, model: str | None, base_url: str | None) -> None:
    """Write a job file from the table's columns.

    And show the first requests that it makes. Never sends.
    """
    from ..job import Job  # noqa: PLC0415
    from ..runs import preview_requests, write_job_file  # noqa: PLC0415 - `--help` does without

    write_job_file(inputs, output, base_url, model)
    words = shlex.join([*inputs, "-c", str(output)])
    next_steps = (
        f"Change it as you like, then:\n  pipeline preview {words}\n  pipeline estimate {words}\n  pipeline run {words}"
    )
    try:
        _print(preview_requests(Job.load(inputs, config=output), 2))
    finally:  # whatever is not right yet is told with its line
        _tell(f"Wrote {output}. {next_steps} -o OUTPUT.csv --sample 20")


@main.command()
@asking
@click.option("-o", "--output", type=click.Path(path_type=Path), help="an output that was begun: its answers count")
@JOB_DIR
@LIMIT
@RETRY
@limits
def estimate(**flags: Any) -> None:  # noqa: ANN401 - click's own values
    """Tell what a run would ask, use, cost and take. Never sends, and writes nothing."""
    from ..runs import estimate_job, estimate_text  # noqa: PLC0415 - `--help` does without

    job = _job(flags)
    _print(estimate_text(job, estimate_job(job)))


@main.command()
@asking
@click.option("-n", "rows", type=click.IntRange(1), default=3, show_default=True, help="how many rows")
def preview(rows: int, **flags: Any) -> None:  # noqa: ANN401 - click's own values
    """Show the first requests as they would be sent. Never sends."""
    from ..runs import preview_requests  # noqa: PLC0415 - `--help` does without

    _print(preview_requests(_job(flags), rows))


@main.command(cls=Remembered)
@asking
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="the table; its suffix says its format"
)
@JOB_DIR
@LIMIT
@click.option("--sample", type=click.IntRange(1), help="a pilot: so many random rows, shown; what the rest costs")
@limits
@_setting("--max-runtime", setting="limits.max_runtime")
@click.option("--no-wait", is_flag=True, help='with run.how = "batch": send what can be, fetch what is done, and end')
@click.option("--wait-for-endpoint", is_flag=True, help="wait for an endpoint that is down, or that asks to wait long")
@RETRY
@YES
@click.option(
    "--on-finish", metavar="COMMAND", help="run this in the shell at the end, the summary as JSON on its stdin"
)
@click.option("-q", "--quiet", is_flag=True, help="silent unless something needs a person")
@click.option("-v", "--verbose", is_flag=True, help="tell every refusal")
@click.pass_context
def run(ctx: click.Context, /, **flags: Any) -> None:  # noqa: ANN401 - click's own values
    """Ask what is not yet known of INPUT, and write OUTPUT.

    INPUT: CSV, TSV (.gz, .zst), Parquet, NDJSON or Arrow files, globs, or - for standard input.
    """
    from ..results import show_rows  # noqa: PLC0415 - `--help` does without
    from ..runs import run, run_on_finish, signals_raised, summary_text  # noqa: PLC0415 - as above

    resumed: dict[str, Any] = ctx.obj or {}
    job = _job(flags, stdin=resumed.get("stdin"))
    asked_of_a_person = sys.stdin is not None and sys.stdin.isatty()
    command = resumed.get("command") or [*ctx.meta["words"], *_from_environment(ctx)]
    with signals_raised() as ignore_more:
        summary = run(job, confirm=_confirm if asked_of_a_person else None, command=command)
        if summary.exit_code > 128:
            ignore_more()
        if job.this_run.sample is not None and summary.wrote:
            _print(show_rows(job.folder, status=None, row=None, most=20))
        if not flags["quiet"] or summary.exit_code:
            _tell(summary_text(job, summary))
        if flags["on_finish"] and (wrong := run_on_finish(flags["on_finish"], job, summary)):
            _tell(f"--on-finish: {wrong}: {flags['on_finish']}")
    ctx.exit(summary.exit_code)


@main.command()
@JOB
@RETRY
@YES
@click.pass_context
def resume(ctx: click.Context, job: str, retry: str, yes: bool) -> None:  # noqa: FBT001 - a flag
    """Run the last run's line again. JOB: an output, or its job folder."""
    from ..folder import find_job_folder, last_start  # noqa: PLC0415 - `--help` does without
    from ..job import default_job_folder  # noqa: PLC0415
    from ..records import BadJob  # noqa: PLC0415

    folder = find_job_folder(job)
    began = last_start(folder)
    if began is None or began.command is None:
        raise BadJob(f"{job}: this job was last run from Python; run it there again.")
    try:
        os.chdir(began.directory)
    except OSError as error:
        raise BadJob(
            f"{began.directory}, where the last run was started, cannot be entered: {error.strerror}."
        ) from None
    extra = [*(["--retry", retry] if retry else []), *(["--yes"] if yes else [])]
    if folder != default_job_folder(Path(began.output)):  # named, or moved: a new one beside the output would pay again
        extra += ["--job-dir", str(folder)]
    with run.make_context("run", [*began.command[1:], *extra], parent=ctx.parent) as again:
        again.obj = {"command": began.command, "stdin": began.table}
        run.invoke(again)


@main.command()
@JOB
@click.option("--watch", is_flag=True, help="again every 2 s, until the run has ended")
@AS_JSON
def status(job: str, watch: bool, as_json: bool) -> None:  # noqa: FBT001 - flags
    """Tell where a job stands: running, stopped or dead. JOB: an output, or its job folder.

    Reads alone: it disturbs nothing. Exit code 0 if it could tell, 2 if there is no such job.
    The README names the keys of --json.
    """
    from ..results import job_status, status_text  # noqa: PLC0415 - `--help` does without
    from ..text import printable  # noqa: PLC0415

    redraws = watch and not as_json and sys.stdout.isatty()
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            standing = job_status(job)
            text = _json_text(standing) if as_json else printable(status_text(standing))
            click.echo(f"\x1b[H\x1b[J{text}" if redraws else text)
            if not watch or standing.state not in ("preparing", "running", "stopping", "unknown"):
                break
            time.sleep(REDRAW_SECONDS)


@main.command()
@JOB
@limits
def tune(job: str, **flags: Any) -> None:  # noqa: ANN401 - click's own values
    """Change the limits of a running job. JOB: an output, or its job folder.

    From a second terminal. They hold until that run ends.
    """
    from ..folder import find_job_folder  # noqa: PLC0415
    from ..job import Limits  # noqa: PLC0415
    from ..records import BadJob  # noqa: PLC0415
    from ..runs import send_order  # noqa: PLC0415

    limits = {name.removeprefix("limits."): value for name, value in _settings(flags).items()}
    if not limits:
        raise BadJob("Name a limit: --concurrency, --rpm, --tpm or --max-cost. Nothing was changed.")
    Limits().tuned(limits)
    _tell(send_order(find_job_folder(job), limits=limits))


@main.command()
@JOB
def stop(job: str) -> None:
    """Stop a running job gently. JOB: an output, or its job folder.

    From a second terminal: what is in flight may land, then the run writes its output as far as it is known, and exits
    with 4. Said again, it waits for nothing in flight.
    """
    from ..folder import find_job_folder  # noqa: PLC0415
    from ..runs import send_order  # noqa: PLC0415

    _tell(send_order(find_job_folder(job), stop=True))


@main.command()
@JOB
@AS_JSON
def history(job: str, as_json: bool) -> None:  # noqa: FBT001 - a flag
    """List every run: when, who, what changed, what came of it. JOB: an output, or its job folder."""
    from ..results import history_text, job_history  # noqa: PLC0415 - `--help` does without
    from ..text import printable  # noqa: PLC0415

    runs = job_history(job)
    click.echo(_json_text(runs) if as_json else printable("\n".join(history_text(runs))))


@main.command()
@JOB
@click.option("--status", metavar="STATUS", help="only rows of this status, such as failed")
@click.option("--row", type=click.IntRange(1), help="one row, counted from 1")
@click.option("-n", "most", type=click.IntRange(1), default=20, show_default=True, help="how many rows")
def show(job: str, status: str | None, row: int | None, most: int) -> None:
    """Show prompts, answers and errors as text. JOB: an output, or its job folder."""
    from ..records import STATUSES, BadJob  # noqa: PLC0415 - `--help` does without
    from ..results import show_rows  # noqa: PLC0415 - `--help` does without

    if status is not None and status not in STATUSES:
        raise BadJob(f"--status {status}: there are {', '.join(STATUSES)}.")
    _print(show_rows(job, status=status, row=row, most=most))


@main.command()
@JOB
@click.option("-o", "--output", type=click.Path(path_type=Path), help="another table than the job's own")
@click.option("--for-excel", is_flag=True, help="a byte order mark before CSV, by which Excel knows that it is UTF-8")
@click.option(
    "--escape-formulas", is_flag=True, help="an apostrophe before text that begins with = + - @, a tab or a CR"
)
def export(job: str, output: Path | None, for_excel: bool, escape_formulas: bool) -> None:  # noqa: FBT001 - flags
    """Write the table as far as it is known. JOB: an output, or its job folder."""
    from ..results import export_table  # noqa: PLC0415 - `--help` does without
    from ..tables import SpreadsheetOptions  # noqa: PLC0415 - `--help` does without

    path, tally = export_table(
        job, output, SpreadsheetOptions(byte_order_mark=for_excel, escape_formulas=escape_formulas)
    )
    _tell(f"Wrote {path}: {tally.rows - tally.pending:,} of {tally.rows:,} rows have an outcome.")


@main.command()
@JOB
@click.option("--gold", required=True, metavar="COLUMN", help="the input's column that holds what is right")
@ANSWER
@click.option("--by", metavar="COLUMN", help="the accuracy for each value of a column, too")
@click.option(
    "--review", type=click.Path(path_type=Path), help="a table to write: wrong and least sure rows, worst first"
)
@click.option("-n", "most", type=click.IntRange(1), default=1000, show_default=True, help="how many rows to review")
@AS_JSON
def score(job: str, as_json: bool, **asked: Any) -> None:  # noqa: ANN401, FBT001 - click's own values, a flag
    """Score the answers against gold. JOB: an output, or its job folder."""
    from ..evaluation import as_json as json_of  # noqa: PLC0415 - `--help` does without
    from ..evaluation import review_text, score_job, scored_text  # noqa: PLC0415 - as above

    scored = score_job(job, **asked)
    _print(json_of(scored) if as_json else scored_text(scored, _width()))
    if asked["review"] is not None:
        _tell(review_text(scored, asked["review"], asked["most"]))


@main.command()
@click.argument("jobs", metavar="JOB JOB", nargs=2)
@click.option("--gold", metavar="COLUMN", help="an input's column that holds what is right: which job is better?")
@ANSWER
@click.option("--key", metavar="COLUMN", help="a column that tells rows apart, where the inputs are not the same")
@AS_JSON
def compare(jobs: tuple[str, str], as_json: bool, **asked: Any) -> None:  # noqa: ANN401, FBT001 - as above
    """Compare two jobs' answers to the same rows. JOB: an output, or its job folder."""
    from ..evaluation import as_json as json_of  # noqa: PLC0415 - `--help` does without
    from ..evaluation import compare_jobs, compared_text  # noqa: PLC0415 - as above

    compared = compare_jobs(*jobs, **asked)
    _print(json_of(compared) if as_json else compared_text(compared, _width()))


@main.command()
@JOB
@click.option("-o", "--output", type=click.Path(path_type=Path), help="the page (default: OUTPUT.report.html)")
@click.option("--gold", metavar="COLUMN", help="the input's column of right answers, to hold the labels against")
def report(job: str, output: Path | None, gold: str | None) -> None:
    """Write one HTML page of what came out. JOB: an output, or its job folder."""
    from ..report import write_report  # noqa: PLC0415 - `--help` does without

    _tell(f"Wrote {write_report(job, output, gold=gold)}: one page, to be opened in any browser. Nothing was sent.")


def _job(flags: Mapping[str, Any], stdin: str | None = None) -> "Job":
    """The Job that a command line asks for. `stdin`: a file to read in its place, for a line that is run again."""
    from ..job import Job, ThisRun, parse_setting  # noqa: PLC0415

    settings = {**dict(parse_setting(text) for text in flags["settings"]), **_settings(flags)}
    this_run = ThisRun(
        limit=flags.get("limit"),
        sample=flags.get("sample"),
        job_dir=flags.get("job_dir"),
        retry=_statuses(flags.get("retry") or ""),
        assume_yes=flags.get("yes", False),
        no_wait=flags.get("no_wait", False),
        wait_for_endpoint=flags.get("wait_for_endpoint", False),
        verbosity=int(flags.get("verbose", False)) - int(flags.get("quiet", False)),
    )
    inputs = [stdin if name == "-" and stdin else name for name in flags["inputs"]]
    return Job.load(inputs, flags.get("output"), config=flags["config"], settings=settings, this_run=this_run)


def _settings(flags: Mapping[str, Any]) -> dict[str, Any]:
    """What the flags of single settings say, by dotted name."""
    settings: dict[str, Any] = {}
    for option in click.get_current_context().command.params:
        value = flags.get(option.name or "")
        if isinstance(option, Setting) and value is not None:
            settings[option.setting] = _text(value) if option.setting.startswith("prompt.") else value
    if str(settings.get("limits.concurrency", "")).isdigit():
        settings["limits.concurrency"] = int(settings["limits.concurrency"])
    return settings


def _print(texts: Iterable[str]) -> None:
    for text in texts:
        click.echo(text)


def _width() -> int:
    """The columns of the terminal; 80 where there is none."""
    return shutil.get_terminal_size().columns


def _json_text(record: object) -> str:
    import msgspec  # noqa: PLC0415 - `--help` does without

    return msgspec.json.encode(record).decode()


def _from_environment(ctx: click.Context) -> list[str]:
    """The flags that PIPELINE_RUN_… set, as words: `resume` goes by them too, wherever it is typed."""
    words: list[str] = []
    for option in ctx.command.params:
        if ctx.get_parameter_source(option.name or "") is ParameterSource.ENVIRONMENT:
            value = ctx.params[option.name or ""]
            values = value if isinstance(value, tuple) else (value,)
            words += [option.opts[0]] if value is True else [word for v in values for word in (option.opts[0], str(v))]
    return words


def _confirm(question: str) -> bool:
    # polars leaves a handler behind with which Ctrl-C would not interrupt the waiting for an answer
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return click.confirm(question, err=True)


def _tell(text: str) -> None:
    """A message on stderr; if nobody can read it, that does not change how a run ended."""
    from ..text import printable  # noqa: PLC0415 - `--help` does without

    with contextlib.suppress(OSError):
        click.echo(printable(text), err=True)  # it may hold the name of a file or a column


def _statuses(text: str) -> tuple[Any, ...]:
    from ..records import RETRYABLE, BadJob  # noqa: PLC0415

    wanted = tuple(word.strip() for word in text.split(",") if word.strip())
    for word in wanted:
        if word not in RETRYABLE:
            raise BadJob(f"--retry {word}: there are failed, invalid, truncated, filtered and refused.")
    return wanted


def _text(value: str) -> str:
    """TEXT as it is, @FILE as the file's text."""
    from ..records import BadJob  # noqa: PLC0415

    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadJob(f"{value}: cannot be read: {error}\nNothing was sent.") from None
