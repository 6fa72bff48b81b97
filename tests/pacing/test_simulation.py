"""The governor at each kind of endpoint, on a virtual clock: what is answered, what is refused, and nothing lost."""

import pytest
from scenarios import SCENARIOS, Result, Scenario, simulate
from simulator import Workers

SEED = 0


def held(scenario: Scenario, result: Result) -> list[str]:
    """What of its row in the table does not hold."""
    found = []
    if result.goodput < scenario.floor:
        found.append(f"{100 * result.goodput:.1f} % of the best, floor {100 * scenario.floor:.1f}")
    if result.refused > scenario.ceiling:
        found.append(f"{100 * result.refused:.2f} % refused, ceiling {100 * scenario.ceiling:.2f}")
    if result.ramp_seconds > scenario.ramp_seconds:
        found.append(f"90 % after {result.ramp_seconds:.0f} s, at most {scenario.ramp_seconds:.0f}")
    return found


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_each_endpoint_gives_nearly_all_it_can_and_refuses_hardly_anything(scenario: Scenario) -> None:
    result = simulate(scenario, SEED)
    assert not held(scenario, result)
    assert result.lost == 0
    assert (result.stopped is not None) == scenario.must_stop


def of(name: str) -> Scenario:
    return next(scenario for scenario in SCENARIOS if scenario.name == name)


def test_the_limit_that_was_found_is_the_hidden_one() -> None:
    learnt = simulate(of("600 requests/min, burst 60"), SEED).learnt
    assert learnt is not None
    assert learnt.requests_per_minute == pytest.approx(600, rel=0.02)


def test_a_limit_that_was_told_is_never_overrun_nor_refused_where_the_hidden_one_is_wider() -> None:
    result = simulate(of("600/min, 300/min told"), SEED)
    assert result.refused == 0
    assert result.most_left_in_a_minute <= 300


def test_two_jobs_under_one_limit_share_it() -> None:
    assert min(simulate(of("two jobs share 600/min"), SEED).shares) > 0.3


def test_as_many_sequences_are_in_flight_as_a_batching_server_can_use_and_hardly_more() -> None:
    assert 200 <= simulate(of("vLLM-like, 256 sequences"), SEED).in_flight <= 400


def test_the_table_can_tell_a_worse_governor() -> None:
    """Twenty at once with backoff break what the governor holds."""
    scenario = of("600 requests/min, burst 60")
    assert held(scenario, simulate(scenario, SEED, Workers))
