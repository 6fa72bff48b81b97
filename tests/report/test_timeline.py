"""A course over time has every row, in few points, and leaves out long pauses."""

import pytest
from report_pages import answered

from pipeline.report.timeline import STEPS_MAX, Timeline


def test_a_course_holds_every_row_however_long_it_is() -> None:
    timeline = Timeline()
    for start in range(0, 40_000, 10_000):
        timeline.add(answered([2.0 * row for row in range(start, start + 10_000)]))
    assert timeline._cells["step"].n_unique() <= STEPS_MAX
    course = timeline.course()
    assert course is not None
    assert 20 <= len(course.points) <= 60
    rows = sum(point.rows_per_second * (point.ends - point.begins) for point in course.points)
    assert rows == pytest.approx(40_000)
    assert course.points[3].rows_per_second == pytest.approx(0.5, rel=0.02)
    assert course.points[3].output_tokens_per_second == pytest.approx(2.5, rel=0.02)
    assert course.points[3].median_seconds == 0.5
    assert not course.pauses


def test_a_night_between_two_runs_is_left_out_and_a_short_pause_is_not() -> None:
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
