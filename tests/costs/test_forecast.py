"""Forecasts of cost and time, and the summary of a pilot."""

import random

import polars as pl
import pytest
from builders import job

from pipeline.costs.forecast import forecast_seconds, predict_total, summarize_pilot
from pipeline.job.sections import Limits
from pipeline.records import LearnedLimits, Usage


def limits(**settings: object) -> Limits:
    return job(**settings).limits


def test_about_nine_of_ten_intervals_contain_the_sum_of_the_rest() -> None:
    rng = random.Random(7)
    contained = 0
    for _ in range(400):
        rows = [rng.lognormvariate(0, 0.7) for _ in range(550)]
        low, high = predict_total(rows[:50], 500)
        contained += low <= sum(rows[50:]) <= high
    assert 0.85 < contained / 400 < 0.95


def test_the_slowest_of_the_window_and_the_given_and_learned_rates_decides_the_time() -> None:
    usage = Usage(60_000, 40_000)
    assert forecast_seconds(limits(**{"limits.concurrency": 4}), [None], 100, usage, 2.0) == 50
    assert forecast_seconds(limits(**{"limits.requests_per_minute": 10}), [None], 100, usage, 2.0) == 600
    assert forecast_seconds(limits(**{"limits.tokens_per_minute": 1000}), [None], 100, usage, 2.0) == 6000
    assert forecast_seconds(limits(), [LearnedLimits(tokens_per_minute=2000, window=100)], 100, usage, 2.0) == 3000
    assert forecast_seconds(limits(), [LearnedLimits(window=100)], 100, usage, 2.0) == 2
    assert forecast_seconds(limits(), [None], 100, usage, None) is None
    narrow = limits(**{"limits.concurrency": 4})
    assert forecast_seconds(narrow, [None, LearnedLimits(requests_per_minute=30)], 100, usage, 2.0) == 100


def cells(**columns: list[object]) -> pl.DataFrame:
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    all_columns: dict[str, list[object]] = {name: [None, None, None] for name in names}
    all_columns |= {
        "status": ["ok", "truncated", "failed"],
        "cost": [0.1, 0.2, 0.0],
        "latency_seconds": [1.0, 3.0, None],
    }
    types = {**dict.fromkeys(names, pl.Int64), "cost": pl.Float64, "latency_seconds": pl.Float64}
    return pl.DataFrame({**all_columns, **columns}, schema_overrides=types)


def test_a_pilot_counts_valid_answers_and_hidden_reasoning_and_costs_of_failures() -> None:
    counts = {"prompt_tokens": [10, 20, 30], "completion_tokens": [5, 6, 7], "total_tokens": [15, 100, 37]}
    pilot = summarize_pilot(job(**{"limits.concurrency": 2}), [None], cells(**counts), 1000)
    assert (pilot.rows, pilot.valid) == (3, 2)
    assert pilot.output_tokens == (5, 7, 80)
    assert pilot.cost is not None
    assert pilot.cost.low < 100 < pilot.cost.high
    assert pilot.seconds is not None
    assert pilot.seconds.low < 1000 < pilot.seconds.high


def test_what_a_pilot_cannot_predict_is_none() -> None:
    pilot = summarize_pilot(job(), [None], cells(cost=[0.1, None, 0.0], latency_seconds=[None, None, 1.0]), 1000)
    assert (pilot.cost, pilot.seconds, pilot.prompt_tokens) == (None, None, ())
    assert summarize_pilot(job(), [None], cells(), 0).cost is None


def test_a_sum_of_equal_rows_has_no_width() -> None:
    assert predict_total([2.0, 2.0], 10) == pytest.approx((20.0, 20.0))
