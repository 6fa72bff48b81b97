"""The throttle at each kind of endpoint, on a virtual clock: throughput, rejections, and no lost row."""

import pytest
from odd_scenarios import ODD_SCENARIOS
from scenarios import SCENARIOS
from simulation import Result, Scenario, simulate
from simulator import Workers

SEED = 0


def broken_bounds(scenario: Scenario, result: Result) -> list[str]:
    """The bounds of its row in the table that do not hold."""
    found = []
    if result.goodput < scenario.floor:
        found.append(f"{100 * result.goodput:.1f} % of the best, floor {100 * scenario.floor:.1f}")
    if result.rejected > scenario.ceiling:
        found.append(f"{100 * result.rejected:.2f} % rejected, ceiling {100 * scenario.ceiling:.2f}")
    if result.ramp_seconds > scenario.ramp_seconds:
        found.append(f"90 % after {result.ramp_seconds:.0f} s, at most {scenario.ramp_seconds:.0f}")
    return found


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_each_endpoint_gives_nearly_all_it_can_and_rejects_hardly_anything(scenario: Scenario) -> None:
    result = simulate(scenario, SEED)
    assert not broken_bounds(scenario, result)
    assert result.lost == 0
    assert (result.stopped is not None) == scenario.must_stop


QUICK = (
    "429 at random, 5 %, 32 at once",
    "429 at random, 10 %, 32 at once",
    "429 at random, 3 %, and 600/min",
    "LiteLLM's windows of 600/min",
    "windows of 600/min, always 60 s",
    "600 per 60 s, sliding",
    "100 per 10 s, refused ones count",
)


@pytest.mark.parametrize("name", QUICK)
def test_refusals_that_are_no_buckets_cost_little_more_than_those_that_are_random(name: str) -> None:
    [scenario] = [each for each in ODD_SCENARIOS if each.name == name]
    result = simulate(scenario, SEED)
    assert not broken_bounds(scenario, result)
    assert result.lost == 0
    assert result.stopped is None


def of(name: str) -> Scenario:
    return next(scenario for scenario in SCENARIOS if scenario.name == name)


def test_the_limit_that_was_found_is_the_hidden_one() -> None:
    learned = simulate(of("600 requests/min, burst 60"), SEED).learned
    assert learned is not None
    assert learned.requests_per_minute == pytest.approx(600, rel=0.02)


def test_the_users_limit_is_never_exceeded_and_nothing_is_rejected_where_the_hidden_one_is_wider() -> None:
    result = simulate(of("600/min, the user's limit 300/min"), SEED)
    assert result.rejected == 0
    assert result.most_left_in_a_minute <= 300


def test_two_jobs_under_one_limit_share_it() -> None:
    assert min(simulate(of("two jobs share 600/min"), SEED).shares) > 0.3


def test_a_batching_server_gets_as_many_requests_in_flight_as_it_can_use_and_hardly_more() -> None:
    assert 200 <= simulate(of("vLLM-like, 256 sequences"), SEED).in_flight <= 400


def test_the_bounds_show_a_worse_throttle() -> None:
    """Twenty workers with backoff break the bounds."""
    scenario = of("600 requests/min, burst 60")
    assert broken_bounds(scenario, simulate(scenario, SEED, Workers))
