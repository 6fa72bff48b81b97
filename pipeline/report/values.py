"""The answer's columns on the page: the frequency of each value, or percentiles of numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..job import ADDED_COLUMNS
from ..records import Record
from .counts import Distribution
from .figures import Figures
from .text import VALUE_BYTES, clipped, number

CERTAINTY = {
    column.name: column.description
    for column in ADDED_COLUMNS
    if column.name in ("agreement", "confidence", "repaired")
}
"""Added columns, with their descriptions, that say how certain an answer is; shown where a job has them."""
VALUES_LISTED = 200
NUMBERS_LISTED = 10
"""A column of numbers with at most this many different values is shown by value, any other by its percentiles."""
PERCENTILES = ("Mean", "Min", "Median", "90 %", "95 %", "99 %", "Max")


class ColumnSummary(Record, frozen=True):
    """One column of the answer. Free text has neither `values` nor `numbers`."""

    name: str
    rows: int
    """Number of rows that have a value."""
    values: list[tuple[str, int]] | None = None
    """Each value with its number of rows, the most frequent first."""
    more: int = 0
    """Number of rarer values that are not in `values`."""
    never: tuple[str, ...] = ()
    """Values that the schema or the labels allow and no row has."""
    numbers: tuple[str, ...] = ()
    """As `percentiles` gives them."""
    description: str = ""
    """Of an added column that is not part of the answer."""


def column_summaries(typed: Mapping[str, Any], figures: Figures) -> Iterator[ColumnSummary]:
    """Summarize the answer's columns, and those of CERTAINTY that have values. `typed`: their schemas by name."""
    texts = figures.texts
    certainty: dict[str, Any] = {name: {} for name in CERTAINTY if texts.get(name) or name in figures.numbers}
    for name, schema in (dict(typed) | certainty).items():
        numbers, description = figures.numbers.get(name), CERTAINTY.get(name, "")
        if numbers is not None and numbers.different > NUMBERS_LISTED:
            shown = tuple(percentiles(numbers))
            yield ColumnSummary(name, numbers.rows, numbers=shown, description=description)
            continue
        counts = texts[name] if numbers is None else [(number(value), rows) for value, rows in numbers.counts]
        known = _enum(schema)
        if counts is None or (not known and NUMBERS_LISTED < len(counts) > sum(rows for _, rows in counts) / 2):
            yield ColumnSummary(name, figures.rows)
            continue
        seen = {value for value, _ in counts}
        yield ColumnSummary(
            name,
            rows=sum(rows for _, rows in counts),
            values=[(clipped(value, VALUE_BYTES), rows) for value, rows in counts[:VALUES_LISTED]],
            more=max(0, len(counts) - VALUES_LISTED),
            never=tuple(clipped(value, VALUE_BYTES) for value in known if value not in seen)[:VALUES_LISTED],
            description=description,
        )


def percentiles(numbers: Distribution) -> list[str]:
    """The figures that PERCENTILES names, as text."""
    return [number(numbers.mean), *(number(numbers.percentile(share)) for share in (0.0, 0.5, 0.9, 0.95, 0.99, 1.0))]


def _enum(schema: object) -> list[str]:
    """The values that a property's schema lists, if it does."""
    values = schema.get("enum") if isinstance(schema, dict) else None
    return [str(value) for value in values] if isinstance(values, list) else []
