"""What every test may ask for."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

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
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of 127.0.0.1 and its key, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the test's certificate, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    made = ["-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=127.0.0.1"]
    also = ["-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *made, *also]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    whole = folder / "both.pem"
    whole.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return whole


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
