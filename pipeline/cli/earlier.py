"""What an earlier command line does, and the question before one is run again that somebody else may have written."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import SettingOption
from .screen import print_message

if TYPE_CHECKING:
    from ..folder import RunStart


def uses_of_line(line: click.Context, directory: Path, table: str) -> list[str]:
    """All that a parsed `run` line would run, read, reach and write, each as a line for a person.

    `directory`: the folder that its paths are relative to. `table`: what it reads in place of standard input. Raises
    BadJob if its job file cannot be read.
    """
    from ..job import parse_setting, uses_of

    flags = line.params
    given = {
        option.setting: flags[option.name or ""]
        for option in line.command.params
        if isinstance(option, SettingOption) and flags.get(option.name or "") is not None
    }
    files = [str(given[name])[1:] for name in ("prompt.template", "prompt.system") if _is_file(given.get(name))]
    config = [] if flags["config"] is None else [flags["config"]]
    read = [table if name == "-" else directory / name for name in (*flags["inputs"], *config, *files)]
    settings = dict(parse_setting(text) for text in flags["settings"]) | given
    return [
        *([f"runs the command {flags['on_finish']}"] if flags["on_finish"] else []),
        *(f"reads {Path(path).absolute()}" for path in read),
        *uses_of(directory / config[0] if config else None, settings, directory),
        f"writes {(directory / flags['output']).absolute()}",
    ]


def ask_before(
    what: str,
    words: list[str],
    uses: list[str],
    confirm: Callable[[str], bool] | None,
    *,
    assume_yes: bool,
) -> None:
    """Show a line that may be another's, and what it does; return if a person agrees, or `assume_yes`.

    `what` says whose line it is. `confirm`: asks a person; None off a terminal. Raises BadJob unless it is agreed to.
    """
    from ..records import BadJob
    from ..text import one_line, printable

    shown = "\n  ".join([one_line(shlex.join(["pipeline", *words])), *(f"· {one_line(use)}" for use in uses)])
    text = f"{what}\nThis is its line, and what of it needs your trust:\n  {shown}"
    if assume_yes:
        print_message(f"{text}\nIt is run, as --yes agrees to it.")
    elif confirm is None:
        raise BadJob(f"{text}\nIf you trust all of it, add --yes. Nothing was sent or run.")
    elif not confirm(f"{printable(text)}\nDo you trust all of it, and run it?"):
        raise BadJob("Not started: nothing was sent or run. Your own `run` line, with --job-dir, needs no trust.")


def whose_line(start: "RunStart", folder: Path) -> str:
    """Say who wrote the latest line of a history, as far as it can be known."""
    from ..folder import can_mark
    from ..text import clip, one_line

    by = clip(one_line(f"{start.user}@{start.host}"), 80)
    uid = "" if start.uid is None else f", user id {start.uid}"
    said = f"(its history says: {by}{uid})"
    if can_mark():
        return (
            f"The last run of {folder} has no mark of yours {said}: another user, another machine, or an older "
            "version of pipeline may have started it."
        )
    return (
        f"Whether you started the last run of {folder} cannot be known {said}: no mark of yours can be kept here. Set "
        "XDG_STATE_HOME to a folder of yours that stays, and the runs from then on are known."
    )


def _is_file(value: object) -> bool:
    return isinstance(value, str) and value.startswith("@")
