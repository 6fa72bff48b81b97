"""What a second terminal asks of a running job is done within two seconds, answered, and not remembered."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from chat_server import ChatServer

from pipeline.folder.lock import hold_lock
from pipeline.job.sections import Limits
from pipeline.pacing.throttle import Throttle
from pipeline.records import BadJob, Rejection
from pipeline.runs.control import Obeyed, remove_orders, send_order

PRICED = ("--set", "prices.input=1", "--set", "prices.output=4", "--set", "parameters.max_tokens=10")


@contextmanager
def running(folder: Path, server: ChatServer, *more: str, rows: int = 3000) -> Iterator[subprocess.Popen[str]]:
    """A run of its own process, once its first requests are out."""
    (folder / "in.csv").write_text("q\n" + "".join(f"question {n}\n" for n in range(rows)))
    words = ["run", "in.csv", "-o", "out.csv", "--base-url", server.url, "-m", "m", "-p", "Say {{ q }}", *more]
    line = [sys.executable, "-m", "pipeline", *words]
    with subprocess.Popen(line, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        try:
            server.wait_for(server.arrived + 3)
            yield process
        finally:
            process.kill()


def typed(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *words], cwd=folder, capture_output=True, text=True, check=False, timeout=30
    )


def test_tune_widens_a_running_job_within_two_seconds_and_stop_drains_it_into_its_output(tmp_path: Path) -> None:
    with ChatServer(delay_seconds=0.1) as server, running(tmp_path, server, "--concurrency", "1") as process:
        began, before = time.monotonic(), server.most_in_flight
        said = send_order(tmp_path / "out.csv.job", limits={"concurrency": 32})
        assert time.monotonic() - began < 2
        assert said.endswith("until this run ends: concurrency 1 → 32.")
        assert before == 1
        server.wait_for(server.arrived + 64)
        assert 16 < server.most_in_flight <= 32

        done = typed(tmp_path, "stop", "out.csv")
        assert done.returncode == 0
        assert "nothing more is sent" in done.stderr
        _, screen = process.communicate(timeout=30)
        arrived = server.arrived
    assert process.returncode == 4
    assert "concurrency 1 → 32" in screen
    assert "typed `pipeline stop`." in screen
    assert f"{arrived:,} ok" in screen
    assert (tmp_path / "out.csv").exists()
    assert not list((tmp_path / "out.csv.job").glob("control-*"))
    log = (tmp_path / "out.csv.job" / "log.txt").read_text()
    assert "concurrency 1 → 32" in log
    again = typed(tmp_path, "stop", "out.csv")
    assert again.returncode == 2
    assert "this job is not running" in again.stderr


def test_a_cap_below_what_is_spent_stops_at_the_cap_and_a_bad_value_changes_nothing(tmp_path: Path) -> None:
    with ChatServer(delay_seconds=0.05) as server, running(tmp_path, server, "--concurrency", "2", *PRICED) as process:
        folder = tmp_path / "out.csv.job"
        refused = typed(tmp_path, "tune", "out.csv", "--concurrency", "0")
        assert refused.returncode == 2
        assert "limits.concurrency: Input should be greater than or equal to 1\nNothing was changed." in refused.stderr
        assert typed(tmp_path, "tune", "out.csv").returncode == 2
        with pytest.raises(BadJob, match=r"The limits stay as they are .*: limits\.max_cost: .* greater than 0"):
            send_order(folder, limits={"max_cost": 0.0})
        send_order(folder, limits={"max_cost": 1e-9})
        _, screen = process.communicate(timeout=30)
    assert process.returncode == 4
    assert "limits.max_cost is reached" in screen


def test_a_cap_without_a_known_price_is_refused_and_the_job_goes_on(tmp_path: Path) -> None:
    with ChatServer(delay_seconds=0.05) as server, running(tmp_path, server, "--concurrency", "2"):
        with pytest.raises(BadJob, match="no price is known") as refused:
            send_order(tmp_path / "out.csv.job", limits={"max_cost": 5.0})
        assert "Nothing was sent" not in str(refused.value)
        server.wait_for(server.arrived + 10)


def test_two_orders_at_one_moment_are_both_answered_and_what_is_no_order_holds_up_none(tmp_path: Path) -> None:
    with ChatServer(delay_seconds=0.05) as server, running(tmp_path, server, "--concurrency", "2"):
        folder = tmp_path / "out.csv.job"
        (folder / "control-folder.json").mkdir()
        (folder / "control-link.json").symlink_to("nowhere")
        for _ in range(3):
            with ThreadPoolExecutor(2) as senders:
                refused = senders.submit(send_order, folder, limits={"max_cost": 5.0})
                tuned = senders.submit(send_order, folder, limits={"requests_per_minute": 6000.0})
                assert "requests_per_minute" in tuned.result()
                with pytest.raises(BadJob, match="no price is known"):
                    refused.result()


def test_an_order_to_a_run_that_does_not_listen_is_taken_back(tmp_path: Path) -> None:
    with hold_lock(tmp_path), pytest.raises(BadJob, match="the order was taken back"):
        send_order(tmp_path, stop=True, wait_seconds=0.2)
    assert not list(tmp_path.glob("control-*"))
    with pytest.raises(BadJob, match="this job is not running, so there is nothing to stop"):
        send_order(tmp_path, stop=True)


def order_of(uid: int, folder: Path, name: str, limits: str) -> None:
    """An order as another user leaves it in the folder."""
    draft = folder / f"{name}.part"
    draft.write_text(f'{{"by":{{"user":"root","host":"here","pid":1}},"limits":{limits}}}')
    draft.chmod(0o644)
    os.chown(draft, uid, -1)
    draft.rename(folder / f"control-{name}.json")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
@pytest.mark.parametrize("shared", ["false", "true"])
def test_an_order_of_another_user_is_obeyed_only_where_the_job_is_shared(tmp_path: Path, shared: str) -> None:
    more = ("--concurrency", "2", "--set", "parameters.max_tokens=10", "--set", "prices.input=1000")
    more += ("--set", "prices.output=1000", "--max-cost", "0.5", "--set", f"output.shared={shared}")
    with ChatServer(delay_seconds=0.2) as server, running(tmp_path, server, *more, rows=60) as process:
        folder = tmp_path / "out.csv.job"
        # a hard link to what the run's own user wrote for another job is no order for this one
        (tmp_path / "own").write_text('{"by":{"user":"root","host":"here","pid":1},"limits":{"max_cost":9}}')
        if shared == "false":
            os.link(tmp_path / "own", folder / "control-hard.json")
        os.mkfifo(folder / "control-pipe.json")
        order_of(54_322, folder, "theirs", '{"max_cost":9}')
        _, screen = process.communicate(timeout=60)
        arrived = server.arrived
    if shared == "true":
        assert "Tuned by root@here" in screen
        assert (process.returncode, arrived) == (0, 60)
    else:
        assert "An order of another user was not obeyed" in screen
        assert "limits.max_cost is reached" in screen
        assert process.returncode == 4
        assert arrived < 50  # of $0.01 each
    assert not list(folder.glob("control-theirs*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_in_a_folder_that_everyone_may_write_into_a_shared_job_obeys_its_own_user_alone(tmp_path: Path) -> None:
    assert Obeyed.by_run(tmp_path, shared=True).users is None
    tmp_path.chmod(0o2777)
    assert Obeyed.by_run(tmp_path, shared=True).users == {0}
    tmp_path.chmod(0o755)
    os.chown(tmp_path, 54_322, -1)
    assert Obeyed.by_run(tmp_path, shared=False).users == {0}
    assert not list(tmp_path.iterdir())


def test_what_was_left_for_an_earlier_run_is_not_obeyed_by_a_later_one(tmp_path: Path) -> None:
    for name in ("control-1.json", "control-1.taken", "control-2.json"):
        (tmp_path / name).write_text("{}")
    remove_orders(tmp_path)
    assert not list(tmp_path.iterdir())


# ---- the throttle under other limits


def leave(throttle: Throttle, seconds: float, now: float = 0.0) -> tuple[int, float]:
    """How many leave in so many seconds, if one always wants to and each lands at once; and the time after it."""
    left, end = 0, now + seconds
    while now < end:
        wait = throttle.wait_before_next(now)
        if wait > 0:
            now += wait
            continue
        throttle.on_sent(now, 100)
        throttle.on_abandoned()
        left += 1
        now += 1e-3
    return left, now


def test_a_tuned_rate_holds_from_then_on_however_many_left_before() -> None:
    throttle = Throttle(Limits(concurrency=4), 0.0)
    left, now = leave(throttle, 10)
    assert left > 1000
    throttle.tune(Limits(concurrency=4, requests_per_minute=60), now)
    left, now = leave(throttle, 60, now)
    assert 57 <= left <= 60
    throttle.tune(Limits(concurrency=4, requests_per_minute=600), now)
    left, now = leave(throttle, 60, now)
    assert 570 <= left <= 600
    throttle.tune(Limits(concurrency=4), now)
    assert leave(throttle, 10, now)[0] > 1000


def test_a_tuned_window_opens_and_closes_at_once_and_an_older_overload_does_not_narrow_it() -> None:
    throttle = Throttle(Limits(concurrency=2), 0.0)
    flights = [throttle.on_sent(0.0, 100) for _ in range(2)]
    assert throttle.wait_before_next(0.0) == math.inf
    throttle.tune(Limits(concurrency=5), 1.0)
    assert throttle.window == 5
    assert throttle.wait_before_next(1.0) == 0
    throttle.on_rejection(flights[0], Rejection("retry", "overloaded", "busy", 503, "window"), 2.0)
    assert throttle.window == 5
    throttle.tune(Limits(concurrency=1), 3.0)
    assert throttle.wait_before_next(3.0) == math.inf
    throttle.tune(Limits(), 4.0)
    assert throttle.window == 8
