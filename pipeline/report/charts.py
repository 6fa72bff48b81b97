"""Numbers as pictures: static SVG in the page's own colours, with no script and nothing fetched.

Imported where a report is written: what draws is an extra.
"""

import re
from collections.abc import Iterator, Sequence

import altair as alt
import vl_convert

from .figures import Course

WIDTH, HEIGHT = 340, 180
"""Drawn for a phone's width; a page sets several side by side, so that no text is scaled far."""

# Stand-ins, which become the page's own colours: those follow light, dark and print.
MUTED, LINE, AXIS, FIRST, SECOND = "#a00001", "#a00002", "#a00003", "#a00004", "#a00005"
COLOURS = {MUTED: "--muted", LINE: "--line", AXIS: "--axis", FIRST: "--first", SECOND: "--second"}

CONFIG = {
    "aria": False,  # the page says in one label what a picture shows
    "font": "Helvetica, Arial, Liberation Sans, sans-serif",  # about as wide here, where it is measured, as there
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


Row = dict[str, float | None]


def throughput(course: Course) -> str:
    """Rows answered over time, a second or a minute (`per`)."""
    scale, title = _time(course)
    seconds, _ = per(course)
    rows: list[Row] = [
        {"from": point.begins / scale, "to": point.ends / scale, "value": point.rows_per_second * seconds}
        for point in course.points
    ]
    return _drawn([_bars(rows, title), *_pauses(course, scale)])


def per(course: Course) -> tuple[int, str]:
    """The seconds, and the name, of what a rate is told by."""
    fast = max(point.rows_per_second for point in course.points) >= 5
    return (1, "second") if fast else (60, "minute")


def tokens(course: Course) -> str:
    """Prompt and output tokens a second over time."""
    scale, title = _time(course)
    rows: list[Row] = [
        {"at": at / scale, "first": point.prompt_tokens_per_second, "second": point.output_tokens_per_second}
        for point in course.points
        for at in (point.begins, point.ends)
    ]
    return _drawn([*_lines(rows, title), *_pauses(course, scale)])


def latency(course: Course) -> str:
    """The median latency and the one that 5 % exceed, in seconds, over time."""
    scale, title = _time(course)
    rows: list[Row] = [
        {"at": at / scale, "first": point.median_seconds, "second": point.slow_seconds}
        for point in course.points
        for at in (point.begins, point.ends)
    ]
    return _drawn([*_lines(rows, title), *_pauses(course, scale)])


def histogram(bars: Sequence[tuple[float, float, int]], unit: str) -> str:
    """How many rows lie between which values."""
    rows: list[Row] = [{"from": low, "to": high, "value": count} for low, high, count in bars]
    return _drawn([_bars(rows, unit, whole=True)])


def _time(course: Course) -> tuple[float, str]:
    scale, unit = next((scale, unit) for least, scale, unit in UNITS if course.seconds >= least)
    return scale, f"{unit} since the first request"


def _over(rows: list[Row]) -> alt.Chart:
    return alt.Chart(alt.Data(values=rows))  # type: ignore[no-untyped-call]


def _bars(rows: list[Row], title: str, *, whole: bool = False) -> alt.Chart:
    across = alt.X("from:Q", bin="binned", title=title, scale=_from_end_to_end(rows, "from", "to"))
    mark = _over(rows).mark_bar(color=FIRST, binSpacing=0.7)
    bars: alt.Chart = mark.encode(x=across, x2="to:Q", y=_upwards("value", whole=whole))
    return bars


def _lines(rows: list[Row], title: str) -> Iterator[alt.Chart]:
    for name, colour, dash in (("first", FIRST, [1, 0]), ("second", SECOND, [5, 2.5])):
        mark = _over(rows).mark_line(color=colour, strokeWidth=1.8, strokeDash=dash)
        across = alt.X("at:Q", title=title, scale=_from_end_to_end(rows, "at", "at"))
        yield mark.encode(x=across, y=_upwards(name))


def _pauses(course: Course, scale: float) -> Iterator[alt.Chart]:
    """A line wherever a long pause was left out."""
    if course.pauses:
        rows: list[Row] = [{"at": pause / scale} for pause in course.pauses]
        yield _over(rows).mark_rule(color=MUTED, strokeDash=[2, 3]).encode(x="at:Q")


def _from_end_to_end(rows: list[Row], low: str, high: str) -> alt.Scale:
    return alt.Scale(domain=[rows[0][low], rows[-1][high]], nice=False, zero=False)


def _upwards(name: str, *, whole: bool = False) -> alt.Y:
    # SI prefixes from a thousand on alone: half a second is 0.5, not 500m
    told = "datum.value < 1000 ? format(datum.value, '~g') : format(datum.value, '~s')"
    axis = alt.Axis(labelExpr=told, tickMinStep=1) if whole else alt.Axis(labelExpr=told)
    return alt.Y(f"{name}:Q", title=None, scale=alt.Scale(zero=True), axis=axis)


def _drawn(layers: Sequence[alt.Chart]) -> str:
    chart = alt.layer(*layers, width=WIDTH, height=HEIGHT, autosize=alt.AutoSizeParams(type="fit", contains="padding"))
    spec = {**chart.to_dict(), "config": CONFIG, "background": None, "padding": 2}
    svg: str = vl_convert.vegalite_to_svg(spec)
    for colour, name in COLOURS.items():
        svg = svg.replace(f'"{colour}"', f'"var({name})"')
    size = re.search(r'viewBox="[^"]*"', svg)
    inside = svg[svg.index(">") + 1 :]
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size[0] if size else ""} aria-hidden="true">{inside}'
