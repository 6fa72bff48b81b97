"""Sums over slices are those of the whole table, in bounded memory, and a course over time shows no idle night."""

import random
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from pipeline.report.figures import STEPS_MOST, VALUES_MOST, Figures, Spread, Timeline, nice
from pipeline.results.columns import FIXED

BEGAN = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)


def answered(seconds: list[float], *, label: str = "a") -> pl.DataFrame:
    """Rows that were asked so many seconds after the beginning, and took half a second each."""
    rows = {
        "answer": label,
        "status": "ok",
        "prompt_tokens": 10,
        "completion_tokens": 3,
        "total_tokens": 15,
        "cost": 0.5,
        "latency_seconds": 0.5,
        "attempts": 1,
    }
    values = {name: [rows.get(name)] * len(seconds) for name in FIXED}
    values["asked_at"] = [BEGAN + timedelta(seconds=each) for each in seconds]
    return pl.DataFrame(values, schema=FIXED).with_columns(label=pl.lit(label))


def test_percentiles_are_exact_for_whole_numbers_and_near_for_seconds() -> None:
    rng = random.Random(3)
    whole, seconds = [rng.randint(1, 5_000) for _ in range(3_000)], [rng.lognormvariate(0, 1) for _ in range(3_000)]
    counts, times = Spread(), Spread()
    for start in range(0, 3_000, 700):
        counts.add(pl.Series(whole[start : start + 700]))
        times.add(pl.Series(seconds[start : start + 700]))
    for share in (0.001, 0.5, 0.9, 0.99, 1.0):
        place = round(share * 3_000) - 1
        assert counts.percentile(share) == sorted(whole)[place]
        assert times.percentile(share) == pytest.approx(sorted(seconds)[place], rel=0.005)
    assert counts.mean == pytest.approx(sum(whole) / 3_000)
    assert sum(rows for *_, rows in counts.bars()) == 3_000
    assert Spread().percentile(0.5) is None
    assert Spread().bars() == []


def test_seconds_take_no_more_memory_for_more_rows() -> None:
    times = Spread()
    times.add(pl.Series([0.001 * 1.0001**row for row in range(100_000)]))
    assert times.different < 4_000


def test_slices_add_up_to_the_whole() -> None:
    frame = pl.concat([answered([row * 0.3 for row in range(500)]), answered([9.0] * 30, label="b")])
    gold = pl.Series(["a"] * 520 + [None] * 10)
    whole, parts = (Figures({"label": pl.String()}, "label") for _ in range(2))
    whole.add(frame, gold)
    for start in range(0, frame.height, 90):
        parts.add(frame[start : start + 90], gold[start : start + 90])
    for figures in (whole, parts):
        assert figures.by_status["ok"].rows == 530
        assert figures.by_status["ok"].output_tokens == 530 * 5
        assert figures.by_status["ok"].cost == 265
        assert figures.texts == {"label": [("a", 500), ("b", 30)]}
        assert figures.pairs == [("a", "a", 500), ("a", "b", 20)]
    assert whole.timeline.course() == parts.timeline.course()


def test_a_row_that_repeats_an_earlier_one_counts_as_a_row_alone() -> None:
    figures = Figures({})
    figures.add(answered([0.0, 1.0]).with_columns(attempts=pl.Series([1, 0]), cost=pl.Series([0.5, 0.0])))
    assert (figures.rows, figures.repeats, figures.latency.rows) == (2, 1, 1)
    assert figures.by_status["ok"].prompt_tokens == 10


def test_errors_keep_a_few_different_examples() -> None:
    errors = ["too_long: 4,097 tokens", "too_long: 4,097 tokens", "server: 500: oops", "too_long: 5,000 tokens"]
    figures = Figures({})
    for _ in range(2):
        figures.add(answered([0.0] * 4).with_columns(error=pl.Series(errors)))
    first, second = figures.errors
    assert (first.kind, first.rows, [each.row for each in first.examples]) == ("too_long", 6, [1, 4])
    assert (second.kind, second.examples[0].text) == ("server", "500: oops")


def test_texts_of_too_many_kinds_are_not_kept() -> None:
    figures = Figures({"label": pl.String()})
    frame = answered([0.0] * (VALUES_MOST + 1))
    figures.add(frame.with_columns(label=pl.int_range(frame.height).cast(pl.String)))
    figures.add(frame)
    assert figures.texts == {"label": None}


def test_a_course_holds_every_row_however_long_it_is() -> None:
    timeline = Timeline()
    for start in range(0, 40_000, 10_000):
        timeline.add(answered([2.0 * row for row in range(start, start + 10_000)]))
    assert timeline._cells["step"].n_unique() <= STEPS_MOST
    course = timeline.course()
    assert course is not None
    assert 20 <= len(course.points) <= 60
    rows = sum(point.rows_per_second * (point.ends - point.begins) for point in course.points)
    assert rows == pytest.approx(40_000)
    assert course.points[3].rows_per_second == pytest.approx(0.5, rel=0.02)
    assert course.points[3].output_tokens_per_second == pytest.approx(2.5, rel=0.02)
    assert course.points[3].median_seconds == 0.5
    assert not course.pauses


def test_an_idle_night_between_two_runs_is_left_out_and_a_short_wait_is_not() -> None:
    timeline = Timeline()
    evening, morning = [float(each) for each in range(600)], [60_000.0 + each for each in range(600)]
    timeline.add(answered([each for each in evening if not 200 < each < 240] + morning))
    course = timeline.course()
    assert course is not None
    assert course.seconds == pytest.approx(1_200, abs=5)
    assert course.pauses == pytest.approx([600], abs=5)
    assert min(point.rows_per_second for point in course.points) < 0.5


def test_nothing_asked_has_no_course() -> None:
    assert Timeline().course() is None


def test_a_nice_width_is_one_two_or_five() -> None:
    assert [nice(width) for width in (0.0013, 0.2, 3.0, 51.0)] == pytest.approx([0.002, 0.2, 5.0, 100.0])
