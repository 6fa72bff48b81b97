"""The page's charts: static SVG in the page's own colours, without scripts or anything to load.

Imported only when a report is written, since Altair is an extra and takes two seconds to import.
"""

import re
from collections.abc import Callable, Iterator, Sequence

import altair as alt
import vl_convert

from ..records import Record
from ..text import duration
from .counts import Distribution
from .text import number
from .timeline import Course, Point

WIDTH, HEIGHT = 340, 180
"""Pixels: the width of a phone. A wide page sets several charts side by side, so text is hardly scaled."""

# Placeholders that are replaced by the page's CSS variables, which differ between light, dark and print.
MUTED, LINE, AXIS, FIRST, SECOND = "#a00001", "#a00002", "#a00003", "#a00004", "#a00005"
COLOURS = {MUTED: "--muted", LINE: "--line", AXIS: "--axis", FIRST: "--first", SECOND: "--second"}

CONFIG = {
    "aria": False,  # the page describes a chart in one label
    "font": "Helvetica, Arial, Liberation Sans, sans-serif",  # texts are measured here: all of these have one width
    "view": {"stroke": None},
    "axis": {
        "labelColor": MUTED,
        "titleColor": MUTED,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "titlePadding": 6,
        "gridColor": LINE,
        "domain": False,
        "ticks": False,
        "labelPadding": 5,
        "tickCount": 5,
    },
    "axisX": {
        "labelOverlap": "greedy",
        "labelSeparation": 8,
        "grid": False,
        "domain": True,
        "domainColor": AXIS,
        "ticks": True,
        "tickColor": AXIS,
        "tickSize": 4,
    },
}
UNITS = ((3 * 86_400, 86_400, "days"), (3 * 3_600, 3_600, "hours"), (180, 60, "minutes"), (0, 1, "seconds"))
"""Units of the time axis: shortest duration that uses the unit, its seconds, its name."""

Row = dict[str, float | None]


class Chart(Record, frozen=True):
    """A chart with its texts."""

    title: str
    label: str
    """A description of the chart for screen readers."""
    svg: str
    legend: tuple[str, ...] = ()


def charts_of(course: Course | None, sizes: Sequence[tuple[str, str, Distribution]]) -> Iterator[Chart]:
    """Draw all charts that have something to show.

    `course`: the job over time; `sizes`: (name, unit, distribution) of what gets a histogram.
    """
    if course is not None and len(course.points) > 2:
        _, unit = rate_unit(course)
        over = f"over {duration(course.seconds)}"
        yield Chart(f"Rows per {unit}", f"Bar chart: rows answered per {unit}, {over}.", throughput(course))
        yield Chart(
            "Latency, seconds",
            f"Line chart: median and 95th percentile of the latency, {over}.",
            latency(course),
            ("median", "95 %"),
        )
        if any(point.prompt_tokens_per_second or point.output_tokens_per_second for point in course.points):
            label = f"Line chart: prompt and output tokens per second, {over}."
            yield Chart("Tokens per second", label, tokens(course), ("prompt", "output"))
    for name, unit, values in sizes:
        if bars := values.bars():
            median, slow = number(values.percentile(0.5)), number(values.percentile(0.99))
            label = f"Histogram of {name}: median {median} {unit}, 99th percentile {slow}."
            yield Chart(f"Rows by {name}", label, histogram(bars, unit))


def throughput(course: Course) -> str:
    """Draw the rows answered over time, in the unit of `rate_unit`."""
    scale, title = _time(course)
    seconds, _ = rate_unit(course)
    rows: list[Row] = [
        {"from": point.begins / scale, "to": point.ends / scale, "value": point.rows_per_second * seconds}
        for point in course.points
    ]
    return _svg([_bars(rows, title), *_pauses(course, scale)])


def rate_unit(course: Course) -> tuple[int, str]:
    """Choose the unit of time for rates: its seconds and its name."""
    fast = max(point.rows_per_second for point in course.points) >= 5
    return (1, "second") if fast else (60, "minute")


def tokens(course: Course) -> str:
    """Draw prompt and output tokens per second over time."""
    return _two_lines(course, lambda point: (point.prompt_tokens_per_second, point.output_tokens_per_second))


def latency(course: Course) -> str:
    """Draw the median and the 95th percentile of the latency over time."""
    return _two_lines(course, lambda point: (point.median_seconds, point.slow_seconds))


def histogram(bars: Sequence[tuple[float, float, int]], unit: str) -> str:
    """Draw the number of rows in each bar: (from, to, rows)."""
    rows: list[Row] = [{"from": low, "to": high, "value": count} for low, high, count in bars]
    return _svg([_bars(rows, unit, whole=True)])


def _time(course: Course) -> tuple[float, str]:
    scale, unit = next((scale, unit) for least, scale, unit in UNITS if course.seconds >= least)
    return scale, f"{unit} since the first request"


def _two_lines(course: Course, values: Callable[[Point], tuple[float | None, float | None]]) -> str:
    """Draw two values of each point over time. A point is drawn as a step: from its beginning to its end."""
    scale, title = _time(course)
    rows: list[Row] = []
    for point in course.points:
        first, second = values(point)
        rows += [{"at": at / scale, "first": first, "second": second} for at in (point.begins, point.ends)]
    return _svg([*_lines(rows, title), *_pauses(course, scale)])


def _chart(rows: list[Row]) -> alt.Chart:
    return alt.Chart(alt.Data(values=rows))  # type: ignore[no-untyped-call]  # altair leaves Data untyped


def _bars(rows: list[Row], title: str, *, whole: bool = False) -> alt.Chart:
    x_axis = alt.X("from:Q", bin="binned", title=title, scale=_whole_width(rows, "from", "to"))
    mark = _chart(rows).mark_bar(color=FIRST, binSpacing=0.7)
    bars: alt.Chart = mark.encode(x=x_axis, x2="to:Q", y=_y_axis("value", whole=whole))
    return bars


def _lines(rows: list[Row], title: str) -> Iterator[alt.Chart]:
    for name, colour, dash in (("first", FIRST, [1, 0]), ("second", SECOND, [5, 2.5])):
        mark = _chart(rows).mark_line(color=colour, strokeWidth=1.8, strokeDash=dash)
        x_axis = alt.X("at:Q", title=title, scale=_whole_width(rows, "at", "at"))
        yield mark.encode(x=x_axis, y=_y_axis(name))


def _pauses(course: Course, scale: float) -> Iterator[alt.Chart]:
    """A dotted line for each long pause that was left out."""
    if course.pauses:
        rows: list[Row] = [{"at": pause / scale} for pause in course.pauses]
        yield _chart(rows).mark_rule(color=MUTED, strokeDash=[2, 3]).encode(x="at:Q")


def _whole_width(rows: list[Row], low: str, high: str) -> alt.Scale:
    return alt.Scale(domain=[rows[0][low], rows[-1][high]], nice=False, zero=False)


def _y_axis(name: str, *, whole: bool = False) -> alt.Y:
    # SI prefixes only from a thousand on: half a second is 0.5, not 500m
    text = "datum.value < 1000 ? format(datum.value, '~g') : format(datum.value, '~s')"
    axis = alt.Axis(labelExpr=text, tickMinStep=1) if whole else alt.Axis(labelExpr=text)
    return alt.Y(f"{name}:Q", title=None, scale=alt.Scale(zero=True), axis=axis)


def _svg(layers: Sequence[alt.Chart]) -> str:
    chart = alt.layer(*layers, width=WIDTH, height=HEIGHT, autosize=alt.AutoSizeParams(type="fit", contains="padding"))
    spec = {**chart.to_dict(), "config": CONFIG, "background": None, "padding": 2}
    svg: str = vl_convert.vegalite_to_svg(spec)
    for colour, name in COLOURS.items():
        svg = svg.replace(f'"{colour}"', f'"var({name})"')
    size = re.search(r'viewBox="[^"]*"', svg)
    inside = svg[svg.index(">") + 1 :]
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size[0] if size else ""} aria-hidden="true">{inside}'
