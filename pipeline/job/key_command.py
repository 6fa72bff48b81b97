"""`endpoint.api_key_command`: a command that prints the API key, for keys that live an hour or stand in a vault."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Sequence

from pydantic import SecretStr

from ..records import BadJob
from ..secrecy import hidden_in_program, hidden_in_text
from ..text import one_line

TIMEOUT_SECONDS = 60.0
"""A command that takes longer is killed. `gcloud` and `az` take up to ten seconds on a busy machine."""

KEYS_KEPT = 100
"""How many of the keys given so far are remembered, so that they can be hidden: four days of keys that live an hour."""

SAID_CHARACTERS = 300
"""How much of what a command wrote to stderr is repeated: its end, where the error stands."""

KEY = re.compile(r"[!-~]+")
"""A key: printable ASCII without spaces."""

SHELL_WORDS = frozenset({"|", "||", "&&", ";", "&", ">", ">>", "<", "2>", "2>/dev/null", "2>&1"})
"""Words that mean something to a shell only."""


def command_words(command: str | Sequence[str]) -> list[str]:
    """The words of a command that is given as one text or as a list; empty if none is given.

    Raises ValueError for a text that only a shell would understand, and for words that no program can be given.
    """
    words = shlex.split(command) if isinstance(command, str) else list(command)
    if words and not words[0].strip():
        raise ValueError("the command is empty")
    if any("\0" in word for word in words):
        raise ValueError("the command holds a NUL character")
    if isinstance(command, str) and (not SHELL_WORDS.isdisjoint(words) or "$(" in command or "`" in command):
        raise ValueError('no shell reads the command; for pipes and variables write ["sh", "-c", "…"]')
    return words


class KeyCommand:
    """The command, and the keys that it has given so far."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = [os.path.expanduser(word) for word in words]  # noqa: PTH111 - most words are no paths
        self.shown = hidden_in_program(words)
        """The command line, with `***` for what looks like a secret."""
        self._keys: list[SecretStr] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = False

    @property
    def keys(self) -> list[str]:
        """The keys that the command has given, the latest last."""
        return [key.get_secret_value() for key in self._keys]

    def key(self, *, is_new_run: bool = False) -> SecretStr:
        """The latest key. Runs the command if it was not run yet, and for a new run; raises BadJob if it gives none."""
        if is_new_run or not self._keys:
            self._is_closed = False
            try:
                self.run()
            except BadJob as error:
                raise BadJob(f"{error}\nNothing was sent. Try the command in a terminal.") from None
        return self._keys[-1]

    def run(self, timeout_seconds: float = TIMEOUT_SECONDS) -> SecretStr:
        """Run the command, without a shell, and return the key that it prints. May be called in a thread.

        Raises BadJob, with what the command said, if it fails, is slow or prints no key.
        """
        try:
            # a process group of its own: Ctrl-C in the terminal is for this program, and it is killed as a whole
            process = subprocess.Popen(  # noqa: S603 - whoever writes the job file is trusted with this account
                self._words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
            )
        except OSError as error:
            raise self._failed(f"cannot be started: {error.strerror}") from None
        with process:
            self._process = process
            try:
                if self._is_closed:
                    raise self._failed("was given up")
                printed, said = process.communicate(timeout=timeout_seconds)
            except subprocess.TimeoutExpired:
                raise self._failed(f"did not end within {timeout_seconds:g} s, and was killed") from None
            finally:
                _kill(process)
                self._process = None
        return self._read(process.returncode, printed.decode(errors="replace"), said.decode(errors="replace"))

    def close(self) -> None:
        """Kill the command if it is running: nobody waits for its key any more."""
        self._is_closed = True
        if self._process is not None:
            _kill(self._process)

    def _read(self, exit_code: int, printed: str, said: str) -> SecretStr:
        words = hidden_in_text(one_line(said), [*self.keys, *printed.split()], is_command=True)[-SAID_CHARACTERS:]
        its_words = f" It said: {words}" if words else ""
        if exit_code:
            raise self._failed(f"ended with exit code {exit_code}.{its_words}")
        key = printed.strip()
        if len(key) > 1 and key[0] == key[-1] == '"':  # a JSON string, as `az … --query accessToken` prints it
            key = key[1:-1]
        key = re.sub(r"\Abearer\s+", "", key, flags=re.IGNORECASE)
        if not key:
            raise self._failed(f"printed nothing.{its_words}")
        if not KEY.fullmatch(key):  # it may hold the key, so it is not repeated
            hint = " It printed JSON." if key[0] in "{[" else ""
            raise self._failed(f"printed something else than a key alone.{hint}{its_words}")
        others = [each for each in self._keys if each.get_secret_value() != key]
        self._keys = [*others, SecretStr(key)][-KEYS_KEPT:]
        return SecretStr(key)

    def _failed(self, how: str) -> BadJob:
        return BadJob(f"endpoint.api_key_command: the command  {self.shown}  {how}")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a command that still runs, with all that it started."""
    if process.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
