"""Options that several commands share, and the Job that they describe."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from ..job import Job

F = TypeVar("F", bound=Callable[..., Any])


class SettingOption(click.Option):
    """A flag for one key of the job file; its help is the key's."""

    def __init__(self, *names: Any, setting: str, **attributes: Any) -> None:
        super().__init__(*names, **attributes)
        self.setting = setting

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Read the key's help only when it is shown: that imports pydantic."""
        from ..job import setting_help

        self.help = setting_help(self.setting)
        return super().get_help_record(ctx)


def setting_option(*names: str, setting: str, **attributes: Any) -> Callable[[F], F]:
    """A flag that sets one key of the job file, by its dotted name."""
    return click.option(*names, cls=SettingOption, setting=setting, **attributes)


def question_options(command: F) -> F:
    """The inputs, and the flags that decide what is asked of them."""
    flags = [
        click.argument("inputs", nargs=-1, required=True, metavar="INPUT..."),
        click.option("-c", "--config", type=click.Path(path_type=Path), help="the job file (TOML)"),
        setting_option("-p", "--prompt", setting="prompt.template", metavar="TEXT|@FILE"),
        setting_option("--system", setting="prompt.system", metavar="TEXT|@FILE"),
        setting_option("-m", "--model", setting="endpoint.model"),
        setting_option("--base-url", setting="endpoint.base_url"),
        click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="any key of the job file"),
    ]
    return _with(flags, command)


def limit_options(command: F) -> F:
    """The limits that a run begins with, and that `tune` changes while it runs."""
    flags = [
        setting_option("--concurrency", setting="limits.concurrency", metavar="N|auto"),
        setting_option("--rpm", setting="limits.requests_per_minute", type=float),
        setting_option("--tpm", setting="limits.tokens_per_minute", type=float),
        setting_option("--max-cost", setting="limits.max_cost", type=float),
    ]
    return _with(flags, command)


def _with(flags: Sequence[Callable[[F], F]], command: F) -> F:
    for flag in reversed(flags):
        command = flag(command)
    return command


JOB = click.argument("job", metavar="JOB")
JOB_DIR = click.option(
    "--job-dir", type=click.Path(path_type=Path), help="the job folder, which keeps the answers (default: OUTPUT.job)"
)
LIMIT = click.option("--limit", type=click.IntRange(1), help="only the first N rows")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="as JSON, for scripts")
ANSWER = click.option("--answer", metavar="COLUMN", help="the column of answers; default: the label, or the only one")
RETRY = click.option("--retry", metavar="STATUS,…", default="", help="ask these again: failed,invalid,truncated")
YES = click.option(
    "--yes", is_flag=True, help="agree to what a changed setting or a damaged store costs, or to another user's line"
)


def job_from(flags: Mapping[str, Any], directory: Path | None = None, stdin: str | None = None) -> "Job":
    """Make the Job that a command line describes. Raises BadJob for whatever is wrong with it.

    `directory`: the folder that paths on the command line are relative to; default: the current one. `stdin`: a file
    to read in place of standard input or another pipe, for a line that is run again.
    """
    from ..job import Job, ThisRun, parse_setting
    from ..paths import is_stream

    settings = dict(parse_setting(text) for text in flags["settings"]) | settings_from(flags, directory)
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
    from_pipe = [name == "-" or is_stream((directory or Path()) / name) for name in flags["inputs"]]
    inputs = [stdin if stdin and gone else name for name, gone in zip(flags["inputs"], from_pipe, strict=True)]
    return Job.load(
        inputs,
        flags.get("output"),
        config=flags["config"],
        settings=settings,
        this_run=this_run,
        directory=directory or Path(),
    )


def settings_from(flags: Mapping[str, Any], directory: Path | None = None) -> dict[str, Any]:
    """The values of the flags that set a single key, by dotted name."""
    settings: dict[str, Any] = {}
    for option in click.get_current_context().command.params:
        value = flags.get(option.name or "")
        if isinstance(option, SettingOption) and value is not None:
            is_text = option.setting.startswith("prompt.")
            settings[option.setting] = _text_or_file(value, directory or Path()) if is_text else value
    if str(settings.get("limits.concurrency", "")).isdigit():
        settings["limits.concurrency"] = int(settings["limits.concurrency"])
    return settings


def _text_or_file(value: str, directory: Path) -> str:
    """TEXT as it is, @FILE as the file's text."""
    from ..paths import read_text
    from ..records import BadJob

    if not value.startswith("@"):
        return value
    try:
        return read_text(directory / value[1:])
    except (OSError, ValueError) as error:
        raise BadJob(f"{value}: cannot be read: {error}\nNothing was sent.") from None


def _statuses(text: str) -> tuple[Any, ...]:
    from ..records import RETRYABLE, BadJob

    wanted = tuple(word.strip() for word in text.split(",") if word.strip())
    for word in wanted:
        if word not in RETRYABLE:
            raise BadJob(f"--retry {word}: there are {', '.join(RETRYABLE[:-1])} and {RETRYABLE[-1]}.")
    return wanted
