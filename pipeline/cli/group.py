"""The command group: commands in sections of `--help`, and the exit codes of what they raise."""

import re
import sys
from pathlib import Path
from typing import Any

import click

from ..version import __version__
from .screen import patient_stderr, print_message, replace_what_the_screen_lacks

SECTIONS = {
    "Start": ("init", "preview", "estimate", "run", "resume"),
    "Watch": ("status", "tune", "stop"),
    "Results": ("show", "export", "score", "compare", "report", "history"),
}
"""The sections of `pipeline --help`, with their commands in order."""

NOT_UTF8 = re.compile("[\ud800-\udfff]")
"""Where Python found bytes on the command line that are not of the locale's encoding."""


class Command(click.Command):
    """One command, which is given text only: names and words that are not UTF-8 end it before it begins."""

    def invoke(self, ctx: click.Context) -> Any:
        """Check the words, then do what they say."""
        values = [each for value in ctx.params.values() for each in (value if isinstance(value, tuple) else (value,))]
        for word in (str(each) for each in values if isinstance(each, str | Path)):
            if NOT_UTF8.search(word):
                from ..paths import check_name

                check_name(word)
        return super().invoke(ctx)


class Commands(click.Group):
    """Lists commands by section, and turns BadJob, Stopped and Ctrl-C into a message and an exit code."""

    command_class = Command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """List the commands section by section."""
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(80)) for name in names])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Make the screen ready, then do what the words say; a disk or a screen that fails is told in a line."""
        replace_what_the_screen_lacks()
        try:
            return super().main(*args, **kwargs)
        except OSError as error:  # but not of a pipe such as `| head` that has read enough: click ends quietly
            print_message(f"Error: {error}")
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; print what it raises on stderr and exit with the code that belongs to it."""
        with patient_stderr():
            return self._invoke(ctx)

    def _invoke(self, ctx: click.Context) -> Any:
        from ..records import BadJob, Exit, Stopped

        try:
            return super().invoke(ctx)
        except (BadJob, Stopped) as end:
            print_message(f"{'Stopped' if isinstance(end, Stopped) else 'Error'}: {end}")
            ctx.exit(end.exit_code if isinstance(end, Stopped) else Exit.USAGE)
        except (KeyboardInterrupt, click.Abort):
            print_message("Interrupted. Every answer so far is kept; the same line goes on from here.")
            ctx.exit(Exit.SIGINT)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "PIPELINE"})
@click.version_option(__version__, message="%(version)s")
def main() -> None:
    """Ask a model one question of every row of a table.

    Nothing that was answered is asked, or paid for, twice: the same command resumes. Begin with: pipeline init TABLE
    """
