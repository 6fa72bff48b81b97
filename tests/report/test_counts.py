"""Percentiles are exact for integers and near for seconds, in bounded memory."""

import random

import polars as pl
import pytest

from pipeline.report.counts import Distribution, round_width


def test_percentiles_are_exact_for_integers_and_near_for_seconds() -> None:
    rng = random.Random(3)
    whole, seconds = [rng.randint(1, 5_000) for _ in range(3_000)], [rng.lognormvariate(0, 1) for _ in range(3_000)]
    counts, times = Distribution(), Distribution()
    for start in range(0, 3_000, 700):
        counts.add(pl.Series(whole[start : start + 700]))
        times.add(pl.Series(seconds[start : start + 700]))
    for share in (0.001, 0.5, 0.9, 0.99, 1.0):
        place = round(share * 3_000) - 1
        assert counts.percentile(share) == sorted(whole)[place]
        assert times.percentile(share) == pytest.approx(sorted(seconds)[place], rel=0.005)
    assert counts.mean == pytest.approx(sum(whole) / 3_000)
    assert sum(rows for *_, rows in counts.bars()) == 3_000
    assert Distribution().percentile(0.5) is None
    assert Distribution().bars() == []


def test_seconds_take_bounded_memory_for_any_number_of_rows() -> None:
    times = Distribution()
    times.add(pl.Series([0.001 * 1.0001**row for row in range(100_000)]))
    assert times.different < 4_000


def test_a_round_width_is_one_two_or_five() -> None:
    assert [round_width(width) for width in (0.0013, 0.2, 3.0, 51.0)] == pytest.approx([0.002, 0.2, 5.0, 100.0])
