"""What every context shares: its stops, its clocks, and the identity of a lane."""

import asyncio
import time
from typing import Any

import pytest

from pipeline.execution.context import Clocks, StopState, lane_id
from pipeline.job.job import Job
from pipeline.records import Exit, LaneId, Stopped


def test_the_first_reason_to_stop_is_the_one_that_counts() -> None:
    state = StopState()
    assert not state.stop_requested.is_set()
    state.stop(Stopped("the key", Exit.NEEDS_PERSON))
    state.stop(Stopped("a signal", Exit.SIGINT))
    assert str(state.stopping) == "the key"
    assert state.stop_requested.is_set()
    assert not state.drain_aborted.is_set()
    state.abort_drain()
    assert state.drain_aborted.is_set()


@pytest.mark.parametrize(("seconds", "stops"), [(0.01, False), (60.0, True)])
def test_a_pause_ends_in_time_or_at_a_stop(seconds: float, *, stops: bool) -> None:
    async def pause() -> None:
        state = StopState()
        if stops:
            asyncio.get_running_loop().call_later(0.01, state.stop, Stopped("enough"))
        await state.pause(seconds)

    began = time.monotonic()
    asyncio.run(pause())
    assert 0.005 < time.monotonic() - began < 30


def test_both_clocks_of_a_run_go_on() -> None:
    clock, uptime = Clocks()
    before = clock(), uptime()
    time.sleep(0.01)
    assert clock() - before[0] >= 0.009
    assert uptime() - before[1] >= 0.009


@pytest.mark.parametrize(
    "setting",
    [
        {"endpoint.base_url": "http://127.0.0.1:8/v1"},
        {"endpoint.api_key_env": "K"},
        {"endpoint.api_key_command": "print-key --of me"},
    ],
)
def test_a_lane_is_of_one_endpoint_model_and_key(setting: dict[str, Any]) -> None:
    given = {"endpoint.base_url": "http://127.0.0.1:9/v1", "endpoint.model": "m"}
    mine, other = (Job.load(["in.csv"], settings=each).endpoint for each in (given, given | setting))
    assert lane_id(mine, "m") == LaneId("http://127.0.0.1:9/v1", "m", mine.api_key_env)
    assert lane_id(mine, "m") == lane_id(mine, "m") != lane_id(mine, "n")
    assert lane_id(mine, "m") != lane_id(other, "m")
    assert lane_id(other, "m").api_key_env in ("", setting.get("endpoint.api_key_env"), "print-key --of me")
