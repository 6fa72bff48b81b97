"""Charts are small SVG in the page's own colours, and load nothing."""

import re
from datetime import UTC, datetime

import pytest

from pipeline.report import charts
from pipeline.report.timeline import Course, Point

COURSE = Course(
    began=datetime(2026, 11, 22, tzinfo=UTC),
    points=[Point(60.0 * at, 60.0 * at + 60, 3.0 + at, 900.0, 80.0, None if at == 4 else 1.0, 2.0) for at in range(60)],
    pauses=[600.0],
    seconds=3600.0,
)
DRAWN = {
    "throughput": lambda: charts.throughput(COURSE),
    "latency": lambda: charts.latency(COURSE),
    "tokens": lambda: charts.tokens(COURSE),
    "histogram": lambda: charts.histogram([(0.0, 0.5, 120_000), (0.5, 1.0, 3)], "seconds"),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_chart_has_the_colours_of_its_page_and_no_others(name: str) -> None:
    svg = DRAWN[name]()
    assert svg.count("<svg") == svg.count("</svg>") == 1
    colours = set(re.findall(r'(?:fill|stroke)="([^"]*)"', svg)) - {"none", "transparent"}
    assert colours
    assert all(re.fullmatch(r"var\(--[a-z]+\)", colour) for colour in colours), colours
    assert len(svg) < 20_000
    assert "http" not in svg.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "style=" not in svg


def test_times_and_counts_have_suitable_units() -> None:
    def texts(svg: str) -> list[str]:
        return re.findall(r"<text[^>]*>([^<]+)</text>", svg)

    assert "minutes since the first request" in texts(charts.throughput(COURSE))
    assert charts.rate_unit(COURSE) == (1, "second")
    assert "100k" in texts(DRAWN["histogram"]())
