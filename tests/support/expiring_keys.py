"""Keys that expire: a command that prints a new one each time it is run, and a server that takes each for a while."""

import time
from pathlib import Path

from chat_server import Canned, Seen, problem


class ExpiringKeys:
    """The keys of a command: `command` is for `endpoint.api_key_command`, `reply` for a ChatServer.

    The server takes the latest key that was printed, until it has been used so many times; then it refuses it.
    """

    def __init__(self, folder: Path, uses: int, *, delay_seconds: float = 0) -> None:
        folder.mkdir(exist_ok=True)
        self.uses, self._runs = uses, folder / "runs"
        # keys are random by their look, so that they are hidden wherever they stand
        script = (
            f'sleep {delay_seconds}; echo x >> "$0"; printf "sk-Zq8WvX3kT9bL4mR%s\\n" "$(wc -l < "$0" | tr -d " ")"'
        )
        self.command = ["sh", "-c", script, str(self._runs)]
        self.refused: list[str] = []  # the prompts of the requests that were refused, in order
        self.left = uses
        self.valid = 1  # the number of the key that is taken

    @property
    def runs(self) -> int:
        """How often the command was run."""
        return len(self._runs.read_text().splitlines()) if self._runs.exists() else 0

    def wait_for_runs(self, count: int) -> None:
        """Return once the command was run so many times."""
        while self.runs < count:
            time.sleep(0.01)

    @staticmethod
    def number_of(header: str) -> int:
        """The number of the key in an `authorization` header."""
        return int(header.removeprefix("Bearer sk-Zq8WvX3kT9bL4mR"))

    def reply(self, seen: Seen, _attempt: int) -> Canned | None:
        """Refuse an expired key, and say it again as some servers do; None for the normal answer."""
        sent = seen.headers["authorization"]
        if self.number_of(sent) == self.valid and not self.left:
            self.valid, self.left = self.valid + 1, self.uses
        if self.number_of(sent) < self.valid:
            self.refused.append(seen.prompt)
            return Canned(401, problem(f"The token {sent} has expired.", code="invalid_api_key"))
        self.left -= 1
        return None
