"""One process at a time holds a job: in one instant, after a kill, and on hosts that do not see each other's locks."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from children import CHILD_SECONDS, child, on_host, pipe

from pipeline.folder.lock import hold_lock
from pipeline.records import BadJob, Exit, Stopped

HOLD_UNTIL_TOLD = """
import sys
from pathlib import Path
from pipeline.folder import hold_lock

with hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""

TRY_TO_HOLD = """
import sys
from pathlib import Path
from pipeline.records import Stopped
from pipeline.folder import hold_lock

try:
    with hold_lock(Path(sys.argv[1])):
        pass
except Stopped as stop:
    print(stop)
    sys.exit(stop.exit_code)
"""

HOLD_AGAIN_AND_AGAIN = """
import os, sys
from pathlib import Path
from pipeline.folder import hold_lock
from pipeline.records import Stopped

folder, holds, first = Path(sys.argv[1]), 0, ""
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    try:
        with hold_lock(folder):
            os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))
            os.unlink(folder / "inside")
            holds += 1
    except Stopped as stop:
        first = first or str(stop)
        assert stop.exit_code == 5
print(holds, first.replace(chr(10), " "))
"""

# What Lustre answers that was mounted without its option `flock`.
NO_FLOCK = """
#include <errno.h>
int flock(int descriptor, int operation) { (void)descriptor; (void)operation; errno = ENOSYS; return -1; }
"""


def leave_name(folder: Path, **changed: Any) -> dict[str, Any]:
    """What a killed process of this host leaves behind, with some of it changed."""
    with hold_lock(folder):
        name: dict[str, Any] = json.loads((folder / "lock.json").read_bytes()) | changed
    (folder / "lock.json").write_text(json.dumps(name))
    return name


def test_a_second_process_gets_the_name_of_the_holder_and_exits_5(tmp_path: Path) -> None:
    with hold_lock(tmp_path), child(TRY_TO_HOLD, tmp_path) as process:
        output, _ = process.communicate(timeout=CHILD_SECONDS)
        assert process.returncode == 5
        assert f"process {os.getpid()}, since 20" in output
        assert "stop it (no answer is lost)" in output
        with pytest.raises(Stopped) as refused, hold_lock(tmp_path):
            pass
        assert refused.value.exit_code == Exit.LOCKED
    with child(TRY_TO_HOLD, tmp_path) as process:
        assert process.wait(CHILD_SECONDS) == 0


def test_the_lock_is_named_even_if_its_note_is_foreign_hostile_or_gone(tmp_path: Path) -> None:
    with hold_lock(tmp_path):
        note = tmp_path / "lock.json"
        note.write_text(json.dumps({"user": "ann", "host": "node7\x1b[2J", "pid": 4, "since": "2026-11-22 03:10"}))
        with (
            pytest.raises(Stopped, match=r"ann@node7 \(process 4, since 2026-11-22 03:10\) holds"),
            hold_lock(tmp_path),
        ):
            pass
        for content in ("", "[]", "{}", "null"):
            note.write_text(content)
            with pytest.raises(Stopped, match="Another process holds"), hold_lock(tmp_path):
                pass
        note.unlink()
        with pytest.raises(Stopped, match="Another process holds"), hold_lock(tmp_path):
            pass
    with hold_lock(tmp_path):
        pass


def test_a_killed_holder_leaves_the_job_free(tmp_path: Path) -> None:
    with child(HOLD_UNTIL_TOLD, tmp_path) as process:
        assert pipe(process.stdout).readline() == "held\n"
        told = f"process {process.pid}.*`pipeline stop {re.escape(str(tmp_path))}`, or `kill -INT {process.pid}`"
        with pytest.raises(Stopped, match=f"(?s){told}"), hold_lock(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait(CHILD_SECONDS)
        with hold_lock(tmp_path):
            assert json.loads((tmp_path / "lock.json").read_bytes())["pid"] == os.getpid()


def test_a_folder_that_cannot_be_locked_is_a_bad_job(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(BadJob, match="cannot be locked"), hold_lock(tmp_path):
        pass


def test_an_error_inside_frees_the_lock_and_passes_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="from within"), hold_lock(tmp_path):
        raise OSError("from within")
    with hold_lock(tmp_path):
        pass


def test_processes_that_start_in_the_same_instant_hold_it_one_at_a_time(tmp_path: Path) -> None:
    with ExitStack() as stack:
        rivals = [stack.enter_context(child(HOLD_AGAIN_AND_AGAIN, tmp_path, 150)) for _ in range(6)]
        assert [pipe(rival.stdout).readline() for rival in rivals] == ["ready\n"] * 6
        for rival in rivals:
            pipe(rival.stdin).write("go\n")
            pipe(rival.stdin).flush()
        said = [rival.communicate(timeout=CHILD_SECONDS)[0] for rival in rivals]
        assert [rival.returncode for rival in rivals] == [0] * 6
    assert sum(int(line.split()[0]) for line in said) > 5
    assert any("holds" in line for line in said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock"]


def test_hosts_whose_locks_do_not_reach_each_other_hold_it_one_at_a_time(tmp_path: Path) -> None:
    job = tmp_path / "job"
    job.mkdir()
    hosts = [on_host(f"node{number}", tmp_path / "spare", job) for number in range(4)]
    with ExitStack() as stack:
        rivals = [stack.enter_context(child(HOLD_AGAIN_AND_AGAIN, job, 150, where=host)) for host in hosts]
        assert [pipe(rival.stdout).readline() for rival in rivals] == ["ready\n"] * 4
        for rival in rivals:
            pipe(rival.stdin).write("go\n")
            pipe(rival.stdin).flush()
        said = [rival.communicate(timeout=CHILD_SECONDS)[0] for rival in rivals]
        assert [rival.returncode for rival in rivals] == [0] * 4
    assert sum(int(line.split()[0]) for line in said) > 5
    assert any("cannot be seen from this host" in line for line in said)


def test_a_job_that_another_host_held_is_never_taken_over_until_a_person_says_so(tmp_path: Path) -> None:
    job = tmp_path / "it's a job"
    job.mkdir()
    with child(HOLD_UNTIL_TOLD, job, where=on_host("node7", tmp_path / "spare", job)) as process:
        assert pipe(process.stdout).readline() == "held\n"
        for _ in range(2):  # alive, and killed: from here nobody can tell
            with pytest.raises(Stopped, match=rf"@node7 \(process {process.pid}, since 20") as refused, hold_lock(job):
                pass
            assert refused.value.exit_code == Exit.LOCKED
            process.kill()
            process.wait(CHILD_SECONDS)
    line = next(line for line in str(refused.value).split(": ") if line.startswith("rm ")).splitlines()[0]
    subprocess.run(line, shell=True, check=True)  # noqa: S602 - as a person would type it
    with hold_lock(job):
        pass


@pytest.mark.parametrize(
    ("changed", "taken_over"),
    [
        ({}, True),
        ({"host": "another-name"}, True),  # a container that was started again
        ({"boot": "before"}, True),  # a machine that was started again
        ({"boot": "", "machine": ""}, False),
        ({"boot": "before", "host": "node7"}, False),  # one image on many machines
        ({"boot": "before", "machine": "other"}, False),  # one name on many machines
    ],
)
def test_what_was_left_by_this_host_is_taken_over_and_nothing_else(
    tmp_path: Path, changed: dict[str, str], taken_over: bool
) -> None:
    if not leave_name(tmp_path)["machine"] and changed:
        pytest.skip("this system has no machine id")
    leave_name(tmp_path, **changed)
    with ExitStack() as stack:
        if not taken_over:
            refused = stack.enter_context(pytest.raises(Stopped))
        with hold_lock(tmp_path):
            assert json.loads((tmp_path / "lock.json").read_bytes())["boot"] != "before"
    assert (tmp_path / "lock.json").exists() != taken_over
    assert taken_over or refused.value.exit_code == Exit.LOCKED


def as_link(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))
    path.with_name("elsewhere").write_text("{}")


@pytest.mark.parametrize(
    "leave",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"[" * 4096),
        lambda path: path.write_bytes(b'{"pid": ' + b"9" * 4000 + b"}"),
        lambda path: path.write_bytes(bytes(10_000_000)),
        lambda path: path.write_bytes(b'{"user": ["x"], "host": null, "pid": true, "since": {}}'),
        os.mkfifo,
        as_link,
    ],
    ids=["empty", "deep", "long number", "large", "other types", "pipe", "link"],
)
def test_a_name_that_makes_no_sense_is_refused_in_words_and_at_once(
    tmp_path: Path, leave: Callable[[Path], Any]
) -> None:
    leave(tmp_path / "lock.json")
    with pytest.raises(Stopped, match=r"\n.*rm .*lock\.json\n") as refused, hold_lock(tmp_path):
        pass
    assert refused.value.exit_code == Exit.LOCKED
    assert len(str(refused.value)) < 1500
    (tmp_path / "lock.json").unlink()
    with hold_lock(tmp_path):
        pass


def test_the_end_of_one_process_leaves_the_name_of_the_next(tmp_path: Path) -> None:
    with hold_lock(tmp_path):
        (tmp_path / "lock.json").write_text("another came")
    assert (tmp_path / "lock.json").read_text() == "another came"


def test_a_file_system_without_locks_is_a_bad_job_that_names_the_flag(tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("this system has no C compiler")
    (tmp_path / "flock.c").write_text(NO_FLOCK)
    library = tmp_path / "flock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "flock.c"], check=True)
    command = [sys.executable, "-W", "error", "-c", TRY_TO_HOLD, str(tmp_path)]
    done = subprocess.run(
        command, env={**os.environ, "LD_PRELOAD": str(library)}, capture_output=True, text=True, check=False
    )
    assert "BadJob" in done.stderr
    assert "Keep it on a local disk (--job-dir). Nothing was sent." in done.stderr
