"""A key from a command (`endpoint.api_key_command`) is renewed when the endpoint refuses it after it had worked.

One run of the command serves all requests that are in flight. A request that was refused for its old key is sent again
with the new one; to the caller that is one attempt. If the command gives the same key, or the new key is refused at
once, the refusal is returned as it came.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence

import httpx
from pydantic import SecretStr

from ..job import Endpoint, KeyCommand
from ..records import BadJob, Rejection, Reply, Stopped
from .replies import read_reply

WAITS_SECONDS = (0.0, 2.0, 15.0)
"""How long to wait before each try to run the command: one failure, as of a network, must not end the night's run."""

OLD_SECONDS = 60.0
"""A key that is older may have expired before it was used, or while the endpoint was down."""

SAME_KEY_SECONDS = 60.0
"""After the command gave the same key again, it is not run for so long: it keeps keys, and others are refused."""

EXPIRED = re.compile(
    r"(?:token|key|credentials?|jwt)\b.{0,40}\b(?:expired|invalid|not valid)"
    r"|(?:expired|invalid)\b.{0,40}\b(?:token|key|credentials?|jwt)\b",
    re.IGNORECASE,
)
"""What a 403 or a 400 says of a key that has expired: Databricks' "Invalid Token", Gemini's "API key expired"."""


class KeyRenewal:
    """Sends attempts with the latest key of a command, and has the command run again when that key has expired."""

    def __init__(
        self,
        command: KeyCommand,
        use: Callable[[SecretStr], None],
        waits_seconds: Sequence[float] = WAITS_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`use`: called with each new key, which attempts are to carry from then on."""
        self._command, self._use, self._waits_seconds, self._clock = command, use, waits_seconds, clock
        self._number = 0
        """The number of the key in use, counted from the first."""
        self._has_worked = False
        """Whether the endpoint has accepted the key in use."""
        self._got_at = clock()
        """When the key in use was given."""
        self._not_before = 0.0
        """When the command may be run again, on the clock."""
        self._renewing: asyncio.Task[None] | None = None

    async def send(self, attempt: Callable[[], Awaitable[Reply]]) -> Reply:
        """Make an attempt; once more, with another key, if its key was refused and there is a new one.

        While the command runs, nothing is sent. Raises Stopped if the command fails.
        """
        if self._renewing is not None:
            await asyncio.shield(self._renewing)
        number = self._number
        reply = await attempt()
        if is_key_refused(reply) and await self._has_newer(number):
            number = self._number
            reply = await attempt()
        if 200 <= reply.status < 300 and number == self._number:
            self._has_worked = True
        return reply

    async def close(self) -> None:
        """Wait for the command no longer."""
        if (renewing := self._renewing) is not None:
            self._command.close()
            renewing.cancel()
            await asyncio.wait({renewing})

    async def _has_newer(self, number: int) -> bool:
        """Whether there is a newer key than the one of this number; the command is run for it, if that may help."""
        if number != self._number:
            return True
        if self._renewing is None:
            is_old = self._clock() >= self._got_at + OLD_SECONDS  # it may have expired before it was used
            if not (self._has_worked or is_old) or self._clock() < self._not_before:
                return False
            self._renewing = asyncio.create_task(self._renew())
            self._renewing.add_done_callback(_look_at)
        await asyncio.shield(self._renewing)
        return number != self._number

    async def _renew(self) -> None:
        """Run the command until it gives a key, and use it if it is a new one."""
        known = self._command.keys
        try:
            key = await self._key()
        finally:
            self._renewing = None
        if key.get_secret_value() in known:
            self._not_before = self._clock() + SAME_KEY_SECONDS
            return
        self._number += 1
        self._got_at = self._clock()
        self._has_worked = False
        self._use(key)

    async def _key(self) -> SecretStr:
        failed: BadJob | None = None
        for seconds in self._waits_seconds:
            await asyncio.sleep(seconds)
            try:
                return await asyncio.to_thread(self._command.run)
            except BadJob as error:
                failed = error
        raise Stopped(
            f"the key has expired, and no new one was given.\n{failed}\n"
            "Once the command works again, type the same line."
        )


def renewal_of(endpoint: Endpoint, headers: httpx.Headers, hide: Callable[[SecretStr], None]) -> KeyRenewal | None:
    """The renewal of the key that stands in these headers; None if the key is from no command.

    `hide`: called with each new key, which is to be hidden in replies from then on.
    """
    if endpoint.key_command is None:
        return None

    def use(newer: SecretStr) -> None:
        headers["authorization"] = f"Bearer {newer.get_secret_value()}"
        hide(newer)

    return KeyRenewal(endpoint.key_command, use)


def is_key_refused(reply: Reply) -> bool:
    """Whether an endpoint refuses the key of a request: with a 401, or with words that the key has expired."""
    if reply.status not in (400, 401, 403):
        return False
    if reply.status == 401:
        return True
    result = read_reply(reply)
    if not isinstance(result, Rejection) or result.kind not in ("auth", "forbidden"):
        return False
    return EXPIRED.search(result.message) is not None


def _look_at(task: asyncio.Task[None]) -> None:
    """Take note of the error of a task that nobody waits for any more, so that asyncio does not report it."""
    if not task.cancelled():
        task.exception()
