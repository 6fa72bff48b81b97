"""Paths as people give them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from children import child, pipe

from pipeline.paths import check_name, is_stream, read_text, saying_that_it_waits, special_kind
from pipeline.records import BadJob

CHECKS = "import sys\nfrom pipeline.paths import check_name\ncheck_name(sys.argv[1])"


def checked_in_locale(name: bytes, **environment: str) -> subprocess.CompletedProcess[bytes]:
    line = [os.fsencode(sys.executable), b"-c", CHECKS.encode(), name]
    return subprocess.run(line, capture_output=True, check=False, env={**os.environ, **environment})


@pytest.mark.parametrize("name", ["a", "é", "日本 .csv", "a\nb", "\x1b[31m", "-o", "it's"])
def test_a_name_in_utf_8_is_a_name(name: str) -> None:
    check_name(name)
    check_name(Path(name))


@pytest.mark.parametrize(
    ("name", "shown"), [(b"r\xe9sum\xe9.csv", r"r\xe9sum\xe9.csv: "), (b"\xff\x1b[31m", "\\xff\ufffd: ")]
)
def test_one_that_is_not_is_shown_and_refused(name: bytes, shown: str) -> None:
    with pytest.raises(BadJob, match="not UTF-8") as refused:
        check_name(os.fsdecode(name))
    assert str(refused.value).startswith(shown)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("name", "words"), [("a\0b", "NUL"), ("a\ud800b", "the locale has no such characters")])
def test_a_name_that_no_file_can_have_is_refused(name: str, words: str) -> None:
    with pytest.raises(BadJob, match=words):
        check_name(name)


def test_a_locale_that_cannot_spell_a_name_is_told_with_what_to_type() -> None:
    done = checked_in_locale("é.csv".encode(), LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert b"Put PYTHONUTF8=1 before the command" in done.stderr
    done = checked_in_locale("é.csv".encode(), LC_ALL="C", PYTHONUTF8="1", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 0


def test_pipes_are_known_and_what_is_no_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    found = [is_stream(path) for path in (tmp_path / "pipe", Path("/dev/fd/63"), Path("/dev/stdin"))]
    assert found == [True] * 3
    others = (tmp_path / "file", tmp_path, tmp_path / "nothing", Path("/dev/null"), Path("n" * 300))
    assert not any(is_stream(path) for path in others)
    kinds = [special_kind(path) for path in (tmp_path / "pipe", Path("/dev/null"), tmp_path)]
    assert kinds == ["a pipe", "a device", "a folder"]
    assert special_kind(tmp_path / "file") is special_kind(tmp_path / "nothing") is None


READS = """
import sys
from pathlib import Path
from pipeline.paths import read_text

print(read_text(Path(sys.argv[1])))
"""
WRITES_LATE = """
import sys
input()
with open(sys.argv[1], "w") as pipe:
    pipe.write("text")
"""


def test_a_pipe_that_nobody_writes_is_waited_for_aloud(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    reading = [sys.executable, "-c", READS, str(tmp_path / "pipe")]
    with (
        child(WRITES_LATE, tmp_path / "pipe") as writer,
        subprocess.Popen(reading, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as reader,
    ):
        told = pipe(reader.stderr).readline()
        assert told == f"Waiting for {tmp_path / 'pipe'} to be written and closed. Ctrl-C ends this.\n"
        pipe(writer.stdin).write("\n")
        pipe(writer.stdin).close()
        assert pipe(reader.stdout).read() == "text\n"
    with saying_that_it_waits("what is there at once"):
        (tmp_path / "file").write_text("é", encoding="utf-8")
        assert read_text(tmp_path / "file") == "é"
    assert capfd.readouterr().err == ""
