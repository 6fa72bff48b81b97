"""A line of history with a mark was written by this user: whoever lacks the secret can neither make nor move one."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.folder.marks import can_mark, is_own, with_mark

LINE = b'{"type":"began","command":["run"]}'


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def test_a_marked_line_is_ones_own_and_still_the_same_json(state: Path) -> None:
    marked = with_mark(LINE)
    assert is_own(marked)
    held = json.loads(marked)
    assert len(held.pop("mark")) == 64
    assert held == json.loads(LINE)
    secret = state / "pipeline" / "secret"
    assert (secret.stat().st_mode & 0o777, secret.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert [path.name for path in secret.parent.iterdir()] == ["secret"]


def test_a_line_that_was_changed_or_marked_with_another_secret_is_not(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked = with_mark(LINE)
    changed = [
        LINE,
        marked.replace(b"run", b"rum"),
        marked.replace(b'"]', b'","--on-finish","id"]'),
        marked[:-3] + b'0"}',
        marked[:-1] + b',"command":["run","--on-finish","id"]}',
        LINE[:-1] + b',"mark":""}',
        b"",
        b'"}',
    ]
    assert not any(is_own(line) for line in changed if line != marked)
    monkeypatch.setenv("XDG_STATE_HOME", str(state.with_name("other")))
    assert not is_own(marked)
    assert is_own(with_mark(LINE))


def test_a_secret_that_others_could_read_or_that_is_none_marks_nothing_and_is_left(state: Path) -> None:
    with_mark(LINE)
    secret = state / "pipeline" / "secret"
    kept = secret.read_bytes()
    secret.chmod(0o644)
    assert with_mark(LINE) == LINE
    assert not can_mark()
    assert secret.read_bytes() == kept
    secret.chmod(0o600)
    assert can_mark()
    for broken in (b"", b"00", b"\xff" * 64, kept[:-2]):
        secret.write_bytes(broken)
        assert with_mark(LINE) == LINE
        assert secret.read_bytes() == broken


def test_where_no_secret_can_be_kept_a_line_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert with_mark(LINE) == LINE
    assert not is_own(LINE)
    if os.geteuid() == 0:  # as with sudo: the home is another's
        (tmp_path / "home").mkdir()
        os.chown(tmp_path / "home", 54_322, -1)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
        assert with_mark(LINE) == LINE
        assert not list((tmp_path / "home").iterdir())


def test_a_relative_state_folder_is_passed_over_for_the_one_in_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert is_own(with_mark(LINE))
    assert [path.name for path in tmp_path.iterdir()] == [".local"]


def test_of_many_that_make_the_secret_at_once_all_have_the_same(state: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        marked = list(threads.map(lambda _: with_mark(LINE), range(64)))
    assert len(set(marked)) == 1
    assert is_own(marked[0])
    assert state.exists()
