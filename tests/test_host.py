"""This host and its processes."""

import os

from children import child, pipe

from pipeline.host import host_identity, is_running, process_identity


def test_a_process_runs_until_it_ends_and_its_number_alone_does_not_stand_for_it() -> None:
    with child("input()") as process:
        started = process_identity(process.pid)["started"]
        assert is_running(process.pid, started)
        assert not is_running(process.pid, f"{started}0")
        pipe(process.stdin).close()
        process.wait()
        assert not is_running(process.pid, started)


def test_all_processes_of_a_host_tell_it_alike() -> None:
    script = "from pipeline.host import host_identity\nprint(host_identity())"
    with child(script) as process:
        assert pipe(process.stdout).read().strip() == str(host_identity())


def test_a_process_of_an_unknown_number_has_no_start() -> None:
    assert process_identity(2**22 + 1)["started"] == ""
    assert not is_running(2**22 + 1, "")
    assert is_running(os.getpid(), process_identity(os.getpid())["started"])
