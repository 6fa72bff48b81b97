"""Start Ray on this machine, or join a cluster; and leave nothing of it running afterwards."""

import asyncio
import os
import secrets
import shutil
import sys
import tempfile
import threading
from typing import Any

from ...job import Job
from ...records import BadJob
from ..context import RunContext

RAYLET_START_SECONDS = "150"
"""How long Ray itself waits for its processes to start, which takes half a minute on two busy cores."""
START_SECONDS_MAX = 240.0
"""How long we wait for Ray to start on this machine."""
JOIN_SECONDS_MAX = 60.0
"""How long we wait to join a cluster."""
CONNECT_SECONDS_MAX = 10.0
"""How long we wait for a connection to a cluster's address, before Ray tries for minutes."""
POLL_SECONDS = 0.05
"""How often we look whether Ray has started."""
OBJECT_STORE_BYTES = 256 * 1024 * 1024
"""The size of Ray's shared memory; requests and events are small."""


def import_ray(address: str) -> Any:  # noqa: ANN401 - a module
    """The module `ray`, with its defaults set for this program. Raises BadJob if it is not installed.

    A Ray on this machine (`address` is empty) gets a random token: it listens on every network address, and whoever may
    speak to it can run any code.
    """
    os.environ.setdefault("RAY_raylet_start_wait_time_s", RAYLET_START_SECONDS)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing but requests leaves this machine
    if not address and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray  # noqa: PLC0415 - takes seconds, and few jobs need it
    except ImportError:
        raise BadJob(
            'run.how = "ray" needs Ray:  pip install "batch-prompt-pipeline[ray]"\nNothing was sent.'
        ) from None
    return ray


class RaySession:
    """A Ray that this process started on its machine, or a cluster that it joined, until `end`."""

    def __init__(self, ray: Any) -> None:  # noqa: ANN401 - a module
        self._ray = ray
        self.folder = ""
        """The temporary folder with Ray's logs; empty in a cluster."""
        self._is_over, self._is_ending = threading.Event(), threading.Event()
        self.error: BaseException | None = None
        """Why the start failed; None if it did not."""

    def begin(self, address: str, workers: int) -> None:
        """Start or join Ray in a daemon thread: it takes half a minute, and nobody need wait for it at exit."""
        threading.Thread(target=self._run, args=(address, workers), daemon=True).start()

    @property
    def is_over(self) -> bool:
        """Whether the start is over, well or with an `error`."""
        return self._is_over.is_set()

    def _run(self, address: str, workers: int) -> None:
        options: dict[str, Any] = {"address": address}
        if not address:
            self.folder = tempfile.mkdtemp(prefix="ray-")
            options = {
                "address": "local",
                "num_cpus": max(workers, os.cpu_count() or 1),
                "include_dashboard": False,
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": self.folder,
                "object_store_memory": OBJECT_STORE_BYTES,
            }
        try:
            self._ray.init(**options, log_to_driver=False, logging_level="ERROR")
        except BaseException as error:  # noqa: BLE001 - the user reads any error of Ray, SystemExit too
            self.error = error
        self._is_over.set()
        self._is_ending.wait()  # Linux kills the processes that a thread started for Ray when the thread ends

    def end(self) -> None:
        """Shut Ray down, or leave the cluster; remove the temporary folder."""
        self._ray.shutdown()
        self._is_ending.set()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


async def start_session(session: RaySession, job: Job, context: RunContext) -> None:
    """Return once Ray has started, or the cluster at `run.address` is joined.

    Raises BadJob if that fails or takes too long, and Stopped if a stop is requested meanwhile.
    """
    address = job.run.address
    if address:
        await _check_address(address)
    else:
        context.say("Starting Ray, which may take half a minute.")
    began, seconds_max = context.clock(), JOIN_SECONDS_MAX if address else START_SECONDS_MAX
    session.begin(address, job.run.workers)
    while not session.is_over:
        await context.pause(POLL_SECONDS)
        if context.stopping is not None:
            raise context.stopping
        if context.clock() - began > seconds_max:
            where = f"the cluster at {address} (run.address)" if address else "this machine"
            raise BadJob(f"Ray on {where} did not answer within {seconds_max:.0f} s.\nNothing was sent.")
    if session.error is not None:
        where = address or "this machine"
        raise BadJob(f"Ray cannot be started at {where} (run.address): {session.error}\nNothing was sent.")


async def _check_address(address: str) -> None:
    """Raise BadJob if nothing listens at a cluster's address."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # a name for Ray to look up, such as `auto`
    try:
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            _, writer = await asyncio.open_connection(host, int(port))
    except (OSError, TimeoutError) as error:
        why = str(error) or f"no answer within {CONNECT_SECONDS_MAX:.0f} s"
        raise BadJob(f"There is no Ray cluster at {address} (run.address): {why}\nNothing was sent.") from None
    writer.close()
