"""What every test may ask for."""

from collections.abc import Iterator

import hypothesis
import pytest
from chat_server import ChatServer

# how long one example takes says more of what else this machine does than of the code
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server
