"""What every test may ask for."""

import os
import tempfile
import time
from collections.abc import Iterator

import hypothesis
import pytest
from chat_server import ChatServer
from ray_session import RayHere

# how long one example takes says more of what else this machine does than of the code
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


# the secret by which a user's own lines of history are known: not in the home of whoever runs the tests
_state = tempfile.TemporaryDirectory(prefix="state-")
os.environ["XDG_STATE_HOME"] = _state.name


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


@pytest.fixture(scope="session")
def ray_here() -> Iterator[RayHere]:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    from pipeline.execution.ray.start import RaySession, import_ray  # noqa: PLC0415

    variable = "PIPELINE_TEST_RAY_KEY"
    os.environ[variable] = "sk-canary-5417ae0f9b"
    os.environ["RAY_AUTH_MODE"] = "disabled"  # Ray keeps its token to itself, and other processes are to join
    ray = import_ray("")
    own = RaySession(ray)
    own.begin("", workers=4)
    while not own.is_over:
        time.sleep(0.05)
    assert own.error is None, own.error
    yield RayHere(ray.get_runtime_context().gcs_address, own.folder, variable)
    own.end()
    del os.environ[variable]
