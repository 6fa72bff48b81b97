"""The command line as a person types it."""

import os
import pty
import subprocess
import sys

from chat_server import ChatServer
from click.testing import CliRunner

from pipeline.cli.group import main

PIPELINE = (sys.executable, "-m", "pipeline")


def typed(*words: str, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, in this process where nothing is piped into it: to start Python and polars takes a second."""
    if stdin is None:
        done = CliRunner(env=environment).invoke(main, words, catch_exceptions=False, prog_name="pipeline")
        return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)
    return subprocess.run(
        [*PIPELINE, *words],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )


def typed_on_a_terminal(*words: str, answer: bytes) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, whose standard input is a terminal where this answer is typed."""
    leader, follower = pty.openpty()
    try:
        os.write(leader, answer)
        return subprocess.run(
            [*PIPELINE, *words], stdin=follower, capture_output=True, text=True, check=False, timeout=60
        )
    finally:
        os.close(follower)
        os.close(leader)


def asking(server: ChatServer) -> list[str]:
    return ["--base-url", server.url, "-m", "m", "-p", "Say {{ q }}"]
