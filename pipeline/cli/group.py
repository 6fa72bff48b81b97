"""The command group: commands in sections of `--help`, and the exit codes of what they raise."""

import errno
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


class Commands(click.Group):
    """Lists commands by section, and turns BadJob, Stopped and Ctrl-C into a message and an exit code."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """List the commands section by section."""
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(80)) for name in names])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Make the screen ready, then do what the words say."""
        replace_what_the_screen_lacks()
        return super().main(*args, **kwargs)

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
        except OSError as error:
            if error.errno == errno.EPIPE:  # such as `| head` when it has read enough; click ends quietly
                raise
            print_message(f"Error: {error}")
            ctx.exit(Exit.NEEDS_PERSON)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "PIPELINE"})
@click.version_option(__version__, message="%(version)s")
def main() -> None:
    """Ask a model one question of every row of a table.

    Nothing that was answered is asked, or paid for, twice: the same command resumes. Begin with: pipeline init TABLE
    """
