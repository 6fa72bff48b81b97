"""What every record has: it cannot be changed, and knows which process wrote it."""

import os

import msgspec
import pytest

from pipeline.records import Process


def test_a_record_is_frozen_and_read_back_as_it_was() -> None:
    this = Process.this()
    assert this.pid == os.getpid()
    assert msgspec.json.decode(msgspec.json.encode(this), type=Process) == this
    with pytest.raises(AttributeError):
        this.pid = 1  # type: ignore[misc]
