"""The command line as a newcomer types it: what is said, where, and with which exit code."""

from pathlib import Path

import pytest


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text("id,q\n001,one\n002,two\n003,three\n")
    return tmp_path
