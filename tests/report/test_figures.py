"""Sums over slices equal those over the whole table."""

import polars as pl
from report_pages import answered

from pipeline.report.figures import VALUES_MAX, Figures


def test_slices_add_up_to_the_whole() -> None:
    frame = pl.concat([answered([row * 0.3 for row in range(500)]), answered([9.0] * 30, label="b")])
    whole, parts = (Figures({"label": pl.String()}) for _ in range(2))
    whole.add(frame)
    for start in range(0, frame.height, 90):
        parts.add(frame[start : start + 90])
    for figures in (whole, parts):
        assert figures.by_status["ok"].rows == 530
        assert figures.by_status["ok"].output_tokens == 530 * 5
        assert figures.by_status["ok"].cost == 265
        assert figures.texts == {"label": [("a", 500), ("b", 30)]}
    assert whole.timeline.course() == parts.timeline.course()


def test_a_duplicate_of_an_earlier_row_counts_as_a_row_without_tokens() -> None:
    figures = Figures({})
    figures.add(answered([0.0, 1.0]).with_columns(attempts=pl.Series([1, 0]), cost=pl.Series([0.5, 0.0])))
    assert (figures.rows, figures.duplicates, figures.latency.rows) == (2, 1, 1)
    assert figures.by_status["ok"].prompt_tokens == 10


def test_errors_keep_a_few_different_examples() -> None:
    errors = ["too_long: 4,097 tokens", "too_long: 4,097 tokens", "server: 500: oops", "too_long: 5,000 tokens"]
    figures = Figures({})
    for _ in range(2):
        figures.add(answered([0.0] * 4).with_columns(error=pl.Series(errors)))
    first, second = figures.errors
    assert (first.kind, first.rows, [each.row for each in first.examples]) == ("too_long", 6, [1, 4])
    assert (second.kind, second.examples[0].text) == ("server", "500: oops")


def test_columns_with_too_many_different_texts_are_not_counted() -> None:
    figures = Figures({"label": pl.String()})
    frame = answered([0.0] * (VALUES_MAX + 1))
    figures.add(frame.with_columns(label=pl.int_range(frame.height).cast(pl.String)))
    figures.add(frame)
    assert figures.texts == {"label": None}


def test_lists_and_objects_are_counted_as_the_json_that_text_formats_hold() -> None:
    figures = Figures({"label": pl.List(pl.String), "place": pl.Struct({"city": pl.String})})
    labels = pl.Series([["a", "b"], ["b"], None, ["a", "b"]])
    places = pl.Series([{"city": "Rom"}, {"city": "Rom"}, None, {"city": "Ulm"}])
    figures.add(answered([0.0] * 4).with_columns(label=labels, place=places))
    assert figures.texts["label"] == [('["a", "b"]', 2), ('["b"]', 1)]
    assert figures.texts["place"] == [('{"city": "Rom"}', 2), ('{"city": "Ulm"}', 1)]
